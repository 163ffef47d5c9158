"""What is remembered of messages: for how long, how much of whom, and how two stores find their differences."""

from __future__ import annotations

import gc
import random
from hashlib import blake2b

import pytest

from tests.unit.core_support import EPOCH, NOON, Person, short
from zmesh.core.bounds import PAST, RETENTION, Bounds
from zmesh.core.envelope import Envelope
from zmesh.core.seen import SETTLED, Seen, SeenStore
from zmesh.core.wire import DigestEntry

ALICE, BOB = Person(2), Person(3)
WALL = NOON.wall


def at(person: Person, age: float, sequence: int | None = None, size: int = 10) -> Envelope:
    """A message signed ``age`` seconds before noon."""
    more = {} if sequence is None else {"sequence": sequence}
    return person.says(timestamp_ms=NOON.wall_ms - int(age * 1000), content={"pad": b"x" * size}, **more)


def store(**bounds: int) -> SeenStore:
    return SeenStore(Bounds(**bounds))


def served(seen: SeenStore, envelopes: list[Envelope]) -> list[bool]:
    """Which of them are still there with their bytes."""
    return [(entry := seen.get(short(one))) is not None and entry.body == one.body for one in envelopes]


def known(seen: SeenStore, envelopes: list[Envelope]) -> list[bool]:
    return [short(one) in seen for one in envelopes]


def test_a_message_is_remembered_until_its_replay_would_be_stale() -> None:
    seen = store()
    message = at(ALICE, 0)
    seen.add(message, None)

    seen.expire(WALL + PAST + 9.0)
    assert known(seen, [message]) == [True]
    seen.expire(WALL + RETENTION + 1.0)
    assert (known(seen, [message]), len(seen), seen.digest(WALL + RETENTION + 1.0)) == ([False], 0, [])


@pytest.mark.parametrize("seed", range(20))
def test_who_has_a_message_is_what_was_last_noted_of_each(seed: int) -> None:
    rng = random.Random(seed)
    author = Person(9)
    known: dict[bytes, tuple[Seen, set[bytes]]] = {}
    store = SeenStore(Bounds())
    for _ in range(60):
        if not known or rng.random() < 0.1:
            message = author.says()
            known[message.short] = (store.add(message, None), set())
        entry, expected = rng.choice(list(known.values()))
        link = bytes([rng.randrange(4)]) * 32
        if rng.random() < 0.6:
            entry.held_by(link)
            expected.add(link)
        else:
            entry.lacked_by(link)
            expected.discard(link)
        assert all(one.holders == those for one, those in known.values())


def test_a_message_that_is_not_kept_is_seen_but_not_served() -> None:
    seen = store()
    message = at(ALICE, 0)
    seen.add(message, None, keep=False)

    assert (known(seen, [message]), served(seen, [message])) == ([True], [False])


def test_the_byte_quota_of_an_author_drops_its_oldest_bodies_and_keeps_the_ids() -> None:
    mine = [at(ALICE, 0) for _ in range(6)]
    theirs = [at(BOB, 0) for _ in range(2)]
    seen = store(author_bytes=sum(len(one.body) for one in mine[3:]))
    for message in [*theirs, *mine]:
        seen.add(message, None)

    assert served(seen, mine) == [False] * 3 + [True] * 3
    assert known(seen, mine) == [True] * 6
    assert served(seen, theirs) == [True, True]


def test_when_all_together_are_over_the_one_who_holds_most_gives_way() -> None:
    mine = [at(ALICE, 0) for _ in range(9)]
    theirs = [at(BOB, 0) for _ in range(3)]
    seen = store(cache_bytes=10 * len(mine[0].body))
    for message in [*theirs, *mine]:
        seen.add(message, None)

    assert served(seen, theirs) == [True] * 3
    assert served(seen, mine) == [False] * 2 + [True] * 7


@pytest.mark.parametrize("quota", ["author_bytes", "cache_bytes"])
def test_what_came_last_is_kept_whatever_it_weighs_until_the_next_one_comes(quota: str) -> None:
    first, second, last = at(ALICE, 0), at(ALICE, 0, size=500), at(ALICE, 0)
    seen = store(**{quota: 1})

    for count, message in enumerate((first, second, last), start=1):
        entry = seen.add(message, None)
        assert (entry.id, entry.body, entry.signature) == (message.id, message.body, message.signature)
        assert served(seen, [first, second, last][:count]) == [False] * (count - 1) + [True]
    assert known(seen, [first, second, last]) == [True] * 3


@pytest.mark.parametrize("sizes", [(500, 10), (10, 500)])
def test_others_give_way_to_the_first_message_of_an_author(sizes: tuple[int, int]) -> None:
    theirs, mine = at(BOB, 0, size=sizes[0]), at(ALICE, 0, size=sizes[1])
    seen = store(cache_bytes=max(len(theirs.body), len(mine.body)))
    seen.add(theirs, None)
    seen.add(mine, None)

    assert (served(seen, [theirs]), served(seen, [mine])) == ([False], [True])


def test_an_entry_whose_body_was_dropped_holds_none_of_its_bytes() -> None:
    mine = [at(ALICE, 0) for _ in range(2)]
    seen = store(author_bytes=len(mine[1].body))
    entries = [seen.add(message, None) for message in mine]

    assert [(entry.body, entry.signature, entry.id) for entry in entries] == [
        (None, b"", b""),
        (mine[1].body, mine[1].signature, mine[1].id),
    ]


def test_of_an_entry_whose_body_was_dropped_nobody_is_noted_any_more() -> None:
    """Who has it and who asked for it is of use as long as it can be sent: of 100 links that is more than all else."""
    mine = [at(ALICE, 0) for _ in range(2)]
    seen = store(author_bytes=len(mine[1].body))
    entry = seen.add(mine[0], BOB.public)
    entry.held_by(ALICE.public)
    entry.offer_to(BOB.public)
    refused = seen.add(at(BOB, 0), ALICE.public, keep=False)
    seen.add(mine[1], None)
    for dropped in (entry, refused):
        dropped.held_by(bytes(32))

    assert [(set(dropped.holders), dropped.answers) for dropped in (entry, refused)] == [(set(), None)] * 2


def test_an_entry_shares_its_author_and_its_second_and_keeps_no_envelope() -> None:
    seen = store()
    first, second = (seen.add(at(ALICE, 0), BOB.public) for _ in range(2))

    assert (first.author is second.author, first.slot is second.slot) == (True, True)
    tracked = {id(held) for held in gc.get_referents(first) if gc.is_tracked(held)}
    assert tracked <= {id(Seen), id(first.slot), id(first.holders)}, "the collector need not look at more"


def test_an_author_that_floods_evicts_only_its_own() -> None:
    seen = store(author_ids=100)
    theirs = [at(BOB, age) for age in range(5)]
    for message in theirs:
        seen.add(message, None)
    flood = [at(ALICE, 1, sequence) for sequence in range(1, 1001)]
    for message in flood:
        seen.add(message, None)

    assert known(seen, theirs) == [True] * 5
    assert served(seen, theirs) == [True] * 5
    assert known(seen, flood) == [False] * 900 + [True] * 100
    assert len(seen) == 105
    assert sum(entry.held for entry in seen.digest(WALL)) == len([m for m in theirs if m.slot < int(WALL - SETTLED)])


def test_what_was_forgotten_early_stays_out_by_its_number() -> None:
    seen = store(author_ids=2)
    flood = [at(ALICE, 1, sequence) for sequence in (1, 2, 3, 4)]
    for message in flood:
        seen.add(message, None)

    assert [seen.below_low_water(message) for message in flood] == [True, True, False, False]
    assert not seen.below_low_water(at(BOB, 1, 1)), "everybody has a count of their own"
    assert not seen.below_low_water(ALICE.says(epoch=EPOCH + 1, sequence=1)), "a new life counts anew"


def test_the_books_of_those_who_left_go_with_their_last_message() -> None:
    seen = store()
    seen.add(at(ALICE, 0, 7), None)
    seen.retain([BOB.public])
    assert not seen.below_low_water(at(ALICE, 0, 7))

    seen.expire(WALL + RETENTION + 1.0)
    assert seen.below_low_water(at(ALICE, 0, 7))
    seen.retain([BOB.public])
    assert not seen.below_low_water(at(ALICE, 0, 7)), "nothing is left of Alice, not even her count"


def test_a_digest_names_settled_seconds_by_count_and_checksum() -> None:
    seen = store()
    young, first, second, old = at(ALICE, 1), at(ALICE, 10), at(BOB, 10), at(BOB, 100)
    for message in (young, first, second, old):
        seen.add(message, None)

    def checksum(*messages: Envelope) -> bytes:
        return blake2b(b"".join(sorted(map(short, messages))), digest_size=8).digest()

    assert seen.digest(WALL) == [
        DigestEntry(old.slot, 1, checksum(old)),
        DigestEntry(first.slot, 2, checksum(first, second)),
    ]
    held = [list(seen.in_slot(slot)) for slot in (old.slot, first.slot, 5)]
    assert held == [[short(old)], sorted([short(first), short(second)]), []]


def test_slots_that_may_bring_something_are_told_by_whether_their_sender_has_fewer() -> None:
    seen, other = store(), store()
    same, differs, fewer = at(ALICE, 10), at(ALICE, 20), at(ALICE, 30)
    for message in (same, differs, fewer, at(BOB, 30)):
        seen.add(message, None)
    for message in (same, at(BOB, 20), fewer, at(BOB, 40)):
        other.add(message, None)

    found = [(differs.slot - 20, False), (fewer.slot, True), (differs.slot, False)]
    assert seen.lacking(other.digest(WALL), WALL) == found


@pytest.mark.parametrize("age", [119, 121, 131])
def test_what_is_stale_by_now_is_not_asked_for(age: int) -> None:
    seen, other = store(), store()
    message = at(ALICE, age)
    other.add(message, None)

    assert seen.lacking(other.digest(WALL), WALL) == ([(message.slot, False)] if age < PAST else [])


@pytest.mark.parametrize("seed", range(20))
def test_two_stores_that_compare_digests_end_up_equal(seed: int) -> None:
    rng = random.Random(seed)
    messages = [at(rng.choice((ALICE, BOB)), rng.uniform(SETTLED + 2, PAST - 5)) for _ in range(150)]
    stores = [store(), store()]
    for message in messages:
        holders = rng.choice(([0], [1], [0, 1]))
        for number in holders:
            stores[number].add(message, None)
    by_id = {short(message): message for message in messages}

    rounds = 0
    while stores[0].digest(WALL) != stores[1].digest(WALL):
        rounds += 1
        assert rounds <= 3, "the one with fewer asks first, then the other"
        for here, there in (stores, stores[::-1]):
            slots = [slot for slot, fewer in here.lacking(there.digest(WALL), WALL) if not fewer]
            for missing in [identifier for slot in slots for identifier in there.in_slot(slot)]:
                if missing not in here:
                    here.add(by_id[missing], None)

    assert set(stores[0]) == set(stores[1]) == set(by_id)
