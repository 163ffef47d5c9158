"""Links: dialling, goodbye, and the two directions that open and close by themselves."""

from __future__ import annotations

import pytest

from tests.unit.core_support import ME, Bench, people
from tests.unit.links_support import ALICE, BOB, dials, state
from zmesh.core import wire
from zmesh.core.actions import Admit, Dial, Hangup, LinkDown, Notice, Send
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
)
from zmesh.core.link import Link, LinkState
from zmesh.core.types import Endpoint, MessageType, Roster

# ---------------------------------------------------------------- dialling

PLACE = Endpoint("198.51.100.7", 9090)


def with_a_long_pause_between_dials() -> Bench:
    """Alice refused eight times: the next dial is due half a minute after the last."""
    bench = Bench([ALICE])
    bench.advance(0.0)
    for _ in range(8):
        bench.handle(LinkClosed(ALICE.public, "refused"))
        bench.advance(60.0)
    return bench


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

    bench.handle(Located(ALICE.public, (PLACE,)))
    bench.advance(0.0)
    assert bench.of(Dial) == [Dial(ALICE.public, (PLACE,))]


def test_a_direct_message_to_who_has_no_address_yet_does_not_keep_its_address_from_being_tried_at_once() -> None:
    bench = Bench()
    bench.handle(RosterChanged(Roster.of([ME.member, ALICE.member._replace(endpoints=())])))
    bench.advance(0.0)
    bench.handle(SendDirect(ALICE.public, MessageType.GOSSIP, {}, 10.0, 1))
    bench.advance(0.0)
    assert dials(bench) == []

    bench.handle(Located(ALICE.public, (PLACE,)))
    bench.advance(0.0)
    assert dials(bench) == [ALICE.public]


def test_a_second_address_is_tried_five_seconds_after_the_first_and_not_when_the_dial_is_due() -> None:
    bench = with_a_long_pause_between_dials()
    dialled = []
    for port, seconds in ((1, 0.0), (2, 4.9), (3, 0.1)):
        bench.handle(LinkClosed(ALICE.public, "refused"))
        bench.fresh()
        bench.handle(Located(ALICE.public, (PLACE._replace(port=port),)))
        bench.advance(seconds)
        dialled.append(dials(bench))

    assert dialled == [[ALICE.public], [], [ALICE.public]]


def test_a_direct_message_to_who_is_away_is_a_reason_to_dial_at_once_though_not_each_time() -> None:
    bench = with_a_long_pause_between_dials()
    dialled = []
    for token in (1, 2):
        bench.handle(LinkClosed(ALICE.public, "refused"))
        bench.fresh()
        bench.handle(SendDirect(ALICE.public, MessageType.GOSSIP, {}, 10.0, token))
        bench.advance(0.0)
        dialled.append(dials(bench))

    assert dialled == [[ALICE.public], []]


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
    link = Link(ALICE.public, Bounds())
    for failures in range(40):
        link.failures = failures
        usual = min(30.0, 0.25 * 2.0**failures)
        assert link.backoff(Bounds(), 0.0) == 0.5 * usual
        assert link.backoff(Bounds(), 0.999) < 1.5 * usual
