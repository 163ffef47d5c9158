"""Direct messages: repeated until acknowledged, handed over once, and every way in which they can end."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import pytest

from tests.unit.core_support import EPOCH, ME, NOON, Bench, Person, people
from zmesh.core import wire
from zmesh.core.actions import Deliver, Dial, Resolved, Send, Verify
from zmesh.core.bounds import MAX_PAYLOAD, Bounds
from zmesh.core.envelope import Envelope
from zmesh.core.errors import PayloadError
from zmesh.core.events import LinkClosed, Receipt, RemovePeer, SendDirect, SendRefused, Stop
from zmesh.core.types import AckStatus, DropReason, Fault, MessageType, SendResult

ALICE, BOB, CAROL = people(3)
DELTA = MessageType.MODEL_DELTA_TRANSFER
CODE = wire.KIND_CODES[DELTA]


def bench(**bounds: Any) -> Bench:
    made = Bench([ALICE, BOB], bounds=Bounds(**bounds))
    made.advance(0.0)
    made.connect(ALICE, BOB)
    return made


def send(made: Bench, timeout: float = 10.0, token: int = 7) -> Envelope:
    made.handle(SendDirect(ALICE.public, DELTA, {"round_id": "r"}, timeout, token))
    return sent(made)[-1]


def sent(made: Bench) -> list[Envelope]:
    """Every copy that left for Alice."""
    return [envelope for key, envelope in made.envelopes(CODE) if key == ALICE.public]


def tick(made: Bench, seconds: float) -> None:
    """Time passes in steps that keep the links alive."""
    while seconds > 0:
        made.advance(min(5.0, seconds))
        seconds -= 5.0
        for person in (ALICE, BOB):
            if person.public in made.live:
                made.control(person, wire.DIGEST)


# ---------------------------------------------------------------- the sender


def test_a_direct_message_names_its_recipient_and_takes_no_hops() -> None:
    made = bench()
    message = send(made)

    assert (message.recipient, message.ttl, message.code, message.author) == (ALICE.public, 0, CODE, ME.public)
    assert made.sends(wire.ENVELOPE) == [(ALICE.public, message.frames(0, 0))]
    assert made.of(Send)[0].gossip is False


def test_an_acknowledgement_by_the_recipient_delivers() -> None:
    made = bench()
    message = send(made)
    assert made.engine.direct_pending == 1
    made.hear(ALICE, ALICE.ack(ME.public, message))

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.DELIVERED)]
    made.fresh()
    tick(made, 20.0)
    assert (sent(made), made.of(Resolved)) == ([], [])


def test_the_body_of_what_is_settled_is_let_go_of_long_before_its_deadline() -> None:
    made = bench()
    made.handle(SendDirect(ALICE.public, DELTA, {"round_id": "r", "pad": bytes(MAX_PAYLOAD // 2)}, 110.0, 7))
    body = made.sends(wire.ENVELOPE)[-1][1][1]
    made.hear(ALICE, ALICE.ack(ME.public, sent(made)[-1]))
    made.fresh()

    held_here_alone = bytes(len(body))
    assert sys.getrefcount(body) == sys.getrefcount(held_here_alone)
    tick(made, 115.0)
    assert (sent(made), made.of(Resolved)) == ([], [])


def test_without_an_answer_the_same_message_is_sent_again_ever_more_slowly() -> None:
    made = bench()
    message = send(made, timeout=60.0)
    times = [made.now.mono]
    while made.now.mono < NOON.mono + 40.0:
        count = len(sent(made))
        tick(made, 0.05)
        times += [made.now.mono] * (len(sent(made)) - count)

    assert {again.id for again in sent(made)} == {message.id}
    for attempt, (before, after) in enumerate(itertools.pairwise(times)):
        usual = min(5.0, 0.25 * 2**attempt)
        assert 0.75 * usual - 0.06 <= after - before <= 1.25 * usual + 0.06


def test_silence_ends_in_a_timeout() -> None:
    made = bench()
    message = send(made, timeout=3.0)
    made.fresh()
    tick(made, 2.9)
    assert made.of(Resolved) == []
    tick(made, 0.2)

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.TIMEOUT)]


def test_what_never_left_was_unreachable() -> None:
    made = Bench([ALICE])
    made.handle(SendDirect(ALICE.public, DELTA, {}, 3.0, 7))
    made.advance(3.0)

    assert [outcome.result for outcome in made.of(Resolved)] == [SendResult.UNREACHABLE]
    assert sent(made) == []


def test_an_unlinked_recipient_is_dialled_and_the_message_waits() -> None:
    made = Bench([ALICE])
    made.handle(SendDirect(ALICE.public, DELTA, {}, 30.0, 7))
    made.advance(0.0)
    assert [dial.key for dial in made.of(Dial)] == [ALICE.public]
    tick(made, 5.0)
    assert sent(made) == []
    made.greet(ALICE)

    assert len(sent(made)) == 1


def test_busy_is_back_pressure_in_the_end_and_another_chance_before() -> None:
    made = bench()
    message = send(made, timeout=3.0)
    made.hear(ALICE, ALICE.ack(ME.public, message, AckStatus.BUSY))
    assert made.of(Resolved) == []
    made.fresh()
    made.advance(0.4)
    assert [again.id for again in sent(made)] == [message.id]
    made.hear(ALICE, ALICE.ack(ME.public, message, AckStatus.QUEUED))

    assert [outcome.result for outcome in made.of(Resolved)] == [SendResult.DELIVERED]


def test_a_recipient_that_stays_busy_is_told_as_back_pressure() -> None:
    made = bench()
    message = send(made, timeout=1.0)
    for _ in range(21):
        made.hear(ALICE, ALICE.ack(ME.public, message, AckStatus.BUSY))
        made.advance(0.05)

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.BACKPRESSURE)]


def test_an_own_queue_that_stays_full_is_back_pressure_too() -> None:
    made = bench()
    message = send(made, timeout=0.2)
    made.handle(SendRefused(ALICE.public, message.id))
    made.advance(0.2)

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.BACKPRESSURE)]


def test_rejected_by_the_recipient_is_final() -> None:
    made = bench()
    message = send(made)
    made.hear(ALICE, ALICE.ack(ME.public, message, AckStatus.REJECTED))

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.REJECTED)]


@pytest.mark.parametrize("status, skew", [(AckStatus.STALE, -130_000), (AckStatus.FUTURE, 60_000)])
def test_a_clock_that_is_off_is_told_with_how_far(status: AckStatus, skew: int) -> None:
    made = bench()
    message = send(made)
    made.hear(ALICE, ALICE.ack(ME.public, message, status, skew_ms=skew))

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.REJECTED, skew)]


def test_an_acknowledgement_by_anybody_else_is_no_answer() -> None:
    made = bench()
    message = send(made)
    made.hear(BOB, BOB.ack(ME.public, message))
    made.hear(ALICE, ALICE.ack(ME.public, BOB.says()))

    assert (made.of(Resolved), made.of(Verify)) == ([], [])
    assert made.drops() == [DropReason.UNASKED_ACK] * 2


def test_an_acknowledgement_with_a_junk_signature_is_the_links_fault() -> None:
    made = bench()
    message = send(made)
    ack = ALICE.ack(ME.public, message)
    made.receive(ALICE, (b"\x01\x00\x00", ack.body, bytes(64)))

    assert made.of(Resolved) == []
    assert (made.drops(), made.offences()) == (
        [DropReason.BAD_SIGNATURE],
        [(ALICE.public, Fault.RELAYED_FORGERY)],
    )


@pytest.mark.parametrize("content", [{}, {"status": 99}, {"status": True}, {"status": "0"}, {"status": -1}])
def test_an_answer_that_says_nothing_we_know_changes_nothing(content: dict[str, Any]) -> None:
    made = bench()
    message = send(made)
    made.hear(ALICE, ALICE.tells(ME.public, kind=wire.ACK_CODE, correlation=message.id, content=content))

    assert (made.of(Resolved), made.drops(), made.offences()) == ([], [DropReason.BAD_PAYLOAD], [])


def test_each_attempt_is_worth_the_verification_of_one_answer() -> None:
    made = bench()
    message = send(made)
    made.fresh()
    for _ in range(50):
        made.hear(ALICE, ALICE.ack(ME.public, message, AckStatus.BUSY))
    assert (len(made.of(Verify)), made.drops()) == (1, [DropReason.UNASKED_ACK] * 49)

    made.advance(0.5)
    made.hear(ALICE, ALICE.ack(ME.public, message))
    assert [outcome.result for outcome in made.of(Resolved)] == [SendResult.DELIVERED]


def test_a_second_answer_is_no_second_outcome() -> None:
    made = bench()
    message = send(made)
    made.inline = False
    made.hear(ALICE, ALICE.ack(ME.public, message))
    made.advance(0.5)
    made.hear(ALICE, ALICE.ack(ME.public, message, AckStatus.REJECTED))
    made.verified()
    made.verified()

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.DELIVERED)]


def test_strangers_are_unreachable_and_so_are_those_who_are_removed() -> None:
    made = bench()
    made.handle(SendDirect(Person(99).public, DELTA, {}, 3.0, 1))
    message = send(made)
    made.handle(RemovePeer(ALICE.public))
    made.roster([BOB])

    assert made.of(Resolved) == [
        Resolved(1, b"", SendResult.UNREACHABLE),
        Resolved(7, message.id, SendResult.UNREACHABLE),
    ]


def test_too_many_under_way_is_back_pressure_at_once() -> None:
    made = bench(direct_pending=2)
    for token in range(3):
        made.handle(SendDirect(ALICE.public, DELTA, {}, 3.0, token))

    assert made.of(Resolved) == [Resolved(2, b"", SendResult.BACKPRESSURE)]


def test_a_payload_that_is_too_large_or_cannot_travel_never_leaves() -> None:
    made = bench()
    made.handle(SendDirect(ALICE.public, DELTA, {"pad": bytes(MAX_PAYLOAD)}, 3.0, 1))
    assert made.of(Resolved) == [Resolved(1, b"", SendResult.TOO_LARGE)]
    with pytest.raises(PayloadError, match="msgpack cannot carry"):
        made.handle(SendDirect(ALICE.public, DELTA, {"what": object()}, 3.0, 2))
    assert made.sends() == []


def test_no_send_outlives_what_a_recipient_would_take() -> None:
    made = bench()
    send(made, timeout=10_000.0)
    tick(made, 115.0)

    assert [outcome.result for outcome in made.of(Resolved)] == [SendResult.TIMEOUT]


def test_stopping_answers_every_caller() -> None:
    made = bench()
    message = send(made)
    made.handle(Stop())

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.TIMEOUT)]


def test_what_waited_for_a_lost_link_is_sent_when_it_is_back() -> None:
    made = bench()
    message = send(made, timeout=60.0)
    made.handle(LinkClosed(ALICE.public, "lost"))
    made.fresh()
    tick(made, 20.0)
    assert sent(made) == []
    made.greet(ALICE)

    assert [again.id for again in sent(made)] == [message.id]


# ---------------------------------------------------------------- the recipient


def test_a_message_that_was_queued_is_acknowledged_once_the_queue_has_it() -> None:
    made = bench()
    message = ALICE.tells(ME.public, content={"n": 1})
    made.hear(ALICE, message)

    (deliver,) = made.of(Deliver)
    assert (deliver.sender, deliver.payload, deliver.receipt) == (ALICE.member, {"n": 1}, True)
    assert made.acks() == [(ALICE.public, message.id, {"status": 0})]


def test_a_repetition_is_answered_with_the_same_bytes_and_handed_over_once() -> None:
    made = bench()
    message = ALICE.tells(ME.public)
    made.hear(ALICE, message)
    first = made.sends(wire.ENVELOPE)
    made.hear(ALICE, message)
    made.hear(ALICE, message)

    assert made.sends(wire.ENVELOPE) == first * 3
    assert (len(made.of(Deliver)), len(made.of(Verify))) == (1, 1)
    assert made.drops() == [DropReason.DUPLICATE] * 2


def test_a_repetition_while_the_queue_is_asked_is_not_answered_yet() -> None:
    made = bench()
    made.inline = False
    message = ALICE.tells(ME.public)
    made.hear(ALICE, message)
    for action in made.engine.handle(_ok(made), made.now):
        made.actions.append(action)
    made.hear(ALICE, message)
    assert (made.acks(), made.drops()) == ([], [DropReason.DUPLICATE])

    made.handle(Receipt(message.id, message.author, True))
    assert made.acks() == [(ALICE.public, message.id, {"status": 0})]


def _ok(made: Bench) -> Any:
    from zmesh.core.events import Verified

    return Verified(made.unverified.pop().message_id, True)


def test_a_full_queue_is_busy_and_the_repetition_is_a_new_chance() -> None:
    made = bench()
    room = iter([False, True])
    made.queues = lambda message: next(room)
    message = ALICE.tells(ME.public)
    made.hear(ALICE, message)
    made.hear(ALICE, message)

    assert [content["status"] for _, _, content in made.acks()] == [AckStatus.BUSY, AckStatus.QUEUED]
    assert made.drops() == [DropReason.APPLICATION_BUSY]


def test_a_repetition_is_answered_to_its_author_only() -> None:
    made = bench()
    message = ALICE.tells(ME.public)
    made.hear(ALICE, message)
    made.fresh()
    made.hear(BOB, message)

    assert made.sends() == []
    assert made.offences() == [(BOB.public, Fault.MISROUTED_DIRECT)]


def test_what_was_sent_before_the_recipient_started_is_taken() -> None:
    made = bench()
    message = ALICE.tells(ME.public, timestamp_ms=NOON.wall_ms - 60_000)
    made.hear(ALICE, message)

    assert made.acks() == [(ALICE.public, message.id, {"status": AckStatus.QUEUED})]


def test_a_rejected_message_that_is_repeated_is_answered_again_and_judged_once() -> None:
    made = bench()
    message = ALICE.tells(ME.public, payload=b"\xc0")
    made.hear(ALICE, message)
    made.hear(ALICE, message)

    rejected = (ALICE.public, message.id, {"status": AckStatus.REJECTED})
    assert made.acks() == [rejected, rejected]
    assert made.drops() == [DropReason.BAD_PAYLOAD, DropReason.DUPLICATE]


@pytest.mark.parametrize(
    "fields, status, skew",
    [
        ({"timestamp_ms": NOON.wall_ms - 121_000}, AckStatus.STALE, -121_000),
        ({"timestamp_ms": NOON.wall_ms + 11_000}, AckStatus.FUTURE, 11_000),
        ({"epoch": int(NOON.wall) + 60}, AckStatus.FUTURE, 0),
        ({"expiry_ms": NOON.wall_ms - 1}, AckStatus.STALE, 0),
    ],
)
def test_a_message_out_of_time_is_refused_with_the_skew(fields: dict[str, int], status: AckStatus, skew: int) -> None:
    made = bench()
    message = ALICE.tells(ME.public, **fields)
    made.hear(ALICE, message)

    assert made.acks() == [(ALICE.public, message.id, {"status": status, "skew_ms": skew})]
    assert (made.of(Deliver), made.of(Verify), made.offences()) == ([], [], [])


def test_refusals_without_a_verification_cost_no_more_signatures_than_a_rate_allows() -> None:
    made = bench(direct_rate=0.001, direct_burst=3.0)
    for _ in range(20):
        made.hear(ALICE, ALICE.tells(ME.public, timestamp_ms=0))

    assert len(made.acks()) == 3
    assert made.drops() == [DropReason.STALE] * 20


def test_over_its_rate_an_account_is_told_busy() -> None:
    made = bench(direct_rate=0.001, direct_burst=2.0)
    for _ in range(3):
        made.hear(ALICE, ALICE.tells(ME.public))
    made.hear(BOB, BOB.tells(ME.public))

    assert [(key, content["status"]) for key, _, content in made.acks()] == [
        (ALICE.public, AckStatus.QUEUED),
        (ALICE.public, AckStatus.QUEUED),
        (ALICE.public, AckStatus.BUSY),
        (BOB.public, AckStatus.QUEUED),
    ]
    assert made.drops() == [DropReason.AUTHOR_RATE]


def test_what_could_not_be_remembered_is_not_taken() -> None:
    made = bench(direct_acks=2, direct_acks_reserved=0)
    for person in (ALICE, BOB, ALICE):
        made.hear(person, person.tells(ME.public))
    assert [content["status"] for _, _, content in made.acks()] == [AckStatus.QUEUED] * 2 + [AckStatus.BUSY]

    tick(made, 131.0)
    made.fresh()
    made.hear(BOB, BOB.tells(ME.public, timestamp_ms=made.now.wall_ms))
    assert [content["status"] for _, _, content in made.acks()] == [AckStatus.QUEUED]


def test_of_the_memory_of_acknowledgements_the_last_half_is_shared_evenly() -> None:
    made = Bench([ALICE, BOB, CAROL], bounds=Bounds(direct_acks=12, direct_acks_reserved=1))
    made.connect(ALICE, BOB, CAROL)
    taken = {}
    for person in (ALICE, BOB, CAROL):
        made.fresh()
        for _ in range(12):
            made.hear(person, person.tells(ME.public))
        taken[person.public] = [content["status"] for _, _, content in made.acks()].count(AckStatus.QUEUED)

    assert taken == {ALICE.public: 6, BOB.public: 3, CAROL.public: 2}


def test_one_who_fills_the_memory_of_acknowledgements_leaves_the_others_their_reserve() -> None:
    made = bench(direct_acks=2, direct_acks_reserved=2)
    for person in (ALICE, BOB):
        for _ in range(5):
            made.hear(person, person.tells(ME.public))

    taken = [key for key, _, content in made.acks() if content["status"] == AckStatus.QUEUED]
    assert taken == [ALICE.public] * 2 + [BOB.public] * 2

    tick(made, 131.0)
    made.fresh()
    made.hear(ALICE, ALICE.tells(ME.public, timestamp_ms=made.now.wall_ms))
    assert [content["status"] for _, _, content in made.acks()] == [AckStatus.QUEUED]


def test_the_direct_rate_and_the_gossip_rate_are_two_things() -> None:
    made = bench(direct_rate=0.001, direct_burst=1.0, author_rate=0.001, author_burst=1.0)
    made.hear(ALICE, ALICE.says())
    made.hear(ALICE, ALICE.tells(ME.public))

    assert (len(made.of(Deliver)), made.drops()) == (2, [])


def test_nothing_is_acknowledged_before_its_signature_is_good() -> None:
    made = bench()
    message = ALICE.tells(ME.public)
    made.receive(ALICE, (b"\x01\x00\x00", message.body, bytes(64)))

    assert (made.acks(), made.of(Deliver)) == ([], [])
    assert made.offences() == [(ALICE.public, Fault.RELAYED_FORGERY)]


def test_a_malformed_payload_is_rejected_with_an_answer() -> None:
    made = bench()
    message = ALICE.tells(ME.public, payload=b"\xc0")
    made.hear(ALICE, message)

    assert made.acks() == [(ALICE.public, message.id, {"status": AckStatus.REJECTED})]
    assert made.offences() == [(ALICE.public, Fault.INVALID_MESSAGE)]


def test_an_ignored_author_is_told_rejected() -> None:
    made = Bench([ALICE, BOB])
    made.connect(ALICE, BOB)
    for _ in range(3):
        made.engine.peers.charge(ALICE.member, Fault.MALFORMED, made.now.mono)
    message = ALICE.tells(ME.public)
    made.hear(ALICE, message)

    assert made.acks() == [(ALICE.public, message.id, {"status": AckStatus.REJECTED})]
    assert (made.drops(), made.of(Deliver)) == ([DropReason.LOW_REPUTATION], [])


def test_a_direct_message_is_never_passed_on_nor_offered() -> None:
    made = bench()
    made.hear(ALICE, ALICE.tells(ME.public, ttl=200, epoch=EPOCH), ttl=200)
    made.advance(2.0)

    assert [key for key, _ in made.sends(wire.ENVELOPE)] == [ALICE.public]
    assert (made.sends(wire.IHAVE), len(made.engine.seen)) == ([], 0)
