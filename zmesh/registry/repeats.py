"""Which of many reports of trouble are logged: what comes again and again is said once, and never in a flood.

Rules
 1. A kind is logged once, until all is well again; and once in ``GAP`` seconds, however often all was well between:
    an endpoint that lies in turns would write lines for ever. How many were held back is said with the next one.
 2. Two reports of one source are of one kind if they differ in their numbers only: blocks, hashes, counts.
 3. Whoever is read words some reports, so what is remembered of them is bounded; beyond it they are held back.
"""

from __future__ import annotations

import re
from typing import Final

GAP: Final = 60.0
"""Seconds between two logged reports of one kind: an operator learns nothing from more."""
MAX_KINDS: Final = 32
"""Kinds remembered, and so the lines a minute at worst: a few for each of a few endpoints."""

_NUMBERS: Final = re.compile(r"0x[0-9a-f]+|[0-9]+")


class Repeats:
    """Counts what is held back. Pure: it is told the time, in seconds of a clock that never goes back."""

    def __init__(self) -> None:
        # Kind -> when it was logged last; and those that were logged since all was well.
        self._logged: dict[tuple[str, str], float] = {}
        self._current: set[tuple[str, str]] = set()
        self._held_back = 0

    def take(self, source: str, report: str, mono: float) -> int | None:
        """To log it: how many were held back since the last one that was logged. None to hold it back."""
        kind = (source, _NUMBERS.sub("#", report))
        if kind in self._current:
            return None
        if mono - self._logged.get(kind, mono - GAP) < GAP or not self._has_room(kind, mono):
            self._held_back += 1
            return None
        self._logged[kind] = mono
        self._current.add(kind)
        held_back, self._held_back = self._held_back, 0
        return held_back

    def end(self) -> bool:
        """All is well: was anything logged since the last time that it was?"""
        was_told = bool(self._current)
        self._current.clear()
        return was_told

    def _has_room(self, kind: tuple[str, str], mono: float) -> bool:
        if kind not in self._logged and len(self._logged) >= MAX_KINDS:
            kept = {one: at for one, at in self._logged.items() if one in self._current or mono - at < GAP}
            self._logged = kept
        return kind in self._logged or len(self._logged) < MAX_KINDS
