"""Reputation: what faults cost, how it heals, and that ignoring never silences a third of the stake."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core_support import Person
from zmesh.core.reputation import COST, Reputation
from zmesh.core.types import Fault, Member

ALICE = Person(2).member


def test_every_fault_has_its_price() -> None:
    assert {
        Fault.MALFORMED: 20,
        Fault.TTL_INFLATED: 20,
        Fault.RELAYED_FORGERY: 20,
        Fault.MISROUTED_DIRECT: 20,
        Fault.INVALID_MESSAGE: 10,
        Fault.BROKEN_OFFER: 2,
    } == COST
    assert set(COST) == set(Fault)


def test_a_fault_costs_and_time_heals_in_a_straight_line() -> None:
    book = Reputation(heal=600.0)
    assert book.score(ALICE, 0.0) == 100.0

    assert book.charge(ALICE, Fault.MALFORMED, 0.0) == 80.0
    assert book.score(ALICE, 60.0) == 90.0
    assert book.charge(ALICE, Fault.MALFORMED, 60.0) == 70.0
    assert book.score(ALICE, 240.0) == 100.0
    assert book.snapshot(240.0) == {}, "who is healed is forgotten"


def test_a_score_never_falls_below_nothing_and_heals_in_ten_minutes() -> None:
    book = Reputation(heal=600.0)
    for _ in range(20):
        left = book.charge(ALICE, Fault.MALFORMED, 0.0)

    assert left == 0.0
    assert book.score(ALICE, 599.0) < 100.0
    assert book.score(ALICE, 600.0) == 100.0


def test_a_score_heals_back_to_where_the_registry_put_it() -> None:
    book = Reputation(heal=600.0)
    doubted = ALICE._replace(reputation=60.0)
    assert book.score(doubted, 0.0) == 60.0

    assert book.charge(doubted, Fault.INVALID_MESSAGE, 0.0) == 50.0
    assert book.score(doubted, 3600.0) == 60.0


def test_a_new_key_of_the_same_account_washes_nothing() -> None:
    book = Reputation(heal=600.0)
    book.charge(ALICE, Fault.MALFORMED, 0.0)

    assert book.score(Person(9, account=ALICE.account).member, 0.0) == 80.0


def test_what_was_saved_comes_back_healed_by_the_time_between() -> None:
    book = Reputation(heal=600.0)
    book.charge(ALICE, Fault.MALFORMED, 100.0)
    saved = book.snapshot(130.0)
    assert saved == {ALICE.account: (80.0, 30.0)}

    restarted = Reputation(heal=600.0)
    restarted.restore({account: (score, age + 30.0) for account, (score, age) in saved.items()}, 5.0)
    assert restarted.score(ALICE, 5.0) == 90.0


def crowd(stakes: list[int]) -> list[Member]:
    return [Person(number, stake=stake).member for number, stake in enumerate(stakes, 2)]


def test_the_worst_are_ignored_first_up_to_a_third_of_the_stake() -> None:
    members = crowd([10, 10, 10, 30, 30])
    book = Reputation(heal=600.0)
    for member, faults in zip(members, (5, 4, 3, 0, 0), strict=True):
        for _ in range(faults):
            book.charge(member, Fault.MALFORMED, 0.0)

    assert book.ignored(members, 50.0, 0.0) == {member.account for member in members[:3]}
    for _ in range(4):
        book.charge(members[4], Fault.MALFORMED, 0.0)
    assert book.ignored(members, 50.0, 0.0) == {member.account for member in members[:3]}, (
        "30 more would be too many, and who is too heavy to be ignored is no cover for others"
    )


def test_without_stakes_every_member_weighs_the_same() -> None:
    members = crowd([0, 0, 0])
    book = Reputation(heal=600.0)
    for _ in range(3):
        book.charge(members[1], Fault.MALFORMED, 0.0)

    assert book.ignored(members, 50.0, 0.0) == {members[1].account}
    assert book.ignored(members[:2], 50.0, 0.0) == frozenset(), "one of two is more than a third"


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 6)), min_size=1, max_size=30))
def test_whoever_misbehaves_two_thirds_of_the_stake_are_heard(given_crowd: list[tuple[int, int]]) -> None:
    members = [
        Member(bytes([number]) * 32, f"a{number}", f"p{number}", stake=stake)
        for number, (stake, _) in enumerate(given_crowd)
    ]
    book = Reputation(heal=600.0)
    for member, (_, faults) in zip(members, given_crowd, strict=True):
        for _ in range(faults):
            book.charge(member, Fault.MALFORMED, 0.0)

    ignored = book.ignored(members, 50.0, 0.0)
    weight = {member.account: member.stake for member in members}
    if not any(weight.values()):
        weight = dict.fromkeys(weight, 1)
    assert sum(weight[account] for account in ignored) * 3 <= sum(weight.values())
    assert all(book.score(member, 0.0) < 50.0 for member in members if member.account in ignored)
