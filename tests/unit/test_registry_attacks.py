"""The registry behind a chain against an endpoint that means harm: it drips, floods, and repeats secrets."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import substrateinterface

from tests.unit.registry_support import ACCOUNTS, Node, served
from tests.unit.test_registry_chain import PATIENCE, QUICK, Watched, running, says, snapshot
from zmesh.registry import chain_worker as worker
from zmesh.registry.cache import Cache
from zmesh.registry.codec import Snapshot, packed
from zmesh.registry.probe import probe_rpc

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
        worker.subscribe("ws://127.0.0.1:1", lambda: happened.append("head"))
    assert happened == ["head", worker.HEAD_GAP] * 3


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
    monkeypatch.setattr("zmesh.registry.chain.SAVE_GAP", 3600.0)
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
    assert problem == f"the chain's RPC endpoint at {host}:9944 cannot be reached: no such name can be"
