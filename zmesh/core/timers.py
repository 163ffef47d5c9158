"""The engine's timers: what is due when, as data.

Rules
 1. One heap for the whole engine, so an interpreter needs only one timer, which the engine requests by ``WakeAt``.
 2. Nothing is ever cancelled: a callback that is no longer needed notices and does nothing.
 3. Ties run in the order in which they were added, so that a replay is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

from zmesh.core.now import Now

Callback = Callable[[Any, Now], None]

NEVER: Final = float("inf")
"""A monotonic time that never comes."""


class Timers:
    """Callbacks by monotonic time.

    The heap is bounded by what its users add: O(links + wants + direct messages not yet past their deadline, settled
    ones included). Of a direct message it holds the id: under 1 KiB, its repetitions included.
    """

    __slots__ = ("_count", "_heap", "next")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callback, Any]] = []
        self._count = 0
        self.next = NEVER
        """The monotonic second at which something is due next; ``NEVER`` if nothing is."""

    def note(self, at: float, callback: Callback, subject: Any = None) -> None:
        """Call ``callback(subject, now)`` at or after the monotonic second ``at``."""
        self._count += 1
        heappush(self._heap, (at, self._count, callback, subject))
        self.next = self._heap[0][0]

    def run(self, now: Now) -> None:
        """Call everything that is due; timers that this adds in the past run in the same call."""
        heap = self._heap
        while heap and heap[0][0] <= now.mono:
            _, _, callback, subject = heappop(heap)
            self.next = heap[0][0] if heap else NEVER
            callback(subject, now)
