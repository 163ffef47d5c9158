"""The programs in ``examples/``, run as they stand."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import PATIENCE, Inbox, client, http_get, mesh, registry_file
from zmesh import FLRoundAnnouncement, MeshNetworkClient, MessageType
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
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == ["mesh_network_example.py", "two_peers.py"]


async def test_two_peers() -> None:
    async with running("two_peers.py") as process:
        async with asyncio.timeout(2 * PATIENCE):
            out, err = await process.communicate()
        assert (process.returncode, err.decode()) == (0, "")
        assert out.decode().splitlines() == [
            "bob heard from alice: hello, everybody",
            "alice sent a model delta to bob: delivered",
        ]


async def test_the_complete_node(tmp_path: Path) -> None:
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
        running("mesh_network_example.py", "--coordinate", **settings(coordinator)) as leading,
        running("mesh_network_example.py", **settings(second)) as one,
        running("mesh_network_example.py", **settings(third)) as other,
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


def program(name: str) -> Any:
    """An example as a module, without running it."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Trainer:
    """Trains until it is let, in place of a validator's ``train``."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.let = asyncio.Event()
        self.fails = False
        self.cancelled: list[str] = []

    async def train(self, announced: FLRoundAnnouncement) -> tuple[str, float]:
        self.begun.put_nowait(announced.round_id)
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.cancelled.append(announced.round_id)
            raise
        if self.fails:
            raise MemoryError("the batch is too large")
        return f"Qm{announced.round_id}", 1.0

    async def next(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return await self.begun.get()


async def test_a_round_and_a_delta_of_which_only_the_id_is_said_are_worked_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with training() as (coordinator, validator, trainer):
        await coordinator.broadcast(MessageType.FL_ROUND_START, {"round_id": "bare"})
        assert await trainer.next() == "bare"
        await coordinator.send("worker", MessageType.MODEL_DELTA_TRANSFER, {"round_id": "bare"})
        trainer.let.set()
        await asyncio.gather(*validator.trainings)
    assert capsys.readouterr().out.splitlines() == [
        "coordinator announced bare on a dataset without a name",
        "coordinator delivered None with quality None",
        "delta for bare: delivered",
    ]


@asynccontextmanager
async def training() -> AsyncIterator[tuple[MeshNetworkClient, Any, Trainer]]:
    """A coordinator, and a validator of the example whose handlers run one at a time."""
    async with mesh("coordinator", "worker", handler_concurrency=1) as (coordinator, worker):
        validator, trainer = program("mesh_network_example").Validator(worker), Trainer()
        validator.train = trainer.train
        try:
            yield coordinator, validator, trainer
        finally:
            await validator.give_up()


async def test_a_training_does_not_hold_up_the_handler_that_began_it() -> None:
    """Else it would be cancelled with it, after ``handler_timeout``."""
    async with training() as (coordinator, _, trainer):
        deltas = Inbox(coordinator, MessageType.MODEL_DELTA_TRANSFER)
        for name in ("first", "second"):
            await coordinator.announce_fl_round(name, "corpus", 1, 3600)
            assert await trainer.next() == name
        trainer.let.set()
        assert sorted(delta.payload["round_id"] for delta in await deltas.take(2)) == ["first", "second"]


async def test_trainings_end_with_the_node_and_no_more_begin_than_it_can_bear(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with training() as (coordinator, validator, trainer):
        most = program("mesh_network_example").TRAININGS
        names = [f"round_{number}" for number in range(most)]
        for name in names:
            await coordinator.announce_fl_round(name, "corpus", 1, 3600)
            assert await trainer.next() == name
        busy = asyncio.Event()
        validator.mesh.register_handler(MessageType.FL_ROUND_START, lambda _: busy.set())
        await coordinator.announce_fl_round("one too many", "corpus", 1, 3600)
        async with asyncio.timeout(PATIENCE):
            await busy.wait()
        await validator.give_up()
        assert (sorted(trainer.cancelled), trainer.begun.empty()) == (names, True)
    assert "busy: no training for one too many" in capsys.readouterr().out


async def test_a_training_that_fails_is_logged_and_the_next_one_begins(caplog: pytest.LogCaptureFixture) -> None:
    logged = asyncio.Event()

    def look(record: logging.LogRecord) -> bool:
        logged.set()
        return True

    log = logging.getLogger("mesh_network_example")
    log.addFilter(look)
    try:
        async with training() as (coordinator, _, trainer):
            deltas = Inbox(coordinator, MessageType.MODEL_DELTA_TRANSFER)
            trainer.fails = True
            trainer.let.set()
            await coordinator.announce_fl_round("first", "corpus", 1, 3600)
            async with asyncio.timeout(PATIENCE):
                await logged.wait()
            trainer.fails = False
            await coordinator.announce_fl_round("second", "corpus", 1, 3600)
            assert (await deltas.next()).payload["round_id"] == "second"
    finally:
        log.removeFilter(look)
    told = [record for record in caplog.records if record.name == "mesh_network_example"]
    assert [record.getMessage() for record in told] == ["training for first failed"]
    assert "the batch is too large" in caplog.text


async def test_the_complete_node_without_a_name_says_so_in_one_sentence() -> None:
    async with running("mesh_network_example.py") as process:
        async with asyncio.timeout(2 * PATIENCE):
            out, err = await process.communicate()
        assert (process.returncode, out.decode()) == (1, "")
        assert err.decode().startswith("mesh_network_example: peer_id (MESH_PEER_ID) is missing: ")
        assert err.decode().count("\n") == 1
