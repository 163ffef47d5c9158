"""One key per account and one account per key, as registries and time change."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.delegation_support import BEGIN, END, GENESIS, NETWORK, delegation
from tests.unit.membership_support import (
    ALICE,
    BOB,
    FIRST,
    NOON,
    SECOND,
    SET,
    at,
    membership,
    offer,
    record,
)
from zmesh.core.errors import ConfigError
from zmesh.core.now import Now
from zmesh.core.types import Member, Roster
from zmesh.delegation import DAY
from zmesh.handlers.standing import Standing
from zmesh.registry import membership as module
from zmesh.registry.membership import Membership
from zmesh.registry.port import ValidatorSet

# ---------------------------------------------------------------- one key per account, one account per key


def test_the_highest_sequence_of_an_account_ends_the_others_for_ever() -> None:
    members = membership()
    assert offer(members, record(FIRST, delegation(ALICE, FIRST, 1))) is Standing.ADMITTED
    assert offer(members, record(SECOND, delegation(ALICE, SECOND, 2, not_after=BEGIN + DAY))) is Standing.ADMITTED

    assert list(members.roster_at(NOON).by_key) == [SECOND.public]
    assert offer(members, record(FIRST, delegation(ALICE, FIRST, 1), sequence=2)) is Standing.SUPERSEDED
    assert members.deadline == BEGIN + DAY + 1
    assert len(members.roster_at(at(DAY))) == 0
    assert offer(members, record(FIRST, delegation(ALICE, FIRST, 1), sequence=3), at(DAY)) is Standing.SUPERSEDED
    assert offer(members, record(SECOND, delegation(ALICE, SECOND, 1), sequence=3), at(DAY)) is Standing.SUPERSEDED
    assert offer(members, record(FIRST, delegation(ALICE, FIRST, 3), sequence=4), at(DAY)) is Standing.ADMITTED
    assert list(members.roster_at(at(DAY)).by_key) == [FIRST.public]


def test_a_revocation_counts_at_once_also_in_a_record_that_is_not_taken() -> None:
    """A stolen key is out with the first delegation that says so, whoever brings it, before its own node is reached."""
    members = membership()
    offer(members, record(FIRST, delegation(ALICE, FIRST, 1)))
    members.roster_at(NOON)

    assert members.judge(record(SECOND, delegation(ALICE, SECOND, 2)), NOON) is Standing.ADMITTED
    assert (members.is_stale, members.deadline) == (True, 0.0)
    assert len(members.roster_at(NOON)) == 0


def test_two_with_one_sequence_are_evidence_and_all_go_on_with_the_same(caplog: pytest.LogCaptureFixture) -> None:
    one, other = delegation(ALICE, FIRST, 5), delegation(ALICE, SECOND, 5)
    first = min((one, other), key=lambda made: made.statement.text)
    for order in ((one, other), (other, one)):
        members = membership()
        for made in (*order, *order):
            node = FIRST if made is one else SECOND
            offer(members, record(node, made))
        assert list(members.roster_at(NOON).by_key) == [first.statement.key]
        assert members.counters["delegation_equivocation"] == 1
        (told,) = [line for line in caplog.messages if line.startswith("membership_contradiction")]
        assert one.encoded.hex() in told
        assert other.encoded.hex() in told
        caplog.clear()


def test_of_two_with_one_sequence_the_first_to_come_after_a_restart_counts_until_the_other_does() -> None:
    first, second = sorted(
        (record(node, delegation(ALICE, node, 5)) for node in (FIRST, SECOND)), key=lambda made: made.key
    )
    before = membership()
    for made in (first, second):
        offer(before, made)
    members = Membership(NETWORK)
    members.restore(before.export())
    members.registered(SET)

    assert offer(members, second) is Standing.ADMITTED
    assert list(members.roster_at(NOON).by_key) == [second.key]
    assert offer(members, first) is Standing.ADMITTED
    assert list(members.roster_at(NOON).by_key) == [first.key] == list(before.roster_at(NOON).by_key)
    assert offer(members, second) is Standing.SUPERSEDED
    assert members.counters["delegation_equivocation"] == 1


def test_a_key_speaks_for_the_account_with_the_highest_sequence() -> None:
    for order in ((1, 2), (2, 1)):
        members = membership()
        standings = {}
        for which in order:
            made = delegation(ALICE, FIRST, 1) if which == 1 else delegation(BOB, FIRST, 2)
            standings[which] = offer(members, record(FIRST, made, sequence=which))
        assert [member.account for member in members.roster_at(NOON).members] == ["5Bob"]
        assert standings == {1: Standing.ADMITTED if order == (1, 2) else Standing.KEY_TAKEN, 2: Standing.ADMITTED}
        # When Bob moves on, Alice has the key that agreed to speak for her.
        offer(members, record(SECOND, delegation(BOB, SECOND, 3)))
        assert {member.account: member.key for member in members.roster_at(NOON).members} == {
            "5Alice": FIRST.public,
            "5Bob": SECOND.public,
        }


def test_a_key_that_the_registry_names_cannot_be_claimed_by_an_account() -> None:
    members = membership(ValidatorSet(Roster((Member(FIRST.public, "first", "first"),)), SET.accounts, GENESIS))

    assert offer(members, record(FIRST, delegation(ALICE, FIRST))) is Standing.ADMITTED  # as the registry's
    assert [member.account for member in members.roster_at(NOON).members] == ["first"]


def test_a_key_and_its_negative_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can sign with the negative by the usual means; so here all keys share one image."""
    monkeypatch.setattr(module, "curve_image", lambda key: bytes(32))
    members = membership()

    assert offer(members, record(FIRST, delegation(ALICE, FIRST, 2))) is Standing.ADMITTED
    assert offer(members, record(SECOND, delegation(BOB, SECOND, 1))) is Standing.COLLIDES
    assert list(members.roster_at(NOON).by_key) == [FIRST.public]
    assert offer(members, record(SECOND, delegation(BOB, SECOND, 3))) is Standing.ADMITTED
    assert list(members.roster_at(NOON).by_key) == [SECOND.public]


# ---------------------------------------------------------------- change and time


def test_an_account_that_leaves_is_out_at_once_and_back_when_it_returns() -> None:
    members = membership()
    offer(members, record(FIRST, delegation(ALICE, FIRST)))
    offer(members, record(SECOND, delegation(BOB, SECOND)))
    alone = ValidatorSet(accounts={BOB.account: SET.accounts[BOB.account]}, genesis=GENESIS)

    members.registered(alone)
    assert list(members.roster_at(NOON).by_key) == [SECOND.public]
    assert offer(members, record(FIRST, delegation(ALICE, FIRST), sequence=2)) is Standing.UNKNOWN_ACCOUNT
    members.registered(SET)
    assert set(members.roster_at(NOON).by_key) == {FIRST.public, SECOND.public}


def test_what_the_registry_says_of_an_account_changes_its_member() -> None:
    members = membership()
    offer(members, record(FIRST, delegation(ALICE, FIRST)))
    poorer = SET.accounts[ALICE.account]._replace(stake=1, is_validator=False)

    members.registered(ValidatorSet(accounts={ALICE.account: poorer}, genesis=GENESIS))
    assert [(member.stake, member.is_validator) for member in members.roster_at(NOON).members] == [(1, False)]


def test_a_delegation_ends_on_time() -> None:
    members = membership()
    offer(members, record(FIRST, delegation(ALICE, FIRST)))
    offer(members, record(SECOND, delegation(BOB, SECOND, not_after=END + 9)))
    members.roster_at(NOON)
    assert members.deadline == END + 1

    assert len(members.roster_at(Now(0.0, END + 0.9))) == 2
    assert list(members.roster_at(Now(0.0, END + 1)).by_key) == [SECOND.public]
    assert members.deadline == END + 10


def test_a_clock_that_is_set_back_lets_nobody_in_early_and_throws_nobody_out_for_good() -> None:
    members = membership()
    offer(members, record(FIRST, delegation(ALICE, FIRST)))
    members.registered(SET)
    assert len(members.roster_at(Now(0.0, BEGIN - 100))) == 0
    assert members.deadline == BEGIN
    assert list(members.roster_at(Now(0.0, BEGIN)).by_key) == [FIRST.public]


def test_another_chain_starts_afresh() -> None:
    members = membership()
    offer(members, record(FIRST, delegation(ALICE, FIRST, 9)))

    members.registered(ValidatorSet(accounts=SET.accounts, genesis=bytes(32)))
    assert len(members.roster_at(NOON)) == 0
    assert offer(members, record(FIRST, delegation(ALICE, FIRST, 9))) is Standing.OTHER_CHAIN
    assert offer(members, record(FIRST, delegation(ALICE, FIRST, 1, genesis=bytes(32)))) is Standing.ADMITTED


def test_saved_sequences_are_bounded_and_those_of_who_belongs_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmesh.registry.membership.MAX_SEQUENCES", 2)
    members = Membership(NETWORK)
    members.restore({"genesis": GENESIS.hex(), "sequences": {(bytes([n]) * 32).hex(): n for n in (1, 2)}})
    members.registered(SET)
    offer(members, record(FIRST, delegation(ALICE, FIRST, 5)))

    assert members.export()["sequences"] == {ALICE.account.hex(): 5, (b"\1" * 32).hex(): 1}


def test_sequences_survive_a_restart_and_count_for_their_chain_alone() -> None:
    before = membership()
    offer(before, record(SECOND, delegation(ALICE, SECOND, 5)))
    saved = json.loads(json.dumps(before.export()))
    assert saved == {"genesis": GENESIS.hex(), "sequences": {ALICE.account.hex(): 5}}

    after = Membership(NETWORK)
    after.restore(saved)
    assert after.export() == saved
    after.registered(SET)
    assert offer(after, record(FIRST, delegation(ALICE, FIRST, 4))) is Standing.SUPERSEDED
    assert offer(after, record(SECOND, delegation(ALICE, SECOND, 5))) is Standing.ADMITTED
    assert after.export() == saved

    elsewhere = Membership(NETWORK)
    elsewhere.restore(saved)
    elsewhere.registered(ValidatorSet(accounts=SET.accounts, genesis=bytes(32)))
    assert offer(elsewhere, record(FIRST, delegation(ALICE, FIRST, 4, genesis=bytes(32)))) is Standing.ADMITTED


@pytest.mark.parametrize(
    "saved",
    [
        {},
        [],
        {"genesis": 1, "sequences": {}},
        {"genesis": "", "sequences": {"x": 1}},
        {"genesis": "", "sequences": {"00": float("inf")}},
    ],
)
def test_saved_sequences_that_are_damaged_are_refused_in_one_sentence(saved: Any) -> None:
    with pytest.raises(ConfigError, match="the saved sequences of delegations cannot be read"):
        Membership(NETWORK).restore(saved)
