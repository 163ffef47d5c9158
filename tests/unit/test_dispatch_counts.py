"""What the dispatcher counts when it is offered a message: each outcome under one name."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.virtual_time import in_virtual_time
from zmesh.core.types import MessageType
from zmesh.dispatch import Dispatcher
from zmesh.messages import MeshMessage

MESSAGE = MeshMessage("a" * 64, MessageType.GOSSIP, "peer", 1.0, {}, "b" * 128, 5)


@pytest.mark.parametrize("kind", MessageType)
async def test_what_no_application_needs_to_handle_is_not_unhandled(kind: MessageType) -> None:
    dispatcher = Dispatcher(1, 1, 5.0)
    assert dispatcher.offer(MESSAGE._replace(message_type=kind))
    is_own = kind.value in ("heartbeat", "peer_announce", "peer_discovery")
    assert dispatcher.counters == ({} if is_own else {"unhandled": 1})


async def test_a_message_that_no_listener_has_room_for_is_refused_once_and_missed_by_none() -> None:
    dispatcher = Dispatcher(1, 1, 5.0)
    for _ in range(2):
        dispatcher.register(MessageType.GOSSIP, lambda message: None)
    assert [dispatcher.offer(MESSAGE) for _ in range(3)] == [True, False, False]
    assert dispatcher.counters == {"queued": 1, "refused_queue_full": 2}
    await dispatcher.close(1.0)


async def test_a_message_that_one_of_several_listeners_has_no_room_for_is_missed_by_that_one() -> None:
    dispatcher = Dispatcher(1, 1, 5.0)
    reader = dispatcher.iterate()
    dispatcher.register(MessageType.GOSSIP, lambda message: None)
    for _ in range(3):
        assert dispatcher.offer(MESSAGE)
        dispatcher.turn()  # the handler is done with it; the iterator is not read
    assert dispatcher.counters == {"queued": 3, "missed_queue_full": 2, "handled": 3}
    await dispatcher.close(1.0)
    assert [message async for message in reader] == [MESSAGE]


def test_a_call_that_hangs_by_the_clock_of_its_loop_is_told_from_one_that_gives_up_itself() -> None:
    """The loop's clock runs ahead of ours here. uvloop's, whose unit is a millisecond, may be ahead by that much."""

    async def story() -> None:
        dispatcher = Dispatcher(2, 1, 5.0)
        seconds = iter((None, 1.0))  # that a call waits at most

        async def handler(message: MeshMessage) -> None:
            async with asyncio.timeout(next(seconds)):
                await asyncio.Event().wait()

        dispatcher.register(MessageType.GOSSIP, handler)
        for _ in range(2):
            assert dispatcher.offer(MESSAGE)
        dispatcher.turn()
        await dispatcher.close(60.0)
        assert dispatcher.counters == {"queued": 2, "handler_timeout": 1, "handler_raised": 1}

    in_virtual_time(story())
