"""Which log lines are written where others decide how often: a member can cause as many as its rate allows.

Rules
 1. Lines of one kind, one event about one peer, may come ``BURST`` at once, and then one every ``PAUSE`` seconds.
 2. How many were held back is said with the next one of their kind that is written.
 3. What is remembered is bounded: beyond ``MAX_KINDS`` that are busy, further kinds share one limit.
"""

from __future__ import annotations

from typing import Final

from zmesh.core.limits import TokenBucket

BURST: Final = 5.0
"""Lines: a link that comes and goes a few times shows each time."""
PAUSE: Final = 20.0
"""Seconds between two lines of a kind that does not end: enough to see that it goes on."""
MAX_KINDS: Final = 1024
"""Kinds remembered, about 400 KB: a few for each peer of a full mesh."""

Kind = tuple[str, ...]
"""The event, and whatever tells two of them apart: a peer, a fault."""

_OTHERS: Final[Kind] = ("others",)


class _Line:
    """What one kind may still have."""

    __slots__ = ("bucket", "held_back")

    def __init__(self, mono: float) -> None:
        self.bucket = TokenBucket(1 / PAUSE, BURST, mono)
        self.held_back = 0


class LogLimit:
    """Pure: it is told the time, in seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._kinds: dict[Kind, _Line] = {}

    def take(self, kind: Kind, mono: float) -> int | None:
        """To log it: how many of its kind were held back since the last one. None: hold it back."""
        line = self._of(kind, mono)
        if not line.bucket.take(mono):
            line.held_back += 1
            return None
        held_back, line.held_back = line.held_back, 0
        return held_back

    def _of(self, kind: Kind, mono: float) -> _Line:
        line = self._kinds.get(kind)
        if line is None:
            if len(self._kinds) >= MAX_KINDS:
                # A full bucket says no more than a new one; what it held back, nobody asked for again.
                self._kinds = {one: at for one, at in self._kinds.items() if not at.bucket.has(mono, BURST)}
            if len(self._kinds) >= MAX_KINDS:
                kind = _OTHERS
            line = self._kinds.setdefault(kind, _Line(mono))
        return line
