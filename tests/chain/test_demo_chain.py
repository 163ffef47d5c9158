"""``zmesh demo --chain``: processes that only know a chain, a delegation and one address, and leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from zmesh.demo.npm import Installed

ROOT = Path(__file__).parents[2]
SECONDS = 180.0


@asynccontextmanager
async def demo(folder: Path, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The demo with its files in ``folder``; afterwards neither these nor any process of it are left."""
    before = set(psutil.Process().children(recursive=True))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "zmesh", "demo", "--chain", *arguments),
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(SECONDS):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()
    assert os.listdir(folder) == []
    assert set(psutil.Process().children(recursive=True)) <= before


async def test_validators_named_by_a_chain_learn_together_and_leave_nothing_behind(
    installed: Installed, tmp_path: Path
) -> None:
    async with demo(tmp_path, "--peers", "3", "--rounds", "2", "--json") as process:
        out, err = await process.communicate()
        assert (process.returncode, err.decode()) == (0, "")
    said = json.loads(out)
    assert (said["ok"], said["validators"], said["problems"]) == (True, 3, [])
    assert said["deltas"] == {"delivered": 4, "expected": 4}


async def test_a_demo_that_is_ended_while_its_chain_starts_leaves_nothing_behind(
    installed: Installed, tmp_path: Path
) -> None:
    async with demo(tmp_path, "--peers", "2", "--plain") as process:
        assert process.stdout is not None
        while b"starting a chain" not in (line := await process.stdout.readline()):
            assert line, "the demo ended early"
        process.send_signal(signal.SIGTERM)
        _, err = await process.communicate()
        assert (process.returncode, err.decode()) == (143, "stopped; no process is left\n")
