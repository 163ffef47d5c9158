"""One answer of a chain takes away at most a third: for any history of answers, and at the edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.registry.caution import Caution, SetClaim, lost

NINE = frozenset(bytes([number]) for number in range(9))


def without(count: int) -> frozenset[bytes]:
    return frozenset(sorted(NINE)[count:])


def claim(members: frozenset[bytes], block: int, source: str = "a") -> SetClaim:
    return SetClaim(members, block, bytes([block]), source)


def test_a_third_may_go_at_once_and_more_may_not() -> None:
    assert Caution().judge(NINE, claim(without(3), 1)) is None
    assert Caution().judge(NINE, claim(without(4), 1)) == (
        "4 of 9 validators are missing at block 1 of a: another block or endpoint must confirm it"
    )


def test_replacing_everybody_is_as_doubtful_as_losing_them() -> None:
    assert Caution().judge(NINE, claim(frozenset({b"x" * 32}), 1)) is not None


@pytest.mark.parametrize(
    "second, taken",
    [
        (claim(without(5), 1), False),
        (claim(without(5), 2), True),
        (claim(without(5), 1, "b"), True),
        (claim(without(6), 2), True),
        (claim(without(8), 2), False),
        (claim(NINE, 2), True),
    ],
    ids=["the same answer", "a later block", "another endpoint", "one more lost", "something else", "a third opinion"],
)
def test_a_doubt_ends_when_another_block_or_endpoint_agrees(second: SetClaim, taken: bool) -> None:
    caution = Caution()
    assert caution.judge(NINE, claim(without(5), 1)) is not None
    assert (caution.judge(NINE, second) is None) is taken


def test_a_block_after_a_rollback_may_have_a_lower_number() -> None:
    caution = Caution()
    assert caution.judge(NINE, claim(without(5), 9)) is not None
    assert caution.judge(NINE, claim(without(5), 3)) is None


def test_an_empty_set_is_never_taken() -> None:
    caution = Caution()
    for block in range(1, 4):
        refused = caution.judge(NINE, claim(frozenset(), block))
        assert refused == f"a names no validator at block {block}: an empty set is never accepted"
    assert Caution().judge(frozenset(), claim(frozenset(), 1)) is not None


def test_the_first_set_and_newcomers_are_taken_at_once() -> None:
    assert Caution().judge(frozenset(), claim(NINE, 1)) is None
    assert Caution().judge(without(5), claim(NINE, 1)) is None


members = st.frozensets(st.integers(0, 11).map(lambda number: bytes([number])), max_size=12)
answers = st.lists(st.tuples(members, st.integers(0, 5), st.sampled_from("ab")), max_size=30)


@given(answers)
def test_no_history_of_answers_loses_more_than_a_third_by_one_of_them(
    history: list[tuple[frozenset[bytes], int, str]],
) -> None:
    caution = Caution()
    in_force = NINE
    heard: list[SetClaim] = []
    for found, block, source in history:
        one = claim(found, block, source)
        if caution.judge(in_force, one) is None:
            assert found
            if lost(in_force, found) * 3 > len(in_force):
                agreeing = [before for before in heard if (before.block, before.source) != (block, source)]
                assert any(
                    lost(before.members, found) * 3 <= len(before.members) for before in agreeing if before.members
                )
            in_force = found
        heard.append(one)
    assert in_force


@given(answers, members.filter(bool))
def test_a_chain_that_keeps_saying_so_is_believed_in_the_end(
    history: list[tuple[frozenset[bytes], int, str]], final: frozenset[bytes]
) -> None:
    caution = Caution()
    in_force = NINE
    for found, block, source in history:
        if caution.judge(in_force, claim(found, block, source)) is None:
            in_force = found
    for block in (6, 7):
        if caution.judge(in_force, claim(final, block)) is None:
            in_force = final
    assert in_force == final
