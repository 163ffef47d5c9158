"""Links: dialling, greeting, silence, goodbye, and the two directions that open and close by themselves."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core_support import ME, Bench, Person, opened, people
from zmesh.core import wire
from zmesh.core.actions import Admit, Dial, Hangup, LinkDown, LinkLive, Notice, Send, Verify
from zmesh.core.bounds import Bounds
from zmesh.core.events import (
    AddPeer,
    LinkClosed,
    LinkOpened,
    Located,
    RemovePeer,
    RosterChanged,
    SendDirect,
    Stop,
    Verified,
)
from zmesh.core.link import Link, LinkState
from zmesh.core.types import DropReason, Endpoint, Fault, MessageType, Roster

ALICE, BOB = people(2)


def state(bench: Bench, person: Person) -> LinkState:
    return bench.engine.links[person.public].state


def dials(bench: Bench) -> list[bytes]:
    return [dial.key for dial in bench.of(Dial)]


def hellos(bench: Bench) -> list[Any]:
    return [envelope for _, envelope in bench.envelopes(wire.HELLO_CODE)]


# ---------------------------------------------------------------- dialling


def test_everybody_on_the_roster_is_admitted_and_dialled() -> None:
    bench = Bench([ALICE, BOB])

    assert [action for action in bench.actions if isinstance(action, Admit)] == [
        Admit(frozenset({ME.public, ALICE.public, BOB.public}))
    ]
    bench.advance(0.0)
    assert {dial.key: dial.endpoints for dial in bench.of(Dial)} == {
        person.public: person.member.endpoints for person in (ALICE, BOB)
    }
    assert state(bench, ALICE) is LinkState.DIALLING


def test_there_is_never_more_than_one_dial_under_way() -> None:
    bench = Bench([ALICE])
    bench.advance(0.0)
    bench.roster([ALICE, BOB])
    bench.handle(Located(ALICE.public, (Endpoint("198.51.100.1", 1),)))
    bench.handle(SendDirect(ALICE.public, MessageType.GOSSIP, {}))
    bench.advance(3.0)

    assert dials(bench).count(ALICE.public) == 1


def test_failed_dials_are_repeated_ever_more_slowly_within_bounds() -> None:
    bench = Bench([ALICE])
    bench.advance(0.0)
    waits = []
    for _ in range(12):
        assert state(bench, ALICE) is LinkState.DIALLING
        bench.handle(LinkClosed(ALICE.public, "refused"))
        assert state(bench, ALICE) is LinkState.AWAY
        since = bench.now.mono
        bench.fresh()
        while not dials(bench):
            assert bench.wake_at is not None
            bench.advance(max(0.0, bench.wake_at - bench.now.mono))
        waits.append(bench.now.mono - since)

    for failures, wait in enumerate(waits, 1):
        usual = min(30.0, 0.25 * 2**failures)
        assert 0.5 * usual <= wait <= 1.5 * usual
    assert len({round(wait / min(30.0, 0.25 * 2**n), 6) for n, wait in enumerate(waits, 1)}) > 6, "each is spread"


def test_without_an_address_nobody_is_dialled_until_one_is_learnt() -> None:
    bench = Bench()
    nowhere = ALICE.member._replace(endpoints=())
    bench.handle(RosterChanged(Roster.of([ME.member, nowhere])))
    bench.advance(1.0)
    assert (dials(bench), bench.engine.links[ALICE.public].why) == ([], "no address is known")

    place = Endpoint("198.51.100.7", 9090)
    bench.handle(Located(ALICE.public, (place,)))
    bench.advance(0.0)
    assert bench.of(Dial) == [Dial(ALICE.public, (place,))]


def test_a_link_that_was_lost_is_dialled_again_and_one_that_lasted_forgets_the_failures() -> None:
    bench = Bench([ALICE])
    bench.advance(0.0)
    for _ in range(5):
        bench.handle(LinkClosed(ALICE.public, "refused"))
        bench.advance(60.0)
    bench.connect(ALICE)
    for _ in range(4):
        bench.advance(10.0)
        bench.control(ALICE, wire.DIGEST)
    bench.handle(LinkClosed(ALICE.public, "connection lost"))
    assert LinkDown(ALICE.public, "connection lost") in bench.actions
    bench.advance(0.75)

    assert dials(bench) == [ALICE.public]


@pytest.mark.parametrize("greets", [True, False])
def test_a_peer_that_takes_each_dial_and_hangs_up_is_dialled_ever_more_slowly(greets: bool) -> None:
    bench = Bench([ALICE])
    dialled = 0
    for _ in range(600):
        bench.fresh()
        bench.advance(0.1)
        if bench.of(Dial):
            dialled += 1
            if greets:
                bench.greet(ALICE)
            else:
                bench.handle(LinkOpened(ALICE.public, inbound=False))
            bench.handle(LinkClosed(ALICE.public, "closed the connection"))

    assert 5 <= dialled <= 10, "in a minute: at 0, 1/2, 1, 2, 4, 8, 16 and 30 seconds, each of them spread"


def test_a_peer_that_is_removed_is_hung_up_and_forgotten() -> None:
    bench = Bench([ALICE, BOB])
    bench.connect(ALICE, BOB)
    bench.roster([BOB])

    assert Hangup(ALICE.public, "no longer a member") in bench.actions
    assert bench.live == (BOB.public,)
    assert set(bench.engine.links) == {BOB.public}


def test_nodes_of_one_process_share_the_set_of_those_who_are_admitted() -> None:
    """A copy of its own for each of 10,000 simulated nodes would take 5 GiB."""
    roster = Roster.of([ME.member, ALICE.member, BOB.member])
    bench = Bench()
    bench.handle(RosterChanged(roster))

    assert bench.of(Admit)[-1].keys is roster.keys


def test_a_peer_added_by_hand_is_a_neighbour_until_it_is_taken_back() -> None:
    bench = Bench()
    bench.handle(AddPeer(ALICE.member))
    bench.advance(0.0)
    assert bench.of(Admit) == [Admit(frozenset({ALICE.public}))]
    assert dials(bench) == [ALICE.public]

    bench.handle(RemovePeer(ALICE.public))
    assert bench.of(Admit)[-1] == Admit(frozenset())
    assert Hangup(ALICE.public, "no longer a member") in bench.actions
    assert bench.engine.links == {}


# ---------------------------------------------------------------- greeting


def test_an_open_connection_is_greeted_and_nothing_else_is_sent() -> None:
    bench = Bench([ALICE])
    bench.handle(SendDirect(ALICE.public, MessageType.GOSSIP, {"waits": True}))
    bench.fresh()
    bench.handle(LinkOpened(ALICE.public))

    ((to, frames),) = bench.sends()
    hello = opened(frames)
    assert to == ALICE.public
    assert frames[0] == b"\x01\x00\x00"
    assert (hello.code, hello.author, hello.recipient, hello.correlation, hello.ttl) == (
        wire.HELLO_CODE,
        ME.public,
        ALICE.public,
        None,
        0,
    )
    assert wire.decode_payload(hello.payload) == {"versions": [1]}
    assert bench.live == ()


def test_their_hello_makes_the_link_live_and_is_answered() -> None:
    bench = Bench([ALICE])
    bench.handle(SendDirect(ALICE.public, MessageType.GOSSIP, {"waits": True}))
    bench.handle(LinkOpened(ALICE.public))
    bench.fresh()
    theirs = ALICE.hello(ME.public)
    bench.hear(ALICE, theirs)

    assert bench.of(LinkLive) == [LinkLive(ALICE.public)]
    assert [(hello.recipient, hello.correlation) for hello in hellos(bench)] == [(ALICE.public, theirs.id)]
    assert [payload for _, payload in ((k, wire.decode_payload(e.payload)) for k, e in bench.envelopes(9))] == [
        {"waits": True}
    ]
    assert [key for key, _ in bench.sends(wire.DIGEST)] == [ALICE.public]


def test_the_answer_to_ours_makes_it_live_too_and_measures_the_round_trip() -> None:
    bench = Bench([ALICE])
    bench.handle(LinkOpened(ALICE.public))
    (ours,) = hellos(bench)
    bench.fresh()
    bench.advance(0.25)
    bench.hear(ALICE, ALICE.hello(ME.public, correlation=ours.id))

    assert bench.live == (ALICE.public,)
    assert hellos(bench) == [], "an answer is not answered"
    assert bench.engine.links[ALICE.public].rtt == pytest.approx(0.25)


def test_an_answer_after_the_time_of_a_hello_measures_nothing() -> None:
    bench = Bench([ALICE])
    bench.greet(ALICE)
    (ours, _) = hellos(bench)
    bench.advance(5.01)
    bench.fresh()
    bench.hear(ALICE, ALICE.hello(ME.public, correlation=ours.id))

    assert bench.live == (ALICE.public,)
    assert hellos(bench) == []
    assert bench.engine.links[ALICE.public].rtt == 0.0


def test_two_ends_that_answer_late_do_not_greet_each_other_for_ever() -> None:
    bench = Bench([ALICE])
    bench.handle(LinkOpened(ALICE.public))
    (first,) = hellos(bench)
    bench.advance(1.5)
    assert len(hellos(bench)) == 2, "it was repeated"
    bench.fresh()
    bench.hear(ALICE, ALICE.hello(ME.public, correlation=first.id))

    assert bench.live == (ALICE.public,)
    assert hellos(bench) == []


@pytest.mark.parametrize(
    "hello, reason, fault",
    [
        (lambda: ALICE.hello(BOB.public), DropReason.WRONG_RECIPIENT, Fault.MISROUTED_DIRECT),
        (lambda: BOB.hello(ME.public), DropReason.NOT_FROM_AUTHOR, Fault.MISROUTED_DIRECT),
        (lambda: ALICE.hello(ME.public, network=bytes(32)), DropReason.WRONG_NETWORK, None),
    ],
)
def test_a_hello_must_be_by_the_links_key_to_us_in_our_network(
    hello: Any, reason: DropReason, fault: Fault | None
) -> None:
    bench = Bench([ALICE, BOB])
    bench.handle(LinkOpened(ALICE.public))
    bench.hear(ALICE, hello())

    assert bench.live == ()
    assert bench.drops() == [reason]
    assert bench.offences() == ([(ALICE.public, fault)] if fault else [])


def test_without_a_hello_a_link_is_greeted_every_second_and_given_up_after_five() -> None:
    bench = Bench([ALICE])
    bench.advance(0.0)
    bench.handle(LinkOpened(ALICE.public))
    bench.fresh()
    bench.advance(4.5)
    assert len(hellos(bench)) == 4
    assert bench.of(Hangup) == []

    bench.advance(1.6)
    assert bench.of(Hangup) == [Hangup(ALICE.public, "no HELLO")]
    assert bench.engine.links[ALICE.public].why == "it did not answer our HELLO"


@pytest.mark.parametrize("offset", [0.0, 0.1, 0.3, 0.7, 1 / 3, 1.1, 4.35, 1234.567])
def test_hellos_are_repeated_at_any_reading_of_the_clock(offset: float) -> None:
    bench = Bench([ALICE])
    bench.advance(offset)
    bench.handle(LinkOpened(ALICE.public))
    bench.fresh()
    bench.advance(3.5)

    assert len(hellos(bench)) == 3


def test_hellos_in_a_flood_are_looked_at_twenty_times_a_second() -> None:
    bench = Bench([ALICE])
    bench.connect(ALICE)
    bench.advance(1.0)
    bench.fresh()
    for _ in range(100):
        bench.hear(ALICE, ALICE.hello(ME.public))
        bench.advance(0.01)

    assert len(bench.of(Verify)) == len(hellos(bench)) <= 20
    assert set(bench.drops()) == {DropReason.RATE}


def test_a_new_process_behind_a_live_link_is_answered_and_owes_nothing_of_the_old_one() -> None:
    bench = Bench([ALICE])
    bench.connect(ALICE)
    bench.control(ALICE, wire.IHAVE, bytes(16))
    assert bench.engine.links[ALICE.public].holder.offered
    bench.advance(1.0)
    bench.fresh()
    reborn = ALICE.hello(ME.public)
    bench.hear(ALICE, reborn)

    assert [hello.correlation for hello in hellos(bench)] == [reborn.id]
    assert not bench.engine.links[ALICE.public].holder.offered
    bench.advance(5.0)
    assert bench.offences() == []


def test_a_hello_that_is_verified_after_its_connection_ended_makes_nothing_live() -> None:
    bench = Bench([ALICE])
    bench.advance(0.0)
    bench.inline = False
    bench.handle(LinkOpened(ALICE.public))
    bench.hear(ALICE, ALICE.hello(ME.public))
    (verify,) = bench.unverified
    bench.handle(LinkClosed(ALICE.public, "gone"))
    bench.handle(Verified(verify.message_id, True))

    assert (bench.live, bench.of(LinkLive), bench.drops()) == ((), [], [DropReason.NOT_ADMITTED])


def test_a_clock_that_is_off_is_told_and_not_cut() -> None:
    bench = Bench([ALICE])
    bench.handle(LinkOpened(ALICE.public))
    bench.hear(ALICE, ALICE.hello(ME.public, timestamp_ms=bench.now.wall_ms + 60_000))

    assert bench.live == (ALICE.public,)
    assert bench.of(Notice) == [Notice("clock_skew", {"peer": ALICE.public.hex(), "ahead_seconds": 60.0})]


# ---------------------------------------------------------------- two directions


def test_their_connection_is_as_good_as_ours() -> None:
    bench = Bench([ALICE])
    bench.advance(0.0)
    bench.fresh()
    bench.greet(ALICE, inbound=True)

    assert bench.live == (ALICE.public,)
    link = bench.engine.links[ALICE.public]
    assert (link.inbound, link.outbound) == (True, False)


def test_a_link_lives_as_long_as_one_of_its_directions() -> None:
    bench = Bench([ALICE])
    bench.advance(0.0)
    bench.connect(ALICE)
    bench.handle(LinkOpened(ALICE.public, inbound=True))
    assert bench.actions == [], "nothing new: no second greeting"

    bench.handle(LinkClosed(ALICE.public, "lost"))
    assert bench.live == (ALICE.public,)
    bench.advance(1.0)
    assert dials(bench) == [ALICE.public], "ours is made again, for it carries the faster lane"

    bench.handle(LinkClosed(ALICE.public, "gone", inbound=True))
    assert ALICE.public not in bench.live
    assert bench.of(LinkDown) == [LinkDown(ALICE.public, "gone")]


def test_the_end_of_their_connection_alone_is_no_news() -> None:
    bench = Bench([ALICE])
    bench.advance(0.0)
    bench.connect(ALICE)
    bench.handle(LinkOpened(ALICE.public, inbound=True))
    bench.handle(LinkClosed(ALICE.public, "gone", inbound=True))
    bench.advance(3.0)

    assert (bench.live, dials(bench), bench.of(LinkDown)) == ((ALICE.public,), [], [])


def test_a_hello_from_somebody_we_wait_for_is_a_reason_to_dial_at_once() -> None:
    bench = Bench([ALICE])
    bench.advance(0.0)
    for _ in range(9):
        bench.handle(LinkClosed(ALICE.public, "refused"))
        bench.advance(60.0)
    bench.handle(LinkClosed(ALICE.public, "refused"))
    bench.fresh()
    bench.greet(ALICE, inbound=True)
    bench.advance(0.0)

    assert dials(bench) == [ALICE.public]


# ---------------------------------------------------------------- the end


def test_a_roster_that_changes_all_the_time_does_not_undo_the_backoff_of_who_stays_away() -> None:
    made = Bench([ALICE])
    dials = 0
    for number in range(600):
        made.fresh()
        made.roster([ALICE, BOB] if number % 2 else [ALICE])
        made.advance(0.1)
        if ALICE.public in [dial.key for dial in made.of(Dial)]:
            dials += 1
            made.handle(LinkClosed(ALICE.public, "refused"))

    assert 12 <= dials <= 22, "in a minute: one out of turn in 5 s, for it may have moved, and those of the backoff"


def test_who_belongs_again_forgets_that_others_refused_it_meanwhile() -> None:
    made = Bench([ALICE])
    made.handle(RosterChanged(Roster.of([ALICE.member])))
    made.advance(0.0)
    for _ in range(10):
        made.handle(LinkClosed(ALICE.public, "refused our key"))
        made.advance(60.0)
    made.handle(LinkClosed(ALICE.public, "refused our key"))

    made.fresh()
    made.roster([ALICE])
    made.advance(0.0)
    assert dials(made) == [ALICE.public]
    made.handle(LinkClosed(ALICE.public, "refused our key"))  # it hears of it a moment later
    made.advance(0.75)
    assert dials(made) == [ALICE.public] * 2


def test_a_peer_that_moves_all_the_time_cannot_make_us_knock_at_every_door_it_names() -> None:
    made = Bench([ALICE])
    dials = 0
    for number in range(100):
        made.fresh()
        made.handle(Located(ALICE.public, (Endpoint(f"192.0.2.{number}", 9090),)))
        made.advance(0.1)
        if made.of(Dial):
            dials += 1
            made.handle(LinkClosed(ALICE.public, "refused"))

    assert 2 <= dials <= 10, "in ten seconds: two out of turn, and the first few of the usual backoff after each"


def test_a_silent_link_is_taken_for_dead() -> None:
    bench = Bench([ALICE, BOB])
    bench.connect(ALICE, BOB)
    for _ in range(6):
        bench.advance(5.0)
        bench.control(BOB, wire.DIGEST)

    assert bench.of(Hangup) == [Hangup(ALICE.public, "silent")]
    assert bench.of(LinkDown) == [LinkDown(ALICE.public, "it fell silent")]
    assert bench.live == (BOB.public,)


def test_a_goodbye_is_no_fault_and_not_followed_by_haste() -> None:
    bench = Bench([ALICE])
    bench.advance(0.0)
    bench.connect(ALICE)
    bench.control(ALICE, wire.LEAVE)
    assert bench.actions[:2] == [Hangup(ALICE.public, "it left"), LinkDown(ALICE.public, "it left")]

    bench.advance(0.99)
    assert dials(bench) == []
    bench.advance(2.02)
    assert (dials(bench), bench.offences()) == ([ALICE.public], [])


def test_stopping_says_goodbye_to_all_and_answers_every_caller() -> None:
    bench = Bench([ALICE, BOB])
    bench.connect(ALICE, BOB)
    bench.handle(Stop())

    assert bench.actions == [Send(tuple(sorted((ALICE.public, BOB.public))), wire.control(wire.LEAVE), None, False)]


def test_whose_reputation_fell_is_cut_and_stays_cut_until_it_heals() -> None:
    bench = Bench([ALICE, BOB])
    bench.advance(0.0)
    bench.connect(ALICE, BOB)
    for _ in range(5):
        bench.receive(ALICE, (b"\x01",))
    assert bench.of(Hangup) == [Hangup(ALICE.public, "its reputation is too low")]
    bench.fresh()

    bench.handle(LinkOpened(ALICE.public, inbound=True))
    assert bench.of(Hangup) == [Hangup(ALICE.public, "its reputation is too low")], "neither by dialling us"
    assert bench.sends() == []
    bench.hear(ALICE, ALICE.hello(ME.public))
    assert bench.live == (BOB.public,), "nor by what was still on its way"
    bench.advance(100.0)
    assert ALICE.public not in dials(bench), "nor by our own dial"

    bench.advance(90.0)
    assert ALICE.public in dials(bench), "20 of 100 points have healed after two minutes"
    bench.greet(ALICE, inbound=True)
    assert ALICE.public in bench.live


def test_a_full_node_takes_no_more_links_from_others() -> None:
    bench = Bench(bounds=Bounds(max_links=2, sparse_links=2))
    crowd = people(12)
    bench.roster(crowd)
    chosen = [person for person in crowd if person.public in bench.engine.links]
    outside = next(person for person in crowd if person.public not in bench.engine.links)
    assert len(chosen) == 2
    bench.fresh()
    bench.handle(LinkOpened(outside.public, inbound=True))

    assert bench.actions == [
        Hangup(outside.public, "no room for more links"),
        Notice("link_refused", {"peer": outside.public.hex(), "why": "max_peers reached"}),
    ]


def test_a_link_made_for_one_message_is_closed_when_it_idles() -> None:
    bench = Bench(bounds=Bounds(max_links=2, sparse_links=2))
    crowd = people(12)
    bench.roster(crowd)
    outside = next(person for person in crowd if person.public not in bench.engine.links)
    bench.handle(SendDirect(outside.public, MessageType.GOSSIP, {"once": 1}, timeout=30.0))
    bench.advance(0.0)
    assert outside.public in dials(bench)
    bench.connect(outside)
    for _ in range(11):
        bench.advance(5.0)
        bench.control(outside, wire.DIGEST)
    assert outside.public in bench.live

    for _ in range(10):
        bench.advance(5.0)
        if outside.public in bench.live:
            bench.control(outside, wire.DIGEST)
    assert Hangup(outside.public, "idle") in bench.actions
    assert outside.public not in bench.engine.links


def test_digests_go_to_every_live_link_every_five_seconds() -> None:
    bench = Bench([ALICE, BOB])
    bench.connect(ALICE, BOB)
    for _ in range(20):
        bench.advance(1.0)
        bench.control(ALICE, wire.DIGEST)
        bench.control(BOB, wire.DIGEST)

    assert [key for key, _ in bench.sends(wire.DIGEST)] == sorted((ALICE.public, BOB.public)) * 4


def test_the_wait_before_a_dial_is_doubled_bounded_and_spread() -> None:
    link = Link(ALICE.public, Bounds(), 0.0, wanted=True)
    for failures in range(40):
        link.failures = failures
        usual = min(30.0, 0.25 * 2.0**failures)
        assert link.backoff(Bounds(), 0.0) == 0.5 * usual
        assert link.backoff(Bounds(), 0.999) < 1.5 * usual
