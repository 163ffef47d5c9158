"""Rate limit for log lines that others can cause: a member can cause as many as its own message rate allows.

Rules
 1. Lines of one kind, which is one event about one peer, may come ``BURST`` at once, then one every ``PAUSE`` seconds.
 2. The next line of the kind that is written says how many were held back.
 3. Memory is bounded: beyond ``MAX_KINDS`` busy kinds, further kinds share one limit.
"""

from __future__ import annotations

from typing import Final

from zmesh.core.limits import TokenBucket

BURST: Final = 5.0
"""Lines: a link that comes and goes a few times shows each time."""
PAUSE: Final = 20.0
"""Seconds between two lines of a kind that keeps coming: enough to see that it goes on."""
MAX_KINDS: Final = 1024
"""Kinds remembered, about 400 KB: a few for each peer of a full mesh."""

Kind = tuple[str, ...]
"""The event, and whatever distinguishes two of them: a peer, a fault."""

_OTHERS: Final[Kind] = ("others",)


def held_back_fields(count: int) -> dict[str, int]:
    """The field that says how many lines of the kind were held back since the last one; empty if none were."""
    return {"held_back": count} if count else {}


class _Line:
    """The allowance of one kind."""

    __slots__ = ("bucket", "held_back")

    def __init__(self) -> None:
        self.bucket = TokenBucket(1 / PAUSE, BURST)
        self.held_back = 0


class LogLimit:
    """Pure: the caller passes the time, in seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._kinds: dict[Kind, _Line] = {}

    def take(self, kind: Kind, mono: float) -> dict[str, int] | None:
        """The fields to add to the line, as ``held_back_fields`` gives them; None to hold the line back."""
        line = self._of(kind, mono)
        if not line.bucket.take(mono):
            line.held_back += 1
            return None
        held_back, line.held_back = line.held_back, 0
        return held_back_fields(held_back)

    def _of(self, kind: Kind, mono: float) -> _Line:
        line = self._kinds.get(kind)
        if line is None:
            if len(self._kinds) >= MAX_KINDS:
                # A full bucket is no different from a new one. How many lines it held back is lost: none of its kind
                # came since.
                self._kinds = {one: at for one, at in self._kinds.items() if not at.bucket.has(mono, BURST)}
            if len(self._kinds) >= MAX_KINDS:
                kind = _OTHERS
            line = self._kinds.setdefault(kind, _Line())
        return line
