"""A queue that is shared: whoever is alone has all of it, and nobody can fill it for the others."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh import MeshMessage, MessageType
from zmesh.fair_queue import RESERVE, FairQueue


def by(account: str, number: int = 0) -> MeshMessage:
    return MeshMessage("", MessageType.GOSSIP, account, 0.0, {"n": number}, "", 5, account_id=account)


def fill(queue: FairQueue, account: str, most: int = 100_000) -> int:
    """Messages of this account that are taken in a row."""
    return next(count for count in range(most) if not queue.put(by(account)))


def test_messages_come_out_in_the_order_in_which_they_went_in() -> None:
    queue = FairQueue(100)
    for number in range(10):
        assert queue.put(by("ab"[number % 2], number))
    assert [queue.get().payload["n"] for _ in range(10)] == list(range(10))
    with pytest.raises(IndexError):
        queue.get()


def test_whoever_is_alone_has_all_of_it() -> None:
    queue = FairQueue(4096)
    assert fill(queue, "a") == 4096
    queue.get()
    assert fill(queue, "a") == 1


def test_from_half_on_nobody_has_more_than_an_even_share() -> None:
    queue = FairQueue(4096)
    assert [queue.put(by("b")) for _ in range(10)] == [True] * 10
    assert fill(queue, "a") == 2048
    assert fill(queue, "b") == 2048 - 10
    assert fill(queue, "c") == RESERVE, "it is full, of those who came before"


def test_who_filled_it_alone_leaves_what_becomes_free_to_those_who_come() -> None:
    queue = FairQueue(4096)
    fill(queue, "flood")
    taken: Counter[str] = Counter()
    for _ in range(1000):
        assert queue.get().account_id == "flood"
        for account in ("flood", "flood", "honest"):
            taken[account] += queue.put(by(account))
    assert taken == {"flood": 1, "honest": 999}, "one before anybody else had come"


def test_a_crowd_of_accounts_does_not_fill_it_beyond_twice_its_limit() -> None:
    queue = FairQueue(128)
    for number in range(1000):
        fill(queue, str(number))
    assert len(queue.messages) == 256


def test_what_is_dropped_at_the_end_is_counted_and_forgotten() -> None:
    queue = FairQueue(16)
    assert fill(queue, "a") == 16
    assert (queue.clear(), len(queue.messages)) == (16, 0)
    assert fill(queue, "a") == 16


@given(st.integers(1, 300), st.lists(st.sampled_from("abcdefgh-"), max_size=1500))
def test_it_never_holds_more_than_twice_its_limit_and_forgets_who_has_none(limit: int, steps: list[str]) -> None:
    queue = FairQueue(limit)
    for step in steps:
        if step != "-":
            queue.put(by(step))
        elif queue.messages:
            queue.get()
        assert len(queue.messages) <= 2 * limit
    while queue.messages:
        queue.get()
    assert fill(queue, "a") == limit
