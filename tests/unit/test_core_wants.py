"""Asking for what is offered and lacking: of whom, how often, and who is to blame for silence."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core_support import ME, NOON, Bench, Person, short
from tests.unit.gossip_support import ALICE, BOB, CAROL, bench
from zmesh.core import wire
from zmesh.core.actions import Deliver
from zmesh.core.envelope import Envelope
from zmesh.core.events import Command, LinkClosed, LinkOpened, SendRefused
from zmesh.core.now import Now
from zmesh.core.types import DropReason, Fault, MessageType, PeerKey, Verdict
from zmesh.core.wants import WANT_WINDOW


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


def test_what_one_stall_broke_is_one_offence_however_many_offers_it_were() -> None:
    made = bench()
    for number in range(20):
        made.control(ALICE, wire.IHAVE, bytes([number]) * 16)
        made.advance(0.1)
    made.control(ALICE, wire.DIGEST)
    made.advance(3.0)
    assert made.offences() == [(ALICE.public, Fault.BROKEN_OFFER)]

    made.control(ALICE, wire.IHAVE, bytes([99]) * 16)
    made.advance(2.0)
    made.control(ALICE, wire.DIGEST)
    made.advance(2.0)
    assert made.offences() == 2 * [(ALICE.public, Fault.BROKEN_OFFER)]


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


def test_what_waited_for_one_link_and_was_asked_of_it_goes_on_to_the_next_in_time() -> None:
    world = Bench([ALICE, BOB, CAROL])
    world.connect(ALICE, BOB, CAROL)
    said = [BOB.says() for _ in range(WANT_WINDOW + 1)]
    last = short(said[-1])
    world.control(BOB, wire.IHAVE, b"".join(map(short, said)))  # one more than its window: it waits
    for person in (ALICE, CAROL):
        world.control(person, wire.IHAVE, last)
    world.hear(BOB, said[0])
    world.fresh()

    world.advance(2.5 * world.engine.bounds.want_timeout)

    assert [key for key, ids in world.ids(wire.IWANT) if last in ids] == [BOB.public, CAROL.public]
