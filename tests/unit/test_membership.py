"""Membership: who may take part, each refusal with its own reason, and the roster that comes of it."""

from __future__ import annotations

from collections import Counter

import msgpack
import pytest

from tests.unit.delegation_support import BEGIN, GENESIS, Signer, delegation, signer
from tests.unit.membership_support import (
    ALICE,
    BOB,
    EVE,
    FIRST,
    NODES,
    NOON,
    SECOND,
    SET,
    THIRD,
    account,
    at,
    membership,
    offer,
    record,
)
from zmesh.core.types import Member, Roster
from zmesh.delegation import DAY, Delegation, Scheme
from zmesh.handlers.record import Record
from zmesh.handlers.standing import Standing
from zmesh.identity import Identity
from zmesh.registry import membership as module
from zmesh.registry import refusals as refusals_module
from zmesh.registry.port import ValidatorSet

# ---------------------------------------------------------------- admitted


@pytest.mark.parametrize("scheme", list(Scheme), ids=lambda scheme: scheme.name.lower())
def test_a_delegated_key_becomes_the_member_that_the_registry_describes(scheme: Scheme) -> None:
    by = signer(1, scheme)
    found = ValidatorSet(accounts={by.account: account(by, "Alice", stake=10, reputation=70.0)}, genesis=GENESIS)
    members = membership(found)

    assert members.judge(record(FIRST, delegation(by, FIRST)), NOON) is Standing.ADMITTED
    assert len(members.roster_at(NOON)) == 0  # its own record is still to be verified
    members.accepted(record(FIRST, delegation(by, FIRST), "alice"), NOON)
    assert members.roster_at(NOON).members == (Member(FIRST.public, "5Alice", "alice", (), 10, True, 70.0, ("train",)),)
    assert members.counters == Counter(admitted=1)


def test_whom_the_registry_names_by_key_needs_no_delegation() -> None:
    named = Member(FIRST.public, "first", "first-by-file")
    members = membership(ValidatorSet(Roster((named,))))

    assert offer(members, record(FIRST, name="by record")) is Standing.ADMITTED
    assert members.roster_at(NOON).members == (named,)


def test_the_roster_is_the_same_object_while_nothing_changes() -> None:
    members = membership()
    offer(members, record(FIRST, delegation(ALICE, FIRST)))
    before = members.roster_at(NOON)

    offer(members, record(FIRST, delegation(ALICE, FIRST), sequence=2))
    offer(members, record(THIRD, delegation(EVE, THIRD)))
    members.registered(ValidatorSet(accounts=dict(SET.accounts), genesis=GENESIS, block=7))
    assert members.roster_at(at(5)) is before

    offer(members, record(FIRST, delegation(ALICE, FIRST), name="renamed", sequence=3))
    assert members.roster_at(at(5)) is not before
    assert members.roster_at(at(5)).members[0].peer_id == "renamed"


def test_a_renewed_delegation_keeps_its_member_in() -> None:
    members = membership()
    offer(members, record(FIRST, delegation(ALICE, FIRST, 1, not_after=BEGIN + DAY)))
    offer(members, record(FIRST, delegation(ALICE, FIRST, 2), sequence=2))

    assert list(members.roster_at(at(2 * DAY)).by_key) == [FIRST.public]


# ---------------------------------------------------------------- refused


REFUSED = [
    (record(FIRST), Standing.UNKNOWN_KEY),
    (record(FIRST, b"junk"), Standing.MALFORMED),
    (record(FIRST, delegation(ALICE, FIRST, genesis=b"")), Standing.OTHER_CHAIN),
    (record(FIRST, delegation(ALICE, FIRST, genesis=bytes(32))), Standing.OTHER_CHAIN),
    (record(FIRST, delegation(ALICE, FIRST, network="another")), Standing.OTHER_NETWORK),
    (record(FIRST, delegation(EVE, FIRST)), Standing.UNKNOWN_ACCOUNT),
    (record(FIRST, delegation(ALICE, FIRST, not_before=BEGIN + 1600)), Standing.NOT_YET),
    (record(FIRST, delegation(ALICE, FIRST, not_after=BEGIN + 400)), Standing.EXPIRED),
    (record(FIRST, delegation(ALICE, SECOND)), Standing.NOT_HELD),
    (record(FIRST, delegation(ALICE, SECOND, key=FIRST.public)), Standing.NOT_HELD),
    (record(FIRST, delegation(EVE, FIRST, account=ALICE.account)), Standing.FORGED),
]


@pytest.mark.parametrize("offered, reason", REFUSED, ids=[f"{n}-{reason}" for n, (_, reason) in enumerate(REFUSED)])
def test_each_refusal_has_its_reason_its_counter_and_one_line_of_log(
    offered: Record, reason: Standing, caplog: pytest.LogCaptureFixture
) -> None:
    members = membership()

    assert [offer(members, offered) for _ in range(3)] == [reason] * 3
    assert len(members.roster_at(NOON)) == 0
    assert members.counters == Counter({reason.value: 3})
    assert len(caplog.records) == 1
    said = caplog.records[0].getMessage()
    assert reason.value in said
    assert FIRST.public.hex() in said
    assert reason.why in said


def test_a_clock_that_is_off_by_ten_minutes_is_what_the_log_suggests(caplog: pytest.LogCaptureFixture) -> None:
    members = membership()
    offer(members, record(FIRST, delegation(ALICE, FIRST, not_before=int(NOON.wall) + 600)))
    offer(members, record(FIRST, delegation(ALICE, FIRST, not_after=int(NOON.wall) - 600)))

    said = [entry.getMessage() for entry in caplog.records]
    assert "the delegation has yet to begin, or a clock is wrong by 600 s" in said[0]
    assert "the delegation has ended, or a clock is wrong by 600 s" in said[1]
    assert all("5Alice" in one for one in said)


def test_nothing_is_verified_for_an_account_that_the_registry_does_not_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def verified(_: Delegation) -> bool:
        raise AssertionError("a stranger bought a verification")

    monkeypatch.setattr(Delegation, "held_by_key", verified)
    monkeypatch.setattr(Delegation, "signed_by_account", verified)
    members = membership()

    assert offer(members, record(FIRST, delegation(EVE, FIRST))) is Standing.UNKNOWN_ACCOUNT
    assert offer(members, record(FIRST, delegation(ALICE, FIRST, network="x"))) is Standing.OTHER_NETWORK


def test_a_delegation_is_verified_once_however_often_its_record_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    members = membership()
    made = delegation(ALICE, FIRST)
    offer(members, record(FIRST, made))
    monkeypatch.setattr(Delegation, "signed_by_account", None)

    assert offer(members, record(FIRST, made, sequence=2)) is Standing.ADMITTED


def test_junk_beside_a_text_that_is_known_is_refused() -> None:
    """Passed on, it would make honest relays look like forgers to those who do not know the text."""
    members = membership()
    made = delegation(ALICE, FIRST)
    offer(members, record(FIRST, made))
    fields = msgpack.unpackb(made.encoded)
    fields[11] = bytes(64)

    assert offer(members, record(FIRST, msgpack.packb(fields), sequence=2)) is Standing.NOT_HELD


def test_forged_ecdsa_costs_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0
    by = signer(1, Scheme.ECDSA)
    found = ValidatorSet(accounts={by.account: account(by, "Alice")}, genesis=GENESIS)
    members = membership(found)
    good = delegation(by, FIRST)

    def no(_: Delegation) -> bool:
        nonlocal asked
        asked += 1
        return False

    with monkeypatch.context() as patch:
        patch.setattr(Delegation, "signed_by_account", no)
        standings = Counter(members.judge(record(FIRST, good), NOON) for _ in range(100))
    assert standings == Counter({Standing.FORGED: module.SLOW_BURST, Standing.BUSY: 100 - module.SLOW_BURST})
    assert asked == module.SLOW_BURST
    # Whose public key is another's costs a hash, and needs no turn.
    fields = msgpack.unpackb(good.encoded)
    fields[10] = signer(2, Scheme.ECDSA).public
    assert members.judge(record(FIRST, msgpack.packb(fields)), NOON) is Standing.FORGED
    assert members.judge(record(FIRST, good), at(1)) is Standing.ADMITTED


# ---------------------------------------------------------------- names


def test_a_name_that_two_claim_stays_with_both_and_is_counted_once() -> None:
    members = membership()
    offer(members, record(FIRST, delegation(ALICE, FIRST), "validator"))
    offer(members, record(SECOND, delegation(BOB, SECOND), "validator"))

    assert [member.peer_id for member in members.roster_at(NOON).members] == ["validator"] * 2
    members.registered(ValidatorSet(accounts=SET.accounts, genesis=GENESIS, block=2))
    assert len(members.roster_at(NOON)) == 2
    assert members.counters["name_contested"] == 1


@pytest.mark.parametrize("name", ["5Bob", SECOND.public.hex(), SECOND.public.hex().upper()])
def test_a_name_that_is_somebodys_account_or_could_be_a_key_catches_nothing(name: str) -> None:
    members = membership()
    offer(members, record(FIRST, delegation(ALICE, FIRST), name))
    offer(members, record(SECOND, delegation(BOB, SECOND), "bob"))

    assert {member.account: member.peer_id for member in members.roster_at(NOON).members} == {
        "5Alice": "5Alice",
        "5Bob": "bob",
    }


# ---------------------------------------------------------------- open


def test_in_an_open_mesh_any_key_with_a_record_is_a_guest() -> None:
    members = membership(admission="open")

    assert offer(members, record(FIRST, name="guest")) is Standing.ADMITTED
    assert offer(members, record(SECOND, delegation(ALICE, SECOND), name="alice")) is Standing.ADMITTED
    assert offer(members, record(THIRD, delegation(EVE, THIRD), name="eve")) is Standing.ADMITTED
    assert {
        member.peer_id: (member.account, member.is_validator, member.stake)
        for member in members.roster_at(NOON).members
    } == {
        "guest": (FIRST.public.hex(), False, 0),
        "alice": ("5Alice", True, 10),
        "eve": (THIRD.public.hex(), False, 0),
    }


def test_an_open_mesh_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_GUESTS", 2)
    members = membership(admission="open")

    assert [offer(members, record(node)) for node in NODES[:3]] == [Standing.ADMITTED] * 2 + [Standing.FULL]
    assert offer(members, record(NODES[3], delegation(ALICE, NODES[3]))) is Standing.ADMITTED
    assert offer(members, record(FIRST, sequence=2)) is Standing.ADMITTED
    assert len(members.roster_at(NOON)) == 3


def test_a_key_that_is_none_is_no_guest() -> None:
    junk = record(FIRST)
    members = membership(admission="open")
    broken = Record(junk.network, bytes(32), "x", (), None, None, (), (1,), 1, 0, None, junk.encoded)

    assert members.judge(broken, NOON) is Standing.MALFORMED


# ---------------------------------------------------------------- bounds


def test_what_strangers_make_for_nothing_is_logged_within_bounds(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(refusals_module, "MAX_TOLD", 3)
    members = membership()
    for node in NODES:
        offer(members, record(node))
    assert len(caplog.records) == 3
    offer(members, record(FIRST), at(refusals_module.TOLD_FOR))
    assert len(caplog.records) == 4
    assert members.counters["unknown_key"] == len(NODES) + 1


def test_former_accounts_are_remembered_by_their_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FORMER", 0)
    members = membership()
    offer(members, record(SECOND, delegation(ALICE, SECOND, 5)))
    members.registered(ValidatorSet(accounts={}, genesis=GENESIS))
    members.registered(SET)

    assert len(members.roster_at(NOON)) == 0
    assert offer(members, record(FIRST, delegation(ALICE, FIRST, 4))) is Standing.SUPERSEDED
    assert offer(members, record(SECOND, delegation(ALICE, SECOND, 5))) is Standing.ADMITTED
    assert list(members.roster_at(NOON).by_key) == [SECOND.public]


def test_names_are_forgotten_of_keys_that_are_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_NAMES", 2)
    members = membership()
    offer(members, record(FIRST, delegation(ALICE, FIRST, 1)))
    offer(members, record(SECOND, delegation(ALICE, SECOND, 2)))
    offer(members, record(THIRD, delegation(BOB, THIRD, 1)))

    assert set(members.roster_at(NOON).by_key) == {SECOND.public, THIRD.public}


def test_a_thousand_join_and_the_roster_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made when it is read, and not for each who joins; signatures are not what is looked at here."""
    made = 0

    def counted(members: tuple[Member, ...]) -> Roster:
        nonlocal made
        made += 1
        return Roster(members)

    monkeypatch.setattr(module, "Roster", counted)
    monkeypatch.setattr(Delegation, "held_by_key", lambda self: True)
    monkeypatch.setattr(Delegation, "signed_by_account", lambda self: True)
    accounts, records = {}, []
    for number in range(1000):
        node = Identity.from_seed(number.to_bytes(32))
        by = Signer(Scheme.ED25519, node.public, lambda message: bytes(64))
        accounts[by.account] = account(by, f"{number:04}")
        records.append(record(node, delegation(by, node)))
    members = membership(ValidatorSet(accounts=accounts, genesis=GENESIS))

    assert [offer(members, one) for one in records] == [Standing.ADMITTED] * 1000
    assert members.deadline == 0.0
    assert len(members.roster_at(NOON)) == 1000
    assert made == 1
