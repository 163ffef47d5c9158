"""The registry behind a chain: what its worker does, well or badly, and that the last good set stays in force."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgpack
import pytest

from tests.unit.registry_support import ACCOUNT, ACCOUNTS, GENESIS, VALIDATOR, Node, account, address, served, validator
from zmesh.registry.cache import FILE, Cache
from zmesh.registry.chain import ChainRegistry, Patience
from zmesh.registry.codec import Snapshot, packed, plain_of
from zmesh.registry.port import Account, Registry, ValidatorSet

PATIENCE = 60.0
QUICK = Patience(silence=20.0, backoff_min=0.01, backoff_max=0.02, first=0.001, read=20.0)
OTHER = bytes([0x22]) * 32


def snapshot(*numbers: int, block: int = 1, genesis: bytes = GENESIS) -> Snapshot:
    """What a chain of these accounts says."""
    accounts = {account(number): Account(account(number), address(number)) for number in numbers}
    return Snapshot(genesis, 77, block, bytes([block]) * 32, "session", MappingProxyType(accounts))


def says(what: Snapshot, asked: int = 0) -> list[Any]:
    return ["raw", packed({"kind": "set", "asked": asked, **plain_of(what)})]


def same(block: int, asked: int = 0) -> list[Any]:
    return ["raw", packed({"kind": "same", "block": block, "hash": bytes([block]) * 32, "asked": asked})]


class Watched:
    """A registry whose workers follow plans, and what it gave."""

    def __init__(self, place: Path, *plans: list[list[Any]], urls: list[str], **options: Any) -> None:
        self.plans = place / "plans"
        self.plans.mkdir()
        for number, steps in enumerate(plans):
            (self.plans / f"{number:03}").write_bytes(msgpack.packb(steps))
        options = {"patience": QUICK, "rng": random.Random(1), **options}
        self.registry = ChainRegistry(urls, "substrate", **options)
        self.registry.command = (sys.executable, "-m", "tests.unit.registry_child", str(self.plans))
        self.changes: asyncio.Queue[ValidatorSet] = asyncio.Queue()

    async def change(self) -> list[int]:
        """The numbers of the accounts in the next set."""
        found = await self.changes.get()
        return [one[0] for one in found.accounts]


@pytest.fixture
async def chain() -> AsyncIterator[str]:
    """The URL of something that takes connections."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        yield f"ws://someone:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/token"


class Told:
    """What was logged."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog

    def __call__(self, event: str) -> list[dict[str, Any]]:
        """The fields of each event of that name."""
        fields = [record.__dict__.get("zmesh", {}) for record in self._caplog.records]
        return [one for one in fields if one.get("event") == event]

    @property
    def text(self) -> str:
        return self._caplog.text


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    return Told(caplog)


@asynccontextmanager
async def running(watched: Watched) -> AsyncIterator[ChainRegistry]:
    """The started registry; stopped, and its worker ended, when the block is left."""
    registry = watched.registry
    async with asyncio.timeout(PATIENCE):
        await registry.start(watched.changes.put_nowait)
        try:
            yield registry
        finally:
            pid = None if registry._child is None else registry._child.pid
            await registry.stop()
            if pid is not None:
                assert is_gone(pid)


def is_gone(pid: int) -> bool:
    """Neither running nor a zombie: there is nothing left to wait for."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


# ---------------------------------------------------------------- all is well


async def test_what_the_chain_says_is_the_set_in_force(tmp_path: Path, chain: str, told: Told) -> None:
    watched = Watched(
        tmp_path, [says(snapshot(1, 2)), ["hear"], says(snapshot(1, 2, 3, block=2), asked=1)], urls=[chain]
    )
    async with running(watched) as registry:
        port: Registry = registry
        assert await watched.change() == [1, 2]
        found = await port.read()
        assert await watched.change() == [1, 2, 3]
        assert (found.genesis, found.block, len(found), len(found.roster)) == (GENESIS, 2, 3, 0)
        status = port.status()
        assert (status.members, status.problem, status.block) == (3, None, 2)
        assert status.age is not None
        assert status.age < PATIENCE
    assert told("registry_kept") == []


async def test_the_password_in_the_url_is_shown_nowhere(tmp_path: Path, chain: str, told: Told) -> None:
    watched = Watched(tmp_path, [says(snapshot(1)), ["exit", 3]], urls=[chain])
    async with running(watched) as registry:
        await watched.change()
        await until(registry, lambda: registry.status().problem is not None)
        where = chain.rpartition("@")[2].removesuffix("/token")
        assert registry.status().source == f"chain ws://{where} (session)"
    assert "secret" not in told.text
    assert "token" not in told.text


async def test_the_same_set_of_a_later_block_is_no_change(tmp_path: Path, chain: str) -> None:
    watched = Watched(tmp_path, [says(snapshot(1)), ["hear"], same(5, asked=1)], urls=[chain])
    async with running(watched) as registry:
        assert await watched.change() == [1]
        assert (await registry.read()).block == 5
        assert watched.changes.empty()


async def until(registry: ChainRegistry, what: Any) -> None:
    """Look again whenever the worker said something or ended."""
    while not what():
        await registry._news.wait()


# ---------------------------------------------------------------- a worker that goes wrong


@pytest.mark.parametrize(
    "step, problem",
    [
        (["exit", 3], "ended without giving a reason"),
        (["raw", b"\0\0\0\1\xc1"], "sent malformed data: a frame is not msgpack"),
        (["raw", b"GET / HTTP/1.1"], "sent malformed data: a frame has 1195725856 bytes"),
        (["raw", packed({"kind": "song"})], "sent malformed data: a frame is of the unknown kind 'song'"),
        (["raw", packed({})], "sent malformed data: a frame is of the unknown kind None"),
        (["raw", packed({"kind": "set", "accounts": 5})], "sent malformed data: accounts must be a list"),
        (["raw", packed({"kind": "same", "block": -1, "hash": b""})], "malformed data: a block without its hash"),
        (
            ["raw", packed({"kind": "same", "block": 2**64 - 1, "hash": bytes(32)})],
            f"malformed data: block must be a whole number below {2**63}",
        ),
        (["raw", packed({"kind": "problem", "problem": "the chain is tired"})], "the chain is tired"),
    ],
)
async def test_a_worker_that_goes_wrong_is_started_anew(
    step: list[Any], problem: str, tmp_path: Path, chain: str, told: Told
) -> None:
    watched = Watched(tmp_path, [says(snapshot(1, 2, 3)), step], [says(snapshot(1, 2))], urls=[chain])
    async with running(watched) as registry:
        assert await watched.change() == [1, 2, 3]
        assert await watched.change() == [1, 2]
        assert registry.status().problem is None
    (warning,) = told("registry_kept")
    assert problem in warning["problem"]
    assert warning["members"] == 3
    assert len(told("registry_well_again")) == 1


@pytest.mark.parametrize("silent", [["deaf"], ["stop"]])
async def test_a_silent_worker_is_killed_and_started_anew(
    silent: list[Any], tmp_path: Path, chain: str, told: Told
) -> None:
    patience = replace(QUICK, silence=2.0)
    # On a busy machine a worker may be silent merely because it has not begun.
    good = [says(snapshot(1))]
    watched = Watched(tmp_path, [silent], *[good] * 9, urls=[chain], patience=patience)
    async with running(watched):
        assert await watched.change() == [1]
    assert "has been silent for 2 s" in told("registry_kept")[0]["problem"]


@pytest.mark.parametrize("silent", [["deaf"], ["stop"]])
async def test_stopping_ends_a_worker_that_does_not_listen(silent: list[Any], tmp_path: Path, chain: str) -> None:
    watched = Watched(tmp_path, [says(snapshot(1)), silent], urls=[chain])
    async with running(watched):
        await watched.change()


async def test_a_worker_gets_no_setting_of_the_node(
    tmp_path: Path, chain: str, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESH_PRIVATE_KEY", "11" * 32)
    monkeypatch.setenv("BLOCKCHAIN_RPC", chain)
    watched = Watched(tmp_path, [["environment"]], urls=[chain])
    async with running(watched) as registry:
        await until(registry, lambda: registry.status().problem is not None)
        names = str(registry.status().problem).split()
        assert "PATH" in names
        assert [name for name in names if name.startswith(("MESH_", "BLOCKCHAIN_RPC"))] == []


async def test_a_worker_that_cannot_be_started_is_a_problem_and_no_end(tmp_path: Path, chain: str) -> None:
    watched = Watched(tmp_path, urls=[chain])
    watched.registry.command = (str(tmp_path / "nothing"),)
    async with running(watched) as registry:
        await until(registry, lambda: registry.status().problem is not None)
        assert (
            registry.status().problem == "the worker that reads the chain cannot be started: No such file or directory"
        )


async def test_whoever_fails_to_take_a_change_does_not_end_the_watch(tmp_path: Path, chain: str, told: Told) -> None:
    watched = Watched(tmp_path, [says(snapshot(1)), ["hear"], same(5, asked=1)], urls=[chain])

    def fail(found: ValidatorSet) -> None:
        raise RuntimeError("no room")

    async with asyncio.timeout(PATIENCE):
        await watched.registry.start(fail)
        await until(watched.registry, lambda: len(watched.registry._set) == 1)
        assert (await watched.registry.read()).block == 5
        await watched.registry.stop()
    assert len(told("registry_change_not_taken")) == 1


# ---------------------------------------------------------------- a chain that is away or lies


async def test_an_unreachable_chain_stops_nobody_and_is_warned_about_once(tmp_path: Path, told: Told) -> None:
    nowhere = "ws://127.0.0.1:1"
    watched = Watched(tmp_path, urls=[nowhere])
    async with running(watched) as registry:
        for _ in range(5):
            await registry._news.wait()
        assert len(await registry.read()) == 0
        assert registry.status().age is None
        assert registry.status().counters == {}
    (warning,) = told("registry_kept")
    assert warning["problem"] == "the chain's RPC endpoint at 127.0.0.1:1 cannot be reached: Connection refused"


async def test_another_endpoint_is_asked_when_one_is_away(tmp_path: Path, chain: str) -> None:
    watched = Watched(tmp_path, [says(snapshot(1))], urls=["ws://127.0.0.1:1", chain])
    async with running(watched) as registry:
        assert await watched.change() == [1]
        assert registry.status().problem is None


async def test_a_large_loss_waits_for_another_block(tmp_path: Path, chain: str) -> None:
    plan = [says(snapshot(1, 2, 3)), says(snapshot(1, block=2)), ["hear"], same(2, 1), ["hear"], same(3, 2)]
    watched = Watched(tmp_path, plan, urls=[chain])
    async with running(watched) as registry:
        assert await watched.change() == [1, 2, 3]
        assert len(await registry.read()) == 3
        where = chain.rpartition("@")[2].removesuffix("/token")
        assert registry.status().problem == (
            f"2 of 3 validators are missing at block 2 of {where}: another block or endpoint must confirm it"
        )
        assert len(await registry.read()) == 1
        assert await watched.change() == [1]
        assert registry.status().problem is None


async def test_a_large_loss_is_asked_of_the_next_endpoint(tmp_path: Path, chain: str) -> None:
    other = chain.replace("127.0.0.1", "localhost")
    plans = [says(snapshot(1, 2, 3)), says(snapshot(1, block=2))], [says(snapshot(1, block=2))]
    watched = Watched(tmp_path, *plans, urls=[chain, other], patience=replace(QUICK, silence=10 * PATIENCE))
    async with running(watched):
        assert await watched.change() == [1, 2, 3]
        assert await watched.change() == [1]


async def test_an_empty_set_is_never_taken(tmp_path: Path, chain: str) -> None:
    plan = [says(snapshot(1)), says(snapshot(block=2)), ["hear"], same(3, asked=1)]
    watched = Watched(tmp_path, plan, urls=[chain])
    async with running(watched) as registry:
        assert await watched.change() == [1]
        assert len(await registry.read()) == 1
        assert "names no validator at block 3" in str(registry.status().problem)


async def test_an_endpoint_of_another_chain_is_refused(tmp_path: Path, chain: str) -> None:
    watched = Watched(tmp_path, [says(snapshot(9, genesis=OTHER))], [says(snapshot(1))], urls=[chain], genesis=GENESIS)
    async with running(watched) as registry:
        await until(registry, lambda: registry.status().problem is not None)
        assert f"is a different chain: its genesis is 0x{OTHER.hex()}, not 0x{GENESIS.hex()}" in str(
            registry.status().problem
        )
        assert await watched.change() == [1]


async def test_a_new_life_begins_with_the_last_good_set_and_says_its_trouble_anew(tmp_path: Path, told: Told) -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    watched = Watched(tmp_path, [says(snapshot(1, 2))], urls=[url])
    async with server, running(watched):
        assert await watched.change() == [1, 2]
    for lives in (1, 2):
        async with running(watched) as registry:
            assert [one[0] for one in watched.changes.get_nowait().accounts] == [1, 2]
            await until(registry, lambda: registry.status().problem is not None)
            assert registry.status().members == 2
        assert len(told("registry_kept")) == lives


# ---------------------------------------------------------------- the disk


async def test_the_stored_set_is_in_force_while_the_chain_is_away(tmp_path: Path, chain: str) -> None:
    first = Watched(tmp_path, [says(snapshot(1, 2))], urls=[chain], folder=tmp_path)
    async with running(first):
        await first.change()
    (tmp_path / "plans").rmdir()
    later = Watched(tmp_path, urls=["ws://127.0.0.1:1"], folder=tmp_path)
    await later.registry.start(later.changes.put_nowait)
    assert later.changes.get_nowait().block == 1
    status = later.registry.status()
    assert (status.members, status.block, status.source) == (2, 1, "chain ws://127.0.0.1:1 (session)")
    assert status.age is not None
    await later.registry.stop()


async def test_a_stored_set_says_its_age(tmp_path: Path) -> None:
    Cache(tmp_path).store(snapshot(1), 1_000.0)
    watched = Watched(tmp_path, urls=["ws://127.0.0.1:1"], folder=tmp_path)
    watched.registry._wall = lambda: 4_600.0
    async with running(watched) as registry:
        assert registry.status().age == pytest.approx(3_600, abs=PATIENCE)


async def test_a_stored_set_of_another_chain_gives_way_to_the_chain(tmp_path: Path, chain: str, told: Told) -> None:
    Cache(tmp_path).store(snapshot(1, 2, 3, genesis=OTHER), 1_000.0)
    watched = Watched(tmp_path, [says(snapshot(9))], urls=[chain], folder=tmp_path)
    async with running(watched):
        assert await watched.change() == [1, 2, 3]
        assert await watched.change() == [9]
    (warning,) = told("registry_cache_of_another_chain")
    assert (warning["genesis"], warning["cached"]) == (GENESIS.hex(), OTHER.hex())


async def test_a_chain_that_names_nobody_takes_no_stored_set_away(tmp_path: Path, chain: str, told: Told) -> None:
    Cache(tmp_path).store(snapshot(1, 2, 3, genesis=OTHER), 1_000.0)
    plan = [says(snapshot()), ["hear"], same(2, asked=1)], [says(snapshot(1, 2, genesis=OTHER, block=3))]
    watched = Watched(tmp_path, [*plan[0], ["exit", 0]], plan[1], urls=[chain], folder=tmp_path)
    async with running(watched) as registry:
        assert await watched.change() == [1, 2, 3]
        assert len(await registry.read()) == 3
        assert "names no validator" in str(registry.status().problem)
        # An endpoint of the chain that the set is of is welcome still.
        assert await watched.change() == [1, 2]
    assert told("registry_cache_of_another_chain") == []


async def test_a_stored_set_of_another_chain_than_the_operators_is_not_used(tmp_path: Path, told: Told) -> None:
    Cache(tmp_path).store(snapshot(1, genesis=OTHER), 1_000.0)
    watched = Watched(tmp_path, urls=["ws://127.0.0.1:1"], folder=tmp_path, genesis=GENESIS)
    async with running(watched) as registry:
        assert (len(await registry.read()), registry.status().age) == (0, None)
    (warning,) = told("registry_cache_of_another_chain")
    assert (warning["genesis"], warning["cached"]) == (GENESIS.hex(), OTHER.hex())


async def test_a_disk_that_takes_nothing_is_warned_about(tmp_path: Path, chain: str, told: Told) -> None:
    watched = Watched(tmp_path, [says(snapshot(1))], urls=[chain], folder=tmp_path / "gone")
    async with running(watched):
        assert await watched.change() == [1]
    assert "cannot be written" in told("registry_not_stored")[0]["problem"]


# ---------------------------------------------------------------- the real worker


async def test_the_real_worker_reads_a_chain_and_follows_it(tmp_path: Path) -> None:
    """All but the node is real: the process, the library, its SCALE codec, and the pipe."""
    node = Node({"Staking.Validators": (ACCOUNT, VALIDATOR)})
    node.put("Staking.Validators", {1: validator(1, 10**25, honesty_score=33), 2: validator(2)})
    with served(node) as url:
        changes: asyncio.Queue[ValidatorSet] = asyncio.Queue()
        registry = ChainRegistry([url], folder=tmp_path, patience=replace(QUICK, first=PATIENCE, read=PATIENCE))
        async with asyncio.timeout(PATIENCE):
            await registry.start(changes.put_nowait)
            first = changes.get_nowait()
            assert first.accounts[account(1)] == Account(account(1), address(1), 10**25, True, 33.0)
            assert (first.genesis, first.block) == (GENESIS, 1)
            await asyncio.to_thread(node.put, "Staking.Validators", {1: validator(1), 2: validator(2), 3: validator(3)})
            await registry.read()
            assert {one[0] for one in changes.get_nowait().accounts} == {1, 2, 3}
            assert registry.status().source == f"chain {url} (belize)"
            # Whoever asks gets a reading, also of a block that was read before.
            await asyncio.to_thread(node.put, "Staking.Validators", {2: validator(2), 3: validator(3)}, 0)
            assert len(await registry.read()) == 2
            await registry.stop()
    assert (tmp_path / FILE).exists()


async def test_the_real_worker_says_why_a_chain_cannot_be_read(tmp_path: Path) -> None:
    node = Node({"Timestamp.Now": ACCOUNT})
    with served(node) as url:
        registry = ChainRegistry([url], patience=replace(QUICK, first=PATIENCE))
        async with asyncio.timeout(PATIENCE):
            await registry.start(lambda found: None)
            problem = registry.status().problem
            await registry.stop()
    assert problem is not None
    assert problem.endswith(f"it offers nothing ({url.removeprefix('http://')})")


START = """
import asyncio, sys
from zmesh.registry.chain import ChainRegistry

async def main():
    registry = ChainRegistry([sys.argv[1]])
    sets = asyncio.Queue()
    await registry.start(sets.put_nowait)
    await sets.get()
    assert not {"substrateinterface", "scalecodec", "requests"} & set(sys.modules)
    print(registry._child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_the_real_worker_ends_with_a_parent_that_is_killed_and_never_imported_its_library() -> None:
    node = Node({"Session.Validators": ACCOUNTS})
    node.put("Session.Validators", ["0x" + account(1).hex()])
    with served(node) as url:
        async with asyncio.timeout(PATIENCE):
            parent = await asyncio.create_subprocess_exec(
                sys.executable, "-c", START, url, stdout=asyncio.subprocess.PIPE
            )
            assert parent.stdout is not None
            said = (await parent.stdout.readline()).strip()
            handle = os.pidfd_open(int(said))
            parent.kill()
            try:
                await readable(handle)  # as soon as the process is gone
            finally:
                os.close(handle)
            assert await parent.wait() == -9


async def readable(descriptor: int) -> None:
    """Wait until there is something to read."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
