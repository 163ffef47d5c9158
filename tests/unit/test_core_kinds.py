"""Which of the nine checks gossip, direct messages, HELLO and ACK pass: the table of PROTOCOL.md, "The nine checks"."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.core_support import ME, NOON, Bench, Person, short
from zmesh.core import wire
from zmesh.core.actions import Deliver, Resolved
from zmesh.core.envelope import Envelope
from zmesh.core.events import SendDirect
from zmesh.core.seen import SETTLED
from zmesh.core.types import DropReason, Fault, MessageType, SendResult

ALICE, BOB = Person(2), Person(3)
LONG_AGO = {"timestamp_ms": NOON.wall_ms - 3_600_000}
TOMORROW = {"timestamp_ms": NOON.wall_ms + 86_400_000, "epoch": int(NOON.wall) + 86_400}
EXPIRED = {"expiry_ms": NOON.wall_ms - 1}


def bench() -> Bench:
    made = Bench([ALICE, BOB])
    made.connect(ALICE, BOB)
    made.advance(0.1)
    made.fresh()
    return made


OUT_OF_TIME = pytest.mark.parametrize(
    "fields, reason, status",
    [
        (LONG_AGO, DropReason.STALE, 3),
        (TOMORROW, DropReason.FUTURE, 4),
        (EXPIRED, DropReason.EXPIRED, 3),
    ],
)


@OUT_OF_TIME
def test_time_is_judged_of_gossip_and_direct_messages(fields: dict[str, int], reason: DropReason, status: int) -> None:
    made = bench()
    made.hear(ALICE, ALICE.says(**fields))
    assert (made.drops(), made.acks(), made.of(Deliver)) == ([reason], [], [])

    made.fresh()
    made.hear(ALICE, ALICE.tells(ME.public, **fields))
    assert (made.drops(), made.of(Deliver)) == ([reason], [])
    assert [answer["status"] for _, _, answer in made.acks()] == [status]


@OUT_OF_TIME
def test_time_is_not_judged_of_hello_and_ack(fields: dict[str, int], reason: DropReason, status: int) -> None:
    made = bench()
    made.hear(ALICE, hello := ALICE.hello(ME.public, **fields))
    assert made.drops() == []
    assert [(key, answer.correlation) for key, answer in made.envelopes(wire.HELLO_CODE)] == [(ALICE.public, hello.id)]

    made.handle(SendDirect(ALICE.public, MessageType.GOSSIP, {"a": 1}, 10.0, 7))
    (message,) = [envelope for _, envelope in made.envelopes(wire.KIND_CODES[MessageType.GOSSIP])]
    answer = {"kind": wire.ACK_CODE, "correlation": message.id, "content": {"status": 0}}
    made.hear(ALICE, ALICE.tells(ME.public, **answer, **fields))
    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.DELIVERED)]
    assert made.drops() == []


@pytest.mark.parametrize("payload", [b"", b"\x90", b"\xc1", b"\x81\xa1v\xa1\xff", b"\x80"])
def test_a_hello_is_answered_whatever_its_payload(payload: bytes) -> None:
    made = bench()
    made.hear(ALICE, hello := ALICE.tells(ME.public, kind=wire.HELLO_CODE, payload=payload))

    assert [(key, answer.correlation) for key, answer in made.envelopes(wire.HELLO_CODE)] == [(ALICE.public, hello.id)]
    assert (made.drops(), made.offences()) == ([], [])


def test_a_hello_that_comes_again_is_no_duplicate() -> None:
    made = bench()
    hello = ALICE.hello(ME.public)
    made.hear(ALICE, hello)
    made.advance(0.1)
    made.hear(ALICE, hello)

    assert [answer.correlation for _, answer in made.envelopes(wire.HELLO_CODE)] == [hello.id, hello.id]
    assert made.drops() == []


def test_a_bad_payload_is_the_authors_fault_but_for_hello_and_ack() -> None:
    made = bench()
    made.hear(ALICE, BOB.says(payload=b"\x90"))
    made.hear(ALICE, ALICE.tells(ME.public, payload=b"\x90"))
    assert made.offences() == [(BOB.public, Fault.INVALID_MESSAGE), (ALICE.public, Fault.INVALID_MESSAGE)]
    assert [answer["status"] for _, _, answer in made.acks()] == [1]

    made.fresh()
    made.handle(SendDirect(ALICE.public, MessageType.GOSSIP, {"a": 1}, 10.0, 7))
    (message,) = [envelope for _, envelope in made.envelopes(wire.KIND_CODES[MessageType.GOSSIP])]
    made.hear(ALICE, ALICE.tells(ME.public, kind=wire.ACK_CODE, correlation=message.id, payload=b"\x90"))
    assert (made.drops(), made.offences(), made.of(Resolved)) == ([DropReason.BAD_PAYLOAD], [], [])


@pytest.mark.parametrize("signed, head", [(0, 0), (5, 0), (5, 5), (0, 9), (255, 255)])
def test_a_direct_message_is_taken_whatever_its_ttl(signed: int, head: int) -> None:
    made = bench()
    message = ALICE.tells(ME.public, ttl=signed, content={"round_id": "r"})
    made.hear(ALICE, message, ttl=head)

    assert [delivered.envelope.id for delivered in made.of(Deliver)] == [message.id]
    assert (made.drops(), made.offences()) == ([], [])
    assert [(key, answer["status"]) for key, _, answer in made.acks()] == [(ALICE.public, 0)]
    assert len(made.sends(wire.ENVELOPE)) == 1, "it is never passed on"


def test_gossip_signed_with_no_hops_is_delivered_offered_and_served_and_never_pushed() -> None:
    made = bench()
    message = ALICE.says(ttl=0)
    made.hear(ALICE, message)
    made.advance(0.5)

    assert [delivered.envelope.id for delivered in made.of(Deliver)] == [message.id]
    assert made.sends(wire.ENVELOPE) == []
    assert made.ids(wire.IHAVE) == [(BOB.public, [short(message)])]
    made.control(BOB, wire.IWANT, wire.encode_ids([short(message)]))
    assert made.sends(wire.ENVELOPE) == [(BOB.public, message.frames(0, 1))]
    assert made.drops() == []


def test_a_sequence_need_not_grow() -> None:
    made = bench()
    for message in (ALICE.says(sequence=9), ALICE.says(sequence=3), ALICE.says(sequence=9, content={"another": 1})):
        made.hear(ALICE, message)

    assert (len(made.of(Deliver)), made.drops()) == (3, [])


def test_a_slot_holds_the_gossip_that_passed_its_signature_and_nothing_else() -> None:
    made = bench()
    refused, unknown, good = ALICE.says(payload=b"\x90"), ALICE.says(kind=200), ALICE.says()
    others: list[Callable[[], Envelope]] = [
        lambda: ALICE.tells(ME.public),
        lambda: ALICE.hello(ME.public),
        lambda: ALICE.says(**LONG_AGO),
    ]
    for message in (refused, unknown, good, *(make() for make in others)):
        made.hear(ALICE, message)
    (entry,) = made.engine.seen.digest(made.now.wall + SETTLED + 1.0)
    ids = sorted(map(short, (refused, unknown, good)))

    assert (entry.slot, entry.held) == (good.slot, 3)
    assert list(made.engine.seen.in_slot(good.slot)) == ids
