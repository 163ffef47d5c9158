"""The dispatcher: who works on a handler's queue, and that nobody waits for a call that waits."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable
from typing import Any

import pytest

from zmesh.core.types import MessageType
from zmesh.dispatch import CALLS_AT_ONCE, Dispatcher
from zmesh.messages import MeshMessage


def _message(number: int) -> MeshMessage:
    return MeshMessage("a" * 64, MessageType.GOSSIP, "peer", 1.0, {"n": number}, "b" * 128, 5)


def _timers(loop: asyncio.AbstractEventLoop) -> list[asyncio.TimerHandle]:
    return [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]


def _workers() -> int:
    return sum("zmesh handler" in task.get_name() for task in asyncio.all_tasks())


async def test_calls_that_need_not_wait_need_no_worker_keep_their_order_and_let_the_loop_turn() -> None:
    dispatcher = Dispatcher(1000, 64, 5.0)
    seen: list[int] = []
    done = asyncio.Event()
    between: list[int] = []

    def handler(message: MeshMessage) -> None:
        seen.append(message.payload["n"])
        if len(seen) == 1:
            asyncio.get_running_loop().call_soon(lambda: between.append(len(seen)))
        if len(seen) == 100:
            done.set()

    dispatcher.register(MessageType.GOSSIP, handler)
    assert all(dispatcher.offer(_message(number)) for number in range(100))
    dispatcher.turn()
    async with asyncio.timeout(5):
        await done.wait()
    assert (seen, _workers()) == (list(range(100)), 0)
    assert between == [CALLS_AT_ONCE]
    await dispatcher.close(1.0)


async def test_one_worker_serves_a_burst_of_coroutines_that_never_wait() -> None:
    dispatcher = Dispatcher(1000, 64, 5.0)
    seen: list[int] = []
    done = asyncio.Event()

    async def handler(message: MeshMessage) -> None:
        seen.append(message.payload["n"])
        workers.add(asyncio.current_task())
        if len(seen) == 100:
            done.set()

    workers: set[object] = set()
    dispatcher.register(MessageType.GOSSIP, handler)
    assert all(dispatcher.offer(_message(number)) for number in range(100))
    dispatcher.turn()
    async with asyncio.timeout(5):
        await done.wait()
    assert (seen, dispatcher.counters["handled"], len(workers)) == (list(range(100)), 100, 1)
    await dispatcher.close(1.0)


async def test_what_a_handler_brings_about_has_its_turn_after_it() -> None:
    """As when it makes the node take a step that delivers another message."""
    dispatcher = Dispatcher(10, 1, 5.0)
    seen: list[str] = []

    def handler(message: MeshMessage) -> None:
        seen.append(f"{message.payload['n']} begins")
        if message.payload["n"] == 0:
            dispatcher.offer(_message(1))
            dispatcher.turn()
        seen.append(f"{message.payload['n']} ends")

    dispatcher.register(MessageType.GOSSIP, handler)
    dispatcher.offer(_message(0))
    dispatcher.turn()
    await dispatcher.close(1.0)
    assert seen == ["0 begins", "0 ends", "1 begins", "1 ends"]


async def test_one_handler_is_not_called_within_another() -> None:
    dispatcher = Dispatcher(10, 1, 5.0)
    seen: list[str] = []

    def outer(message: MeshMessage) -> None:
        seen.append("outer begins")
        dispatcher.offer(message._replace(message_type=MessageType.HEARTBEAT))
        dispatcher.turn()
        seen.append("outer ends")

    dispatcher.register(MessageType.GOSSIP, outer)
    dispatcher.register(MessageType.HEARTBEAT, lambda message: seen.append("inner"))
    dispatcher.offer(_message(0))
    dispatcher.turn()
    await dispatcher.close(1.0)
    assert seen == ["outer begins", "outer ends", "inner"]


async def test_what_a_handler_brings_about_begins_by_itself() -> None:
    dispatcher = Dispatcher(10, 1, 5.0)
    done = asyncio.Event()

    def outer(message: MeshMessage) -> None:
        dispatcher.offer(message._replace(message_type=MessageType.HEARTBEAT))
        dispatcher.turn()

    dispatcher.register(MessageType.GOSSIP, outer)
    dispatcher.register(MessageType.HEARTBEAT, lambda message: done.set())
    dispatcher.offer(_message(0))
    dispatcher.turn()
    async with asyncio.timeout(5):
        await done.wait()
    await dispatcher.close(1.0)


async def test_what_waits_at_the_end_for_plain_callables_is_worked_off() -> None:
    dispatcher = Dispatcher(1000, 1, 5.0)
    seen: list[int] = []
    dispatcher.register(MessageType.GOSSIP, lambda message: seen.append(message.payload["n"]))
    assert all(dispatcher.offer(_message(number)) for number in range(100))
    dispatcher.turn()
    await dispatcher.close(1.0)
    assert (seen, dispatcher.counters["lost_at_stop"]) == (list(range(100)), 0)


async def test_calls_that_wait_overlap_up_to_the_bound_and_the_rest_stays_queued() -> None:
    dispatcher = Dispatcher(1000, 3, 5.0)
    gate = asyncio.Event()
    started: list[int] = []
    full, done = asyncio.Event(), asyncio.Event()
    finished: list[int] = []

    async def handler(message: MeshMessage) -> None:
        started.append(message.payload["n"])
        if len(started) == 3:
            full.set()
        await gate.wait()
        finished.append(message.payload["n"])
        if len(finished) == 10:
            done.set()

    dispatcher.register(MessageType.GOSSIP, handler)
    for number in range(10):
        dispatcher.offer(_message(number))
    dispatcher.turn()
    async with asyncio.timeout(5):
        await full.wait()
        assert (started, dispatcher.qsize(), _workers()) == ([0, 1, 2], 7, 3)
        gate.set()
        await done.wait()
    assert sorted(finished) == list(range(10))
    await dispatcher.close(1.0)


async def test_a_handler_cut_off_at_the_end_works_again_after_a_restart() -> None:
    dispatcher = Dispatcher(1000, 1, 60.0)
    started = asyncio.Event()

    async def handler(message: MeshMessage) -> None:
        started.set()
        if message.payload["n"] == 0:
            await asyncio.Event().wait()

    dispatcher.register(MessageType.GOSSIP, handler)
    dispatcher.offer(_message(0))
    dispatcher.turn()
    async with asyncio.timeout(5):
        await started.wait()
        await dispatcher.close(0.01)
        started.clear()
        dispatcher.reopen()
        dispatcher.offer(_message(1))
        dispatcher.turn()
        await started.wait()
    await dispatcher.close(1.0)


async def test_a_call_that_never_waits_sets_no_timer_and_one_that_does_gets_what_it_waits_for() -> None:
    dispatcher = Dispatcher(limit=10, concurrency=1, timeout=60)
    loop = asyncio.get_running_loop()
    good, bad = loop.create_future(), loop.create_future()
    seen: list[object] = []
    done = asyncio.Event()

    async def handle(message: MeshMessage) -> None:
        if not seen:
            seen.append(None)
            return
        seen.append(await good)
        try:
            await bad
        except ValueError as error:
            seen.append(str(error))
        await asyncio.sleep(0)
        done.set()

    timers = len(_timers(loop))
    dispatcher.register(MessageType.GOSSIP, handle)
    dispatcher.offer(_message(1))
    dispatcher.turn()
    await asyncio.sleep(0)
    assert (len(seen), len(_timers(loop))) == (1, timers)

    dispatcher.offer(_message(2))
    dispatcher.turn()
    await asyncio.sleep(0)
    assert len(_timers(loop)) == timers + 1
    good.set_result("an answer")
    bad.set_exception(ValueError("a failure"))
    async with asyncio.timeout(5):
        await done.wait()
    await asyncio.sleep(0)
    assert (seen[1:], dispatcher.counters["handled"]) == (["an answer", "a failure"], 2)


async def test_a_call_that_waits_too_long_is_cancelled_and_may_clean_up() -> None:
    dispatcher = Dispatcher(limit=10, concurrency=1, timeout=0.01)
    cleaned: list[str] = []
    done = asyncio.Event()

    async def handle(message: MeshMessage) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            cleaned.append(message.message_id)
            done.set()
            raise

    dispatcher.register(MessageType.GOSSIP, handle)
    dispatcher.offer(_message(1))
    dispatcher.turn()
    async with asyncio.timeout(5):
        await done.wait()
    await dispatcher.close(5)
    assert (cleaned, dispatcher.counters["handler_timeout"]) == ([_message(1).message_id], 1)


async def test_a_plain_callable_that_gives_something_back_is_not_awaited() -> None:
    dispatcher = Dispatcher(10, 1, 5.0)
    done = asyncio.Event()

    def handler(message: MeshMessage) -> None:
        done.set()
        return 5  # type: ignore[return-value]  # what applications do

    dispatcher.register(MessageType.GOSSIP, handler)
    dispatcher.offer(_message(1))
    dispatcher.turn()
    async with asyncio.timeout(5):
        await done.wait()
    await dispatcher.close(1.0)
    assert dispatcher.counters["handled"] == 1


async def test_what_no_handler_got_to_before_the_end_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher = Dispatcher(10, 1, 5.0)
    started = asyncio.Event()

    async def handler(message: MeshMessage) -> None:
        started.set()
        await asyncio.Event().wait()

    dispatcher.register(MessageType.GOSSIP, handler)
    for number in range(4):
        assert dispatcher.offer(_message(number))
    dispatcher.turn()
    async with asyncio.timeout(5):
        await started.wait()
        await dispatcher.close(0.01)
    assert not dispatcher.offer(_message(4))
    assert (dispatcher.counters["lost_at_stop"], dispatcher.counters["refused_closed"]) == (3, 1)
    told = {"event": "messages_lost_at_stop", "lost": 3, "cancelled": 1, "handlers": [handler.__qualname__]}
    assert [vars(record)["zmesh"] for record in caplog.records if record.levelname == "WARNING"] == [told]


def _cancelled() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


async def _looks_at_it_first() -> None:
    await _cancelled()


async def _looks_at_it_after_a_pause() -> None:
    await asyncio.sleep(0)
    await _cancelled()


@pytest.mark.parametrize(
    "look", [lambda: _cancelled().result(), _cancelled, _looks_at_it_first, _looks_at_it_after_a_pause]
)
async def test_a_cancelled_future_that_a_handler_looks_at_ends_that_call_alone(look: Callable[[], Any]) -> None:
    """Whoever made the node take the step must not be cancelled by it, and what is queued behind it is served."""
    dispatcher = Dispatcher(100, 1, 5.0)
    seen: list[int] = []
    done = asyncio.Event()

    def handler(message: MeshMessage) -> Any:
        seen.append(message.payload["n"])
        if len(seen) == 50:
            done.set()
        return look() if message.payload["n"] % 10 == 0 else None

    dispatcher.register(MessageType.GOSSIP, handler)
    assert all(dispatcher.offer(_message(number)) for number in range(50))
    dispatcher.turn()
    async with asyncio.timeout(5):
        await done.wait()
    await dispatcher.close(1.0)
    assert seen == list(range(50))
    assert dispatcher.counters == {"queued": 50, "handled": 45, "handler_raised": 5}


async def test_calls_that_begin_while_the_end_waits_for_others_are_waited_for_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dispatcher = Dispatcher(1000, 8, 5.0)
    finished: list[int] = []
    release = asyncio.Event()

    async def handler(message: MeshMessage) -> None:
        if (number := message.payload["n"]) < CALLS_AT_ONCE + 1:
            return  # these need no worker for long, and give the loop its turn once
        if number == CALLS_AT_ONCE + 3:
            release.set()
        await release.wait()
        for _ in range(5 * (number - CALLS_AT_ONCE)):
            await asyncio.sleep(0)
        finished.append(number)

    dispatcher.register(MessageType.GOSSIP, handler)
    assert all(dispatcher.offer(_message(number)) for number in range(CALLS_AT_ONCE + 4))
    dispatcher.turn()
    await dispatcher.close(5.0)
    assert sorted(finished) == [CALLS_AT_ONCE + 1, CALLS_AT_ONCE + 2, CALLS_AT_ONCE + 3]
    assert _workers() == 0
    assert (dispatcher.counters["lost_at_stop"], dispatcher.counters["cancelled_at_stop"]) == (0, 0)
    assert caplog.records == []


async def test_a_handler_that_does_not_let_itself_be_cancelled_is_named_and_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dispatcher = Dispatcher(10, 2, 5.0)
    release = asyncio.Event()
    begun = asyncio.Event()

    async def stubborn(message: MeshMessage) -> None:
        begun.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    dispatcher.register(MessageType.GOSSIP, stubborn)
    dispatcher.offer(_message(1))
    dispatcher.turn()
    async with asyncio.timeout(5):
        await begun.wait()
        await dispatcher.close(0.05)
    assert (dispatcher.counters["cancelled_at_stop"], dispatcher.counters["left_running"]) == (1, 1)
    assert "handlers_left_running" in caplog.text
    assert "stubborn" in caplog.text
    release.set()
    await asyncio.gather(*(task for task in asyncio.all_tasks() if "zmesh handler" in task.get_name()))


async def test_a_reader_has_what_came_since_it_was_made_and_its_end_always_has_room() -> None:
    dispatcher = Dispatcher(2, 1, 5.0)
    reader = dispatcher.iterate()
    assert [dispatcher.offer(_message(number)) for number in range(3)] == [True, True, False]
    unread = dispatcher.iterate()
    await dispatcher.close(1.0)
    assert [message.payload["n"] async for message in reader] == [0, 1]
    dispatcher.reopen()
    assert dispatcher.offer(_message(3))
    assert (dispatcher.counters["queued"], dispatcher.counters["unhandled"]) == (2, 1), "nobody reads any more"
    await dispatcher.close(1.0)
    between = dispatcher.iterate()
    dispatcher.reopen()
    assert [dispatcher.offer(_message(number)) for number in range(3, 6)] == [True, True, False]
    await dispatcher.close(1.0)
    assert [message.payload["n"] async for message in between] == [3, 4]
    assert [message async for message in unread] == []


async def test_a_reader_that_was_dropped_is_nobody_who_misses_messages() -> None:
    dispatcher = Dispatcher(1, 1, 5.0)
    dispatcher.iterate()
    reader = dispatcher.iterate()
    dispatcher.offer(_message(0))
    assert (await anext(reader)).payload == {"n": 0}
    await reader.aclose()
    del reader
    gc.collect()
    assert all(dispatcher.offer(_message(number)) for number in range(1, 4))
    assert dispatcher.counters == {"queued": 1, "unhandled": 3}
    await dispatcher.close(1.0)


@pytest.mark.parametrize("is_read", [False, True], ids=["handler", "iterator"])
async def test_one_member_cannot_fill_the_queue_for_the_others(is_read: bool) -> None:
    dispatcher = Dispatcher(100, 1, 60.0)
    gate = asyncio.Event()
    handled: list[str] = []

    async def slow(message: MeshMessage) -> None:
        await gate.wait()
        handled.append(message.account_id)

    reader = dispatcher.iterate() if is_read else None
    if reader is None:
        dispatcher.register(MessageType.GOSSIP, slow)
    flood, honest = (_message(0)._replace(account_id=account) for account in ("flood", "honest"))
    offered = [dispatcher.offer(message) for message in (*[flood] * 200, honest, honest)]
    assert offered == [True] * 100 + [False] * 100 + [True, False]
    assert dispatcher.counters["refused_queue_full"] == 101

    gate.set()
    dispatcher.turn()
    await dispatcher.close(5.0)
    if reader is not None:
        handled = [message.account_id async for message in reader]
    assert handled == ["flood"] * 100 + ["honest"]


async def test_what_an_iterator_gave_out_makes_room() -> None:
    dispatcher = Dispatcher(3, 1, 5.0)
    reader = dispatcher.iterate()
    taken = []
    for number in range(10):
        taken.append(dispatcher.offer(_message(number)))
        if number >= 5:
            async with asyncio.timeout(5):
                await anext(reader)
    assert taken == [True] * 3 + [False] * 3 + [True] * 4
    await dispatcher.close(1.0)


async def test_a_handler_that_always_raises_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    dispatcher = Dispatcher(1000, 1, 5.0)

    def clumsy(message: MeshMessage) -> None:
        raise KeyError("text")

    dispatcher.register(MessageType.GOSSIP, clumsy)
    for account in ("a", "b"):
        for number in range(100):
            dispatcher.offer(_message(number)._replace(account_id=account))
    dispatcher.turn()
    await dispatcher.close(5.0)
    assert dispatcher.counters["handler_raised"] == 200
    assert 2 <= len([record for record in caplog.records if "handler_raised" in record.getMessage()]) <= 12


async def test_a_worker_that_was_cancelled_before_its_first_step_leaves_no_deaf_handler() -> None:
    """As the end of a node does where a task does not begin at once, which it does from Python 3.12 on."""
    dispatcher = Dispatcher(1000, 1, 5.0)
    seen: list[int] = []

    def handler(message: MeshMessage) -> asyncio.Future[None]:
        seen.append(message.payload["n"])
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    dispatcher.register(MessageType.GOSSIP, handler)
    dispatcher.offer(_message(1))
    dispatcher.turn()
    (lane,) = dispatcher._lanes[MessageType.GOSSIP]
    cancelled = lane.workers
    for worker in cancelled:
        worker.cancel()
    await asyncio.gather(*cancelled, return_exceptions=True)
    await dispatcher.close(1.0)
    dispatcher.reopen()
    dispatcher.offer(_message(2))
    dispatcher.turn()
    await asyncio.gather(*lane.workers)
    assert seen == [1, 2]
    await dispatcher.close(1.0)
