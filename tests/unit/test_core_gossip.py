"""Gossip: to whom it is pushed, how it is offered, asked for and served, and who is to blame for silence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.unit.core_support import FLOOD_WAIT, ME, NOON, Bench, Person, opened, people, short
from zmesh.core import wire
from zmesh.core.actions import Deliver, Published, WakeAt
from zmesh.core.bounds import Bounds
from zmesh.core.envelope import Envelope
from zmesh.core.events import Broadcast, Command, LinkClosed, LinkOpened, SendRefused
from zmesh.core.now import Now
from zmesh.core.types import DropReason, Fault, MessageType, PeerKey, Verdict

ALICE, BOB, CAROL = people(3)


def bench(persons: Sequence[Person] = (ALICE, BOB, CAROL), **bounds: Any) -> Bench:
    made = Bench(persons, bounds=Bounds(**bounds))
    made.connect(*persons)
    return made


def publish(made: Bench, size: int = 10, ttl: int | None = None) -> Envelope:
    made.handle(Broadcast(MessageType.GOSSIP, {"pad": b"x" * size}, ttl))
    return made.of(Published)[-1].envelope


def pushed(made: Bench) -> list[tuple[PeerKey, int, int]]:
    """(to whom, ttl, hops) of every envelope sent."""
    return [(key, frames[0][1], frames[0][2]) for key, frames in made.sends(wire.ENVELOPE)]


def told(made: Bench, message: Envelope) -> list[PeerKey]:
    """Who was offered the message, in order."""
    return [key for key, ids in made.ids(wire.IHAVE) if short(message) in ids]


def keep_alive(made: Bench, seconds: float) -> None:
    """Time passes without anybody falling silent."""
    while seconds > 0:
        made.advance(min(5.0, seconds))
        seconds -= 5.0
        for key in made.live:
            made.receive(next(p for p in made.others if p.public == key), wire.control(wire.DIGEST))


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
    assert Bench(bounds=Bounds(fanout=fanout)).engine._gossip.default_ttl(size) == ttl


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


# ---------------------------------------------------------------- asking


def test_what_is_offered_and_lacking_is_asked_for_once() -> None:
    made = bench()
    message = CAROL.says()
    made.control(ALICE, wire.IHAVE, short(message))
    made.control(BOB, wire.IHAVE, short(message))
    assert (made.ids(wire.IWANT), made.engine.wanted) == ([(ALICE.public, [short(message)])], 1)

    made.fresh()
    made.advance(0.1)
    made.hear(ALICE, message)
    assert (len(made.of(Deliver)), made.engine.wanted) == (1, 0)
    made.fresh()
    made.advance(4.0)
    assert (made.ids(wire.IWANT), made.offences()) == ([], [])


def test_a_silent_holder_is_passed_by_for_the_next_and_then_asked_again() -> None:
    made = bench()
    message = CAROL.says()
    for holder in (ALICE, BOB):
        made.control(holder, wire.IHAVE, short(message))
    made.advance(0.12)
    assert [key for key, _ in made.ids(wire.IWANT)] == [ALICE.public, BOB.public]
    made.advance(2.5)
    asked = [key for key, _ in made.ids(wire.IWANT)]
    assert sorted(asked) == sorted([ALICE.public, BOB.public] * 3), "three times each, for an answer may get lost"


def test_what_waits_behind_a_full_window_is_asked_of_the_next_who_has_it() -> None:
    made = bench()
    message = CAROL.says()
    junk = [bytes([number]) * 16 for number in range(256)]
    made.control(ALICE, wire.IHAVE, wire.encode_ids([*junk, short(message)]))
    made.fresh()
    made.control(BOB, wire.IHAVE, short(message))
    assert made.ids(wire.IWANT) == [(BOB.public, [short(message)])]

    made.hear(BOB, message)
    made.fresh()
    made.advance(4.0)
    assert short(message) not in [identifier for _, ids in made.ids(wire.IWANT) for identifier in ids]


def test_a_holder_whose_window_is_full_is_passed_by() -> None:
    made = bench()
    message = ALICE.says()
    made.control(ALICE, wire.IHAVE, short(message))
    made.control(BOB, wire.IHAVE, wire.encode_ids([bytes([number]) * 16 for number in range(256)]))
    for holder in (BOB, CAROL):
        made.control(holder, wire.IHAVE, short(message))
    made.fresh()
    made.advance(0.12)

    assert (CAROL.public, [short(message)]) in made.ids(wire.IWANT)


def test_what_no_longer_fits_a_window_is_not_left_waiting_there() -> None:
    made = bench()
    messages = [ALICE.says() for _ in range(2)]
    both = wire.encode_ids(list(map(short, messages)))
    made.control(ALICE, wire.IHAVE, both)
    made.control(BOB, wire.IHAVE, wire.encode_ids([bytes([number]) * 16 for number in range(255)]))
    for holder in (BOB, CAROL):
        made.control(holder, wire.IHAVE, both)
    made.fresh()
    made.advance(1.0)

    asked = [(key, identifier) for key, ids in made.ids(wire.IWANT) for identifier in ids]
    fits, waits = map(short, messages)
    assert (BOB.public, fits) in asked
    assert (CAROL.public, waits) in asked


def test_two_holders_of_much_share_the_asking() -> None:
    made = bench()
    messages = [CAROL.says() for _ in range(600)]
    for holder in (ALICE, BOB):
        made.control(holder, wire.IHAVE, wire.encode_ids(list(map(short, messages))))
    for message in messages:
        made.hear(next(p for p in (ALICE, BOB) if made.engine.links[p.public].holder.asked), message)

    asked = [identifier for _, ids in made.ids(wire.IWANT) for identifier in ids]
    assert sorted(asked) == sorted(map(short, messages)), "each once"


def test_a_slow_link_is_given_two_round_trips() -> None:
    made = Bench([ALICE, BOB])
    made.handle(LinkOpened(ALICE.public))
    ((_, ours),) = made.envelopes(wire.HELLO_CODE)
    made.advance(0.5)
    made.hear(ALICE, ALICE.hello(ME.public, correlation=ours.id))
    made.greet(BOB)
    message = BOB.says()
    made.control(ALICE, wire.IHAVE, short(message))
    made.control(BOB, wire.IHAVE, short(message))
    made.fresh()
    made.advance(0.99)
    assert made.ids(wire.IWANT) == []
    made.advance(0.02)
    assert made.ids(wire.IWANT) == [(BOB.public, [short(message)])]


def test_the_slowest_of_links_keeps_nobody_from_being_asked_for_longer_than_an_offence() -> None:
    made = Bench([ALICE, BOB])
    made.greet(ALICE)
    ours = made.envelopes(wire.HELLO_CODE)[0][1]
    made.advance(4.9)
    made.hear(ALICE, ALICE.hello(ME.public, correlation=ours.id))
    made.greet(BOB)
    message = BOB.says()
    made.control(ALICE, wire.IHAVE, short(message))
    made.control(BOB, wire.IHAVE, short(message))
    made.fresh()
    made.advance(3.01)

    assert made.engine.links[ALICE.public].rtt == pytest.approx(4.9)
    assert made.ids(wire.IWANT) == [(BOB.public, [short(message)])]


def test_an_offer_is_broken_only_after_three_seconds() -> None:
    made = bench()
    made.control(ALICE, wire.IHAVE, bytes(16))
    made.advance(2.99)
    made.control(ALICE, wire.DIGEST)
    assert made.offences() == []
    made.advance(1.0)

    assert made.offences() == [(ALICE.public, Fault.BROKEN_OFFER)]
    assert made.engine.links[ALICE.public].holder.asked == 0
    made.fresh()
    made.advance(10.0)
    assert made.offences() == [], "once"


def test_who_said_nothing_at_all_meanwhile_broke_no_offer() -> None:
    """It may be overloaded, or its answer lies unread here, for we are."""
    made = bench()
    made.control(ALICE, wire.IHAVE, bytes(16))
    made.advance(1.4)
    made.control(ALICE, wire.DIGEST)
    made.advance(4.0)

    assert (made.offences(), made.engine.links[ALICE.public].holder.asked) == ([], 0)


def test_a_node_that_is_late_itself_blames_nobody_for_an_offer() -> None:
    """What it was sent may lie unread."""

    def late_by(seconds: float) -> tuple[list[tuple[PeerKey, Fault]], int]:
        made = bench()
        made.control(ALICE, wire.IHAVE, bytes(16))
        made.advance(2.0)
        made.control(ALICE, wire.DIGEST)
        made.wake_late(seconds)
        made.advance(3.0)
        return made.offences(), made.engine.late_wakes

    assert late_by(0.49) == ([(ALICE.public, Fault.BROKEN_OFFER)], 0)
    assert late_by(0.51) == ([], 1)


def test_a_handler_that_wants_its_turn_at_once_does_not_make_the_node_late() -> None:
    class Hasty:
        kinds = frozenset({MessageType.GOSSIP})
        deadline: float | None = None

        def validate(self, *_: object) -> Verdict:
            return Verdict.ACCEPT

        def objection(self, *_: object) -> str:
            return "none"

        def harm(self, *_: object) -> str:
            return ""

        def received(self, *_: object) -> tuple[Command, ...]:
            self.deadline = 0.0
            return ()

        def wake(self, now: Now) -> tuple[Command, ...]:
            self.deadline = None
            return ()

    made = Bench([ALICE, BOB], handlers=[Hasty()])
    made.connect(ALICE, BOB)
    made.control(ALICE, wire.IHAVE, bytes(16))
    made.advance(1.0)
    made.hear(BOB, BOB.says(timestamp_ms=made.now.wall_ms))
    made.advance(1.0)
    made.control(ALICE, wire.DIGEST)
    made.advance(3.0)

    assert made.offences() == [(ALICE.public, Fault.BROKEN_OFFER)]


def test_a_node_that_was_late_before_it_asked_may_blame() -> None:
    made = bench()
    made.wake_late(2.0)
    made.advance(0.1)
    made.control(ALICE, wire.IHAVE, bytes(16))
    made.advance(2.0)
    made.control(ALICE, wire.DIGEST)
    made.advance(2.0)

    assert made.offences() == [(ALICE.public, Fault.BROKEN_OFFER)]


def test_the_third_silence_in_a_row_is_a_broken_offer_and_an_answer_ends_the_row() -> None:
    made = bench()

    def offer_and_fall_silent(number: int) -> None:
        made.control(ALICE, wire.IHAVE, bytes([number]) * 16)
        made.advance(4.0)

    for number in (1, 2):
        offer_and_fall_silent(number)
    message = CAROL.says(timestamp_ms=made.now.wall_ms)
    made.control(ALICE, wire.IHAVE, short(message))
    made.hear(ALICE, message)
    made.advance(0.1)
    for number in (3, 4):
        offer_and_fall_silent(number)
    assert made.offences() == []

    offer_and_fall_silent(5)
    assert made.offences() == [(ALICE.public, Fault.BROKEN_OFFER)]


def test_many_offers_that_end_in_one_silence_are_one() -> None:
    made = bench()
    for number in range(5):
        made.control(ALICE, wire.IHAVE, bytes([number]) * 16)
        made.advance(0.2)
    made.advance(4.0)

    assert (made.offences(), made.engine.links[ALICE.public].holder.silences) == ([], 1)


def test_who_serves_as_fast_as_its_budget_lets_it_breaks_no_offer() -> None:
    made = bench()
    messages = [CAROL.says() for _ in range(100)]
    made.control(ALICE, wire.IHAVE, wire.encode_ids(list(map(short, messages))))
    made.advance(1.0)
    made.hear(ALICE, messages[0])
    made.advance(4.0)

    assert (made.offences(), made.engine.links[ALICE.public].holder.asked) == ([], 0)


def test_many_broken_offers_at_once_are_one_offence() -> None:
    made = bench()
    ids = [bytes([number]) * 16 for number in range(200)]
    made.control(ALICE, wire.IHAVE, wire.encode_ids(ids))
    made.advance(2.0)
    made.control(ALICE, wire.DIGEST)
    made.advance(2.0)

    assert made.offences() == [(ALICE.public, Fault.BROKEN_OFFER)]


@pytest.mark.parametrize(
    "message, reason",
    [
        (lambda: Person(99).says(), DropReason.UNKNOWN_AUTHOR),
        (lambda: CAROL.says(timestamp_ms=NOON.wall_ms - 121_000), DropReason.STALE),
        (lambda: CAROL.says(timestamp_ms=NOON.wall_ms + 11_000), DropReason.FUTURE),
    ],
)
def test_an_offer_that_was_kept_is_not_broken_because_we_cannot_take_it(message: Any, reason: DropReason) -> None:
    made = bench()
    offered = message()
    made.control(ALICE, wire.IHAVE, short(offered))
    made.hear(ALICE, offered)
    made.fresh()
    made.advance(5.0)

    assert made.engine.drops[reason] == 1
    assert (made.offences(), made.ids(wire.IWANT)) == ([], [])


def test_what_an_author_sends_as_fast_as_it_may_is_kept_until_it_was_asked_for() -> None:
    """The rounds of offers take a second, and an answer is due within ``want_offence``."""
    made = bench()
    kept: list[Envelope] = []
    for tenth in range(41):
        for _ in range(300 if tenth == 0 else 4):
            message = CAROL.says(timestamp_ms=made.now.wall_ms, ttl=1, content={"pad": bytes(60_000)})
            made.hear(CAROL, message)
            kept += [message] * (tenth == 0 and bool(made.of(Deliver)))
            made.fresh()
        made.advance(0.1)

    assert len(kept) == 5000 // 30, "one for the message, and 29 for its 60,200 bytes"
    served = [entry.body for message in kept if (entry := made.engine.seen.get(short(message))) is not None]
    assert served == [message.body for message in kept]
    assert made.engine.drops[DropReason.AUTHOR_RATE] == 300 - len(kept) + 40 * 4 - 67


def test_a_message_of_any_size_passes_where_a_small_burst_is_all_that_may_come_at_once() -> None:
    made = bench(author_rate=1.0, author_burst=2.0)
    large = [CAROL.says(content={"pad": bytes(60_000)}) for _ in range(2)]
    for message in large:
        made.hear(CAROL, message)
    made.advance(1.9)
    made.hear(CAROL, large[1])
    made.advance(0.2)
    made.hear(CAROL, large[1])

    assert [told.envelope.id for told in made.of(Deliver)] == [message.id for message in large]
    assert made.engine.drops[DropReason.AUTHOR_RATE] == 2


def test_an_offer_is_not_broken_because_its_author_is_over_its_rate() -> None:
    made = bench(author_rate=0.001, author_burst=1.0)
    made.hear(BOB, CAROL.says())
    offered = CAROL.says()
    made.control(ALICE, wire.IHAVE, short(offered))
    made.hear(ALICE, offered)
    made.advance(5.0)

    assert (made.engine.drops[DropReason.AUTHOR_RATE], made.offences()) == (1, [])


def test_an_offer_is_not_broken_when_our_asking_never_left() -> None:
    made = bench()
    made.control(ALICE, wire.IHAVE, bytes(16))
    made.handle(SendRefused(ALICE.public, None))
    made.advance(5.0)

    assert made.offences() == []


def test_who_hangs_up_broke_no_offer_and_others_are_asked_instead() -> None:
    made = bench()
    message = CAROL.says()
    made.control(ALICE, wire.IHAVE, short(message))
    made.control(BOB, wire.IHAVE, short(message))
    made.fresh()
    made.handle(LinkClosed(ALICE.public, "gone"))
    made.advance(0.0)

    assert made.ids(wire.IWANT) == [(BOB.public, [short(message)])]
    made.hear(BOB, message)
    made.advance(5.0)
    assert made.offences() == []


def test_only_so_much_is_asked_of_a_link_at_once_and_the_rest_as_answers_come() -> None:
    made = bench()
    messages = [CAROL.says() for _ in range(600)]
    made.control(ALICE, wire.IHAVE, wire.encode_ids(list(map(short, messages))))
    assert [len(ids) for _, ids in made.ids(wire.IWANT)] == [256]

    for message in messages[:127]:
        made.hear(ALICE, message)
    assert len(made.ids(wire.IWANT)) == 1, "not before half of the window is free"
    made.hear(ALICE, messages[127])
    assert [len(ids) for _, ids in made.ids(wire.IWANT)] == [256, 128]
    for message in messages[128:]:
        made.hear(ALICE, message)

    assert sum(len(ids) for _, ids in made.ids(wire.IWANT)) == 600
    assert len(made.of(Deliver)) == 600
    link = made.engine.links[ALICE.public]
    assert (link.holder.asked, link.holder.offered, link.holder.queue) == (0, {}, {})
    made.advance(5.0)
    assert made.offences() == []


def test_a_broken_window_opens_again_for_what_waits() -> None:
    made = bench()
    ids = [number.to_bytes(16) for number in range(300)]
    made.control(ALICE, wire.IHAVE, wire.encode_ids(ids))
    made.fresh()
    made.advance(2.0)
    made.control(ALICE, wire.DIGEST)
    made.advance(2.0)

    assert made.offences() == [(ALICE.public, Fault.BROKEN_OFFER)]
    assert set(ids[256:]) == {one for _, asked in made.ids(wire.IWANT) for one in asked} - set(ids[:256])


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


# ---------------------------------------------------------------- anti-entropy


def test_a_new_link_is_offered_what_we_said_in_the_last_seconds() -> None:
    made = Bench((ALICE, BOB))
    made.connect(ALICE)
    publish(made)
    made.advance(4.0)
    made.hear(ALICE, ALICE.says(timestamp_ms=made.now.wall_ms))
    messages = [publish(made), publish(made)]
    made.fresh()
    made.greet(BOB)

    assert made.ids(wire.IHAVE) == [(BOB.public, list(map(short, messages)))]
    made.fresh()
    made.control(BOB, wire.IWANT, short(messages[0]))
    assert [key for key, _, _ in pushed(made)] == [BOB.public]


def settled(made: Bench) -> Envelope:
    """A message of Alice's that only Alice and we have, three seconds old."""
    message = ALICE.says(ttl=1, timestamp_ms=made.now.wall_ms)
    made.hear(ALICE, message)
    made.handle(LinkClosed(BOB.public, "away for a while"))
    keep_alive(made, 4.0)
    made.fresh()
    return message


def test_a_peer_that_comes_back_finds_by_digest_what_it_missed() -> None:
    made = bench((ALICE, BOB))
    message = settled(made)
    made.greet(BOB)
    ((_, frames),) = made.sends(wire.DIGEST)
    (entry,) = wire.decode_digest(frames[1])
    assert (entry.slot, entry.held) == (message.slot, 1)

    made.fresh()
    made.control(BOB, wire.LIST, wire.encode_slots([entry.slot]))
    assert made.ids(wire.IHAVE) == [(BOB.public, [short(message)])]
    made.control(BOB, wire.IWANT, short(message))
    assert made.sends(wire.ENVELOPE) == [(BOB.public, message.frames(message.ttl, 1))]


def test_a_slot_that_differs_is_listed_ever_more_rarely() -> None:
    made = bench((ALICE, BOB), compare_burst=100.0)
    slot = int(NOON.wall) - 10
    listed = []
    for number in range(1, 25):
        made.fresh()
        made.control(ALICE, wire.DIGEST, wire.encode_digest([wire.DigestEntry(slot, 1, bytes(8))]))
        listed += [number] * (made.sends() == [(ALICE.public, wire.control(wire.LIST, wire.encode_slots([slot])))])

    assert listed == [1, 2, 4, 8, 16]


def test_a_link_that_has_fewer_but_others_of_a_slot_is_asked_from_the_second_digest_on() -> None:
    """It asks first for what it lacks; then it has no fewer, unless it never takes what we have."""
    made = bench((ALICE, BOB), compare_burst=100.0)
    messages = [ALICE.says(timestamp_ms=NOON.wall_ms - 5000, payload=b"\xc0") for _ in range(2)]
    for message in messages:
        made.hear(BOB, message)
    slot = messages[0].slot
    listed = []
    for number in range(1, 25):
        made.fresh()
        made.control(ALICE, wire.DIGEST, wire.encode_digest([wire.DigestEntry(slot, 1, bytes(8))]))
        listed += [number] * (made.sends() == [(ALICE.public, wire.control(wire.LIST, wire.encode_slots([slot])))])

    assert listed == [2, 4, 8, 16]


def test_a_link_that_caught_up_and_still_differs_is_asked_at_once() -> None:
    made = bench((ALICE, BOB), compare_burst=100.0)
    for message in [ALICE.says(timestamp_ms=NOON.wall_ms - 5000) for _ in range(2)]:
        made.hear(BOB, message)
    slot = int(NOON.wall) - 5
    for held in (1, 1, 1, 1, 2):
        made.fresh()
        made.control(ALICE, wire.DIGEST, wire.encode_digest([wire.DigestEntry(slot, held, bytes(8))]))

    assert made.sends() == [(ALICE.public, wire.control(wire.LIST, wire.encode_slots([slot])))]


def test_a_listing_offers_even_what_we_thought_the_link_had() -> None:
    made = bench((ALICE, BOB))
    message = publish(made)
    made.fresh()
    made.control(BOB, wire.LIST, wire.encode_slots([message.slot]))

    assert made.ids(wire.IHAVE) == [(BOB.public, [short(message)])]


def test_a_digest_of_a_far_future_or_past_leads_to_no_memory() -> None:
    made = bench((ALICE, BOB), compare_burst=100.0)
    for base in range(0, 2**40, 2**36):
        entries = [wire.DigestEntry(base + number, 1, bytes(8)) for number in range(256)]
        made.control(ALICE, wire.DIGEST, wire.encode_digest(entries))

    assert len(made.engine.links[ALICE.public].differed) <= 2 * 256
    assert (made.drops(), made.offences()) == ([], [])


@pytest.mark.parametrize("kind", [wire.DIGEST, wire.LIST])
def test_a_digest_and_a_list_of_a_link_are_looked_at_once_a_second(kind: int) -> None:
    """Each may have all messages of a second hashed, or listed."""
    made = bench((ALICE, BOB))
    message = ALICE.says(timestamp_ms=NOON.wall_ms - 5000)
    made.hear(ALICE, message)
    slots = iter(range(message.slot - 50, message.slot))  # each news, so that each leads to a LIST

    def send(count: int) -> tuple[int, list[DropReason]]:
        made.fresh()
        for _ in range(count):
            differs = wire.encode_digest([wire.DigestEntry(next(slots), 1, bytes(8))])
            made.control(BOB, kind, wire.encode_slots([message.slot]) if kind == wire.LIST else differs)
        return len(made.sends()), made.drops()

    assert send(6) == (4, [DropReason.RATE] * 2)
    made.advance(1.0)
    assert send(3) == (1, [DropReason.RATE] * 2)
    assert (made.offences(), BOB.public in made.live) == ([], True)


def test_what_was_refused_by_a_validator_is_not_listed_again() -> None:
    made = bench((ALICE, BOB))
    message = ALICE.says(payload=b"\xc0", timestamp_ms=NOON.wall_ms - 5000)
    made.hear(BOB, message)
    made.fresh()
    held = wire.DigestEntry(message.slot, 1, made.engine.seen.digest(made.now.wall)[0].checksum)
    made.control(BOB, wire.DIGEST, wire.encode_digest([held]))

    assert made.sends() == []


def test_a_list_is_answered_slot_by_slot_with_no_more_than_its_sender_remembers() -> None:
    made = bench(offers_per_link=5, author_burst=100.0)
    seconds = [made.now.wall_ms // 1000 - ago for ago in (8, 5, 2)]
    messages = [CAROL.says(timestamp_ms=second * 1000, ttl=1) for second in seconds for _ in range(3)]
    for message in messages:
        made.hear(CAROL, message)
    made.fresh()
    for _ in range(2):
        made.control(BOB, wire.LIST, wire.encode_slots(seconds))

    first = sorted(map(short, messages[:3]))
    assert made.ids(wire.IHAVE) == [(BOB.public, first)] * 2


def test_a_list_over_its_budget_is_answered_as_far_as_that_goes() -> None:
    made = bench(want_bytes_burst=4 * 64, want_bytes_rate=1)
    seconds = [made.now.wall_ms // 1000 - ago for ago in (8, 5)]
    messages = [CAROL.says(timestamp_ms=second * 1000, ttl=1) for second in seconds for _ in range(3)]
    for message in messages:
        made.hear(CAROL, message)
    made.fresh()
    made.control(BOB, wire.LIST, wire.encode_slots(seconds))

    assert made.ids(wire.IHAVE) == [(BOB.public, sorted(map(short, messages[:3])))]
    assert made.drops() == [DropReason.WANT_BUDGET]


@pytest.mark.parametrize("kind", [wire.IHAVE, wire.IWANT])
def test_control_frames_weigh_what_they_hold(kind: int) -> None:
    made = bench(link_burst=3000.0, link_rate=1.0)
    ids = wire.encode_ids([number.to_bytes(16) for number in range(2048)])
    for _ in range(5):
        made.control(ALICE, kind, ids)

    assert made.engine.drops[DropReason.RATE] == 3, "1,025 each: a frame, and one for two ids"


def test_a_second_with_more_than_a_link_remembers_is_listed_part_by_part() -> None:
    made = bench(offers_per_link=5, compare_burst=100.0)
    messages = [CAROL.says(timestamp_ms=NOON.wall_ms - 5000, ttl=1) for _ in range(12)]
    for message in messages:
        made.hear(CAROL, message)
    made.fresh()
    for _ in range(40):
        made.control(BOB, wire.LIST, wire.encode_slots([messages[0].slot]))

    parts = [ids for _, ids in made.ids(wire.IHAVE)]
    assert {len(part) for part in parts} == {5}
    assert {identifier for part in parts for identifier in part} == set(map(short, messages))
