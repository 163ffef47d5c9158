"""The last good set of a chain, on disk: a node that starts while its chain is away still knows who belongs.

Rules
 1. One file, replaced as a whole; one that is damaged, foreign or too large is warned about and ignored.
 2. It says which chain it is from and when that agreed: an old set is better than none, and never passes for a new one.
 3. A set that changed is stored at once, one that stays the same only now and then, and nothing too often.
"""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import NamedTuple

from zmesh.core.errors import ConfigError
from zmesh.core.now import Now
from zmesh.files import read_regular, replace_private
from zmesh.log import get_logger
from zmesh.registry.codec import MAX_FRAME, Snapshot, packed, plain_of, snapshot_of, unpacked

FILE = "validators.msgpack"
VERSION = 1
SAVE_SECONDS = 600.0
"""Seconds between saves of a set that stays the same: the age of a set from the disk is right to ten minutes."""
SAVE_GAP = 5.0
"""Minimum seconds between any two saves: an endpoint could name another set with every block, and wear out the disk."""
_HEAD = 4
"""Bytes of the length in front of a frame, which a file does not need."""

_log = get_logger(__name__)


class Cached(NamedTuple):
    """A set as it was stored."""

    snapshot: Snapshot
    wall: float
    """Unix seconds at which the chain last agreed with it."""


class Cache:
    """If ``folder`` is None, nothing is kept; otherwise it must exist."""

    def __init__(self, folder: Path | None) -> None:
        self._path = None if folder is None else folder / FILE
        # Monotonic seconds: when the chain agreed with the stored set, None if another one is in force; the last save.
        self._agreed_at: float | None = None
        self._saved_at = float("-inf")

    async def restore(self, now: Now) -> tuple[Snapshot, float] | None:
        """The set as last stored, and when the chain last agreed with it, in monotonic seconds."""
        cached = await asyncio.to_thread(self.load)
        if cached is None:
            return None
        self._agreed_at = now.mono - max(0.0, now.wall - cached.wall)
        return cached.snapshot, self._agreed_at

    def replaced(self) -> None:
        """Another set than the stored one is in force."""
        self._agreed_at = None

    def is_due(self, mono: float) -> bool:
        """Whether the set in force should be saved now."""
        is_old = self._agreed_at is None or mono - self._agreed_at > SAVE_SECONDS
        return is_old and mono - self._saved_at > SAVE_GAP

    async def save(self, snapshot: Snapshot, agreed_at: float, now: Now) -> None:
        """Store the set in force, with which the chain agreed at ``agreed_at`` monotonic seconds, unless that is
        stored already."""
        if agreed_at == self._agreed_at:
            return
        self._saved_at = now.mono
        problem = await asyncio.to_thread(self.store, snapshot, now.wall - (now.mono - agreed_at))
        self._agreed_at = agreed_at
        if problem is not None:
            _log.warning("registry_not_stored", problem=problem)

    def load(self) -> Cached | None:
        """The set as last stored, if it can be read. Blocking."""
        if self._path is None or not self._path.exists():
            return None
        try:
            content, _ = read_regular(self._path, f"the stored set {self._path}", MAX_FRAME + 1)
            if len(content) > MAX_FRAME:
                raise ValueError(f"it is larger than {MAX_FRAME} bytes")
            value = unpacked(content)
            wall = value.get("wall")
            if value.get("version") != VERSION or not isinstance(wall, float) or not math.isfinite(wall):
                raise ValueError("it is of another version, or has no time")
            found = snapshot_of(value)
            if not found.accounts:
                raise ValueError("it names no account")
        except (ConfigError, ValueError) as error:
            _log.warning("registry_cache_damaged", path=str(self._path), problem=str(error))
            return None
        return Cached(found, wall)

    def store(self, snapshot: Snapshot, wall: float) -> str | None:
        """Store the set; returns why that was not possible, if it was not. Blocking."""
        if self._path is None:
            return None
        try:
            replace_private(self._path, packed({"version": VERSION, "wall": wall, **plain_of(snapshot)})[_HEAD:])
        except (ConfigError, ValueError) as error:
            return str(error)
        return None
