"""Members that vote so that honest nodes would never agree on the count: real engines, virtual time."""

from __future__ import annotations

import pytest

from tests.unit.core_support import NOON, Bench, people
from zmesh.core import wire
from zmesh.core.types import DropReason, Fault, MessageType
from zmesh.handlers import Votes

ALICE, BOB = people(2)
PROPOSE, VOTE = (wire.KIND_CODES[kind] for kind in (MessageType.CONSENSUS_PROPOSE, MessageType.CONSENSUS_VOTE))


def node() -> tuple[Bench, Votes]:
    """An honest node, linked with Bob."""
    held = Votes()
    bench = Bench([ALICE, BOB], handlers=[held])
    bench.connect(BOB)
    return bench, held


@pytest.mark.parametrize("kind", [PROPOSE, VOTE])
def test_what_would_expire_between_two_nodes_counts_at_neither(kind: int) -> None:
    said = ALICE.says(kind=kind, content={"proposal_id": "p", "choice": "yes"}, expiry_ms=NOON.wall_ms)
    (early, first), (late, second) = node(), node()
    early.hear(BOB, said)
    late.advance(0.02)
    late.hear(BOB, said)

    assert (first.open, second.open) == ((), ())
    assert (early.drops(), late.drops()) == ([DropReason.REJECTED_BY_VALIDATOR], [DropReason.EXPIRED])
    assert early.offences() == [(ALICE.public, Fault.INVALID_MESSAGE)]
    assert first.objection(said, {}).startswith("it has an expiry")
