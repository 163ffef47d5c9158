"""Peer records: who may have one, which one wins, who judges, and who is told."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.handlers_support import NETWORK, NOON, Someone, judge, later, naming, take, verify
from tests.unit.records_support import (
    ALICE,
    BOB,
    CAROL,
    PUBLIC,
    announce,
    announcements,
    having_asked,
    record,
    records,
)
from zmesh.core import wire
from zmesh.core.errors import WireError
from zmesh.core.events import SendDirect
from zmesh.core.types import DropReason, Endpoint, MessageType, PeerKey, Verdict
from zmesh.handlers import (
    Description,
    Record,
    RecordOutcome,
    RecordPorts,
    Records,
)
from zmesh.handlers.standing import Standing

# ---------------------------------------------------------------- who may have one, and which wins


def test_the_newest_record_of_a_known_key_is_kept() -> None:
    held = Records(RecordPorts(BOB, NETWORK, verify, naming(ALICE)))
    first, second = record(ALICE, 1), record(ALICE, 2)

    assert [held.offer(each.encoded).outcome for each in (first, first, second, first)] == [
        RecordOutcome.NEW,
        RecordOutcome.KNOWN,
        RecordOutcome.NEW,
        RecordOutcome.OLDER,
    ]
    assert held.records == {ALICE.public: second}
    assert held.counters == {"new": 2, "known": 1, "older": 1}


def test_an_address_never_admits_a_key_and_a_stranger_costs_no_verification() -> None:
    stranger = Someone(9)
    verified: list[PeerKey] = []

    def counting(key: PeerKey, data: bytes, signature: bytes) -> bool:
        verified.append(key)
        return verify(key, data, signature)

    held = Records(RecordPorts(BOB, NETWORK, counting, naming(ALICE)))

    assert held.offer(record(stranger).encoded) == (RecordOutcome.REFUSED, "unknown_key")
    assert judge(held, announce(stranger, record(stranger))) is Verdict.IGNORE
    assert (dict(held.records), verified) == ({}, [])


def test_forged_foreign_and_broken_records_are_refused_by_name() -> None:
    held = records()
    good = record(ALICE)

    assert held.offer(good.encoded[:-1] + bytes([good.encoded[-1] ^ 1])).outcome is RecordOutcome.BAD_SIGNATURE
    assert held.offer(record(ALICE, network=bytes(32)).encoded).outcome is RecordOutcome.OTHER_NETWORK
    assert held.offer(b"junk").outcome is RecordOutcome.MALFORMED
    assert dict(held.records) == {}


def test_two_records_with_one_sequence_are_proof_and_all_nodes_settle_on_the_same_one() -> None:
    one, two, three = (
        record(ALICE, 5, replace(PUBLIC, peer_id=name, endpoints=(Endpoint(name, 1),)))
        for name in ("one", "two", "three")
    )
    orders = []
    for first, second in ((one, two), (two, one)):
        held = records()
        assert take(held, announce(ALICE, first)) is Verdict.ACCEPT
        contradiction = announce(ALICE, second)
        assert take(held, contradiction) is Verdict.RELAY
        assert take(held, announce(ALICE, three)) is Verdict.IGNORE
        assert [{pair[0].encoded, pair[1].encoded} for pair in held.proofs] == [{one.encoded, two.encoded}]
        assert held.counters["equivocation"] == 1
        orders.append(held.records[ALICE.public])
    assert orders == [min(one, two, key=lambda each: each.encoded)] * 2

    assert held.offer(record(ALICE, 6).encoded).outcome is RecordOutcome.NEW


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmesh.handlers.records.MAX_RECORDS", 2)
    monkeypatch.setattr("zmesh.handlers.records.MAX_PROOFS", 1)
    held = records()

    assert [held.offer(record(each).encoded).outcome for each in (ALICE, BOB, CAROL)] == [
        RecordOutcome.NEW,
        RecordOutcome.NEW,
        RecordOutcome.FULL,
    ]
    for each in (ALICE, BOB):
        assert (
            held.offer(record(each, 1, replace(PUBLIC, peer_id="other")).encoded).outcome is RecordOutcome.EQUIVOCATION
        )
    assert [pair[0].key for pair in held.proofs] == [BOB.public]
    assert held.offer(record(ALICE, 2).encoded).outcome is RecordOutcome.NEW, "those who are known may still move"


def test_an_answer_holds_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmesh.handlers.answers.MAX_ANSWER", 1)
    held = records()
    for each in (ALICE, BOB):
        held.offer(record(each).encoded)
    question = CAROL.says(MessageType.PEER_DISCOVERY, {"known": []}, to=BOB.public)
    take(held, question)

    (answer,) = question.commands
    assert isinstance(answer, SendDirect)
    assert (len(answer.payload["records"]), answer.payload["more"]) == (1, True)


def test_an_announcement_carries_a_record_that_its_author_checked() -> None:
    held = records()

    forged = replace(record(CAROL), encoded=record(CAROL).encoded[:-64] + bytes(64))
    assert judge(held, announce(ALICE, forged)) is Verdict.REJECT
    assert judge(held, announce(ALICE, record(ALICE, network=bytes(32)))) is Verdict.REJECT
    assert judge(held, ALICE.says(MessageType.PEER_ANNOUNCE, {"record": b"junk"})) is Verdict.REJECT
    assert judge(held, ALICE.says(MessageType.PEER_ANNOUNCE, {})) is Verdict.REJECT

    assert [take(held, announce(ALICE, record(ALICE))) for _ in range(2)] == [Verdict.ACCEPT, Verdict.ACCEPT]
    assert dict(held.records) == {ALICE.public: record(ALICE)}


def test_local_addresses_are_taken_only_in_a_mesh_on_one_machine() -> None:
    loopback = Description("l", (Endpoint("127.0.0.1", 9090),))
    theirs = record(ALICE, 1, loopback)

    remote, local = records(own=PUBLIC), records(own=loopback)
    for held in (remote, local):
        held.wake(NOON)

    assert remote.offer(theirs.encoded).outcome is RecordOutcome.LOCAL_ADDRESS
    assert judge(remote, announce(ALICE, theirs)) is Verdict.IGNORE
    assert local.offer(theirs.encoded).outcome is RecordOutcome.NEW


# ---------------------------------------------------------------- who judges, and who is told


def test_the_registry_is_asked_before_any_signature_and_says_why_not() -> None:
    asked: list[PeerKey] = []

    def never(key: PeerKey, data: bytes, signature: bytes) -> bool:
        raise AssertionError("a stranger cost a verification")

    def refuse(what: Record) -> Standing:
        asked.append(what.key)
        return Standing.UNKNOWN_ACCOUNT

    held = Records(RecordPorts(BOB, NETWORK, never, refuse))
    assert held.offer(record(ALICE).encoded) == (RecordOutcome.REFUSED, "unknown_account")
    assert judge(held, announce(ALICE, record(ALICE))) is Verdict.IGNORE
    assert held.post(record(ALICE).encoded) == (RecordOutcome.REFUSED, "unknown_account")
    assert asked == [ALICE.public] * 3
    assert (dict(held.records), held.counters) == ({}, {"unknown_account": 3})


def test_an_announced_record_is_judged_and_verified_once() -> None:
    asked: list[PeerKey] = []
    verified: list[PeerKey] = []

    def admit(what: Record) -> Standing:
        asked.append(what.key)
        return Standing.ADMITTED

    def counted(key: PeerKey, data: bytes, signature: bytes) -> bool:
        verified.append(key)
        return verify(key, data, signature)

    held = Records(RecordPorts(BOB, NETWORK, counted, admit))
    contradiction = record(ALICE, 1, replace(PUBLIC, peer_id="other"))
    said = [announce(ALICE, record(ALICE)), announce(ALICE, contradiction), announce(ALICE, record(CAROL))]
    assert [take(held, one) for one in said] == [Verdict.ACCEPT, Verdict.RELAY, Verdict.ACCEPT]
    assert asked == verified == [ALICE.public, ALICE.public, CAROL.public]
    assert held.counters == {"new": 2, "equivocation": 1}
    assert held.records[CAROL.public] == record(CAROL)


@pytest.mark.parametrize("why", [Standing.FORGED, Standing.NOT_HELD, Standing.MALFORMED])
def test_whoever_passes_on_what_is_false_for_everybody_is_to_blame(why: Standing) -> None:
    held = having_asked(Records(RecordPorts(BOB, NETWORK, verify, lambda _record: why)))
    assert judge(held, announce(ALICE, record(ALICE))) is Verdict.REJECT
    answer = {"records": [record(each).encoded for each in (ALICE, CAROL)]}
    take(held, ALICE.says(MessageType.PEER_DISCOVERY, answer, to=BOB.public))
    assert held.counters == {why: 2}, "the rest of the answer is not looked at"


def test_the_membership_is_told_of_what_became_the_newest() -> None:
    told: list[Record] = []

    def accepted(taken: Record) -> bool:
        told.append(taken)
        return False

    held = Records(RecordPorts(BOB, NETWORK, verify, lambda _record: Standing.ADMITTED, accepted))
    first, second, other = record(ALICE), record(ALICE, 2), record(ALICE, 2, replace(PUBLIC, peer_id="other"))
    for each in (first, first, second, first):
        held.offer(each.encoded)
    assert told == [first, second]
    held.offer(other.encoded)
    assert told == [first, second, *([other] if other.encoded < second.encoded else [])]


def test_who_belongs_no_more_has_no_record_and_may_come_back() -> None:
    held = records(own=PUBLIC)
    held.wake(NOON)
    for each in (ALICE, CAROL):
        held.offer(record(each).encoded)
    held.retain({ALICE.public})
    assert set(held.records) == {ALICE.public, BOB.public}
    assert held.offer(record(CAROL).encoded).outcome is RecordOutcome.NEW


def test_a_node_that_joins_another_mesh_starts_anew_there() -> None:
    chain = wire.network_id("handlers", bytes(32))
    held = records(own=PUBLIC)
    held.wake(NOON)
    held.offer(record(ALICE).encoded)

    held.join(chain)
    (own,) = announcements(held.wake(later(1.0)))
    assert (own.network, dict(held.records)) == (chain, {BOB.public: own})
    assert held.deadline == pytest.approx(NOON.mono + 2.0)
    assert held.offer(record(ALICE, 2).encoded).outcome is RecordOutcome.OTHER_NETWORK
    assert held.offer(record(ALICE, network=chain).encoded).outcome is RecordOutcome.NEW
    held.join(chain)
    assert set(held.records) == {ALICE.public, BOB.public}


def test_records_survive_a_restart() -> None:
    before = records(own=PUBLIC)
    before.wake(NOON)
    for each in (ALICE, CAROL):
        before.offer(record(each).encoded)

    accepted: list[PeerKey] = []

    def accept(taken: Record) -> bool:
        accepted.append(taken.key)
        return False

    after = Records(RecordPorts(BOB, NETWORK, verify, naming(ALICE), accept))
    after.restore(before.export())
    assert accepted == [BOB.public, ALICE.public]
    assert after.own == before.own
    after.describe(PUBLIC)
    after.wake(NOON)
    assert after.own is not None
    assert before.own is not None
    assert after.own.sequence == before.own.sequence + 1


def test_addresses_on_one_machine_survive_a_restart_too() -> None:
    local = Description("l", (Endpoint("127.0.0.1", 9090),))
    before = records(own=local)
    before.wake(NOON)
    before.offer(record(ALICE, 1, local).encoded)
    after = records()
    after.restore(before.export())
    assert set(after.records) == {ALICE.public, BOB.public}


@given(st.one_of(st.binary(), st.recursive(st.none() | st.binary(), st.lists).map(msgpack.packb)))
def test_a_disk_may_hold_anything(saved: bytes) -> None:
    held = records()
    try:
        held.restore(saved)
    except WireError as error:
        assert error.reason is DropReason.MALFORMED
    assert dict(held.records) == {}
