"""What the tests of the nine checks share: an engine with a handler that judges as it is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.unit.core_support import NOON, Bench, Person
from zmesh.core import wire
from zmesh.core.bounds import Bounds
from zmesh.core.envelope import Envelope
from zmesh.core.events import Command
from zmesh.core.now import Now
from zmesh.core.types import Fault, Member, MessageType, Verdict

ALICE, BOB, CAROL, STRANGER = Person(2), Person(3), Person(4), Person(9)
JUNK = bytes(64)


class Judge:
    """A handler that says what it was told to say."""

    kinds = frozenset({MessageType.GOSSIP})
    deadline: float | None = None

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.heard: list[Envelope] = []

    def validate(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Verdict:
        return self.verdict

    def objection(self, envelope: Envelope, payload: Mapping[str, Any]) -> str:
        return "it was told so"

    def harm(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any]) -> str:
        return ""

    def received(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Sequence[Command]:
        self.heard.append(envelope)
        return ()

    def wake(self, now: Now) -> Sequence[Command]:
        return ()


def bench(verdict: Verdict | None = None, *, linked: Sequence[Person] = (ALICE, BOB), **bounds: Any) -> Bench:
    """A node with three fellow members, linked with two of them."""
    handlers = [] if verdict is None else [Judge(verdict)]
    made = Bench([ALICE, BOB, CAROL], bounds=Bounds(**bounds), handlers=handlers)
    made.connect(*linked)
    return made


def low_reputation() -> Bench:
    made = bench()
    for _ in range(3):
        made.engine.peers.charge(CAROL.member, Fault.MALFORMED, NOON.mono)
    made.hear(ALICE, CAROL.says())
    return made


def signed_by_nobody(message: Envelope) -> Envelope:
    return Envelope(message.id, message.body, JUNK, wire.decode_body(message.body))


def aged(seconds: float) -> Callable[[], Envelope]:
    return lambda: CAROL.says(timestamp_ms=NOON.wall_ms - int(seconds * 1000))
