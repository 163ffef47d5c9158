"""Heartbeats: every node announces once a minute that it is alive.

Rules
 1. The signed frame itself is the sign of life, and the engine records it; its content is human-readable detail.
 2. The first one leaves within ``FIRST_WITHIN`` of the start, so that a new node is seen at once. All later ones fall
    on this node's own phase of the interval: nodes that started together do not beat together.
 3. Beats missed because the machine slept are not made up for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import floor
from typing import Any, Final

from zmesh.core.envelope import Envelope
from zmesh.core.errors import ConfigError
from zmesh.core.events import Broadcast, Command
from zmesh.core.now import Now
from zmesh.core.types import Member, MessageType, Verdict
from zmesh.handlers.schema import flaw, items, objection_to, size_objection, text, whole

FIRST_WITHIN: Final = 1.0
"""Seconds after the start: soon, and still spread out when a whole mesh starts at once."""
MAX_BODY: Final = 4 * 1024
"""Bytes of a heartbeat's body: every node receives every heartbeat, so a large one is abuse."""

SCHEMA: Final = {
    "status": text(32),
    "peers_count": whole(),
    "version": text(64),
    "capabilities": items(text(64), 32),
}
"""All optional: a heartbeat needs nothing but its signature."""


class Heartbeat:
    """Broadcasts HEARTBEAT every ``interval`` seconds and validates those of others.

    Args:
        status: returns the payload of the next beat; only ``peers_count``, ``status``, ``version`` and ``capabilities``
            mean something to others. Called once per beat, and must not block.
        interval: seconds between beats.
        phase: 0 to below 1, this node's place within the interval; drawn by the owner of the randomness.

    Raises ``ConfigError`` if the interval or phase is out of range.
    """

    kinds: frozenset[MessageType] = frozenset({MessageType.HEARTBEAT})

    def __init__(self, status: Callable[[], Mapping[str, Any]], interval: float = 60.0, phase: float = 0.5) -> None:
        if not 0 < interval < float("inf"):
            raise ConfigError(f"heartbeat interval must be a positive number of seconds, such as 60, not {interval}")
        if not 0 <= phase < 1:
            raise ConfigError(f"heartbeat phase must be at least 0 and below 1, not {phase}")
        self._status = status
        self._interval = interval
        self._phase = phase
        self._grid: float | None = None
        """The next time of this node's grid, start + (phase + k) * interval; None before the start."""
        # Due at once: the first wake tells the time.
        self.deadline: float | None = 0.0

    def validate(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Verdict:
        """REJECT what is larger than ``MAX_BODY`` or does not fit ``SCHEMA``."""
        if len(envelope.body) > MAX_BODY or flaw(payload, {}, SCHEMA) is not None:
            return Verdict.REJECT
        return Verdict.ACCEPT

    def objection(self, envelope: Envelope, payload: Mapping[str, Any]) -> str:
        """States the excess size or the flawed field."""
        size = len(envelope.body)
        return size_objection(size, MAX_BODY) if size > MAX_BODY else objection_to(payload, {}, SCHEMA)

    def harm(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any]) -> str:
        """Never any."""
        return ""

    def received(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Sequence[Command]:
        """Nothing is left to do: the engine has recorded the sign of life."""
        return ()

    def wake(self, now: Now) -> Sequence[Command]:
        """Beat if it is time, and set the next deadline."""
        if self._grid is None:
            self._grid = now.mono + self._phase * self._interval
            self.deadline = now.mono + FIRST_WITHIN * self._phase
            return ()
        if self.deadline is None or now.mono < self.deadline:
            return ()
        if self._grid <= now.mono:
            # Advance from the last time: a grid computed afresh each time could round back onto the present.
            self._grid += (floor((now.mono - self._grid) / self._interval) + 1) * self._interval
        self.deadline = self._grid
        return (Broadcast(MessageType.HEARTBEAT, dict(self._status())),)
