"""What a handler says of a message it rejects: the one who wrote it reads which field it was."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.handlers_support import NETWORK, Someone, judge, naming, verify
from zmesh.core.handler import Handler
from zmesh.core.types import MessageType, Verdict
from zmesh.handlers import RecordPorts, Records, Rounds, Votes
from zmesh.handlers.heartbeat import MAX_BODY, Heartbeat
from zmesh.handlers.votes import MAX_VOTE

ALICE, BOB = Someone(1), Someone(2)
START, TRANSFER = MessageType.FL_ROUND_START, MessageType.MODEL_DELTA_TRANSFER
ROUND = {"round_id": "r1", "deadline": 1.0, "reward_pool": 5}


def handler(kind: MessageType) -> Handler:
    """The one that judges this kind."""
    ports = RecordPorts(ALICE, NETWORK, verify, naming(ALICE, BOB))
    every: list[Handler] = [Heartbeat(dict), Records(ports), Rounds(), Votes()]
    return next(each for each in every if kind in each.kinds)


@pytest.mark.parametrize(
    "kind, payload, field",
    [
        (START, {}, "round_id"),
        (START, ROUND | {"deadline": float("inf")}, "deadline"),
        (START, ROUND | {"deadline_seconds": -5}, "deadline_seconds"),
        (START, ROUND | {"reward_pool": -1}, "reward_pool"),
        (START, ROUND | {"deadline": "soon", "reward_pool": -1}, "deadline"),
        (MessageType.FL_ROUND_UPDATE, {"round_id": "r1", "state": 2}, "state"),
        (TRANSFER, {"round_id": "r1", "quality_score": 150.0}, "quality_score"),
        (MessageType.MODEL_DELTA_REQUEST, {"action": 1}, "action"),
        (MessageType.CONSENSUS_PROPOSE, {}, "proposal_id"),
        (MessageType.CONSENSUS_VOTE, {"proposal_id": "p"}, "choice"),
        (MessageType.HEARTBEAT, {"version": 1}, "version"),
        (MessageType.PEER_ANNOUNCE, {}, "record"),
        (MessageType.PEER_ANNOUNCE, {"record": b"none"}, "record"),
        (MessageType.PEER_DISCOVERY, {"after": b"short"}, "after"),
        (MessageType.PEER_DISCOVERY, {"records": []}, "records"),
    ],
)
def test_an_objection_names_the_first_field_that_is_wrong(
    kind: MessageType, payload: dict[str, Any], field: str
) -> None:
    said, judging = ALICE.says(kind, payload), handler(kind)

    assert judge(judging, said) is Verdict.REJECT
    assert judging.objection(said.envelope, said.payload) == (
        f"its field {field!r} is missing or not what that type asks for"
    )


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
    assert judging.objection(said.envelope, said.payload) == f"its body has {size} bytes, at most {most} are right"
