"""Introductions: who came by HTTP is made known to everybody, and nobody can make a flood of that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.unit.handlers_support import NETWORK, NOON, Someone, judge, later, take, verify
from zmesh.core.events import Broadcast, Command
from zmesh.core.types import Endpoint, MessageType, PeerKey, Verdict
from zmesh.handlers import Description, Record, RecordOutcome, RecordPorts, Records, encode_record
from zmesh.handlers.introductions import INTRODUCED_BURST, INTRODUCER_BURST
from zmesh.handlers.standing import Standing

SEED, BOB, NEWCOMER = Someone(1), Someone(2), Someone(3)
PUBLIC = Description("n", (Endpoint("203.0.113.7", 9090),))


def record(of: Someone, sequence: int = 1) -> Record:
    return encode_record(PUBLIC, NETWORK, of.public, sequence, NOON.wall_ms, of.sign)


def records(of: Someone) -> Records:
    held = Records(RecordPorts(of, NETWORK, verify, lambda _record: Standing.ADMITTED))
    held.wake(NOON)
    return held


def introduced(commands: Sequence[Command]) -> list[bytes]:
    return [
        command.payload["record"]
        for command in commands
        if isinstance(command, Broadcast) and command.kind is MessageType.PEER_ANNOUNCE
    ]


def introduction(by: Someone, what: bytes) -> Any:
    return by.says(MessageType.PEER_ANNOUNCE, {"record": what})


def test_who_came_by_http_is_introduced_once_and_at_once() -> None:
    seed, newcomer = records(SEED), record(NEWCOMER)

    assert [seed.post(newcomer.encoded).outcome for _ in range(2)] == [RecordOutcome.NEW, RecordOutcome.KNOWN]
    assert seed.deadline == 0.0
    assert introduced(seed.wake(NOON)) == [newcomer.encoded]
    assert introduced(seed.wake(later(0.5))) == []


def test_an_introduction_is_taken_passed_on_and_not_repeated() -> None:
    bob, newcomer = records(BOB), record(NEWCOMER)

    said = introduction(SEED, newcomer.encoded)
    assert take(bob, said) is Verdict.ACCEPT
    assert bob.records[NEWCOMER.public] == newcomer
    assert introduced(bob.wake(later(0.5))) == [], "the seed did that"
    # The second seed's word of the same newcomer is relayed for those who missed the first.
    again = introduction(Someone(4), newcomer.encoded)
    assert (take(bob, again), again.commands) == (Verdict.ACCEPT, [])


def test_what_was_offered_otherwise_is_not_introduced() -> None:
    seed = records(SEED)
    seed.offer(record(NEWCOMER).encoded)
    seed.post(b"junk")
    seed.post(record(BOB).encoded[:-64] + bytes(64))
    assert introduced(seed.wake(NOON)) == []


def test_one_key_cannot_be_introduced_again_and_again_and_its_newest_record_waits() -> None:
    seed = records(SEED)
    left: list[bytes] = []
    for sequence in range(1, 101):
        seed.post(record(NEWCOMER, sequence).encoded)
        left += introduced(seed.wake(NOON))
    assert left == [record(NEWCOMER, sequence).encoded for sequence in range(1, int(INTRODUCED_BURST) + 1)]
    assert seed.deadline is not None
    assert NOON.mono < seed.deadline <= NOON.mono + 1.0
    assert introduced(seed.wake(later(10.1))) == [record(NEWCOMER, 100).encoded]


def test_who_hears_keeps_the_same_limits() -> None:
    bob = records(BOB)
    verdicts = [take(bob, introduction(SEED, record(NEWCOMER, sequence).encoded)) for sequence in range(1, 11)]
    assert verdicts == [Verdict.ACCEPT] * int(INTRODUCED_BURST) + [Verdict.IGNORE] * 2
    assert bob.counters["introduction_limited"] == 2
    late = introduction(SEED, record(NEWCOMER, 11).encoded)
    assert take(bob, late, later(10.1)) is Verdict.ACCEPT


def test_repeating_what_a_key_once_signed_costs_only_who_repeats_it() -> None:
    """Or anybody could spend the share of one that moves."""
    bob = records(BOB)
    for _ in range(100):
        take(bob, introduction(SEED, record(NEWCOMER).encoded))
    assert take(bob, introduction(Someone(4), record(NEWCOMER, 2).encoded)) is Verdict.ACCEPT
    assert bob.records[NEWCOMER.public].sequence == 2


def test_one_account_cannot_introduce_a_crowd_and_others_still_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmesh.handlers.introductions.INTRODUCER_BURST", 2.0)
    bob = records(BOB)
    crowd = [record(Someone(number)) for number in range(10, 14)]
    verdicts = [take(bob, introduction(SEED, each.encoded)) for each in crowd]
    assert verdicts == [Verdict.ACCEPT] * 2 + [Verdict.IGNORE] * 2
    assert take(bob, introduction(NEWCOMER, crowd[3].encoded)) is Verdict.ACCEPT
    assert judge(bob, introduction(SEED, record(SEED).encoded)) is Verdict.ACCEPT, "one's own word is no introduction"


def test_a_mesh_that_starts_whole_at_one_seed_is_introduced_within_its_limits() -> None:
    seed, bob = records(SEED), records(BOB)
    crowd = [record(Someone(number)) for number in range(10, 110)]
    for each in crowd:
        assert seed.post(each.encoded).outcome is RecordOutcome.NEW
    heard = [take(bob, introduction(SEED, what)) for what in introduced(seed.wake(NOON))]
    assert heard == [Verdict.ACCEPT] * len(crowd)
    assert len(crowd) < INTRODUCER_BURST


def test_too_many_who_wait_are_left_to_their_other_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmesh.handlers.introductions.MAX_WAITING", 1)
    seed = records(SEED)
    assert [seed.post(record(each).encoded).outcome for each in (BOB, NEWCOMER)] == [RecordOutcome.NEW] * 2
    assert introduced(seed.wake(NOON)) == [record(BOB).encoded]
    assert seed.counters["introduction_dropped"] == 1


def test_who_was_removed_meanwhile_is_not_introduced() -> None:
    seed = records(SEED)
    seed.post(record(NEWCOMER).encoded)
    nobody: set[PeerKey] = set()
    seed.retain(nobody)
    assert introduced(seed.wake(NOON)) == []
