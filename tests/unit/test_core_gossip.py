"""Gossip: to whom it is pushed, how it is offered, and what is served."""

from __future__ import annotations

import pytest

from tests.unit.core_support import FLOOD_WAIT, Bench, opened, people, short
from tests.unit.gossip_support import ALICE, BOB, CAROL, bench, publish, pushed, told
from zmesh.core import wire
from zmesh.core.actions import Deliver, Published, WakeAt
from zmesh.core.bounds import Bounds
from zmesh.core.envelope import Envelope
from zmesh.core.events import LinkClosed, SendRefused
from zmesh.core.gossip import usual_ttl
from zmesh.core.types import DropReason

# ---------------------------------------------------------------- push


def test_a_small_message_is_pushed_to_every_link_at_once() -> None:
    made = bench()
    message = publish(made)

    everybody = tuple(sorted(person.public for person in (ALICE, BOB, CAROL)))
    assert made.of(Published) == [Published(message, everybody)]
    assert pushed(made) == [(key, 5, 0) for key in everybody]


def test_a_large_message_is_pushed_to_a_few() -> None:
    made = bench(people(12))
    message = publish(made, size=16 * 1024)

    assert len(set(made.of(Published)[0].links)) == len(pushed(made)) == 5
    assert opened(made.sends(wire.ENVELOPE)[0][1]).id == message.id


def test_with_very_many_links_nothing_is_pushed_to_all() -> None:
    made = bench(people(6), flood_links=5)
    publish(made)

    assert len(pushed(made)) == 5


@pytest.mark.parametrize(
    "size, fanout, ttl", [(1, 5, 5), (10, 5, 6), (100, 5, 7), (100, 1, 11), (10_000, 5, 10), (2, 1, 5)]
)
def test_the_usual_ttl_grows_with_the_logarithm_of_the_mesh(size: int, fanout: int, ttl: int) -> None:
    assert usual_ttl(fanout, size) == ttl


def test_a_message_gets_the_usual_ttl_of_the_mesh_as_it_is_now() -> None:
    made = bench(people(8), fanout=2)
    assert publish(made).ttl == usual_ttl(2, 9) == 8

    made.roster(people(2))
    assert publish(made).ttl == usual_ttl(2, 3) == 6


def test_an_explicit_ttl_is_signed_as_it_is() -> None:
    made = bench()
    assert publish(made, ttl=1).ttl == 1
    assert {ttl for _, ttl, _ in pushed(made)} == {1}


@pytest.mark.parametrize("size, copies", [(10, 2), (16 * 1024, 5)])
def test_a_relay_passes_on_two_copies_of_a_flood_and_fanout_of_the_rest(size: int, copies: int) -> None:
    crowd = people(12)
    made = bench(crowd)
    message = crowd[0].says(content={"pad": b"x" * size}, ttl=7)
    made.hear(crowd[1], message, ttl=6, hops=1)
    made.advance(FLOOD_WAIT)

    assert [(ttl, hops) for _, ttl, hops in pushed(made)] == [(5, 2)] * copies
    assert not {crowd[0].public, crowd[1].public} & {key for key, _, _ in pushed(made)}, "neither author nor bringer"


def test_copies_of_a_flood_wait_for_the_first_ones_and_spare_whoever_is_heard_to_have_it() -> None:
    made = bench()
    message = ALICE.says(ttl=5)
    made.hear(ALICE, message)
    made.advance(FLOOD_WAIT / 2)
    made.hear(BOB, message, ttl=4, hops=1)
    assert pushed(made) == []

    made.advance(FLOOD_WAIT / 2)
    assert pushed(made) == [(CAROL.public, 4, 1)]


def test_who_is_removed_while_a_flood_waits_is_not_passed_on() -> None:
    made = bench()
    made.hear(BOB, ALICE.says())
    made.roster([BOB, CAROL])
    made.fresh()
    made.advance(FLOOD_WAIT)

    assert pushed(made) == []


def test_in_a_sparse_mesh_even_small_messages_are_passed_on_in_full_measure() -> None:
    crowd = people(40)
    made = Bench(crowd, bounds=Bounds(max_links=20))
    linked = [person for person in crowd if person.public in made.engine.links]
    made.connect(*linked)
    made.hear(linked[0], linked[1].says(ttl=7))

    assert len(pushed(made)) == 5


@pytest.mark.parametrize("peers, at_once", [(20, 0), (21, 5)])
def test_a_mesh_is_full_as_long_as_every_peer_has_a_link(peers: int, at_once: int) -> None:
    crowd = people(peers)
    made = Bench(crowd, bounds=Bounds(max_links=20))
    linked = [person for person in crowd if person.public in made.engine.links]
    made.connect(*linked)
    made.hear(linked[0], linked[1].says(ttl=7))

    assert len(pushed(made)) == at_once


def test_our_own_message_that_comes_back_is_not_passed_on_not_even_to_a_link_that_may_lack_it() -> None:
    made = Bench([ALICE, BOB, CAROL])
    made.connect(ALICE, BOB)
    message = publish(made)
    made.connect(CAROL)
    made.hear(ALICE, message)
    made.advance(FLOOD_WAIT)

    assert pushed(made) == []


@pytest.mark.parametrize("ttl", [0, 1])
def test_a_message_without_hops_left_goes_no_further_by_push(ttl: int) -> None:
    made = bench()
    made.hear(ALICE, ALICE.says(), ttl=ttl)
    made.advance(FLOOD_WAIT)

    assert (pushed(made), len(made.of(Deliver))) == ([], 1)


def test_a_starved_copy_is_passed_on_once_a_better_one_comes_and_only_once() -> None:
    made = bench()
    message = ALICE.says(ttl=5)
    made.hear(ALICE, message, ttl=1)
    made.hear(BOB, message, ttl=4, hops=3)
    made.advance(FLOOD_WAIT)
    assert pushed(made) == [(CAROL.public, 3, 4)]

    made.hear(CAROL, message, ttl=5)
    made.advance(FLOOD_WAIT)
    assert len(pushed(made)) == 1
    assert len(made.of(Deliver)) == 1


def test_a_copy_that_claims_more_than_was_signed_re_arms_nothing() -> None:
    made = bench()
    message = ALICE.says(ttl=5)
    made.hear(ALICE, message, ttl=1)
    made.hear(BOB, message, ttl=6)
    made.advance(FLOOD_WAIT)

    assert (pushed(made), made.drops()) == ([], [DropReason.DUPLICATE])


def test_hops_are_counted_up_to_what_a_byte_holds() -> None:
    made = bench()
    made.hear(ALICE, ALICE.says(), hops=255)
    made.advance(FLOOD_WAIT)

    assert {hops for _, _, hops in pushed(made)} == {255}


# ---------------------------------------------------------------- offers


def test_a_message_is_offered_to_those_not_known_to_have_it() -> None:
    crowd = people(30)
    made = bench(crowd, flood_size=0)
    message = crowd[0].says()
    made.hear(crowd[0], message)
    made.advance(FLOOD_WAIT)
    given = {key for key, _, _ in pushed(made)} | {crowd[0].public}
    made.fresh()

    made.advance(0.029 - FLOOD_WAIT)
    assert told(made, message) == []
    made.advance(0.002)
    assert len(told(made, message)) <= 6
    made.advance(0.2 * 5)
    offered = told(made, message)
    assert len(offered) == len(set(offered)) >= 6 * 5 - len(given)
    assert not set(offered) & given
    made.fresh()
    made.advance(1.0)
    assert told(made, message) == [], "six rounds, and no more"


def test_what_its_origin_pushed_to_everybody_is_offered_to_twelve() -> None:
    crowd = people(30)
    made = bench(crowd)
    message = crowd[0].says()
    made.hear(crowd[0], message)
    made.advance(3.0)
    known = {key for key, _, _ in pushed(made)} | {crowd[0].public}

    assert 12 - len(known) <= len(told(made, message)) <= 12


def test_a_batch_is_offered_as_often_as_the_message_that_needs_it_most() -> None:
    crowd = people(40)
    made = bench(crowd, flood_size=1000)
    large = crowd[0].says(content={"pad": b"x" * 2000})
    made.hear(crowd[0], large)
    made.hear(crowd[0], crowd[0].says())
    made.advance(3.0)

    assert len(told(made, large)) > 12


def test_what_waits_to_be_passed_on_is_passed_on_before_it_is_offered() -> None:
    """Though the batch that it is offered with began long before it came."""
    made = bench()
    made.hear(ALICE, ALICE.says())
    made.advance(0.025)
    message = ALICE.says()
    made.hear(ALICE, message)
    made.fresh()
    made.advance(0.006)

    assert sorted(key for key, _, _ in pushed(made)) == sorted([BOB.public, CAROL.public])
    assert told(made, message) == []


def test_ids_of_one_moment_travel_together() -> None:
    crowd = people(8)
    made = bench(crowd)
    messages = [crowd[0].says() for _ in range(5)]
    for message in messages:
        made.hear(crowd[0], message)
    made.fresh()
    made.advance(0.03)

    for _, ids in made.ids(wire.IHAVE):
        assert ids == [one for one in map(short, messages) if one in ids]
    assert len(made.ids(wire.IHAVE)) <= 6


def test_whoever_sent_or_offered_a_message_is_not_offered_it() -> None:
    made = bench()
    message = ALICE.says(ttl=1)
    made.hear(ALICE, message)
    made.control(BOB, wire.IHAVE, short(message))
    made.fresh()
    made.advance(2.0)

    assert told(made, message) == [CAROL.public]


# ---------------------------------------------------------------- serving


def offered(made: Bench, size: int = 10) -> Envelope:
    """A message of Bob's that Carol was offered and may ask for."""
    message = BOB.says(ttl=1, content={"pad": b"x" * size})
    made.hear(BOB, message)
    made.advance(1.5)
    assert CAROL.public in told(made, message)
    made.fresh()
    return message


def test_what_was_offered_is_served_three_times_with_a_fresh_ttl() -> None:
    made = bench()
    message = offered(made)
    for _ in range(4):
        made.control(CAROL, wire.IWANT, short(message))

    assert made.sends(wire.ENVELOPE) == [(CAROL.public, message.frames(message.ttl, 1))] * 3
    assert made.drops() == [DropReason.WANT_BUDGET]
    assert made.offences() == []


def test_what_a_list_asks_for_again_is_served_three_times_more() -> None:
    made = bench()
    message = offered(made)
    for _ in range(3):
        made.control(CAROL, wire.IWANT, short(message))
    made.control(CAROL, wire.LIST, wire.encode_slots([message.slot]))
    for _ in range(4):
        made.control(CAROL, wire.IWANT, short(message))

    assert made.sends(wire.ENVELOPE) == [(CAROL.public, message.frames(message.ttl, 1))] * 6
    assert made.drops() == [DropReason.WANT_BUDGET]


def test_what_was_not_offered_is_not_served() -> None:
    made = bench()
    message = CAROL.says(ttl=1)
    made.hear(CAROL, message)
    made.fresh()
    made.control(ALICE, wire.IWANT, short(message) + bytes(16))

    assert made.drops() == [DropReason.UNSOLICITED_WANT] * 2
    assert made.sends(wire.ENVELOPE) == []


def test_serving_keeps_to_a_budget_of_bytes_that_comes_back() -> None:
    made = bench(want_bytes_burst=1500, want_bytes_rate=1000)
    message = offered(made, size=1000)
    for _ in range(2):
        made.control(CAROL, wire.IWANT, short(message))
    assert (len(made.sends(wire.ENVELOPE)), made.drops()) == (1, [DropReason.WANT_BUDGET])

    made.advance(2.0)
    made.control(CAROL, wire.IWANT, short(message))
    assert len(made.sends(wire.ENVELOPE)) == 2


def test_the_memory_for_offers_of_one_link_is_bounded() -> None:
    made = bench(offers_per_link=10)
    ids = [bytes([number]) * 16 for number in range(15)]
    made.control(ALICE, wire.IHAVE, wire.encode_ids(ids))
    made.control(BOB, wire.IHAVE, wire.encode_ids(ids[12:]))

    assert made.drops() == [DropReason.OFFER_OVERFLOW] * 5
    assert len(made.engine.links[ALICE.public].holder.offered) == 10
    assert [len(ids) for _, ids in made.ids(wire.IWANT)] == [10, 3], "another link has a memory of its own"


def test_a_push_that_did_not_leave_is_made_up_for_by_an_offer() -> None:
    made = bench()
    message = publish(made)
    made.handle(SendRefused(BOB.public, message.id))
    made.fresh()
    made.advance(2.0)

    assert told(made, message) == [BOB.public]


def test_what_every_link_took_is_no_more_work_for_its_origin() -> None:
    made = bench()
    made.advance(0.1)
    made.fresh()
    publish(made)

    assert made.of(WakeAt) == []


def test_what_some_of_a_hundred_refused_is_offered_to_all_of_these_and_nobody_else() -> None:
    crowd = people(100)
    made = bench(crowd)
    messages = [publish(made), publish(made)]
    refusing = {person.public for person in crowd[::9]}
    for message in messages:
        for key in refusing:
            made.handle(SendRefused(key, message.id))
    made.handle(LinkClosed(crowd[0].public, "away"))
    made.fresh()
    made.advance(2.0)

    offers = dict(made.ids(wire.IHAVE))
    assert offers.keys() == refusing - {crowd[0].public}
    assert all(ids == list(map(short, messages)) for ids in offers.values())


def test_a_link_that_takes_nothing_of_what_it_asks_for_makes_no_work_for_others() -> None:
    made = bench(people(12))
    message = publish(made)
    asker = made.live[0]
    for _ in range(3):
        made.handle(SendRefused(asker, message.id))
        made.advance(0.1)
        made.receive(next(one for one in made.others if one.public == asker), wire.control(wire.IWANT, short(message)))

    assert told(made, message) == [asker], "once, until it says by a LIST that it still lacks it"


def test_what_did_not_leave_and_was_to_be_offered_anyway_is_offered_once() -> None:
    made = bench(people(12))
    message = publish(made, size=16 * 1024)
    refusing = made.of(Published)[0].links
    for key in refusing:
        made.handle(SendRefused(key, message.id))
    made.fresh()
    made.advance(2.0)

    assert sorted(told(made, message)) == sorted(made.live)
    assert all(ids == [short(message)] for _, ids in made.ids(wire.IHAVE))
