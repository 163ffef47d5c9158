"""Coordinators that announce so that honest nodes would know different rounds: real engines, virtual time."""

from __future__ import annotations

from typing import Any

from tests.unit.core_support import NOON, Bench, people
from zmesh.core import wire
from zmesh.core.envelope import Envelope
from zmesh.core.types import DropReason, MessageType
from zmesh.handlers import Round, Rounds

ALICE, BOB = people(2)
START = wire.KIND_CODES[MessageType.FL_ROUND_START]


def start(**terms: Any) -> Envelope:
    """Alice announces."""
    return ALICE.says(kind=START, content={"round_id": "r", **terms})


def heard(*messages: Envelope, after: float) -> tuple[Round, list[DropReason]]:
    """The round as a node has it that hears these so many seconds after noon, and what became of them."""
    held = Rounds()
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
