"""What passes the nine checks, what happens while a signature is out, and whose messages count."""

from __future__ import annotations

import pytest

from tests.unit.checks_support import ALICE, BOB, CAROL, STRANGER, Judge, aged, bench, low_reputation, signed_by_nobody
from tests.unit.core_support import EPOCH, FLOOD_WAIT, ME, NOON, Bench, Person, short
from zmesh.core import wire
from zmesh.core.actions import Deliver, Hangup, Offence, Send, Verify
from zmesh.core.envelope import Envelope
from zmesh.core.events import LinkClosed, SendDirect
from zmesh.core.types import DropReason, Fault, MessageType, SendResult, Verdict

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


def test_a_hello_of_a_second_process_does_not_end_the_life_of_the_first() -> None:
    """It would not learn of that: a HELLO goes to nobody else. What the second gossips comes to the first."""
    made = bench()
    made.hear(ALICE, ALICE.hello(ME.public, epoch=EPOCH + 5))
    made.advance(131.0)
    made.greet(ALICE)
    made.fresh()
    made.hear(ALICE, ALICE.says(timestamp_ms=made.now.wall_ms))

    assert (made.drops(), len(made.of(Deliver))) == ([], 1)


def test_a_node_that_hears_of_a_later_life_of_its_key_knows_it() -> None:
    made = bench()
    made.hear(ALICE, ME.says(epoch=EPOCH))
    assert not made.engine.is_outlived

    made.hear(ALICE, ME.says(epoch=int(NOON.wall) + 1))
    assert made.engine.is_outlived


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
