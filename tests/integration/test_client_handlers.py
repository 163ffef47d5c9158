"""Handlers of an application: whatever they do, others do not suffer, and the sender is not to blame."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from tests.contract.peers import settle
from tests.support import PATIENCE, Inbox, client, counted, mesh, until
from zmesh import ConfigError, MeshMessage, MessageType, PeerInfo, SendResult, dispatch
from zmesh.dispatch import BLOCKING_SECONDS


async def test_a_handler_that_raises_hurts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    async with mesh("a", "b", "c") as (a, b, c):

        def clumsy(message: MeshMessage) -> None:
            raise ZeroDivisionError(message.payload["n"])

        async def clumsy_later(message: MeshMessage) -> None:
            raise LookupError(message.payload["n"])

        b.register_handler(MessageType.GOSSIP, clumsy)
        b.register_handler(MessageType.GOSSIP, clumsy_later)
        after, elsewhere = Inbox(b, MessageType.GOSSIP), Inbox(c, MessageType.GOSSIP)
        sent = [await a.broadcast(MessageType.GOSSIP, {"n": n}) for n in range(3)]
        assert await a.send("b", MessageType.GOSSIP, {"n": 3}) is SendResult.DELIVERED
        assert sorted(message.payload["n"] for message in await after.take(4)) == [0, 1, 2, 3]
        assert sorted(message.payload["n"] for message in await elsewhere.take(3)) == [0, 1, 2]
        await settle()  # a coroutine begins a turn after the plain handler behind it
        assert counted(b, "handler", "handler_raised") == 8
        assert all(peer.reputation == 100 for one in (a, b, c) for peer in one.peers.values())
        complaints = [record.getMessage() for record in caplog.records if "handler_raised" in record.getMessage()]
        assert len(complaints) == 8
        assert all(any(message.message_id in line for line in complaints) for message in sent)
        assert any("clumsy_later" in line for line in complaints)


async def test_an_awaitable_that_a_handler_returns_is_awaited_and_any_other_result_ignored() -> None:
    async with mesh("a", "b") as (a, b):
        later: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def double(number: int) -> int:
            later.set_result(2 * number)
            return number

        b.register_handler(MessageType.GOSSIP, lambda message: message.payload["n"])
        b.register_handler(MessageType.GOSSIP, lambda message: double(message.payload["n"]))
        assert await a.send("b", MessageType.GOSSIP, {"n": 3}) is SendResult.DELIVERED
        async with asyncio.timeout(PATIENCE):
            assert await later == 6
        await settle()
        assert (counted(b, "handler", "handled"), counted(b, "handler", "handler_raised")) == (2, 0)


async def test_a_handler_that_hangs_is_cancelled_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with mesh("a", "b", handler_timeout=0.2) as (a, b):
        cancelled = asyncio.Event()

        async def hang(message: MeshMessage) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        b.register_handler(MessageType.GOSSIP, hang)
        beside = Inbox(b, MessageType.GOSSIP)
        assert await a.send("b", MessageType.GOSSIP, {"n": 1}) is SendResult.DELIVERED
        message = await beside.next()
        assert message.payload == {"n": 1}
        async with asyncio.timeout(PATIENCE):
            await cancelled.wait()
        assert counted(b, "handler", "handler_timeout") == 1
        assert b.peers["a"].reputation == 100
        (complaint,) = [line for record in caplog.records if "handler_timed_out" in (line := record.getMessage())]
        assert message.message_id in complaint
        assert hang.__qualname__ in complaint


async def test_a_handler_that_hangs_fills_its_own_queue_only() -> None:
    async with mesh("a", "b", handler_queue=2, handler_concurrency=1) as (a, b):
        release = asyncio.Event()

        async def hang(message: MeshMessage) -> None:
            await release.wait()

        b.register_handler(MessageType.GOSSIP, hang)
        assert [await a.send("b", MessageType.GOSSIP, {"n": n}) for n in range(3)] == [SendResult.DELIVERED] * 3
        assert b._message_queue.qsize() == 2
        # Full: its sender is told, and nothing is lost in silence.
        # (A repetition that is under way when the time is over makes it a timeout: it could have been taken.)
        results: set[SendResult] = set()
        while SendResult.BACKPRESSURE not in results:
            results.add(await a.send("b", MessageType.GOSSIP, {"n": 3}, timeout=0.3))
            assert results <= {SendResult.BACKPRESSURE, SendResult.TIMEOUT}
        assert counted(b, "handler", "refused_queue_full") >= 1
        # Another handler of the same type, and other types, are served all the same.
        beside, others = Inbox(b, MessageType.GOSSIP), Inbox(b, MessageType.MODEL_DELTA_OFFER)
        assert await a.send("b", MessageType.GOSSIP, {"n": 4}) is SendResult.DELIVERED
        assert (await beside.next()).payload == {"n": 4}
        assert await a.send("b", MessageType.MODEL_DELTA_OFFER, {"round_id": "r"}) is SendResult.DELIVERED
        assert (await others.next()).payload == {"round_id": "r"}
        assert counted(b, "handler", "missed_queue_full") >= 1
        assert a.peers["b"].reputation == b.peers["a"].reputation == 100
        release.set()


async def test_slow_handlers_overlap_up_to_their_bound() -> None:
    async with mesh("a", "b", handler_concurrency=3) as (a, b):
        running, most = 0, 0
        full, release = asyncio.Event(), asyncio.Event()

        async def slow(message: MeshMessage) -> None:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == 3:
                full.set()
            await release.wait()
            running -= 1

        b.register_handler(MessageType.GOSSIP, slow)
        done = Inbox(b, MessageType.GOSSIP)
        for n in range(8):
            await a.broadcast(MessageType.GOSSIP, {"n": n})
        await done.take(8)
        async with asyncio.timeout(PATIENCE):
            await full.wait()
        assert (running, most, b._message_queue.qsize()) == (3, 3, 5)
        release.set()


async def test_several_handlers_of_a_type_all_get_every_message() -> None:
    async with mesh("a", "b") as (a, b):
        plain, other = Inbox(b, MessageType.GOSSIP), Inbox(b, MessageType.GOSSIP)
        later: asyncio.Queue[MeshMessage] = asyncio.Queue()
        b.register_handler(MessageType.GOSSIP, later.put)
        assert len(b.message_handlers[MessageType.GOSSIP]) == 3
        await a.broadcast(MessageType.GOSSIP, {"n": 1})
        await a.announce_fl_round("round_001", "corpus", 10, 3600)
        async with asyncio.timeout(PATIENCE):
            assert (
                (await plain.next()).payload == (await other.next()).payload == (await later.get()).payload == {"n": 1}
            )
        assert plain.is_empty
        assert other.is_empty
        assert later.empty()


async def test_a_handler_may_send_and_register_and_unlink_from_within() -> None:
    async with mesh("a", "b") as (a, b):
        answers = Inbox(a, MessageType.MODEL_DELTA_TRANSFER)

        async def answer(message: MeshMessage) -> None:
            result = await b.send_model_delta(message.sender_id, "round_001", "Qm", 98.5)
            b.register_handler(MessageType.CONSENSUS_PROPOSE, lambda message: None)
            assert result is SendResult.DELIVERED
            del b.peers["a"]

        b.register_handler(MessageType.MODEL_DELTA_REQUEST, answer)
        assert await a.send("b", MessageType.MODEL_DELTA_REQUEST, {"round_id": "round_001", "action": "request_model"})
        assert (await answers.next()).payload["model_cid"] == "Qm"
        await until(lambda: not a.peers["b"].is_linked, a, b)
        assert list(b.peers) == []


async def test_a_handler_may_stop_the_client() -> None:
    async with mesh("a", "b") as (a, b):
        stopped = asyncio.Event()

        async def obey(message: MeshMessage) -> None:
            await b.stop()
            stopped.set()

        b.register_handler(MessageType.GOSSIP, obey)
        await a.broadcast(MessageType.GOSSIP, {"please": "stop"})
        async with asyncio.timeout(PATIENCE):
            await stopped.wait()
        assert not b.is_running
        counters = b._setup.dispatcher.counters
        assert (counters["cancelled_at_stop"], counters["left_running"]) == (0, 0), "nobody waited for it"
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", a.peers["b"].multiaddr.rpartition("/")[2])


async def test_a_plain_handler_that_blocks_the_loop_is_named(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dispatcher's clock is set ahead instead of blocking the loop."""
    async with mesh("a", "b") as (a, b):
        ahead = 0.0

        def block_the_loop(message: MeshMessage) -> None:
            nonlocal ahead
            ahead += 1.5 * BLOCKING_SECONDS

        b.register_handler(MessageType.GOSSIP, block_the_loop)
        after = Inbox(b, MessageType.GOSSIP)
        monkeypatch.setattr(dispatch, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead))
        sent = await a.broadcast(MessageType.GOSSIP, {})
        await after.next()
        assert counted(b, "handler", "handler_blocked") == 1
        (complaint,) = [line for record in caplog.records if "handler_blocked" in (line := record.getMessage())]
        assert sent.message_id in complaint
        assert block_the_loop.__qualname__ in complaint


async def test_receive_messages_gives_every_type_until_the_client_stops() -> None:
    async with mesh("a", "b") as (a, b):
        kinds: list[list[str]] = [[], []]
        both = asyncio.Barrier(3)

        async def read(into: list[str]) -> None:
            async for message in b.receive_messages():
                if message.message_type in (MessageType.PEER_ANNOUNCE, MessageType.HEARTBEAT):
                    continue  # what nodes say by themselves may come at any time
                into.append(message.message_type.value)
                if len(into) == 2:
                    await both.wait()

        readers = [asyncio.create_task(read(into)) for into in kinds]
        await asyncio.sleep(0)  # both begin to listen
        await a.broadcast(MessageType.GOSSIP, {})
        assert await a.send_model_delta("b", "round_001", "Qm", 1.0)
        async with asyncio.timeout(PATIENCE):
            await both.wait()
            await b.stop()
            await asyncio.gather(*readers)
        assert [sorted(into) for into in kinds] == [["gossip", "model_delta_transfer"]] * 2


async def test_a_reader_that_stops_reading_hurts_nobody() -> None:
    async with mesh("a", "b", handler_queue=2) as (a, b):
        reader = b.receive_messages()
        first = asyncio.ensure_future(anext(reader))
        await asyncio.sleep(0)
        served = Inbox(b, MessageType.GOSSIP)
        for n in range(10):
            await a.broadcast(MessageType.GOSSIP, {"n": n})
            assert (await served.next()).payload == {"n": n}
        await first
        assert b._message_queue.qsize() == 2
        assert counted(b, "handler", "missed_queue_full") >= 7  # and heartbeats, which this reader would get, too


@pytest.mark.parametrize("handler", [None, "handle", 7])
def test_what_is_no_handler_is_refused(handler: Any) -> None:
    idle = client("a")
    with pytest.raises(
        ConfigError,
        match=f"handler must be a callable that takes one message, not a value of type {type(handler).__name__}",
    ):
        idle.register_handler(MessageType.GOSSIP, handler)
    with pytest.raises(ValueError, match="no_such_type"):
        idle.register_handler("no_such_type", print)  # type: ignore[arg-type]
    assert dict(idle.message_handlers) == {}


async def test_a_plain_handler_may_change_the_peers_as_it_is_called() -> None:
    """It is called right after the step that delivered, within the reading of the very socket that it ends here."""
    async with mesh("a", "b", "c") as (a, b, c):
        was: list[PeerInfo] = []

        def forget(message: MeshMessage) -> None:
            if message.sender_id == "a" and not was:
                was.append(b.peers["a"])
                del b.peers["a"]

        b.register_handler(MessageType.GOSSIP, forget)
        heard = Inbox(b, MessageType.GOSSIP)
        await asyncio.gather(*(a.broadcast(MessageType.GOSSIP, {"n": n}) for n in range(20)))
        await until(lambda: bool(was) and not a.peers["b"].is_linked, a, b)
        assert list(b.peers) == ["c"]
        b.peers["a"] = was[0]
        await until(lambda: all(one.is_linked for one in (b.peers["a"], a.peers["b"])), a, b)
        assert await c.send("b", MessageType.GOSSIP, {"n": "end"}) is SendResult.DELIVERED
        while (await heard.next()).payload["n"] != "end":
            pass
        assert counted(b, "transport", "sink_error") == counted(b, "transport", "reader_error") == 0


async def test_a_plain_handler_is_called_within_the_reading_that_brought_the_message() -> None:
    """Not a round of the event loop later."""
    async with mesh("a", "b") as (a, b):
        node = b._running().node
        links = b._running()._transport._links
        reading, within = [False], asyncio.get_running_loop().create_future()

        def sink(batch: Any) -> None:
            reading[0] = True
            node.receive(batch)
            reading[0] = False

        links._sink = sink
        b.register_handler(MessageType.GOSSIP, lambda message: within.set_result(reading[0]))
        await a.broadcast(MessageType.GOSSIP, {"n": 1})
        async with asyncio.timeout(PATIENCE):
            assert await within
