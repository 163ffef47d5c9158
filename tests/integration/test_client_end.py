"""The end of a client's life: whoever asks for it, at whatever moment, however often, and whatever goes wrong in it."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading

import pytest

from tests.contract.peers import settle
from tests.integration.command_line import environment
from tests.support import PATIENCE, Inbox, client, mesh
from zmesh import MeshMessage, MeshNetworkClient, MessageType, NotRunningError, PeerInfo
from zmesh.core.events import Wake
from zmesh.handlers import Description, RecordOutcome
from zmesh.registry import OnChange, RegistryStatus, ValidatorSet

FORGETFUL = """
import asyncio, gc
from tests.support import card, client

async def main():
    a, b = client("a"), client("b")
    await a.start()
    await b.start()
    a.peers["b"], b.peers["a"] = card(b), card(a)
    await a.wait_for_links(1)
    asyncio.ensure_future(a.stop())
    await asyncio.sleep(0)

for _ in range(2):
    asyncio.run(main())
    gc.collect()
print("went on")
"""


class Slow:
    """A registry (port: ``zmesh.registry.port``) that starts, and stops, when it is let, or fails to."""

    def __init__(self, *, starts: bool = True, stops: bool = True, fails: bool = False) -> None:
        self.asked = asyncio.Event()
        self.may_start, self.may_stop = asyncio.Event(), asyncio.Event()
        self.fails = fails
        if starts:
            self.may_start.set()
        if stops:
            self.may_stop.set()

    async def start(self, on_change: OnChange) -> None:
        self.asked.set()
        await self.may_start.wait()
        on_change(ValidatorSet())

    async def read(self) -> ValidatorSet:
        return ValidatorSet()

    async def stop(self) -> None:
        await self.may_stop.wait()
        if self.fails:
            raise LookupError("the registry's own fault")

    def status(self) -> RegistryStatus:
        return RegistryStatus("a slow one", 0, 0.0, None)


async def ended(one: MeshNetworkClient, port: int) -> None:
    """Nothing of it is left: nobody listens, and it can be started again, on the same port."""
    assert (one.is_running, one.listen_port) == (False, one.settings.listen_port)
    if port:
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
    async with one:
        assert one.is_running
    assert not one.is_running


async def test_stopping_ends_a_start_that_is_under_way() -> None:
    registry = Slow(starts=False)
    a = client("a", registry=registry)
    starting = asyncio.create_task(a.start())
    await registry.asked.wait()
    await a.stop()
    with pytest.raises(NotRunningError, match="a was stopped while it was starting"):
        await starting
    registry.may_start.set()
    await ended(a, 0)


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8, 13, 21, 34, 55])
async def test_stopping_ends_a_start_at_whatever_moment(turns: int) -> None:
    a = client("a")
    starting = asyncio.create_task(a.start())
    for _ in range(turns):
        await asyncio.sleep(0)
    port = a.listen_port
    await a.stop()
    (outcome,) = await asyncio.gather(starting, return_exceptions=True)
    assert outcome is None or isinstance(outcome, NotRunningError)
    await ended(a, port)


async def test_a_start_that_is_cancelled_leaves_nothing_behind() -> None:
    registry = Slow(starts=False)
    a = client("a", registry=registry)
    starting = asyncio.create_task(a.start())
    await registry.asked.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    registry.may_start.set()
    await ended(a, 0)


async def test_an_end_goes_on_though_whoever_asked_for_it_gave_up() -> None:
    async with mesh("a", "b") as (a, b):
        called, release = asyncio.Event(), asyncio.Event()
        finished = []

        async def work(message: MeshMessage) -> None:
            called.set()
            await release.wait()
            finished.append(message.payload["n"])

        b.register_handler(MessageType.GOSSIP, work)
        await a.broadcast(MessageType.GOSSIP, {"n": 1})
        await called.wait()
        port = b.listen_port
        impatient = asyncio.create_task(b.stop())
        await asyncio.sleep(0)
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        others = [asyncio.create_task(b.stop()) for _ in range(2)]
        await settle()
        assert b.is_running
        assert not any(other.done() for other in others)
        release.set()
        await asyncio.gather(*others)
        assert finished == [1]
        await ended(b, port)


async def test_what_a_registry_raises_at_its_end_is_told_when_all_else_has_ended() -> None:
    registry = Slow(fails=True)
    a = client("a", registry=registry)
    await a.start()
    port = a.listen_port
    with pytest.raises(LookupError, match="the registry's own fault"):
        await a.stop()
    registry.fails = False
    await ended(a, port)


async def test_a_registry_that_does_not_end_is_named_and_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    registry = Slow(stops=False)
    a = client("a", registry=registry, stop_timeout=0.2)
    await a.start()
    port = a.listen_port
    await a.stop()
    assert "registry_not_stopped" in caplog.text
    assert "a slow one" in caplog.text
    registry.may_stop.set()
    await ended(a, port)


async def test_what_comes_while_handlers_finish_sets_no_timer_that_outlives_the_node() -> None:
    async with mesh("a", "b") as (a, b):
        called, release = asyncio.Event(), asyncio.Event()

        async def work(message: MeshMessage) -> None:
            called.set()
            await release.wait()

        b.register_handler(MessageType.GOSSIP, work)
        await a.broadcast(MessageType.GOSSIP, {})
        await called.wait()
        belonging, records = b._running().belonging, b._running().handlers.records
        stopping = asyncio.create_task(b.stop())
        await settle()
        others = a._running().handlers.records
        before = others.own
        others.describe(Description("a", (), 7001, 7002))
        a._running().node.submit(Wake())
        assert before is not None
        assert others.own is not None
        assert others.own.encoded != before.encoded
        assert records.offer(others.own.encoded).outcome is RecordOutcome.NEW
        assert belonging._timer is not None
        release.set()
        await stopping
        assert belonging._timer is None


async def test_a_message_that_every_link_refused_is_told_also_to_whom_the_end_overtook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with mesh("a", "b") as (a, _):
        inbox = Inbox(a, MessageType.GOSSIP)
        monkeypatch.setattr(a._running()._transport, "send", lambda *_, **__: False)
        monkeypatch.setattr("zmesh.client.MAX_PAUSE", 0.05)
        sending = asyncio.create_task(a.broadcast(MessageType.GOSSIP, {"n": 1}))
        await asyncio.sleep(0)
        await a.stop()
        assert (await sending).payload == {"n": 1}
        assert inbox.is_empty


async def test_another_loop_or_thread_is_refused_with_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    async with mesh("a", "b") as (a, _):
        refused: list[str] = []

        def elsewhere() -> None:
            with pytest.raises(NotRunningError) as told:
                a.create_message(MessageType.GOSSIP, {})
            refused.append(str(told.value))
            sends = (a.broadcast(MessageType.GOSSIP, {}), a.send("b", MessageType.GOSSIP, {}))
            for call in (*sends, a.discover_peers(), a.stop()):
                with pytest.raises(NotRunningError) as told:
                    asyncio.run(call)
                refused.append(str(told.value))
            with pytest.raises(NotRunningError) as told:
                a.peers["c"] = PeerInfo("c", public_key="aa" * 32)
            refused.append(str(told.value))

        thread = threading.Thread(target=elsewhere)
        thread.start()
        await asyncio.to_thread(thread.join)
        sentence = "a runs on a different event loop than this call: use asyncio.run_coroutine_threadsafe"
        assert refused == [sentence] * 6
        assert not caplog.records
        assert a.is_running


async def test_a_program_whose_event_loop_ended_before_its_nodes_did_goes_on_and_ends() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-c", FORGETFUL),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    try:
        async with asyncio.timeout(PATIENCE):
            told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (told, process.returncode) == (b"went on\n", 0)
