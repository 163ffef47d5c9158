"""Membership under every order of arrival: the roster is what the delegations, the registry and the clock make it."""

from __future__ import annotations

from functools import cache
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.unit.delegation_support import BEGIN, GENESIS, NETWORK, delegation, signer
from zmesh.core.now import Now
from zmesh.core.types import PeerKey
from zmesh.core.wire import network_id
from zmesh.delegation import DAY, Delegation, Scheme
from zmesh.handlers.record import Description, Record, encode_record
from zmesh.handlers.standing import Standing
from zmesh.identity import Identity
from zmesh.registry.membership import Membership
from zmesh.registry.port import Account, ValidatorSet

ACCOUNTS = [signer(number, Scheme.ED25519) for number in range(1, 5)]
NODES = [Identity.from_seed(bytes([number]) * 32) for number in range(101, 105)]
NAMES = {who.account: f"5{number}" for number, who in enumerate(ACCOUNTS)}

CHOICES = st.tuples(
    st.integers(0, 3),  # account
    st.integers(0, 3),  # mesh key
    st.integers(1, 4),  # sequence
    st.sampled_from([(0, 2), (0, 8), (3, 8)]),  # days from and until
    st.integers(1, 3),  # sequence of the record
    st.sampled_from(["good"] * 6 + ["forged", "not held", "none"]),
)
Choice = tuple[int, int, int, tuple[int, int], int, str]


@cache
def record(choice: Choice) -> tuple[Record, Delegation | None]:
    """A record, and the delegation in it if that one holds in its time."""
    who, to, sequence, (begin, until), number, how = choice
    by, node = ACCOUNTS[who], NODES[to]
    days: dict[str, Any] = {"not_before": BEGIN + begin * DAY, "not_after": BEGIN + until * DAY - 1}
    if how == "forged":
        made = delegation(ACCOUNTS[who - 1], node, sequence, account=by.account, **days)
    elif how == "not held":
        made = delegation(by, NODES[to - 1], sequence, key=node.public, **days)
    else:
        made = delegation(by, node, sequence, **days)
    described = Description(f"n{to}", delegation=None if how == "none" else made.encoded)
    whole = encode_record(described, network_id(NETWORK, GENESIS), node.public, number, 0, node.sign)
    return whole, made if how == "good" else None


class Arrival(RuleBasedStateMachine):
    """Two nodes that hear the same, each in an order of its own, and a model that knows no order."""

    def __init__(self) -> None:
        super().__init__()
        self.nodes = (Membership(NETWORK), Membership(NETWORK))
        self.days = 0
        self.named: set[int] = set()
        self.seen: dict[bytes, Delegation] = {}
        self.registers({0, 1, 2, 3})

    @property
    def now(self) -> Now:
        return Now(self.days * DAY, BEGIN + self.days * DAY + 1)

    @rule(named=st.sets(st.integers(0, 3)))
    def registers(self, named: set[int]) -> None:
        self.named = named
        accounts = {ACCOUNTS[one].account: Account(ACCOUNTS[one].account, f"5{one}") for one in sorted(named)}
        for node in self.nodes:
            node.registered(ValidatorSet(accounts=accounts, genesis=GENESIS))

    @rule(days=st.integers(1, 3))
    def passes(self, days: int) -> None:
        self.days += days
        for node in self.nodes:
            node.roster_at(self.now)

    @rule(choices=st.lists(CHOICES, max_size=6), data=st.data())
    def arrive(self, choices: list[Choice], data: st.DataObject) -> None:
        for node in self.nodes:
            for choice in data.draw(st.permutations(choices)):
                offered, _ = record(choice)
                if node.judge(offered, self.now) is Standing.ADMITTED:
                    node.accepted(offered, self.now)
                if data.draw(st.booleans()):
                    assert node.roster_at(self.now) is node.roster_at(self.now)
        for choice in choices:
            _, made = record(choice)
            if made is not None and choice[0] in self.named and self.holds(made):
                self.learn(made)

    def learn(self, made: Delegation) -> None:
        said = made.statement
        known = self.seen.get(said.account)
        if known is None or (known.statement.sequence, said.text) < (said.sequence, known.statement.text):
            self.seen[said.account] = made

    def holds(self, made: Delegation) -> bool:
        return made.statement.not_before <= self.now.wall <= made.statement.not_after

    @invariant()
    def all_agree_with_the_model(self) -> None:
        expected: dict[PeerKey, str] = {}
        for made in sorted(self.seen.values(), key=lambda made: (made.statement.sequence, made.statement.account)):
            if made.statement.account in {ACCOUNTS[one].account for one in self.named} and self.holds(made):
                expected[made.statement.key] = NAMES[made.statement.account]
        for node in self.nodes:
            assert {member.key: member.account for member in node.roster_at(self.now).members} == expected
            assert len({member.account for member in node.roster_at(self.now).members}) == len(expected)

    @invariant()
    def what_is_due_is_not_forgotten(self) -> None:
        for node in self.nodes:
            node.roster_at(self.now)
            assert node.deadline is None or node.deadline > self.now.wall


def test_whatever_the_order_of_arrival_the_roster_is_the_same() -> None:
    run_state_machine_as_test(Arrival, settings=settings(max_examples=60, stateful_step_count=20))
