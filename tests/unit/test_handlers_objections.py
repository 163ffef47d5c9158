"""What a handler says of a message it rejects: the one who wrote it reads which field it was, and what it must be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.handlers_support import NETWORK, Someone, judge, naming, verify
from zmesh.core.handler import Handler
from zmesh.core.types import MessageType, Verdict
from zmesh.handlers import RecordPorts, Records, Rounds, Votes
from zmesh.handlers.heartbeat import MAX_BODY, Heartbeat
from zmesh.handlers.questions import MAX_KNOWN
from zmesh.handlers.record import MAX_RECORD
from zmesh.handlers.votes import MAX_CHOICE, MAX_VOTE

ALICE, BOB = Someone(1), Someone(2)
START, TRANSFER = MessageType.FL_ROUND_START, MessageType.MODEL_DELTA_TRANSFER
ROUND = {"round_id": "r1", "deadline": 1.0, "reward_pool": 5}


def handler(kind: MessageType) -> Handler:
    """The one that judges this kind."""
    ports = RecordPorts(ALICE, NETWORK, verify, naming(ALICE, BOB))
    every: list[Handler] = [Heartbeat(dict), Records(ports), Rounds(lambda: "me"), Votes(list)]
    return next(each for each in every if kind in each.kinds)


NAME, AMOUNT = "text of 1 to 256 bytes", "a number from 0 to 9.22337e+18"
COUNT = "a whole number from 0 to 9223372036854775807"


@pytest.mark.parametrize(
    "kind, payload, said",
    [
        (START, {}, f"'round_id' is missing and must be {NAME}"),
        (START, {"round_id": 7}, f"'round_id' is 7 and must be {NAME}"),
        (START, ROUND | {"deadline": float("inf")}, f"'deadline' is inf and must be {AMOUNT}"),
        (START, ROUND | {"deadline_seconds": -5}, f"'deadline_seconds' is -5 and must be {AMOUNT}"),
        (START, ROUND | {"reward_pool": -1}, f"'reward_pool' is -1 and must be {AMOUNT}"),
        (START, ROUND | {"deadline": "soon", "reward_pool": -1}, f"'deadline' is 'soon' and must be {AMOUNT}"),
        (
            MessageType.FL_ROUND_UPDATE,
            {"round_id": "r1", "state": "x" * 200},
            f"'state' is '{'x' * 79}... (202 characters) and must be text of 1 to 32 bytes",
        ),
        (
            TRANSFER,
            {"round_id": "r1", "quality_score": 150.0},
            "'quality_score' is 150.0 and must be a number from 0 to 100",
        ),
        (MessageType.MODEL_DELTA_REQUEST, {"action": 1}, "'action' is 1 and must be text of 0 to 256 bytes"),
        (MessageType.CONSENSUS_PROPOSE, {}, f"'proposal_id' is missing and must be {NAME}"),
        (
            MessageType.CONSENSUS_VOTE,
            {"proposal_id": "p"},
            "'choice' is missing and must be true, false, a whole number from -9223372036854775808 to"
            f" 9223372036854775807, or text of 1 to {MAX_CHOICE} bytes",
        ),
        (MessageType.HEARTBEAT, {"version": 1}, "'version' is 1 and must be text of 1 to 64 bytes"),
        (
            MessageType.HEARTBEAT,
            {"capabilities": ["a", 2]},
            "'capabilities' is ['a', 2] and must be a list of at most 32, each of them text of 1 to 64 bytes",
        ),
        (MessageType.PEER_ANNOUNCE, {}, f"'record' is missing and must be 1 to {MAX_RECORD} bytes"),
        (MessageType.PEER_ANNOUNCE, {"record": b"none"}, "'record' must be a true record of its key"),
        (MessageType.PEER_DISCOVERY, {"after": b"short"}, "'after' is b'short' and must be 32 bytes"),
        (
            MessageType.PEER_DISCOVERY,
            {"known": [1]},
            f"'known' is [1] and must be a list of at most {MAX_KNOWN}, each of them a key of 32 bytes and its"
            f" sequence, {COUNT}",
        ),
        (
            MessageType.PEER_DISCOVERY,
            {"records": []},
            "'records' is an answer and must be sent only to the peer that asked",
        ),
    ],
)
def test_an_objection_names_the_first_field_that_is_wrong_what_came_and_what_must_be(
    kind: MessageType, payload: dict[str, Any], said: str
) -> None:
    signed, judging = ALICE.says(kind, payload), handler(kind)

    assert judge(judging, signed) is Verdict.REJECT
    assert judging.objection(signed.envelope, signed.payload) == f"its field {said}"


@pytest.mark.parametrize(
    "kind, payload, most",
    [
        (MessageType.HEARTBEAT, {"more": bytes(MAX_BODY)}, MAX_BODY),
        (MessageType.CONSENSUS_VOTE, {"proposal_id": "p", "choice": "yes", "more": bytes(MAX_VOTE)}, MAX_VOTE),
    ],
)
def test_an_objection_names_the_size_where_that_is_wrong(kind: MessageType, payload: dict[str, Any], most: int) -> None:
    said, judging = ALICE.says(kind, payload), handler(kind)

    assert judge(judging, said) is Verdict.REJECT
    size = len(said.envelope.body)
    assert judging.objection(said.envelope, said.payload) == f"its body has {size} bytes and must have at most {most}"


class Unspeakable:
    """A value that must not be put into words."""

    def __repr__(self) -> str:
        raise AssertionError("what a stranger sent was put into words")


@pytest.mark.parametrize(
    "kind, field",
    [
        (START, "round_id"),
        (MessageType.CONSENSUS_VOTE, "choice"),
        (MessageType.HEARTBEAT, "status"),
        (MessageType.PEER_ANNOUNCE, "record"),
        (MessageType.PEER_DISCOVERY, "known"),
    ],
)
def test_what_a_stranger_got_wrong_is_rejected_without_a_word(kind: MessageType, field: str) -> None:
    """Words for a payload of 64 KiB would be work that its sender does not pay for."""
    said = replace(ALICE.says(kind, {}), payload={"proposal_id": "p", field: Unspeakable()})

    assert judge(handler(kind), said) is Verdict.REJECT
