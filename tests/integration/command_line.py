"""zmesh's command line in processes of their own, without the settings of whoever runs the tests."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
SECONDS = 60
"""Above the worst start of a process on a busy machine."""


def environment(**settings: str) -> dict[str, str]:
    """This process's variables without the settings of a mesh, and then ``settings``."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MESH_", "BLOCKCHAIN_"))}
    return {**inherited, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **settings}


async def start(*arguments: object, **settings: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "zmesh", *map(str, arguments)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**settings),
    )


async def zmesh(*arguments: object, **settings: str) -> tuple[int | None, str, str]:
    """Run to the end: exit status, standard output, standard error."""
    async with asyncio.timeout(SECONDS):
        process = await start(*arguments, **settings)
        out, err = await process.communicate()
    assert "Traceback" not in err.decode()
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def running(*arguments: object, **settings: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """A node of its own process, and the port of its front door once it says it is open."""
    local = {"MESH_LISTEN_HOST": "127.0.0.1", "MESH_LISTEN_PORT": "0", "MESH_PEER_ID": "validator_001"}
    process = await start("run", *arguments, **{**local, **settings})
    assert process.stderr is not None
    try:
        async with asyncio.timeout(SECONDS):
            while "listen_port" not in (entry := json.loads(await process.stderr.readline() or "{}")):
                assert process.returncode is None, entry
            yield process, entry["listen_port"]
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
