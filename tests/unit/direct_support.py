"""What the tests of direct messages share: an engine among links that sends, and what left it."""

from __future__ import annotations

from typing import Any

from tests.unit.core_support import Bench, people
from zmesh.core import wire
from zmesh.core.bounds import Bounds
from zmesh.core.envelope import Envelope
from zmesh.core.events import SendDirect
from zmesh.core.types import MessageType

ALICE, BOB, CAROL = people(3)
DELTA = MessageType.MODEL_DELTA_TRANSFER
CODE = wire.KIND_CODES[DELTA]


def bench(**bounds: Any) -> Bench:
    made = Bench([ALICE, BOB], bounds=Bounds(**bounds))
    made.advance(0.0)
    made.connect(ALICE, BOB)
    return made


def send(made: Bench, timeout: float = 10.0, token: int = 7) -> Envelope:
    made.handle(SendDirect(ALICE.public, DELTA, {"round_id": "r"}, timeout, token))
    return sent(made)[-1]


def sent(made: Bench) -> list[Envelope]:
    """Every copy that left for Alice."""
    return [envelope for key, envelope in made.envelopes(CODE) if key == ALICE.public]


def tick(made: Bench, seconds: float) -> None:
    """Time passes in steps that keep the links alive."""
    while seconds > 0:
        made.advance(min(5.0, seconds))
        seconds -= 5.0
        for person in (ALICE, BOB):
            if person.public in made.live:
                made.control(person, wire.DIGEST)
