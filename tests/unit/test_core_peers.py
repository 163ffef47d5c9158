"""Who belongs, who is alive, and whom to be linked with."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.bounds import Bounds
from zmesh.core.peers import Peers
from zmesh.core.types import Endpoint, Fault, Member, PeerKey, Roster

HOST = Endpoint("192.0.2.1", 9090)


def key(number: int) -> PeerKey:
    """Spread over the ring, and the same in every run."""
    return random.Random(number).randbytes(32)


def member(number: int) -> Member:
    return Member(key(number), f"account-{number}", f"peer-{number}", (HOST,))


def book(me: int, roster: Iterable[int] = (), by_hand: Iterable[int] = (), **bounds: int) -> Peers:
    peers = Peers(key(me), Bounds(**bounds))
    peers.roster = Roster.of(map(member, roster))
    peers.manual = {key(number): member(number) for number in by_hand}
    return peers


def test_roster_and_hand_make_members_and_nobody_counts_oneself() -> None:
    peers = book(1, roster=(1, 2, 3), by_hand=(3, 4))

    assert [one.peer_id for one in peers] == ["peer-2", "peer-3", "peer-4"]
    assert len(peers) == 3
    assert [key(number) in peers for number in (1, 2, 3, 4, 5)] == [False, True, True, True, False]
    assert [one.peer_id for one in peers.named("account-4")] == ["peer-4"]
    assert peers.named(key(2).hex()) == [member(2)]


@pytest.mark.parametrize("peer_id", [None, "", "me"])
def test_this_node_is_an_author_even_where_no_registry_lists_it(peer_id: str | None) -> None:
    peers = Peers(key(1), Bounds(), peer_id)
    unlisted = Member(key(1), key(1).hex(), key(1).hex() if peer_id is None else peer_id)
    assert (peers.myself, peers.author(key(1)), peers.get(key(1))) == (unlisted, unlisted, None)

    peers.card = Member(key(1), "5Me", "me", stake=7)
    assert (peers.myself, peers.author(key(1)), peers.get(key(1))) == (peers.card, peers.card, None)
    assert (key(1) in peers, [*peers], len(peers)) == (False, [], 0)

    peers.roster = Roster.of([member(1), member(2)])
    assert (peers.myself, peers.author(key(1)), peers.author(key(2))) == (member(1), member(1), member(2))
    assert peers.author(key(3)) is None


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"key": key(2)}, f"two members share the key {key(2).hex()}: each must be unique"),
        ({"account": "account-2"}, "two members share the account account-2: each must be unique"),
        ({"key": "text"}, "key of a member must be of type bytes, not 'text'"),
        ({"peer_id": None}, "peer_id of a member must be of type str, not None"),
        ({"stake": 1.5}, "stake of a member must be of type int, not 1.5"),
        ({"endpoints": [HOST]}, f"endpoints of a member must be of type tuple, not {[HOST]}"),
    ],
)
def test_a_roster_that_no_registry_may_give_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Roster.of([member(2), member(1)._replace(**changed)])


def test_a_name_that_two_claim_means_both() -> None:
    peers = book(1, roster=(1, 2))
    peers.manual[key(3)] = member(3)._replace(peer_id="peer-2")

    assert [one.key for one in peers.named("peer-2")] == [key(2), key(3)]


def test_removal_is_immediate_and_leaves_no_books() -> None:
    peers = book(1, roster=(1, 2, 3))
    peers.heard(key(2), 5.0)
    peers.locate(key(2), (HOST,))
    peers.roster = Roster.of([member(1), member(3)])
    peers.prune()

    assert key(2) not in peers
    assert peers.get(key(2)) is None
    assert peers.last_heard(key(2)) is None
    assert peers.locate(key(2), (HOST,)) is False, "an address admits nobody"


def test_who_is_ignored_is_worked_out_when_a_score_falls_below_the_line_and_else_once_a_second() -> None:
    """It looks at all members: somebody who commits an offence with every message must not have it done each time."""
    peers = book(0, range(9))
    alice, bob = member(1), member(2)

    def ignored(now: float) -> list[bool]:
        return [peers.is_ignored(one, now) for one in (alice, bob)]

    assert ignored(0.0) == [False, False]
    for _ in range(3):
        peers.charge(alice, Fault.MALFORMED, 0.1)
    assert ignored(0.1) == [True, False], "at once"

    for _ in range(3):
        peers.reputation.charge(bob, Fault.MALFORMED, 0.2)  # as time would change it, without a charge of its own
    peers.charge(alice, Fault.MALFORMED, 0.2)
    peers.charge(member(3), Fault.MALFORMED, 0.2)
    assert ignored(0.9) == [True, False]
    assert ignored(1.2) == [True, True]


def test_a_members_own_word_for_its_place_comes_first() -> None:
    peers = book(1, roster=(1, 2))
    news = tuple(Endpoint("198.51.100.1", port) for port in range(1, 12))

    assert peers.locate(key(2), (news[0],)) is True
    assert peers.locate(key(2), (news[0],)) is False, "the same again is no news"
    assert peers.endpoints(member(2)) == (news[0], HOST)
    assert peers.locate(key(2), news) is True
    assert peers.endpoints(member(2)) == news[:8]


# ---------------------------------------------------------------- neighbours


def reaches_all(links: Mapping[PeerKey, Sequence[PeerKey]]) -> bool:
    """Is the graph of these dials, each usable in both directions, in one piece?"""
    both: dict[PeerKey, set[PeerKey]] = {one: set(others) for one, others in links.items()}
    for one, others in links.items():
        for other in others:
            both[other].add(one)
    waiting = [next(iter(both))]
    reached = set(waiting)
    while waiting:
        for other in both[waiting.pop()] - reached:
            reached.add(other)
            waiting.append(other)
    return reached == set(both)


def test_a_small_mesh_is_a_full_mesh() -> None:
    peers = book(1, roster=range(1, 11), by_hand=(11,), max_links=10)

    assert peers.neighbours({}, random.Random(0)) == sorted(key(number) for number in range(2, 12))


@given(st.integers(3, 40), st.integers(2, 6), st.integers(0, 2**32))
def test_a_sparse_mesh_is_connected_whatever_the_dice_say(size: int, sparse: int, seed: int) -> None:
    roster = Roster.of(map(member, range(size)))
    links = {}
    for number in range(size):
        peers = book(number, max_links=2 * sparse, sparse_links=sparse)
        peers.roster = roster
        links[key(number)] = peers.neighbours({}, random.Random(seed + number))

    assert reaches_all(links)
    assert all(len(chosen) <= 2 * sparse for chosen in links.values())


@given(
    st.integers(0, 30),
    st.sets(st.integers(0, 60), max_size=20),
    st.sets(st.integers(0, 60), max_size=20),
    st.integers(1, 8),
    st.integers(1, 8),
)
def test_neighbours_are_members_bounded_and_the_same_for_the_same_dice(
    roster: int, by_hand: set[int], held: set[int], most: int, sparse: int
) -> None:
    peers = book(7, range(roster), by_hand - {7}, max_links=most, sparse_links=sparse)
    links = {key(number): None for number in held}
    chosen = peers.neighbours(links, random.Random(1))

    assert chosen == sorted(set(chosen)) == peers.neighbours(dict(reversed(links.items())), random.Random(1))
    assert len(chosen) <= most
    assert all(one in peers for one in chosen)
    if len(peers) <= most:
        assert len(chosen) == len(peers)


def test_links_of_now_are_kept_where_there_is_room() -> None:
    peers = book(0, roster=range(50), max_links=20, sparse_links=10)
    first = peers.neighbours({}, random.Random(1))

    assert peers.neighbours(dict.fromkeys(first), random.Random(2)) == first


@pytest.mark.parametrize("others", [(2,), (2, 3), (2, 3, 4)])
def test_one_link_is_enough_for_a_choice(others: tuple[int, ...]) -> None:
    by_roster = book(1, roster=(1, *others), max_links=1)
    by_hand = book(1, by_hand=others, max_links=1)

    assert len(by_roster.neighbours({}, random.Random(0))) == 1
    assert len(by_hand.neighbours({}, random.Random(0))) == 1
