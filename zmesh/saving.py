"""Saves what was learnt, at intervals and at the end, so that a crash loses little.

Rules
 1. It is gathered on the event loop, where nothing else runs meanwhile, and written aside, as the application may keep
    the threads of the loop busy.
 2. A disk may be slow or hang. One write is under way at a time, and the wait for it is bounded.
 3. Nothing is written before what was saved is restored, so a start that fails leaves it as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from zmesh.aside import aside
from zmesh.log import get_logger
from zmesh.state import Scores, State

SLOW = 10.0
"""Seconds after which a disk is reported that has not written a few files of 16 MiB at most."""
EFFECT = "votes may be refused, and this node may not start again"
"""What else a disk that fails can do."""

_log = get_logger(__name__)


class Saving:
    """``gather`` returns what ``State.save`` takes."""

    def __init__(self, state: State, gather: Callable[[], tuple[Scores, Mapping[str, bytes]]]) -> None:
        self._state = state
        self._gather = gather
        self._is_restored = False
        self._problem: str | None = None
        """Why the last save failed, if it did."""
        self._writing: asyncio.Future[str | None] | None = None

    def warnings(self) -> list[str]:
        """What may keep this node from starting again, in a sentence."""
        return [] if self._problem is None else [f"{self._problem}: {EFFECT}"]

    async def run(self) -> None:
        """Save at intervals until cancelled. Start it when what was saved is restored."""
        self._is_restored = True
        while True:
            await asyncio.sleep(self._state.interval)
            await self._save(SLOW)

    async def finish(self, seconds: float) -> None:
        """Save for the last time, and wait for that for so long."""
        if self._is_restored:
            await self._save(seconds)

    async def _save(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._written()  # an earlier call may have been cancelled, or have lost its patience
                scores, learnt = self._gather()
                self._writing = aside(lambda: self._state.save(scores, learnt), "zmesh state")
                await self._written()
        except TimeoutError:
            self._problem = f"the disk of MESH_STATE_DIR took more than {seconds:g} s"
            _log.warning("state_not_saved", why=self._problem)
        except Exception as error:  # noqa: BLE001 - our own bug, logged in full: the next save, and the stop, go on
            _log.error("state_not_saved", exc_info=error)

    async def _written(self) -> None:
        """Wait for the write under way, if any. Raises what it raised."""
        if (writing := self._writing) is not None:
            await asyncio.wait([writing])
            self._writing = None
            self._problem = writing.result()
