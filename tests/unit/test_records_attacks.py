"""Peer records against whoever means harm: a thief of a mesh key, a member that renames itself without end, and one
that shows each half of the mesh something else."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import Any

import pytest

from tests.unit import delegation_support as accounts
from tests.unit.handlers_support import NETWORK, NOON, Someone, judge, later, naming, take, verify
from tests.unit.records_support import ALICE, BOB, CAROL, PUBLIC, announce, record
from tests.unit.test_handlers_introductions import introduced
from zmesh.core.types import MessageType, PeerKey, Verdict
from zmesh.core.wire import MAX_UINT
from zmesh.handlers import Record, RecordOutcome, RecordPorts, Records, encode_record, verify_record
from zmesh.handlers.introductions import INTRODUCED_BURST, INTRODUCED_RATE
from zmesh.handlers.standing import Standing
from zmesh.identity import Identity
from zmesh.registry.membership import Membership
from zmesh.registry.port import Account, ValidatorSet


def records(of: Someone = BOB, **options: Any) -> Records:
    return Records(RecordPorts(of, NETWORK, verify, naming(ALICE, BOB, CAROL)), **options)


def test_a_thief_who_signed_the_highest_sequence_is_contradicted_and_stops_nobody() -> None:
    table = records(own=replace(PUBLIC, peer_id="bob"))
    table.wake(NOON)
    stolen = record(BOB, MAX_UINT)
    assert table.post(stolen.encoded).outcome is RecordOutcome.NEW

    table.wake(later(1))
    own = table.own
    assert own is not None
    assert (own.sequence, own.peer_id) == (MAX_UINT, "bob")
    assert verify_record(own, verify)


def test_a_member_that_renames_itself_without_end_is_heard_now_and_then() -> None:
    """Each name costs every node two signatures and a roster."""
    table = records()
    made = [record(ALICE, number, replace(PUBLIC, peer_id=f"a{number}")) for number in range(1, 40)]

    verdicts = [take(table, announce(ALICE, one)) for one in made]
    assert verdicts == [Verdict.ACCEPT] * int(INTRODUCED_BURST) + [Verdict.IGNORE] * (39 - int(INTRODUCED_BURST))
    assert table.counters["news_limited"] == 39 - int(INTRODUCED_BURST)
    # What is known may be said again, others are heard, and so is the same one later.
    assert judge(table, announce(ALICE, made[int(INTRODUCED_BURST) - 1])) is Verdict.ACCEPT
    assert take(table, announce(CAROL, record(CAROL))) is Verdict.ACCEPT
    assert take(table, announce(ALICE, made[-1]), later(1 / INTRODUCED_RATE)) is Verdict.ACCEPT


def test_a_record_that_is_forgotten_as_it_is_taken_is_no_fault() -> None:
    """Its delegation may end between the judgement and the roster that it makes."""

    def forget(_taken: Record) -> bool:
        table.retain(())
        return False

    table = Records(RecordPorts(BOB, NETWORK, verify, naming(ALICE, BOB, CAROL), forget))
    table.wake(NOON)
    table.wake(later(1))
    answer = ALICE.says(MessageType.PEER_DISCOVERY, {"records": [record(CAROL).encoded]}, to=BOB.public)

    assert take(table, answer, later(1)) is Verdict.ACCEPT
    assert answer.commands == []
    assert take(table, announce(ALICE, record(ALICE))) is Verdict.ACCEPT


def test_of_many_records_with_one_sequence_all_settle_on_the_one_that_sorts_first_whatever_came_first() -> None:
    """Above the highest sequence there is none: nothing else would ever bring them together."""
    made = [record(ALICE, MAX_UINT, replace(PUBLIC, peer_id=name)) for name in ("a", "b", "c")]
    made.sort(key=lambda each: each.encoded)
    for order in permutations(made):
        table = records()
        for one in order:
            take(table, announce(CAROL, one))
        assert table.records[ALICE.public] == made[0]
        assert len(table.proofs) == 1
        assert table.proofs[0] == (order[0], order[1]), "one proof is enough"


def test_contradictions_without_end_are_heard_now_and_then() -> None:
    table = records()
    made = [record(ALICE, 1, replace(PUBLIC, peer_id=f"a{number}")) for number in range(40)]
    made.sort(key=lambda each: each.encoded, reverse=True)

    verdicts = [take(table, announce(ALICE, one)) for one in made]
    heard = int(INTRODUCED_BURST)
    assert verdicts == [Verdict.ACCEPT] + [Verdict.RELAY] * (heard - 1) + [Verdict.IGNORE] * (40 - heard)
    assert take(table, announce(ALICE, made[-1]), later(1 / INTRODUCED_RATE)) is Verdict.RELAY


def answer(of: Someone, *made: Record, to: Someone = BOB) -> Any:
    payload = {"records": [each.encoded for each in made]}
    return of.says(MessageType.PEER_DISCOVERY, payload, to=to.public)


def test_an_answer_that_nobody_asked_for_is_not_looked_at() -> None:
    """Direct, it would tell one half of the mesh what the other half never hears."""
    table = records()
    table.wake(NOON)
    take(table, answer(ALICE, record(CAROL)))
    assert (dict(table.records), table.counters) == ({}, {"answer_unasked": 1})

    table.wake(later(1))
    take(table, answer(ALICE, record(CAROL)), later(2))
    take(table, answer(ALICE, record(ALICE)), later(3))
    assert set(table.records) == {CAROL.public}
    assert table.counters["answer_unasked"] == 2, "one of each account to one question"
    take(table, answer(CAROL, record(ALICE)), later(17))
    assert set(table.records) == {CAROL.public}
    assert table.counters["answer_unasked"] == 3, "too late"


def test_news_in_answers_is_limited_as_announced_news_is() -> None:
    """Each new record of a key costs every node two signatures, and perhaps a roster, whichever way it comes."""
    table = Records(RecordPorts(BOB, NETWORK, verify, lambda _record: Standing.ADMITTED))
    table.wake(NOON)
    table.wake(later(1))
    friends = [Someone(number) for number in range(10, 30)]
    made = [record(ALICE, number, replace(PUBLIC, peer_id=f"a{number}")) for number in range(1, 21)]
    for friend, one in zip(friends, made, strict=True):
        take(table, answer(friend, one, record(friend)), later(1))

    assert table.records[ALICE.public] == made[int(INTRODUCED_BURST) - 1]
    assert table.counters["news_limited"] == 20 - INTRODUCED_BURST
    assert {friend.public for friend in friends} < set(table.records), "what stands beside it is taken"
    # One count, whichever way they come.
    assert take(table, announce(ALICE, made[-1]), later(1)) is Verdict.IGNORE


def test_a_question_that_lacks_nothing_is_looked_at_once_a_second_too(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[int] = []

    def nothing(*_: object) -> list[Record]:
        looked.append(1)
        return []

    table = records()
    monkeypatch.setattr("zmesh.handlers.answers._lacking", nothing)
    for at in (0.0, 0.1, 0.5, 0.9, 1.0):
        take(table, ALICE.says(MessageType.PEER_DISCOVERY, {"known": []}, to=BOB.public), later(at))
    assert len(looked) == 2


ACCOUNT = accounts.signer(1)


class Node:
    """Records and membership, where the registry names one account beside the keys of Alice and Bob."""

    def __init__(self) -> None:
        self.membership = Membership(accounts.NETWORK)
        found = {ACCOUNT.account: Account(ACCOUNT.account, "5Carol")}
        self.membership.registered(ValidatorSet(accounts=found, genesis=accounts.GENESIS))
        member = self.membership
        ports = RecordPorts(
            BOB, NETWORK, verify, lambda one: member.judge(one, NOON), lambda one: member.accepted(one, NOON)
        )
        self.records = Records(ports)
        self.records.wake(NOON)
        self.records.wake(later(1))

    def hears(self, said: Any, at: float) -> list[bytes]:
        """Whom it introduces because of it."""
        take(self.records, said, later(at))
        return introduced(self.records.wake(later(at)))

    @property
    def members(self) -> list[PeerKey]:
        return [member.key for member in self.membership.roster_at(NOON).members]


FIRST, SECOND = (Identity.from_seed(bytes([number]) * 32) for number in (101, 102))


def speaking(key: Identity, sequence: int) -> Record:
    """A record of ``key`` with what the account signed for it; one sequence for both."""
    signed = accounts.delegation(ACCOUNT, key, sequence).encoded
    described = replace(PUBLIC, peer_id="carol", delegation=signed)
    return encode_record(described, NETWORK, key.public, sequence, 0, key.sign)


def test_an_account_cannot_have_one_key_at_each_half_of_the_mesh() -> None:
    """Each would vote, and nobody could see the contradiction: who hears of the newer key passes it on."""
    old, new = speaking(FIRST, 1), speaking(SECOND, 2)
    one, other = Node(), Node()
    for node in (one, other):
        assert node.hears(announce(ALICE, old), 1.0) == []
        assert node.members == [FIRST.public]

    told = one.hears(answer(ALICE, new), 2.0)
    assert (one.members, told) == ([SECOND.public], [new.encoded])
    other.hears(ALICE.says(MessageType.PEER_ANNOUNCE, {"record": told[0]}), 2.0)
    assert other.members == [SECOND.public]
    assert one.hears(announce(ALICE, new), 3.0) == [], "once"


def test_a_new_key_is_introduced_also_if_its_delegation_came_before_in_a_record_that_was_not_taken() -> None:
    node = Node()
    node.hears(announce(ALICE, speaking(FIRST, 1)), 1.0)
    new = speaking(SECOND, 2)
    node.records.offer(new.encoded[:-64] + bytes(64))
    assert node.members == []

    assert node.hears(answer(ALICE, new), 2.0) == [new.encoded]


def test_of_those_who_hear_of_a_new_key_by_gossip_a_few_say_it_again() -> None:
    """Whoever reached the limit for introductions of one account at some nodes cannot keep it from these."""
    crowd = [Someone(number) for number in range(1, 101)]
    told, new = 0, record(crowd[0])
    said = crowd[1].says(MessageType.PEER_ANNOUNCE, {"record": new.encoded})
    for each in crowd[2:]:
        ports = RecordPorts(each, NETWORK, lambda *_: True, naming(*crowd), lambda taken: taken.key == new.key)
        held = Records(ports)
        for one in crowd[2:]:
            held.offer(record(one).encoded)
        take(held, said)
        told += introduced(held.wake(NOON)).count(new.encoded)
    assert 1 <= told <= 12
