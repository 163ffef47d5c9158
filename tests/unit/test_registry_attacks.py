"""The registry behind a chain against an endpoint that means harm: it drips, floods, and repeats secrets."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import substrateinterface

from tests.unit.registry_support import ACCOUNTS, GENESIS, Node, served
from tests.unit.test_registry_chain import PATIENCE, QUICK, Told, Watched, running, same, says, snapshot
from zmesh.registry import chain_worker as worker
from zmesh.registry.cache import Cache
from zmesh.registry.chain import ChainRegistry
from zmesh.registry.chains.port import ChainError
from zmesh.registry.codec import Snapshot, packed, read_frame
from zmesh.rpc import probe_rpc

URL = "https://user:pass%21word@rpc.example:443/v3/0123456789abcdef?token=s3cr3t-token"


@pytest.mark.parametrize(
    "said",
    [
        "Max retries exceeded with url: /v3/0123456789abcdef?token=s3cr3t-token (Caused by SSLError)",
        "Handshake status 404 Not Found: cannot GET /v3/0123456789abcdef",
        "bad credentials user:pass!word",
        f"cannot open {URL}",
        "token s3cr3t-token is over its limit",
    ],
)
def test_no_part_of_the_url_that_may_be_a_key_is_repeated(said: str) -> None:
    """Problems stand in the log and in /health, which everybody may read."""
    problem = worker.problem_of(RuntimeError(said), URL)

    for secret in ("0123456789abcdef", "s3cr3t-token", "pass!word", "pass%21word"):
        assert secret not in problem
    assert problem.startswith("the chain cannot be read: RuntimeError: ")


def test_the_memory_of_a_worker_is_bounded() -> None:
    code = (
        "from zmesh.registry.chain_worker import bound_memory\n"
        "bound_memory(1 << 30)\n"
        "try: bytearray(2 << 30)\n"
        "except MemoryError: print('bounded')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert said.stdout == "bounded\n"


def test_heads_that_come_in_a_flood_are_heard_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[object] = []

    class Flooding:
        def __init__(self, **_: Any) -> None: ...

        def __enter__(self) -> Flooding:
            return self

        def __exit__(self, *_: object) -> None: ...

        def rpc_request(self, _method: str, _arguments: list[object], result_handler: Any) -> None:
            for number in range(3):
                result_handler({}, number, "")
            raise SystemExit

    monkeypatch.setattr(substrateinterface, "SubstrateInterface", Flooding)
    monkeypatch.setattr(time, "sleep", happened.append)
    with pytest.raises(SystemExit):
        worker.subscribe("ws://127.0.0.1:1", lambda: happened.append("head"), happened.append)
    assert happened == ["head", worker.HEAD_GAP] * 3


def test_what_ends_a_subscription_is_told_and_a_new_one_made(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[object] = []
    reset = ConnectionResetError(104, "Connection reset by peer")
    ends: list[BaseException] = [reset, SystemExit()]

    def connect(**_: Any) -> None:
        raise ends.pop(0)

    monkeypatch.setattr(substrateinterface, "SubstrateInterface", connect)
    monkeypatch.setattr(time, "sleep", happened.append)
    with pytest.raises(SystemExit):
        worker.subscribe("ws://127.0.0.1:1", lambda: happened.append("head"), happened.append)
    assert happened == [reset, worker.RESUBSCRIBE]


def test_the_worker_tells_its_parent_between_two_looks_that_a_subscription_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Quiet:
        """A chain of one block, which is gone at the third look."""

        def __init__(self, *_: object) -> None:
            self._looks = iter(["0x" + "01" * 32] * 2)

        def genesis(self) -> bytes:
            return GENESIS

        def finalized(self) -> str:
            head = next(self._looks, None)
            if head is None:
                raise ChainError("the chain is gone")
            return head

    class Told(worker.Worker):
        def _read(self, chain: Any, genesis: bytes, head: str) -> Snapshot:
            return snapshot(1)

        def _subscribe(self) -> None:
            self.ended(ConnectionResetError(104, f"{URL}: Connection reset by peer"))

    monkeypatch.setattr("zmesh.registry.substrate.SubstrateChain", Quiet)
    out = io.BytesIO()
    with pytest.raises(ChainError):
        Told(worker.Orders(URL, "", timeout=1.0, poll=0.0), out).run()
    out.seek(0)
    frames = [read_frame(out) for _ in range(4)]
    assert [frame["kind"] for frame in frames] == ["beat", "set", "unsubscribed", "same"]
    assert frames[2]["problem"] == "the chain closed the connection"
    assert out.read() == b""


async def test_subscriptions_that_end_are_counted_each_and_logged_once_for_each_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(caplog)
    reasons = ["the chain closed the connection", "the chain cannot be read: limit of 5 is reached"]
    ends = [["raw", packed({"kind": "unsubscribed", "problem": why})] for why in reasons * 3]
    node = Node({"Session.Validators": ACCOUNTS})
    with served(node) as url:
        watched = Watched(tmp_path, [says(snapshot(1)), *ends, ["hear"], same(2, asked=1)], urls=[url])
        async with running(watched) as registry:
            assert (await registry.read()).block == 2
            status = registry.status()
    assert (status.problem, status.counters) == (None, {"subscription_ended": 6})
    assert [one["problem"] for one in told("registry_subscription_ended")] == reasons


async def test_an_end_of_a_subscription_is_no_end_of_a_reading(tmp_path: Path) -> None:
    ends: list[list[Any]] = [["raw", packed({"kind": "unsubscribed", "problem": "closed"})]] * 5
    node = Node({"Session.Validators": ACCOUNTS})
    with served(node) as url:
        plans = (ends, [says(snapshot(1, 2)), ["hear"]])
        watched = Watched(tmp_path, *plans, urls=[url], patience=replace(QUICK, reading=0.0, silence=10 * PATIENCE))
        async with running(watched):
            assert await watched.change() == [1, 2]


async def test_an_endpoint_that_lies_in_turns_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    told = Told(caplog)
    registry = ChainRegistry(["ws://liar.example:9944"])
    minutes, looks = 10, 240
    for number in range(minutes * looks):
        now = number * 60.0 / looks
        registry._mono = lambda at=now: at  # type: ignore[misc]
        lie = number % 2
        registry._judge(snapshot(*([1] if lie else [1, 2, 3]), block=number % 256), "liar.example:9944")
        assert (registry.status().problem is not None) == bool(lie)
    kept, well = told("registry_kept"), told("registry_well_again")
    assert len(kept) == len(well) == minutes
    assert sum(one.get("held_back", 0) for one in kept) == pytest.approx(minutes * looks / 2, abs=looks)


async def test_sets_that_change_with_each_answer_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    told = Told(caplog)
    registry = ChainRegistry(["ws://liar.example:9944"])
    for number in range(1000):
        registry._mono = lambda at=number * 0.1: at  # type: ignore[misc]
        assert registry._judge(snapshot(*range(1, 10 + number % 2), block=number % 256), "liar.example:9944") is None
    changes = told("registry_changed")
    assert len(changes) == 5 + 100 // 20 - 1
    assert sum(one.get("held_back", 0) for one in changes) >= 1000 - 200 - len(changes)


async def test_an_endpoint_that_drips_for_ever_is_left(tmp_path: Path) -> None:
    """Beats say that the worker lives, not that the chain will ever have answered."""
    beats = [["raw", packed({"kind": "beat"})]] * 5
    node = Node({"Session.Validators": ACCOUNTS})
    with served(node) as url:
        plans = (beats, [says(snapshot(1, 2)), ["hear"]])
        watched = Watched(tmp_path, *plans, urls=[url], patience=replace(QUICK, reading=0.0))
        async with running(watched):
            assert await watched.change() == [1, 2]


async def test_a_fault_of_ours_does_not_end_the_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that ends silently would keep whoever is removed a member for ever."""
    faults = [UnicodeError("label empty or too long")]

    async def broken(url: str, timeout: float) -> str | None:  # noqa: ASYNC109 - as the real one
        if faults:
            raise faults.pop()
        return await probe_rpc(url, timeout)

    monkeypatch.setattr("zmesh.registry.chain.probe_rpc", broken)
    node = Node({"Session.Validators": ACCOUNTS})
    with served(node) as url:
        watched = Watched(tmp_path, [says(snapshot(1)), ["hear"]], urls=[url])
        async with running(watched):
            assert await watched.change() == [1]
    assert faults == []


async def test_an_endpoint_that_names_another_set_with_every_block_does_not_wear_out_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored: list[int] = []

    def store(_: Cache, what: Snapshot, wall: float) -> None:
        stored.append(len(what.accounts))

    monkeypatch.setattr(Cache, "store", store)
    monkeypatch.setattr("zmesh.registry.cache.SAVE_GAP", 3600.0)
    node = Node({"Session.Validators": ACCOUNTS})
    plan = [says(snapshot(*range(1, count + 1), block=count)) for count in range(1, 7)]
    with served(node) as url:
        watched = Watched(tmp_path, [*plan, ["hear"]], urls=[url])
        async with running(watched):
            for count in range(1, 7):
                assert await watched.change() == list(range(1, count + 1))
    assert stored == [1, 6], "at once, and at the stop what is in force then"


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example"])
async def test_a_name_that_cannot_be_is_a_problem_and_no_end(host: str) -> None:
    problem = await probe_rpc(f"ws://{host}:9944", PATIENCE)
    assert problem == f"the chain's RPC endpoint at {host}:9944 cannot be reached: invalid host name"
