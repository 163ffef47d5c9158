"""Direct messages at their recipient: handed over once, and each answered."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core_support import EPOCH, ME, NOON, Bench
from tests.unit.direct_support import ALICE, BOB, CAROL, bench, tick
from zmesh.core import wire
from zmesh.core.actions import Deliver, Verify
from zmesh.core.bounds import Bounds
from zmesh.core.events import Receipt
from zmesh.core.types import AckStatus, DropReason, Fault


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
