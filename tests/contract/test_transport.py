"""What every transport promises. The numbers are those in ``zmesh/transport.py``."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.contract.peers import Mesh, settle
from zmesh.core.errors import ConfigError
from zmesh.core.events import FrameReceived, LinkClosed, LinkOpened
from zmesh.core.types import Endpoint
from zmesh.identity import Identity
from zmesh.transport import MAX_BATCH, Routes, TransportEvent

BURST = 200
"""Messages: several batches, and fewer than any queue holds."""
FILLING = b"x" * 60_000


def negative(identity: Identity) -> bytes:
    """The key with the same X25519 image: the other sign of the same point."""
    return identity.public[:31] + bytes([identity.public[31] ^ 0x80])


async def test_the_link_of_a_message_is_the_key_that_the_handshake_proved(mesh: Mesh) -> None:
    """Promise 1."""
    a, b = await mesh.pair()
    c = await mesh.peer()
    b.admit(a, c)
    c.admit(b)
    await mesh.link(c, b)
    assert a.send(b, c.key, b"I am c")
    assert c.send(b, a.key, b"I am a")
    await b.until_received(2)
    received = {event.link: event.frames for event in b.events if isinstance(event, FrameReceived)}
    assert received == {a.key: (c.key, b"I am c"), c.key: (a.key, b"I am a")}


@pytest.mark.parametrize("gossip", [False, True])
async def test_messages_arrive_once_whole_and_in_order(mesh: Mesh, gossip: bool) -> None:
    """Promise 2."""
    a, b = await mesh.pair()
    sent = [(number.to_bytes(4), b"body" * number, b"") for number in range(BURST)]
    assert all(a.send(b, *frames, gossip=gossip) for frames in sent)
    assert await b.until_received(BURST) == sent


@pytest.mark.parametrize("frames", [(b"",), (b"one",), (b"head", b"body"), (b"h", b"b", b"s"), (b"",) * 6])
async def test_any_message_of_one_to_six_frames_travels(mesh: Mesh, frames: tuple[bytes, ...]) -> None:
    """Promise 2."""
    a, b = await mesh.pair()
    assert a.send(b, *frames)
    assert await b.until_received(1) == [frames]


async def test_whoever_was_dialled_answers_over_that_connection(mesh: Mesh) -> None:
    """Promise 6: this is how a peer behind NAT is reached."""
    a, b = await mesh.pair()
    sent = [(b"answer", number.to_bytes(4)) for number in range(BURST)]
    assert all(b.send(a, *frames) for frames in sent)
    assert await a.until_received(BURST) == sent


async def test_gossip_reaches_whoever_dialled(mesh: Mesh) -> None:
    """Promise 3, whichever lane is up by now."""
    a, b = await mesh.pair()
    sent = [(b"gossip", number.to_bytes(4)) for number in range(BURST)]
    assert all(b.send(a, *frames, gossip=True) for frames in sent)
    assert sorted(await a.until_received(BURST)) == sent


async def test_sending_to_nobody_is_refused(mesh: Mesh) -> None:
    """Promise 3."""
    a, b = await mesh.peer(), await mesh.peer()
    a.admit(b)
    assert not a.send(b, b"hello")
    assert not a.send(b, b"hello", gossip=True)


async def test_a_full_queue_refuses_and_what_was_taken_arrives(mesh: Mesh) -> None:
    """Promise 3: the far end reads nothing, for its event loop is busy with this loop."""
    a, b = await mesh.pair()
    taken = 0
    while a.send(b, taken.to_bytes(4), FILLING):
        taken += 1
        assert taken < 10_000, "the queue has no bound"
    assert taken >= 100
    assert [frames[0] for frames in await b.until_received(taken)] == [n.to_bytes(4) for n in range(taken)]
    assert a.transport.counters["direct_lane_full"] == 1
    await settle()
    assert len(b.frames()) == taken


async def test_a_full_queue_is_nobody_elses(mesh: Mesh) -> None:
    """Promise 3."""
    a, b = await mesh.pair()
    c = await mesh.peer()
    a.admit(b, c)
    c.admit(a)
    await mesh.link(a, c)
    while a.send(b, b"to the slow one", FILLING):
        pass
    assert a.send(c, b"to the other")
    assert await c.until_received(1) == [(b"to the other",)]


async def test_a_stranger_is_refused_and_counted(mesh: Mesh) -> None:
    """Promises 4, 5 and 7."""
    a, b = await mesh.peer(), await mesh.peer()
    a.admit(b)
    a.dial(b)
    assert await a.until_told(1) == [LinkClosed(b.key, "refused our key")]
    assert b.transport.counters["zap_stranger"] == 1
    assert b.events == []


async def test_a_server_with_another_key_is_not_who_was_dialled(mesh: Mesh) -> None:
    """Promise 1: an address proves nothing."""
    a, b, c = await mesh.peer(), await mesh.peer(), await mesh.peer()
    a.admit(b, c)
    b.admit(a)
    a.dial(c, b.routes)
    assert await a.until_told(1) == [LinkClosed(c.key, "ended the handshake: not the expected key, or not a mesh node")]
    assert b.events == []


async def test_a_key_that_is_no_longer_admitted_is_cut_in_both_directions(mesh: Mesh) -> None:
    """Promise 4: one admission ends the connection it dialled and the one dialled to it."""
    a, b = await mesh.pair()
    await mesh.link(b, a)
    b.admit()
    assert not b.send(a, b"too late")
    assert not b.send(a, b"too late", gossip=True)
    await b.until(lambda: not b.opened(a, inbound=True) and not b.opened(a, inbound=False))
    assert sorted(event.inbound for event in b.changes()[-2:]) == [False, True]
    assert {event.why for event in b.changes()[-2:] if isinstance(event, LinkClosed)} == {"no longer admitted"}
    await a.until(lambda: not a.opened(b, inbound=True) and not a.opened(b, inbound=False))
    assert not a.send(b, b"too late")
    assert b.frames() == []
    a.dial(b)
    await a.until(lambda: a.events[-1:] == [LinkClosed(b.key, "refused our key")])


async def test_the_removal_of_one_key_leaves_the_others(mesh: Mesh) -> None:
    """Promise 4."""
    a, b = await mesh.pair()
    c = await mesh.peer()
    b.admit(a, c)
    c.admit(b)
    await mesh.link(c, b)
    b.admit(a)
    await c.until(lambda: not c.opened(b, inbound=False))
    assert a.send(b, b"still here")
    assert await b.until_received(1, a) == [(b"still here",)]


async def test_a_second_identity_with_the_same_image_is_refused(mesh: Mesh) -> None:
    """Promise 4: P and -P are one secret."""
    a, b = await mesh.pair()
    twin = negative(b.identity)
    a.transport.admit(frozenset({b.key, twin}))
    a.transport.admit(frozenset({b.key, twin}))
    assert a.transport.counters["image_collision"] == 1
    a.transport.dial(twin, b.routes)
    await a.until(lambda: a.events[-1:] == [LinkClosed(twin, "not admitted")])
    assert a.send(b, b"the first one stays")
    assert await b.until_received(1) == [(b"the first one stays",)]
    a.transport.admit(frozenset({twin}))
    assert a.transport.counters["image_collision"] == 1
    await a.until(lambda: not a.opened(b, inbound=False))


async def test_our_own_negative_is_refused(mesh: Mesh) -> None:
    """Promise 4."""
    a = await mesh.peer()
    a.transport.admit(frozenset({negative(a.identity), a.key, bytes(32), b"short"}))
    assert a.transport.counters == {"image_collision": 1, "key_unusable": 2}


async def test_a_dial_to_nobody_is_answered(mesh: Mesh) -> None:
    """Promise 5."""
    a, b = await mesh.peer(), await mesh.peer()
    a.admit(b)
    await b.transport.stop(1.0)
    a.dial(b)
    assert await a.until_told(1) == [LinkClosed(b.key, "could not connect: refused or unreachable")]


@pytest.mark.parametrize("who", ["nobody", "somebody else"])
async def test_where_nobody_answers_as_that_key_the_spare_route_is_tried(mesh: Mesh, who: str) -> None:
    """Promise 5."""
    a, b, other = await mesh.peer(), await mesh.peer(), await mesh.peer()
    a.admit(b)
    b.admit(a)
    if who == "nobody":
        await other.transport.stop(1.0)
    a.dial(b, Routes(other.routes.direct, spare=b.routes.direct))
    assert await a.until_told(1) == [LinkOpened(b.key)]
    assert a.send(b, b"by the spare route")
    assert await b.until_received(1) == [(b"by the spare route",)]
    assert a.transport.counters["dialled_spare"] == 1


async def test_nobody_at_the_spare_route_either_is_one_answer(mesh: Mesh) -> None:
    """Promise 5."""
    a, b = await mesh.peer(), await mesh.peer()
    a.admit(b)
    await b.transport.stop(1.0)
    a.dial(b, Routes(b.routes.direct, spare=b.routes.direct))
    assert await a.until_told(1) == [LinkClosed(b.key, "could not connect: refused or unreachable")]


async def test_who_refuses_us_has_answered_and_is_not_asked_by_another_way(mesh: Mesh) -> None:
    """Promise 5: or a link that is refused at first, as a newcomer's is, would keep to the slower way."""
    a, b = await mesh.peer(), await mesh.peer()
    a.admit(b)
    a.dial(b, Routes(b.routes.direct, spare=b.routes.direct))
    assert await a.until_told(1) == [LinkClosed(b.key, "refused our key")]
    assert (a.transport.counters["dialled_spare"], b.transport.counters["zap_stranger"]) == (0, 1)


async def test_a_dial_to_a_key_that_is_not_admitted_is_answered(mesh: Mesh) -> None:
    """Promises 4 and 5."""
    a, b = await mesh.peer(), await mesh.peer()
    b.admit(a)
    a.dial(b)
    assert await a.until_told(1) == [LinkClosed(b.key, "not admitted")]


async def test_both_may_dial_at_once(mesh: Mesh) -> None:
    """Promises 5 and 6: each dial has its own answer, each inbound connection its own report."""
    a, b = await mesh.peer(), await mesh.peer()
    a.admit(b)
    b.admit(a)
    a.dial(b)
    b.dial(a)
    await a.until(lambda: a.opened(b, inbound=False))
    await b.until(lambda: b.opened(a, inbound=False))
    assert a.send(b, b"from a")
    assert b.send(a, b"from b")
    assert await a.until_received(1) == [(b"from b",)]
    assert await b.until_received(1) == [(b"from a",)]
    both = {False, True}
    assert {event.inbound for event in a.changes() if event == LinkOpened(b.key, event.inbound)} == both
    assert {event.inbound for event in b.changes() if event == LinkOpened(a.key, event.inbound)} == both
    assert len(a.changes()) == len(b.changes()) == 2


async def test_a_newer_dial_replaces_an_earlier_one(mesh: Mesh) -> None:
    """Promise 5: the earlier connection goes without a word, the newer one is answered."""
    a, b = await mesh.pair()
    a.dial(b)
    assert await a.until_told(2) == [LinkOpened(b.key), LinkOpened(b.key)]
    assert a.send(b, b"over the new one")
    assert await b.until_received(1) == [(b"over the new one",)]
    assert b.changes()[-1] == LinkOpened(a.key, inbound=True)
    assert len([event for event in b.changes() if isinstance(event, LinkClosed)]) == 1


async def test_an_unanswered_dial_that_is_replaced_is_answered_once(mesh: Mesh) -> None:
    """Promise 5."""
    a, b = await mesh.peer(), await mesh.peer()
    a.admit(b)
    b.admit(a)
    a.dial(b)
    a.dial(b)
    assert await a.until_told(1) == [LinkOpened(b.key)]
    assert a.send(b, b"hello")
    await b.until_received(1)
    await settle()
    assert a.changes() == [LinkOpened(b.key)]


async def test_the_opening_is_told_before_the_first_message(mesh: Mesh) -> None:
    """Promise 6."""
    a, b = await mesh.peer(), await mesh.peer()
    a.admit(b)
    b.admit(a)
    a.dial(b)
    await a.until(lambda: a.opened(b, inbound=False))
    assert all(a.send(b, b"%d" % number) for number in range(3))
    await b.until_received(3)
    assert b.events == [
        LinkOpened(a.key, inbound=True),
        FrameReceived(a.key, (b"0",)),
        FrameReceived(a.key, (b"1",)),
        FrameReceived(a.key, (b"2",)),
    ]


async def test_the_end_is_told_after_the_last_message(mesh: Mesh) -> None:
    """Promises 2 and 6: what was queued when a transport stopped still arrives."""
    a, b = await mesh.pair()
    sent = [number.to_bytes(4) for number in range(BURST)]
    assert all(a.send(b, frame) for frame in sent)
    await a.transport.stop(5.0)
    await b.until(lambda: not b.opened(a, inbound=True))
    assert b.frames() == [(frame,) for frame in sent]
    assert b.events[-1] == LinkClosed(a.key, "closed the connection", inbound=True)
    assert not b.send(a, b"anybody there?")


async def test_a_lost_connection_is_told_to_whoever_dialled(mesh: Mesh) -> None:
    """Promise 5."""
    a, b = await mesh.pair()
    assert all(b.send(a, b"%d" % number) for number in range(3))
    await b.transport.stop(5.0)
    await a.until(lambda: not a.opened(b, inbound=False))
    assert a.frames() == [(b"0",), (b"1",), (b"2",)]
    assert isinstance(a.events[-1], LinkClosed)
    assert not a.send(b, b"anybody there?")


async def test_a_hangup_is_silent_here_and_told_there(mesh: Mesh) -> None:
    """Promise 6."""
    a, b = await mesh.pair()
    await mesh.link(b, a)
    before = list(b.events)
    b.hangup(a)
    assert not b.send(a, b"too late")
    await a.until(lambda: not a.opened(b, inbound=True) and not a.opened(b, inbound=False))
    await settle()
    assert b.events == before


async def test_a_hangup_takes_back_what_was_not_yet_told(mesh: Mesh) -> None:
    """Promise 6: no opening may follow the hangup that ended it."""
    a, b = await mesh.peer(), await mesh.peer()
    a.admit(b)
    a.dial(b, Routes(Endpoint("127.0.0.1", 1)))
    a.hangup(b)
    await settle()
    assert a.events == []


async def test_after_a_hangup_a_new_dial_works(mesh: Mesh) -> None:
    """Promise 6: a hangup is not a ban."""
    a, b = await mesh.pair()
    b.hangup(a)
    await a.until(lambda: not a.opened(b, inbound=False))
    await mesh.link(a, b)
    assert b.send(a, b"welcome back")
    assert await a.until_received(1) == [(b"welcome back",)]


async def test_events_come_in_batches_and_from_the_loop(mesh: Mesh) -> None:
    """Promise 8; ``Peer`` checks that no event comes from inside a call."""
    a, b = await mesh.pair()
    assert all(a.send(b, b"x") for _ in range(BURST))
    await b.until_received(BURST)
    assert max(b.batches) <= MAX_BATCH


async def test_a_sink_may_call_the_transport(mesh: Mesh) -> None:
    """Promise 8: an engine answers from within its sink."""
    a, b = await mesh.pair()

    def answer(batch: Sequence[TransportEvent]) -> None:
        for event in batch:
            if isinstance(event, FrameReceived):
                assert b.send(a, b"re", *event.frames)

    b.sink = answer
    assert a.send(b, b"question")
    assert await a.until_received(1) == [(b"re", b"question")]


async def test_a_sink_that_raises_stops_nothing(mesh: Mesh) -> None:
    """Promise 7."""
    a, b = await mesh.pair()

    def fail(batch: Sequence[TransportEvent]) -> None:
        raise RuntimeError("a bug in the consumer")

    b.sink = fail
    assert a.send(b, b"first")
    await b.until_received(1)
    assert a.send(b, b"second")
    assert await b.until_received(2) == [(b"first",), (b"second",)]
    assert b.transport.counters["sink_error"] == 2


async def test_stopping_twice_and_calling_afterwards_is_safe(mesh: Mesh) -> None:
    """``stop`` is idempotent, and a stopped transport refuses quietly."""
    a, b = await mesh.pair()
    await a.transport.stop(2.0)
    await a.transport.stop(2.0)
    told = list(a.events)
    assert not a.send(b, b"too late")
    a.dial(b)
    a.hangup(b)
    a.admit()
    await settle()
    assert a.events == told


async def test_a_transport_stops_within_its_deadline_though_nobody_reads(mesh: Mesh) -> None:
    """``stop`` is bounded, whatever is still queued."""
    a, b = await mesh.pair()
    while a.send(b, FILLING):
        pass
    await a.transport.stop(0.2)


async def test_a_host_in_use_is_a_configuration_error(mesh: Mesh) -> None:
    """``start`` raises ``ConfigError``, says where, and leaves nothing behind."""
    a = await mesh.peer()
    second = mesh.transport_at(Identity.generate(), a.routes.direct)
    with pytest.raises(
        ConfigError, match=f"cannot listen on {a.routes.direct}: [Aa]ddress already in use; set .* 0 for any"
    ):
        await second.start(lambda batch: None)
