"""The nine checks: each reason by a minimal frame, the right culprit, the right order, and what passes them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import pytest

from tests.unit.core_support import EPOCH, FLOOD_WAIT, ME, NETWORK, NOON, Bench, Person, opened, short
from zmesh.core import wire
from zmesh.core.actions import Deliver, Dropped, Hangup, Offence, Send, Verify
from zmesh.core.bounds import MAX_BODY, MAX_CONTROL, Bounds
from zmesh.core.envelope import Envelope
from zmesh.core.events import Command, LinkClosed, SendDirect
from zmesh.core.now import Now
from zmesh.core.types import DropReason, Fault, Member, MessageType, SendResult, Verdict

ALICE, BOB, CAROL, STRANGER = Person(2), Person(3), Person(4), Person(9)
JUNK = bytes(64)


class Judge:
    """A handler that says what it was told to say."""

    kinds = frozenset({MessageType.GOSSIP})
    deadline: float | None = None

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.heard: list[Envelope] = []

    def validate(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Verdict:
        return self.verdict

    def objection(self, envelope: Envelope, payload: Mapping[str, Any]) -> str:
        return "it was told so"

    def harm(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any]) -> str:
        return ""

    def received(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Sequence[Command]:
        self.heard.append(envelope)
        return ()

    def wake(self, now: Now) -> Sequence[Command]:
        return ()


def bench(verdict: Verdict | None = None, *, linked: Sequence[Person] = (ALICE, BOB), **bounds: Any) -> Bench:
    """A node with three fellow members, linked with two of them."""
    handlers = [] if verdict is None else [Judge(verdict)]
    made = Bench([ALICE, BOB, CAROL], bounds=Bounds(**bounds), handlers=handlers)
    made.connect(*linked)
    return made


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


def low_reputation() -> Bench:
    made = bench()
    for _ in range(3):
        made.engine.peers.charge(CAROL.member, Fault.MALFORMED, NOON.mono)
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


def signed_by_nobody(message: Envelope) -> Envelope:
    return Envelope(message.id, message.body, JUNK, wire.decode_body(message.body))


def aged(seconds: float) -> Callable[[], Envelope]:
    return lambda: CAROL.says(timestamp_ms=NOON.wall_ms - int(seconds * 1000))


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
    DropReason.IGNORED_BY_VALIDATOR: Case(judged(Verdict.IGNORE)),
    DropReason.REJECTED_BY_VALIDATOR: Case(judged(Verdict.REJECT), CAROL, Fault.INVALID_MESSAGE),
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
    # A broken offer takes time: see test_core_gossip.py.
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


# ---------------------------------------------------------------- what passes


def test_a_good_message_is_relayed_and_delivered() -> None:
    made = bench()
    message = CAROL.says(content={"hello": "mesh"})
    verify, deliver = made.hear(ALICE, message, ttl=3, hops=2)
    (relay,) = [action for action in made.advance(FLOOD_WAIT) if isinstance(action, Send)]

    assert isinstance(verify, Verify)
    assert (verify.key, verify.data, verify.signature) == (
        CAROL.public,
        b"zmesh/1 envelope:" + message.id,
        message.signature,
    )
    assert relay == Send((BOB.public,), (b"\x01\x02\x03", message.body, message.signature), message.id, True)
    assert isinstance(deliver, Deliver)
    assert (deliver.envelope.id, deliver.sender, deliver.payload, deliver.receipt) == (
        message.id,
        CAROL.member,
        {"hello": "mesh"},
        False,
    )
    assert (made.drops(), made.offences()) == ([], [])
    assert made.engine.peers.last_heard(CAROL.public) == NOON.mono


def test_who_wrote_it_is_the_signer_and_never_the_link() -> None:
    made = bench()
    made.hear(ALICE, CAROL.says(content={"sender": "peer-3"}))

    assert [deliver.sender for deliver in made.of(Deliver)] == [CAROL.member]


def test_a_message_of_an_unknown_kind_is_relayed_and_not_delivered() -> None:
    made = bench()
    message = CAROL.says(kind=200, payload=b"whatever it is")
    made.hear(ALICE, message)
    made.advance(FLOOD_WAIT)

    assert [(key, frames[1]) for key, frames in made.sends(wire.ENVELOPE)] == [(BOB.public, message.body)]
    assert (made.drops(), made.offences(), made.of(Deliver)) == ([DropReason.UNKNOWN_KIND], [], [])


@pytest.mark.parametrize(
    "verdict, delivered, heard_by_handler, relayed",
    [
        (Verdict.ACCEPT, 1, 1, 1),
        (Verdict.RELAY, 0, 1, 1),
        (Verdict.IGNORE, 0, 0, 0),
        (Verdict.REJECT, 0, 0, 0),
    ],
)
def test_a_verdict_decides_who_gets_it(verdict: Verdict, delivered: int, heard_by_handler: int, relayed: int) -> None:
    judge = Judge(verdict)
    made = Bench([ALICE, BOB, CAROL], handlers=[judge])
    made.connect(ALICE, BOB)
    message = CAROL.says()
    made.hear(ALICE, message)
    made.advance(FLOOD_WAIT)

    assert (len(made.of(Deliver)), len(judge.heard), len(made.sends(wire.ENVELOPE))) == (
        delivered,
        heard_by_handler,
        relayed,
    )
    made.fresh()
    made.hear(BOB, message)
    assert made.drops() == [DropReason.DUPLICATE], "whatever the verdict, it is not asked twice"


# ---------------------------------------------------------------- while a signature is out


def parked() -> tuple[Bench, Envelope]:
    """A junk copy by Alice is being verified, a good one by Bob waits."""
    made = bench()
    made.inline = False
    message = CAROL.says()
    made.hear(ALICE, signed_by_nobody(message))
    made.hear(BOB, message)
    assert (len(made.unverified), made.drops()) == (1, [])
    return made, message


def test_a_junk_copy_sent_first_does_not_suppress_the_good_one() -> None:
    made, message = parked()
    made.verified()
    assert (made.drops(), made.offences()) == (
        [DropReason.BAD_SIGNATURE],
        [(ALICE.public, Fault.RELAYED_FORGERY)],
    )
    made.verified()

    assert [deliver.envelope.id for deliver in made.of(Deliver)] == [message.id]
    assert made.offences() == [(ALICE.public, Fault.RELAYED_FORGERY)]


def test_an_identical_junk_signature_is_verified_once_and_all_who_passed_it_on_are_to_blame() -> None:
    made = bench()
    made.inline = False
    message = signed_by_nobody(CAROL.says())
    made.hear(ALICE, message)
    made.hear(BOB, message)
    made.verified()

    assert made.unverified == []
    assert made.drops() == [DropReason.BAD_SIGNATURE] * 2
    assert made.offences() == [(ALICE.public, Fault.RELAYED_FORGERY), (BOB.public, Fault.RELAYED_FORGERY)]


def test_copies_that_wait_are_bounded_in_all_and_one_for_each_link() -> None:
    fellows = [Person(number) for number in range(10, 17)]
    made = Bench([CAROL, *fellows])
    made.connect(*fellows)
    made.inline = False
    message = CAROL.says()
    for fellow in fellows:
        made.hear(fellow, message)
    made.hear(fellows[1], message)

    assert made.drops() == [DropReason.DUPLICATE] * 3, "one is out, four wait, two are too many, one came twice"
    made.verified()
    assert (made.drops(), len(made.of(Deliver))) == ([DropReason.DUPLICATE] * 7, 1)


def test_when_a_link_leaves_the_members_meanwhile_the_next_copy_takes_its_place() -> None:
    made = bench()
    made.inline = False
    message = CAROL.says()
    made.hear(ALICE, message)
    made.hear(BOB, message)
    made.roster([BOB, CAROL])
    made.fresh()
    made.verified()
    made.verified()

    assert made.drops() == [DropReason.NOT_ADMITTED]
    assert [deliver.envelope.id for deliver in made.of(Deliver)] == [message.id]


def test_a_link_that_closed_meanwhile_still_brought_its_message() -> None:
    made = bench()
    made.inline = False
    made.hear(ALICE, CAROL.says())
    made.handle(LinkClosed(ALICE.public, "gone"))
    made.verified()

    assert (made.drops(), len(made.of(Deliver))) == ([], 1)


def test_admission_and_time_are_checked_again_when_the_signature_comes_back() -> None:
    removed = bench()
    removed.inline = False
    removed.hear(ALICE, CAROL.says())
    removed.roster([ALICE, BOB])
    removed.verified()
    assert (removed.drops(), removed.of(Deliver)) == ([DropReason.UNKNOWN_AUTHOR], [])

    slow = bench()
    slow.inline = False
    slow.hear(ALICE, CAROL.says(expiry_ms=NOON.wall_ms + 1000))
    slow.advance(1.5)
    slow.verified()
    assert (slow.drops(), slow.of(Deliver)) == ([DropReason.EXPIRED], [])


def test_a_forger_cannot_spend_the_rate_of_the_author_whose_name_it_uses() -> None:
    made = bench(author_rate=0.001, author_burst=1.0)
    for _ in range(3):
        made.hear(ALICE, signed_by_nobody(CAROL.says()))
    made.hear(BOB, CAROL.says())

    assert made.drops() == [DropReason.BAD_SIGNATURE] * 3
    assert len(made.of(Deliver)) == 1


# ---------------------------------------------------------------- the life of authors


def test_messages_of_the_life_before_are_taken_for_130_seconds() -> None:
    made = bench()
    made.hear(ALICE, CAROL.says(epoch=EPOCH + 5))
    made.hear(ALICE, CAROL.says(epoch=EPOCH))
    made.advance(129.0)
    made.greet(ALICE)
    made.hear(ALICE, CAROL.says(epoch=EPOCH, timestamp_ms=made.now.wall_ms))

    assert len(made.of(Deliver)) == 3


def test_a_hello_by_a_clock_far_ahead_does_not_lock_its_author_out_later() -> None:
    made = bench()
    made.advance(1.0)
    made.hear(ALICE, ALICE.hello(ME.public, epoch=EPOCH + 10**6))
    made.advance(131.0)
    made.greet(ALICE)
    made.fresh()
    made.hear(ALICE, ALICE.says(timestamp_ms=made.now.wall_ms))

    assert (made.drops(), len(made.of(Deliver))) == ([], 1)


def test_what_is_older_than_our_start_is_taken_when_it_was_asked_for() -> None:
    made = bench()
    old = aged(60.0)()
    made.control(ALICE, wire.IHAVE, short(old))
    assert made.ids(wire.IWANT) == [(ALICE.public, [short(old)])]

    made.hear(BOB, old)
    assert made.drops() == [DropReason.BEFORE_START], "a push of it proves nothing"
    made.hear(ALICE, old)
    assert [deliver.envelope.id for deliver in made.of(Deliver)] == [old.id]


def test_a_member_removed_is_a_stranger_at_once() -> None:
    made = bench()
    made.roster([ALICE, BOB])
    made.hear(ALICE, CAROL.says())
    made.roster([BOB])
    made.hear(ALICE, BOB.says())

    assert made.drops() == [DropReason.UNKNOWN_AUTHOR, DropReason.NOT_ADMITTED]
    assert Hangup(ALICE.public, "no longer a member") in made.actions


# ---------------------------------------------------------------- reputation


def test_who_is_ignored_is_still_relayed_and_counts_as_alive() -> None:
    made = low_reputation()
    made.advance(FLOOD_WAIT)

    assert [key for key, _ in made.sends(wire.ENVELOPE)] == [BOB.public]
    assert made.engine.peers.last_heard(CAROL.public) == NOON.mono


def test_five_grave_faults_cut_the_link() -> None:
    made = bench()
    for _ in range(5):
        actions = made.receive(ALICE, (b"\x01",))
        assert (Hangup(ALICE.public, "its reputation is too low") in actions) == (len(made.of(Offence)) == 5)

    assert [offence.reputation for offence in made.of(Offence)] == [80.0, 60.0, 40.0, 20.0, 0.0]
    assert made.live == (BOB.public,)


def test_a_direct_of_an_unknown_kind_is_refused_with_an_answer() -> None:
    made = bench()
    message = ALICE.tells(ME.public, kind=99 + 50)
    made.hear(ALICE, message)

    assert made.drops() == [DropReason.UNKNOWN_KIND]
    assert made.acks() == [(ALICE.public, message.id, {"status": 1})]


def test_local_misuse_is_an_answer_and_no_drop() -> None:
    made = bench()
    made.handle(SendDirect(STRANGER.public, MessageType.GOSSIP, {}, token=5))

    (resolved,) = [action for action in made.actions if not isinstance(action, Send)]
    assert getattr(resolved, "result", None) is SendResult.UNREACHABLE
    assert sum(made.engine.drops.values()) == 0
