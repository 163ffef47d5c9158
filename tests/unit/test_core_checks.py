"""The nine checks: each reason by a minimal frame, the right culprit, and the right order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest

from tests.unit.checks_support import ALICE, BOB, CAROL, JUNK, STRANGER, aged, bench, low_reputation, signed_by_nobody
from tests.unit.core_support import EPOCH, FLOOD_WAIT, ME, NETWORK, NOON, Bench, Person, opened
from zmesh.core import wire
from zmesh.core.actions import Deliver, Dropped, Hangup, Offence, Verify
from zmesh.core.bounds import MAX_BODY, MAX_CONTROL
from zmesh.core.envelope import Envelope
from zmesh.core.types import DropReason, Fault, Verdict


@dataclass
class Case:
    """How to earn a reason: what to do, and who is to blame."""

    play: Callable[[], Bench]
    culprit: Person | None = None
    fault: Fault | None = None


def heard(message: Callable[[], Envelope], via: Person = ALICE, **bounds: Any) -> Callable[[], Bench]:
    """One message over one link."""

    def play() -> Bench:
        made = bench(**bounds)
        made.hear(via, message())
        return made

    return play


def received(*frames: bytes) -> Callable[[], Bench]:
    """Bare frames from Alice."""

    def play() -> Bench:
        made = bench()
        made.receive(ALICE, frames)
        return made

    return play


def judged(verdict: Verdict) -> Callable[[], Bench]:
    """Carol's message, brought by Alice, under this verdict."""

    def play() -> Bench:
        made = bench(verdict)
        made.hear(ALICE, CAROL.says())
        return made

    return play


def rate() -> Bench:
    made = bench(linked=(ALICE,), link_rate=0.001, link_burst=2.0)  # the HELLO was the first
    made.control(ALICE, wire.DIGEST)
    made.control(ALICE, wire.DIGEST)
    return made


def not_admitted() -> Bench:
    made = bench()
    made.hear(STRANGER, CAROL.says())
    return made


def duplicate() -> Bench:
    made = bench()
    message = CAROL.says()
    made.hear(ALICE, message)
    made.fresh()
    made.hear(BOB, message)
    return made


def old_epoch() -> Bench:
    made = bench()
    made.hear(ALICE, CAROL.says(epoch=EPOCH + 5))
    made.advance(131.0)
    made.greet(BOB)
    made.fresh()
    made.hear(BOB, CAROL.says(epoch=EPOCH, timestamp_ms=made.now.wall_ms))
    return made


def below_low_water() -> Bench:
    made = bench(author_ids=1)
    for sequence in (7, 8):
        made.hear(ALICE, CAROL.says(sequence=sequence))
    made.fresh()
    made.hear(ALICE, CAROL.says(sequence=7, content={"another": 7}))
    return made


def author_rate() -> Bench:
    made = bench(author_rate=0.001, author_burst=1.0)
    made.hear(ALICE, CAROL.says())
    made.fresh()
    made.hear(ALICE, CAROL.says())
    return made


def verify_backlog() -> Bench:
    made = bench(verifying=1)
    made.inline = False
    made.hear(ALICE, CAROL.says())
    made.hear(ALICE, CAROL.says())
    return made


def application_busy() -> Bench:
    made = bench()
    made.queues = lambda message: False
    made.hear(ALICE, ALICE.tells(ME.public))
    return made


def want_budget() -> Bench:
    made = bench(want_bytes_burst=10)
    message = CAROL.says()
    made.hear(BOB, message)
    made.fresh()
    made.control(ALICE, wire.LIST, wire.encode_slots([message.slot]))
    return made


def offer_overflow() -> Bench:
    made = bench(offers_per_link=1)
    made.control(ALICE, wire.IHAVE, bytes(16) + bytes([1] * 16))
    return made


def inflated() -> Bench:
    made = bench()
    made.hear(ALICE, CAROL.says(ttl=5), ttl=6)
    return made


CASES: dict[DropReason, Case] = {
    DropReason.OVERSIZE: Case(received(b"\x01\x05\x00", bytes(MAX_BODY + 1), JUNK), ALICE, Fault.MALFORMED),
    DropReason.RATE: Case(rate),
    DropReason.NOT_ADMITTED: Case(not_admitted),
    DropReason.MALFORMED: Case(received(b"\x01\x05\x00", b"\xc0", JUNK), ALICE, Fault.MALFORMED),
    DropReason.UNKNOWN_VERSION: Case(heard(lambda: CAROL.says(version=2))),
    DropReason.UNKNOWN_FRAME: Case(received(bytes([wire.BATCH]), b"of later")),
    DropReason.WRONG_NETWORK: Case(heard(lambda: CAROL.says(network=wire.network_id("another")))),
    DropReason.DUPLICATE: Case(duplicate),
    DropReason.OWN_ECHO: Case(heard(ME.says)),
    DropReason.UNKNOWN_AUTHOR: Case(heard(STRANGER.says)),
    DropReason.WRONG_RECIPIENT: Case(heard(lambda: ALICE.tells(BOB.public)), ALICE, Fault.MISROUTED_DIRECT),
    DropReason.NOT_FROM_AUTHOR: Case(heard(lambda: CAROL.tells(ME.public)), ALICE, Fault.MISROUTED_DIRECT),
    DropReason.STALE: Case(heard(aged(120.001))),
    DropReason.FUTURE: Case(heard(aged(-10.001))),
    DropReason.EXPIRED: Case(heard(lambda: CAROL.says(expiry_ms=NOON.wall_ms - 1))),
    DropReason.BEFORE_START: Case(heard(aged(10.001))),
    DropReason.OLD_EPOCH: Case(old_epoch),
    DropReason.BELOW_LOW_WATER: Case(below_low_water),
    DropReason.TTL_INFLATED: Case(inflated, ALICE, Fault.TTL_INFLATED),
    DropReason.AUTHOR_RATE: Case(author_rate),
    DropReason.VERIFY_BACKLOG: Case(verify_backlog),
    DropReason.BAD_SIGNATURE: Case(heard(lambda: signed_by_nobody(CAROL.says())), ALICE, Fault.RELAYED_FORGERY),
    DropReason.UNKNOWN_KIND: Case(heard(lambda: CAROL.says(kind=12))),
    DropReason.BAD_PAYLOAD: Case(heard(lambda: CAROL.says(payload=b"\xc0")), CAROL, Fault.INVALID_MESSAGE),
    DropReason.IGNORED: Case(judged(Verdict.IGNORE)),
    DropReason.REJECTED: Case(judged(Verdict.REJECT), CAROL, Fault.INVALID_MESSAGE),
    DropReason.RELAYED_ONLY: Case(judged(Verdict.RELAY)),
    DropReason.LOW_REPUTATION: Case(low_reputation),
    DropReason.APPLICATION_BUSY: Case(application_busy),
    DropReason.UNASKED_ACK: Case(heard(lambda: ALICE.ack(ME.public, CAROL.says()))),
    DropReason.UNSOLICITED_WANT: Case(received(bytes([wire.IWANT]), bytes(16))),
    DropReason.WANT_BUDGET: Case(want_budget),
    DropReason.OFFER_OVERFLOW: Case(offer_overflow),
}


@pytest.mark.parametrize("reason", DropReason)
def test_every_reason_is_earned_by_one_frame_and_charged_to_whom_it_belongs(reason: DropReason) -> None:
    case = CASES[reason]
    made = case.play()

    assert made.drops() == [reason]
    assert made.offences() == ([(case.culprit.public, case.fault)] if case.culprit else [])
    assert made.engine.drops[reason] >= 1
    assert all(not isinstance(action, Deliver) or reason is DropReason.APPLICATION_BUSY for action in made.actions)


def test_every_fault_has_somebody_to_commit_it() -> None:
    # A broken offer takes time: see test_core_wants.py.
    assert {case.fault for case in CASES.values() if case.fault} | {Fault.BROKEN_OFFER} == set(Fault)


RELAYED = {DropReason.UNKNOWN_KIND, DropReason.RELAYED_ONLY, DropReason.LOW_REPUTATION, DropReason.OWN_ECHO}


@pytest.mark.parametrize("reason", DropReason)
def test_only_what_others_may_need_is_relayed(reason: DropReason) -> None:
    made = CASES[reason].play()
    made.advance(FLOOD_WAIT)
    ended = {drop.message_id for drop in made.of(Dropped) if drop.reason is reason}
    sent = (opened(frames) for _, frames in made.sends(wire.ENVELOPE))
    relayed = [envelope for envelope in sent if envelope.recipient is None and envelope.id in ended]

    assert bool(relayed) == (reason in RELAYED)


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    "frames",
    [
        (),
        (b"\x01\x05\x00",),
        (b"", b"body", JUNK),
        (b"\x01\x05", b"body", JUNK),
        (b"\x01" * 17, b"body", JUNK),
        (b"\x01\x05\x00", b"body", JUNK[:-1]),
        (b"\x01\x05\x00", b"body"),
        (b"\x01\x05\x00", b"body", JUNK, b""),
        (b"\x02", b""),
        (b"\x02", bytes(15)),
        (b"\x02", bytes(16), b""),
        (b"\x04", bytes(19)),
        (b"\x04", bytes(20) * 2),
        (b"\x05", b""),
        (b"\x05", bytes(7)),
        (b"\x05", bytes(16)),
    ],
)
def test_what_no_honest_peer_sends_is_malformed(frames: tuple[bytes, ...]) -> None:
    made = bench()
    made.receive(ALICE, frames)

    assert made.actions == [
        Dropped(DropReason.MALFORMED, ALICE.public, None),
        Offence(ALICE.public, Fault.MALFORMED, 80.0),
    ]


def test_a_control_frame_beyond_its_bound_is_oversize() -> None:
    made = bench()
    made.control(ALICE, wire.IHAVE, bytes(MAX_CONTROL + 1))

    assert made.drops() == [DropReason.OVERSIZE]
    assert made.offences() == [(ALICE.public, Fault.MALFORMED)]


def test_more_head_and_more_fields_than_we_know_are_ignored() -> None:
    made = bench()
    fields = [*CAROL.body(), "a field", {"of": "later"}]
    body = msgpack.packb(fields)
    signature = CAROL.sign(wire.signing_input(wire.message_id(body)))
    made.receive(ALICE, (b"\x01\x05\x00 and more", body, signature))
    made.advance(FLOOD_WAIT)

    assert [delivered.envelope.body for delivered in made.of(Deliver)] == [body]
    assert [frames for _, frames in made.sends(wire.ENVELOPE)] == [(b"\x01\x04\x01", body, signature)]


@pytest.mark.parametrize("fields", [{"kind": 0}, {"kind": 64}, {"kind": 100}, {"kind": 127}])
def test_a_link_kind_without_recipient_and_kind_0_are_malformed(fields: dict[str, int]) -> None:
    made = bench()
    made.hear(ALICE, CAROL.says(**fields))

    assert (made.drops(), made.offences()) == ([DropReason.MALFORMED], [(ALICE.public, Fault.MALFORMED)])


# ---------------------------------------------------------------- order


def everything_wrong(**right: Any) -> Envelope:
    """Breaks each rule of step 5 and the signature, but for what is ``right``."""
    wrong: dict[str, Any] = {"network": bytes(32), "ttl": 4, "timestamp_ms": 0, "epoch": 2**60, "expiry_ms": 1}
    author = right.pop("author", STRANGER)
    return signed_by_nobody(author.says(**(wrong | right)))


IN_ORDER: list[tuple[DropReason, dict[str, Any]]] = [
    (DropReason.WRONG_NETWORK, {}),
    (DropReason.TTL_INFLATED, {"network": NETWORK}),
    (DropReason.UNKNOWN_AUTHOR, {"ttl": 5}),
    (DropReason.STALE, {"author": CAROL}),
    (DropReason.FUTURE, {"timestamp_ms": NOON.wall_ms - 15_000}),
    (DropReason.EXPIRED, {"epoch": EPOCH}),
    (DropReason.BEFORE_START, {"expiry_ms": None}),
    (DropReason.BAD_SIGNATURE, {"timestamp_ms": NOON.wall_ms}),
]


@pytest.mark.parametrize("step", range(len(IN_ORDER)))
def test_the_first_check_that_fails_is_the_one_that_counts(step: int) -> None:
    right: dict[str, Any] = {}
    for _, fields in IN_ORDER[: step + 1]:
        right |= fields
    made = bench()
    made.hear(ALICE, everything_wrong(**right), ttl=5)

    assert made.drops() == [IN_ORDER[step][0]]
    assert bool(made.of(Verify)) == (IN_ORDER[step][0] is DropReason.BAD_SIGNATURE), "verifying is the dear one"


def test_rate_and_admission_are_asked_before_anything_is_parsed() -> None:
    made = bench(linked=(ALICE,), link_rate=0.001, link_burst=1.0)
    made.receive(ALICE, (b"garbage",))
    made.receive(STRANGER, (b"garbage",))

    assert made.actions == [
        Dropped(DropReason.RATE, ALICE.public, None),
        Dropped(DropReason.NOT_ADMITTED, STRANGER.public, None),
        Hangup(STRANGER.public, "not admitted"),
    ]


def test_a_duplicate_is_known_before_its_signature_is_looked_at() -> None:
    made = bench()
    message = CAROL.says()
    made.hear(ALICE, message)
    made.fresh()
    made.hear(BOB, signed_by_nobody(message))

    assert made.actions == [Dropped(DropReason.DUPLICATE, BOB.public, message.id)]
