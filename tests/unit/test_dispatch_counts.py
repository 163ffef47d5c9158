"""What the dispatcher counts when it is offered a message: each outcome under one name."""

from __future__ import annotations

import pytest

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
