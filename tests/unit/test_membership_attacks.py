"""Membership against whoever means harm: a validator gone bad, a thief of a mesh key, and anybody at the front door."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import msgpack
import pytest

from tests.unit.delegation_support import BEGIN, END, GENESIS, NETWORK, Signer, delegation, signer
from tests.unit.mixed_order import MixedOrder
from zmesh.core.now import Now
from zmesh.core.types import Endpoint, Member, Roster
from zmesh.core.wire import network_id
from zmesh.delegation import Delegation, Scheme
from zmesh.handlers.record import Description, Record, encode_record
from zmesh.handlers.standing import Standing
from zmesh.identity import Identity, verify
from zmesh.registry import membership as module
from zmesh.registry.membership import Membership
from zmesh.registry.port import Account, ValidatorSet

NOON = Now(1000.0, BEGIN + 1000.0)
FIRST, SECOND = (Identity.from_seed(bytes([number]) * 32) for number in (101, 102))


def members_of(*accounts: Signer, **options: Any) -> Membership:
    made = Membership(NETWORK, **options)
    named = {one.account: Account(one.account, f"5{number}") for number, one in enumerate(accounts)}
    made.registered(ValidatorSet(accounts=named, genesis=GENESIS))
    return made


def record(of: Identity, carrying: Delegation | bytes, sequence: int = 1) -> Record:
    encoded = carrying.encoded if isinstance(carrying, Delegation) else carrying
    described = Description("somebody", delegation=encoded)
    return encode_record(described, network_id(NETWORK, GENESIS), of.public, sequence, 0, of.sign)


def test_a_key_of_mixed_order_signs_well_and_is_refused_without_a_fault() -> None:
    bad = signer(1)
    key = cast(Identity, MixedOrder())
    made = delegation(bad, key)
    assert verify(key.public, b"anything", key.sign(b"anything"))
    assert made.held_by_key()
    assert made.signed_by_account()

    assert members_of(bad).judge(record(key, made), NOON) is Standing.MALFORMED
    assert members_of(bad, admission="open").judge(record(key, made), NOON) is Standing.MALFORMED


def test_junk_for_a_delegation_is_no_fault_where_a_guest_is_refused_for_another_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_GUESTS", 0)
    members = members_of(admission="open")

    assert members.judge(record(FIRST, b"junk"), NOON) is Standing.FULL


def test_showing_an_old_delegation_again_costs_no_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no secret: whoever kept it can put it into a record with a junk signature."""
    asked: list[int] = []
    check = Delegation.signed_by_account

    def counted(self: Delegation) -> bool:
        asked.append(self.statement.sequence)
        return check(self)

    monkeypatch.setattr(Delegation, "signed_by_account", counted)
    by = signer(1, Scheme.ECDSA)
    members = members_of(by)
    old, new = (delegation(by, FIRST, sequence) for sequence in (1, 2))
    for made in (old, new):
        members.accepted(record(FIRST, made), NOON)

    standings = Counter(members.judge(record(FIRST, old), NOON) for _ in range(50))
    assert standings == Counter({Standing.ADMITTED: 50})
    assert asked == [1, 2]


@pytest.mark.parametrize("by, field, other", [(Scheme.ED25519, 1, 1), (Scheme.SR25519, 1, 0), (Scheme.SR25519, 2, 1)])
def test_a_true_delegation_under_another_label_is_as_false_for_who_saw_the_true_one(
    by: Scheme, field: int, other: int
) -> None:
    """The key's signature does not cover how the account signed: else rosters would depend on who came first."""
    account = signer(1, by)
    true = delegation(account, FIRST)
    fields = msgpack.unpackb(true.encoded)
    fields[field] = type(fields[field])(other)
    relabelled = record(FIRST, msgpack.packb(fields), 2)
    old, new = members_of(account), members_of(account)

    assert old.judge(record(FIRST, true), NOON) is Standing.ADMITTED
    assert (old.judge(relabelled, NOON), new.judge(relabelled, NOON)) == (Standing.FORGED, Standing.FORGED)


@pytest.mark.parametrize(
    "false, why", [("junk", Standing.MALFORMED), ("another key's", Standing.NOT_HELD), ("forged", Standing.FORGED)]
)
def test_whom_the_registry_names_by_key_cannot_have_us_pass_on_what_is_false(false: str, why: Standing) -> None:
    """Registries differ for a while: who does not name the key would blame this node, and not the key."""
    account, stranger = signer(1), signer(2)
    forged = msgpack.unpackb(delegation(stranger, FIRST).encoded)
    forged[1] = Scheme.ED25519
    carried = {
        "junk": b"junk",
        "another key's": delegation(account, SECOND).encoded,
        "forged": msgpack.packb(forged),
    }
    naming, knowing = members_of(), members_of(stranger)
    naming.registered(ValidatorSet(Roster.of([Member(FIRST.public, "first", "first")]), genesis=GENESIS))

    assert naming.judge(record(FIRST, carried[false]), NOON) is why
    assert knowing.judge(record(FIRST, carried[false]), NOON) is why
    assert list(naming.roster_at(NOON).by_key) == [FIRST.public]
    # What is true and means nothing here makes it no worse than none.
    assert naming.judge(record(FIRST, delegation(stranger, FIRST, not_after=BEGIN + 1)), NOON) is Standing.ADMITTED
    assert naming.judge(record(FIRST, delegation(stranger, FIRST, network="x")), NOON) is Standing.ADMITTED


def test_true_ecdsa_of_accounts_that_nobody_knows_costs_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOW_BURST", 2)
    members = members_of()
    members.registered(ValidatorSet(Roster.of([Member(FIRST.public, "first", "first")]), genesis=GENESIS))
    made = [delegation(signer(number, Scheme.ECDSA), FIRST) for number in range(1, 5)]

    standings = [members.judge(record(FIRST, one), NOON) for one in made]
    assert standings == [Standing.ADMITTED] * 2 + [Standing.BUSY] * 2


def test_an_account_that_signs_without_end_costs_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEWAL_BURST", 3)
    bad, good = signer(1), signer(2)
    members = members_of(bad, good)

    standings = [members.judge(record(FIRST, delegation(bad, FIRST, number)), NOON) for number in range(1, 8)]
    assert standings == [Standing.ADMITTED] * 3 + [Standing.BUSY] * 4
    assert members.judge(record(SECOND, delegation(good, SECOND)), NOON) is Standing.ADMITTED
    later = Now(NOON.mono + 1 / module.RENEWAL_RATE, NOON.wall)
    assert members.judge(record(FIRST, delegation(bad, FIRST, 9)), later) is Standing.ADMITTED


def test_a_thief_of_the_mesh_key_cannot_use_up_the_share_of_its_account(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key's own signature can be made in many ways, the account's cannot: else no revocation would be heard."""
    monkeypatch.setattr(module, "RENEWAL_BURST", 2)
    by = signer(1)
    members = members_of(by)
    stolen = delegation(by, FIRST)
    for number in range(20):
        fields = msgpack.unpackb(stolen.encoded)
        fields[12] = bytes([number]) * 64
        with monkeypatch.context() as patch:
            patch.setattr(Delegation, "held_by_key", lambda _: True)
            members.judge(record(FIRST, msgpack.packb(fields), number), NOON)

    assert members.judge(record(SECOND, delegation(by, SECOND, 2)), NOON) is Standing.ADMITTED
    assert members.judge(record(FIRST, stolen), NOON) is Standing.SUPERSEDED


def test_a_clock_that_ran_ahead_and_is_set_right_throws_nobody_out_for_good() -> None:
    by = signer(1)
    members = members_of(by)
    members.accepted(record(FIRST, delegation(by, FIRST)), NOON)
    assert len(members.roster_at(Now(1001.0, END + 1))) == 0
    assert members.deadline is None

    assert list(members.roster_at(Now(1002.0, END - 1)).by_key) == [FIRST.public]
    assert members.deadline == END + 1


def test_sequences_of_another_chain_in_the_same_folder_count_nothing() -> None:
    by = signer(1)
    members = members_of(by)
    members.restore({"genesis": bytes(32).hex(), "sequences": {by.account.hex(): 9}})

    assert members.judge(record(FIRST, delegation(by, FIRST)), NOON) is Standing.ADMITTED


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "169.254.169.254", "0.0.0.0"])
def test_what_the_chain_says_leads_to_this_machine_only_in_a_mesh_on_one(host: str) -> None:
    """The map of addresses is filled by the accounts themselves."""
    by, places = signer(1), (Endpoint(host, 6379), Endpoint("192.0.2.1", 9090))
    found = ValidatorSet(accounts={by.account: Account(by.account, "5A", endpoints=places)}, genesis=GENESIS)

    for takes_local, right in ((False, places[1:]), (True, places)):
        members = Membership(NETWORK, takes_local=lambda takes=takes_local: takes)  # type: ignore[misc]
        members.registered(found)
        members.accepted(record(FIRST, delegation(by, FIRST)), NOON)
        assert members.roster_at(NOON).members[0].endpoints == right
