"""Peer records against whoever means harm: a thief of a mesh key, and a member that renames itself without end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.handlers_support import NETWORK, NOON, Someone, judge, later, naming, take, verify
from tests.unit.test_handlers_records import ALICE, BOB, CAROL, PUBLIC, announce, record
from zmesh.core.types import MessageType, Verdict
from zmesh.core.wire import MAX_UINT
from zmesh.handlers import RecordPorts, Records, Taken, verify_record
from zmesh.handlers.introductions import INTRODUCED_BURST, INTRODUCED_RATE


def records(of: Someone = BOB, **options: Any) -> Records:
    return Records(RecordPorts(of, NETWORK, verify, naming(ALICE, BOB, CAROL)), **options)


def test_a_thief_who_signed_the_highest_sequence_is_contradicted_and_stops_nobody() -> None:
    table = records(own=replace(PUBLIC, peer_id="bob"))
    table.wake(NOON)
    stolen = record(BOB, MAX_UINT)
    assert table.post(stolen.encoded).taken is Taken.NEW

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
    table = Records(RecordPorts(BOB, NETWORK, verify, naming(ALICE, BOB, CAROL), lambda _: table.retain(())))
    answer = ALICE.says(MessageType.PEER_DISCOVERY, {"records": [record(CAROL).encoded]}, to=BOB.public)

    assert take(table, answer) is Verdict.ACCEPT
    assert answer.commands == []
    assert take(table, announce(ALICE, record(ALICE))) is Verdict.ACCEPT
