"""The programs in ``examples/``, run as they stand."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.support import PATIENCE, client, http_get, registry_file
from zmesh.identity import create_key_file

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@asynccontextmanager
async def running(example: str, *arguments: str, **settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """An example in a process of its own; it is killed if it has not ended."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("MESH_", "BLOCKCHAIN_"))}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(EXAMPLES / example), *arguments),
        env={**ours, "PYTHONPATH": str(ROOT), **settings},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def line_of(process: asyncio.subprocess.Process) -> str:
    """The next line it prints; on the end, what it complained about."""
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.timeout(2 * PATIENCE):
        line = await process.stdout.readline()
        assert line, (await process.stderr.read()).decode()
    return line.decode().rstrip("\n")


def test_every_example_is_tested_here() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == ["two_peers.py", "validator_node.py"]


async def test_two_peers() -> None:
    async with running("two_peers.py") as process:
        async with asyncio.timeout(2 * PATIENCE):
            out, err = await process.communicate()
        assert (process.returncode, err.decode()) == (0, "")
        assert out.decode().splitlines() == [
            "bob heard from alice: hello, everybody",
            "alice sent a model delta to bob: delivered",
        ]


async def test_validator_node(tmp_path: Path) -> None:
    """Three of them: one coordinates, the others train and send back; SIGTERM ends all in order."""
    names = [f"validator_00{number}" for number in (1, 2, 3)]
    for name in names:
        create_key_file(tmp_path / name)
    authors = [client(name, private_key=str(tmp_path / name)) for name in names]
    registry = tmp_path / "registry.toml"
    registry_file(registry, *authors)

    def settings(name: str) -> dict[str, str]:
        local = {"MESH_LISTEN_HOST": "127.0.0.1", "MESH_LISTEN_PORT": "0", "MESH_REGISTRY": str(registry)}
        return {**local, "MESH_PEER_ID": name, "MESH_PRIVATE_KEY": str(tmp_path / name)}

    coordinator, second, third = names
    async with (
        running("validator_node.py", "--coordinate", **settings(coordinator)) as leading,
        running("validator_node.py", **settings(second)) as one,
        running("validator_node.py", **settings(third)) as other,
    ):
        processes = dict(zip(names, (leading, one, other), strict=True))
        ports = {}
        for name, process in processes.items():
            said = await line_of(process)
            ports[name] = int(said.partition("port ")[2].partition(",")[0])
            key = authors[names.index(name)].public_key
            assert said == f"{name} listens on port {ports[name]}, public key {key}"
            assert await line_of(process) == "found 2 other validators"
        announced = await line_of(leading)
        round_id = announced.removeprefix("announced ")
        assert announced == f"announced {round_id}"
        text = registry.read_text(encoding="utf-8")
        for port in ports.values():  # where they are becomes known while they run
            text = text.replace("address = []", f'address = "/ip4/127.0.0.1/tcp/{port}"', 1)
        registry.write_text(text, encoding="utf-8")
        for process in (one, other):
            assert await line_of(process) == f"{coordinator} announced {round_id} on belize_corpus"
            assert await line_of(process) == f"delta for {round_id}: delivered"
        delivered = {await line_of(leading), await line_of(leading)}
        assert delivered == {f"{name} delivered QmDeltaOf{round_id} with quality 95.5" for name in (second, third)}
        status, _, body = await http_get(ports[coordinator], "/health")
        assert status == 200
        assert '"status": "healthy"' in body
        for process in processes.values():
            process.send_signal(signal.SIGTERM)
            assert await line_of(process) == "stopped"
            assert await process.wait() == 0


async def test_a_validator_node_without_a_name_says_so_in_one_sentence() -> None:
    async with running("validator_node.py") as process:
        async with asyncio.timeout(2 * PATIENCE):
            out, err = await process.communicate()
        assert (process.returncode, out.decode()) == (1, "")
        assert err.decode().startswith("validator_node: peer_id (MESH_PEER_ID) is missing: ")
        assert err.decode().count("\n") == 1
