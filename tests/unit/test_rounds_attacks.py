"""Coordinators that announce so that honest nodes would know different rounds: real engines, virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core_support import NOON, Bench, people
from zmesh.core import wire
from zmesh.core.envelope import Envelope
from zmesh.core.types import DropReason, MessageType
from zmesh.handlers import Round, Rounds
from zmesh.handlers import rounds as module

ALICE, BOB, *CROWD = people(10)
START = wire.KIND_CODES[MessageType.FL_ROUND_START]


def start(**terms: Any) -> Envelope:
    """Alice announces."""
    return ALICE.says(kind=START, content={"round_id": "r", **terms})


def heard(*messages: Envelope, after: float) -> tuple[Round, list[DropReason]]:
    """The round as a node has it that hears these so many seconds after noon, and what became of them."""
    held = Rounds(lambda: "nobody")
    bench = Bench([ALICE, BOB], handlers=[held])
    bench.connect(BOB)
    bench.advance(after)
    bench.fresh()
    for message in messages:
        bench.hear(BOB, message)
    (known,) = held.named("r")
    return known, bench.drops()


def test_a_deadline_between_two_nodes_hides_no_contradiction() -> None:
    over, other = start(model_hash="one", deadline=NOON.wall + 0.01), start(model_hash="two")

    for after in (0.0, 0.05):
        for messages in ((over, other), (other, over)):
            known, drops = heard(*messages, after=after)
            assert known.contradicted
            assert set(drops) == {DropReason.RELAYED_ONLY}


def test_a_crowd_with_all_the_rounds_it_may_have_pushes_out_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUNDS_PER_COORDINATOR", 8)
    monkeypatch.setattr(module, "MAX_ROUNDS", 32)
    held = Rounds(lambda: "nobody")
    bench = Bench([ALICE, BOB, *CROWD], handlers=[held])
    bench.connect(BOB)
    for author, count in ((ALICE, 3), *((each, 8) for each in CROWD)):
        for number in range(count):
            bench.hear(BOB, author.says(kind=START, content={"round_id": f"round {number}"}))

    assert [each.round_id for each in held if each.coordinator == ALICE.member.account] == [
        "round 0",
        "round 1",
        "round 2",
    ]
    assert len(held) == 32


@pytest.mark.parametrize("kind", [MessageType.FL_ROUND_START, MessageType.FL_ROUND_UPDATE])
def test_what_would_expire_between_two_nodes_is_known_to_neither(kind: MessageType) -> None:
    said = ALICE.says(kind=wire.KIND_CODES[kind], content={"round_id": "r"}, expiry_ms=NOON.wall_ms)
    drops = []
    for after in (0.0, 0.02):
        held = Rounds(lambda: "nobody")
        bench = Bench([ALICE, BOB], handlers=[held])
        bench.connect(BOB)
        bench.advance(after)
        bench.fresh()
        bench.hear(BOB, said)
        drops += bench.drops()
        assert len(held) == 0

    assert drops == [DropReason.REJECTED, DropReason.EXPIRED]
    assert (
        held.objection(said, {}) == "it must have no expiry, or some peers would take it and others receive it too late"
    )
