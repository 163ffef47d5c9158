"""Decides which of many reports of trouble are logged: a recurring one once, and never a flood.

Rules
 1. A kind is logged once until all is well again, and at most once in ``GAP`` seconds, however often all was well in
    between: an endpoint that lies on and off would write lines for ever. The next line says how many were held back.
 2. Two reports from one source are of one kind if they differ only in their numbers: blocks, hashes, counts.
 3. The endpoint words some of the reports itself, so memory of them is bounded; reports beyond the bound are held back.
"""

from __future__ import annotations

import re
from typing import Final

from zmesh.log_limit import held_back_fields

GAP: Final = 60.0
"""Seconds between two logged reports of one kind: an operator learns nothing from more."""
MAX_KINDS: Final = 32
"""Kinds remembered, and so the most lines a minute: a few for each of a few endpoints."""

_NUMBERS: Final = re.compile(r"0x[0-9a-f]+|[0-9]+")


class Repeats:
    """Counts what is held back. Pure: the caller passes the time, in seconds of a monotonic clock."""

    def __init__(self) -> None:
        # Kind -> when it was logged last; and those that were logged since all was well.
        self._logged: dict[tuple[str, str], float] = {}
        self._current: set[tuple[str, str]] = set()
        self._held_back = 0

    def take(self, source: str, report: str, mono: float) -> dict[str, int] | None:
        """The fields to add to the line, as ``held_back_fields`` gives them; None to hold the report back."""
        kind = (source, _NUMBERS.sub("#", report))
        if kind in self._current:
            return None
        if mono - self._logged.get(kind, mono - GAP) < GAP or not self._has_room(kind, mono):
            self._held_back += 1
            return None
        self._logged[kind] = mono
        self._current.add(kind)
        held_back, self._held_back = self._held_back, 0
        return held_back_fields(held_back)

    def end(self) -> bool:
        """All is well: returns whether anything was logged since the last time that it was."""
        was_told = bool(self._current)
        self._current.clear()
        return was_told

    def _has_room(self, kind: tuple[str, str], mono: float) -> bool:
        if kind not in self._logged and len(self._logged) >= MAX_KINDS:
            kept = {one: at for one, at in self._logged.items() if one in self._current or mono - at < GAP}
            self._logged = kept
        return kind in self._logged or len(self._logged) < MAX_KINDS
