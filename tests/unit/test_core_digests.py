"""Comparing the last two minutes: what a DIGEST leads to, and what a LIST is answered with."""

from __future__ import annotations

import pytest

from tests.unit.core_support import NOON, Bench, short
from tests.unit.gossip_support import ALICE, BOB, CAROL, bench, keep_alive, publish, pushed
from zmesh.core import wire
from zmesh.core.envelope import Envelope
from zmesh.core.events import LinkClosed
from zmesh.core.types import DropReason


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
