"""How peer records spread: announced, asked for, and told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.handlers_support import NETWORK, NOON, Someone, later, naming, run, take, verify
from tests.unit.records_support import (
    ALICE,
    BOB,
    CAROL,
    PUBLIC,
    announcements,
    having_asked,
    questions,
    record,
    records,
)
from zmesh.core import wire
from zmesh.core.events import Broadcast, SendDirect
from zmesh.core.types import Endpoint, MessageType, PeerKey, Verdict
from zmesh.handlers import (
    Description,
    RecordOutcome,
    RecordPorts,
    Records,
    decode_record,
    verify_record,
)


def test_it_announces_at_once_then_every_ten_minutes_and_when_it_changes() -> None:
    held = records(own=PUBLIC, phase=0.5)

    announced = [at for at, commands in run(held, until=1300.0) if announcements(commands)]
    assert announced == pytest.approx([0.0, 600.0, 1200.0])
    first = held.own

    held.describe(replace(PUBLIC, capabilities=("train", "aggregate")))
    held.describe(replace(PUBLIC, capabilities=("train", "aggregate")))
    changed = announcements(held.wake(later(1301.0)))

    assert first is not None
    assert held.own is not None
    assert changed == [held.own]
    assert held.own.capabilities == ("train", "aggregate")
    assert held.own.sequence > first.sequence
    assert verify_record(held.own, verify)
    assert announcements(held.wake(later(1302.0))) == []


def test_who_moves_announces_the_same_from_another_place() -> None:
    held = records(own=PUBLIC)
    held.wake(NOON)
    held.move((Endpoint("203.0.113.8", 9090),))
    held.move((Endpoint("203.0.113.8", 9090),))
    (moved,) = announcements(held.wake(later(1.0)))
    assert (moved.endpoints, moved.capabilities) == ((Endpoint("203.0.113.8", 9090),), PUBLIC.capabilities)
    listener = records()
    listener.move(PUBLIC.endpoints)
    assert announcements(listener.wake(NOON)) == []


def test_a_record_from_a_former_life_with_a_faster_clock_is_outbid() -> None:
    held = records(own=PUBLIC)
    held.wake(NOON)
    former = record(BOB, NOON.wall_ms + 10_000)

    assert held.offer(former.encoded).outcome is RecordOutcome.NEW
    announced = announcements(held.wake(later(1.0)))

    assert [each.sequence for each in announced] == [former.sequence + 1]


def test_whose_clock_was_set_back_is_told_what_it_has_to_outbid() -> None:
    """Or nobody would take its record until the clock is there again."""
    corrected, other = records(CAROL, own=PUBLIC), records(BOB)
    former = record(CAROL, NOON.wall_ms + 600_000)
    other.offer(former.encoded)
    other.wake(NOON)

    corrected.wake(later(-1.0))
    (question,) = questions(corrected.wake(NOON))
    asked = CAROL.says(MessageType.PEER_DISCOVERY, question.payload)
    take(other, asked)
    (answer,) = asked.commands
    assert isinstance(answer, SendDirect)
    take(corrected, BOB.says(answer.kind, answer.payload, to=CAROL.public))
    (own,) = announcements(corrected.wake(later(1.0)))
    assert own.sequence == former.sequence + 1


def test_a_newcomer_asks_and_is_told_what_it_lacks() -> None:
    newcomer, settled = records(CAROL, own=replace(PUBLIC, peer_id="carol")), records(BOB, own=PUBLIC)
    settled.wake(NOON)
    settled.offer(record(ALICE, 3).encoded)
    asked = [(at, question) for at, commands in run(newcomer, until=40.0) for question in questions(commands)]
    assert [at for at, _ in asked] == [1.0, 5.0, 30.0]

    first = CAROL.says(MessageType.PEER_DISCOVERY, asked[0][1].payload)
    assert take(settled, first) is Verdict.ACCEPT
    (answer,) = first.commands
    assert isinstance(answer, SendDirect)
    assert answer.recipient == CAROL.public
    reply = BOB.says(answer.kind, answer.payload, to=CAROL.public)
    assert take(newcomer, reply) is Verdict.ACCEPT

    assert set(newcomer.records) == {ALICE.public, BOB.public, CAROL.public}
    newcomer.ask_soon(later(59.0))
    (question,) = questions(newcomer.wake(later(60.0)))
    again = CAROL.says(MessageType.PEER_DISCOVERY, question.payload, later(60))
    assert take(settled, again, later(60)) is Verdict.ACCEPT
    assert again.commands == []


def test_an_answer_is_for_one_and_nobody_gossips_one() -> None:
    handler, answer = having_asked(records()), {"records": [record(CAROL).encoded]}
    assert take(handler, ALICE.says(MessageType.PEER_DISCOVERY, answer)) is Verdict.REJECT
    assert take(handler, ALICE.says(MessageType.PEER_DISCOVERY, answer, to=BOB.public)) is Verdict.ACCEPT
    assert list(handler.records) == [CAROL.public]


@pytest.mark.parametrize("of", [ALICE, CAROL])
def test_an_answer_that_no_honest_peer_sends_costs_few_verifications(of: Someone) -> None:
    asked: list[bytes] = []

    def counted(key: PeerKey, data: bytes, signature: bytes) -> bool:
        asked.append(key)
        return verify(key, data, signature)

    handler = having_asked(Records(RecordPorts(BOB, NETWORK, counted, naming(ALICE, CAROL))))
    # Its own, newer and newer; or somebody else's, which it cannot sign.
    made = [record(of, sequence).encoded for sequence in range(1, 101)]
    if of is not ALICE:
        made = [encoded[:-64] + bytes(64) for encoded in made]
    take(handler, ALICE.says(MessageType.PEER_DISCOVERY, {"records": made}, to=BOB.public))

    assert 1 <= len(asked) <= 2


def test_one_account_is_answered_once_a_second() -> None:
    held = records(own=PUBLIC)
    held.wake(NOON)
    commands = []
    for at in (0.0, 0.5, 1.0):
        question = CAROL.says(MessageType.PEER_DISCOVERY, {"known": []})
        take(held, question, later(at))
        commands.append(len(question.commands))
    assert commands == [1, 0, 1]


def test_about_four_of_a_large_mesh_answer_and_between_them_they_tell_everything() -> None:
    crowd = [Someone(number) for number in range(1, 101)]
    known = naming(*crowd)
    asker = Records(RecordPorts(Someone(200), NETWORK, verify, known))
    everything = [record(each) for each in crowd]
    answers: list[Any] = []
    question = Someone(200).says(MessageType.PEER_DISCOVERY, {"known": []})
    for each in crowd:
        held = Records(RecordPorts(each, NETWORK, lambda *_: True, known))
        for one in everything:
            held.offer(one.encoded)
        answers += held.received(question.envelope, question.sender, question.payload, NOON)

    answers = [answer for answer in answers if isinstance(answer, SendDirect)]
    assert 1 <= len(answers) <= 12
    assert all(len(wire.encode_payload(answer.payload)) <= 49 * 1024 for answer in answers)
    for answer in answers:
        for encoded in answer.payload["records"]:
            asker.offer(encoded)
    assert set(asker.records) == {each.public for each in crowd}


@pytest.mark.parametrize("described", [PUBLIC, Description("behind a NAT")], ids=["with an address", "without one"])
def test_an_answer_that_says_there_is_more_is_followed_by_another_question(described: Description) -> None:
    held = records(CAROL)
    held.wake(NOON)
    held.wake(later(40.0))
    calm = held.deadline

    payload = {"records": [record(BOB, 1, described).encoded], "more": True}
    more = ALICE.says(MessageType.PEER_DISCOVERY, payload, to=CAROL.public)
    assert take(held, more, later(41.0)) is Verdict.ACCEPT

    assert held.deadline == pytest.approx(NOON.mono + 42.0)
    assert held.deadline != calm
    assert questions(held.wake(later(42.0)))


def test_a_new_record_of_its_own_is_due_at_once_whatever_else_is_to_be_done() -> None:
    held = records(CAROL, PUBLIC)
    held.wake(NOON)
    held.wake(later(40.0))
    held.describe(replace(PUBLIC, capabilities=("aggregate",)))
    more = ALICE.says(MessageType.PEER_DISCOVERY, {"records": [record(BOB).encoded], "more": True}, to=CAROL.public)
    assert take(held, more, later(41.0)) is Verdict.ACCEPT
    assert held.deadline <= NOON.mono

    (told,) = held.wake(later(41.0))
    assert isinstance(told, Broadcast)
    assert decode_record(told.payload["record"]).capabilities == ("aggregate",)


def test_who_was_not_asked_or_tells_of_itself_alone_makes_nobody_ask() -> None:
    held = records(CAROL)
    held.wake(NOON)
    held.wake(later(40.0))
    calm = held.deadline
    for at, of in ((41.0, ALICE), (60.0, BOB)):
        payload = {"records": [record(of, int(at)).encoded], "more": True}
        assert take(held, ALICE.says(MessageType.PEER_DISCOVERY, payload, to=CAROL.public), later(at)) is Verdict.ACCEPT
        assert held.deadline == calm, (at, of)


def test_answers_lead_to_a_bounded_number_of_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmesh.handlers.questions.MAX_FOLLOW_UPS", 3)
    held = records(CAROL)
    held.wake(NOON)
    held.wake(later(40.0))
    asked = 0
    for at in range(41, 61):
        payload = {"records": [record(BOB, at).encoded], "more": True}
        take(held, ALICE.says(MessageType.PEER_DISCOVERY, payload, to=CAROL.public), later(at))
        asked += len(questions(held.wake(later(at + 1.0))))
    assert asked == 3


def test_who_belongs_of_late_is_asked_for_once() -> None:
    held = records(CAROL)
    held.ask_soon(NOON)
    held.wake(NOON)
    held.wake(later(40.0))
    for _ in range(3):
        held.ask_soon(later(50.0))
    assert held.deadline == NOON.mono + 51.0
    assert len(questions(held.wake(later(51.0)))) == 1
    assert held.deadline is not None
    assert held.deadline > NOON.mono + 500


def test_a_mesh_larger_than_one_question_is_asked_about_range_by_range(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("zmesh.handlers.questions.MAX_KNOWN", 2)
    held = records(CAROL, own=None)
    everybody = sorted([ALICE, BOB, CAROL], key=lambda each: each.public)
    for each in everybody:
        held.offer(record(each).encoded)

    held.wake(NOON)
    first, second, third = (questions(held.wake(later(at)))[0].payload for at in (1.0, 5.0, 30.0))

    assert [key for key, _ in first["known"]] == [each.public for each in everybody[:2]]
    assert (first.get("after"), first["until"]) == (None, everybody[1].public)
    assert [key for key, _ in second["known"]] == [everybody[2].public]
    assert (second["after"], second.get("until")) == (everybody[1].public, None)
    assert third == first


@pytest.mark.parametrize(
    "payload,verdict",
    [
        ({}, Verdict.ACCEPT),
        ({"known": [[bytes(32), 1]], "unheard": "of"}, Verdict.ACCEPT),
        ({"known": [[bytes(31), 1]]}, Verdict.REJECT),
        ({"known": [[bytes(32), -1]]}, Verdict.REJECT),
        ({"known": {"a": 1}}, Verdict.REJECT),
        ({"records": ["text"]}, Verdict.REJECT),
        ({"records": [b"x"] * 257}, Verdict.REJECT),
    ],
)
def test_a_question_or_answer_must_fit(payload: dict[str, Any], verdict: Verdict) -> None:
    assert take(records(), ALICE.says(MessageType.PEER_DISCOVERY, payload)) is verdict
