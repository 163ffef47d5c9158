"""The port of a built-in protocol behaviour: heartbeat, records, rounds, votes.

Rules
 1. A handler is a pure state machine like the engine: no IO, no clock, no randomness of its own, so that it
    runs unchanged in the simulator.
 2. ``validate`` is synchronous and decides whether the mesh may carry the message. It may count, and remember what was
    costly to verify, but the message itself takes effect only in ``received``. It sees only messages whose signature
    was verified. It is not the place for the application's own preferences: a REJECT costs the author reputation.
 3. ``received`` is called once per accepted message, before another one is validated; what it and ``wake`` return are
    commands for the engine.
 4. The engine calls ``wake`` at or after ``deadline``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from zmesh.core.envelope import Envelope
from zmesh.core.events import Command
from zmesh.core.now import Now
from zmesh.core.types import Member, MessageType, Verdict


class Handler(Protocol):
    """One built-in behaviour; ``kinds`` are the message types that it, and no other handler, validates."""

    kinds: frozenset[MessageType]

    @property
    def deadline(self) -> float | None:
        """When ``wake`` is due, in monotonic seconds, or None; any call to the handler may change it."""
        ...

    def validate(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Verdict:
        """Whether the mesh may carry this, see rule 2."""
        ...

    def objection(self, envelope: Envelope, payload: Mapping[str, Any]) -> str:
        """Why ``validate`` rejects this message, as one clause. Only the message's own author asks."""
        ...

    def harm(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any]) -> str:
        """How a valid message would harm its own author, as one clause, or empty. The author asks before sending it."""
        ...

    def received(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Sequence[Command]:
        """Process an accepted message (the node's own included)."""
        ...

    def wake(self, now: Now) -> Sequence[Command]:
        """The deadline has come."""
        ...
