"""Shares of a queue: whoever is alone has all of it, and nobody can fill it for the others."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from zmesh.shares import RESERVE, Shares


def fill(shares: Shares, account: str, most: int = 100_000) -> int:
    """Messages of this account that are taken in a row."""
    return next(count for count in range(most) if not shares.take(account))


def test_whoever_is_alone_has_all_of_it() -> None:
    shares = Shares(4096)
    assert fill(shares, "a") == 4096
    shares.leave("a")
    assert fill(shares, "a") == 1


def test_from_half_on_nobody_has_more_than_an_even_share() -> None:
    shares = Shares(4096)
    assert [shares.take("b") for _ in range(10)] == [True] * 10
    assert fill(shares, "a") == 2048
    assert fill(shares, "b") == 2048 - 10
    assert fill(shares, "c") == RESERVE, "it is full, of those who came before"


def test_who_filled_it_alone_leaves_what_becomes_free_to_those_who_come() -> None:
    shares = Shares(4096)
    fill(shares, "flood")
    taken: Counter[str] = Counter()
    for _ in range(1000):
        shares.leave("flood")
        for account in ("flood", "flood", "honest"):
            taken[account] += shares.take(account)
    assert taken == {"flood": 1, "honest": 999}, "one before anybody else had come"


@given(st.integers(1, 300), st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=1500))
def test_it_never_holds_more_than_twice_its_limit_and_forgets_who_has_none(
    limit: int, steps: list[tuple[str, bool]]
) -> None:
    shares = Shares(limit)
    held: Counter[str] = Counter()
    for account, comes in steps:
        if comes:
            held[account] += shares.take(account)
        elif held[account]:
            shares.leave(account)
            held[account] -= 1
        assert held.total() <= 2 * limit + 8
    for account, count in held.items():
        for _ in range(count):
            shares.leave(account)
    assert fill(shares, "a") == limit
