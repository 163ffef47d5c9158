"""What the tests of gossip share: an engine among links, and what it pushed or offered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.unit.core_support import Bench, Person, people, short
from zmesh.core import wire
from zmesh.core.actions import Published
from zmesh.core.bounds import Bounds
from zmesh.core.envelope import Envelope
from zmesh.core.events import Broadcast
from zmesh.core.types import MessageType, PeerKey

ALICE, BOB, CAROL = people(3)


def bench(persons: Sequence[Person] = (ALICE, BOB, CAROL), **bounds: Any) -> Bench:
    made = Bench(persons, bounds=Bounds(**bounds))
    made.connect(*persons)
    return made


def publish(made: Bench, size: int = 10, ttl: int | None = None) -> Envelope:
    made.handle(Broadcast(MessageType.GOSSIP, {"pad": b"x" * size}, ttl))
    return made.of(Published)[-1].envelope


def pushed(made: Bench) -> list[tuple[PeerKey, int, int]]:
    """(to whom, ttl, hops) of every envelope sent."""
    return [(key, frames[0][1], frames[0][2]) for key, frames in made.sends(wire.ENVELOPE)]


def told(made: Bench, message: Envelope) -> list[PeerKey]:
    """Who was offered the message, in order."""
    return [key for key, ids in made.ids(wire.IHAVE) if short(message) in ids]


def keep_alive(made: Bench, seconds: float) -> None:
    """Time passes without anybody falling silent."""
    while seconds > 0:
        made.advance(min(5.0, seconds))
        seconds -= 5.0
        for key in made.live:
            made.receive(next(p for p in made.others if p.public == key), wire.control(wire.DIGEST))
