"""asyncio in virtual time: a pause of a minute costs nothing, and takes exactly a minute of ``loop.time()``.

Rules
 1. Time passes only while nobody has anything to do, and then it is the next moment that somebody waits for.
 2. Whoever waits for what nothing brings, in ``LONGEST`` seconds or ever, fails instead of hanging. So nothing real: no
    threads, no sockets.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from math import inf
from typing import Any, TypeVar

T = TypeVar("T")
LONGEST = 3600.0
"""Seconds of a story: an hour of pauses of a second is a moment of the processor."""


class _Selector(selectors.SelectSelector):
    """Instead of waiting, it lets the time pass."""

    passed = 0.0
    longest = LONGEST

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everybody waits, and nothing will ever happen")
        self.passed += max(0.0, timeout)
        if self.passed > self.longest:
            self.longest = inf  # what was left running has to be cancelled yet
            raise AssertionError(f"what is waited for did not come in {LONGEST:g} s")
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at 0 seconds."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.passed


def in_virtual_time(story: Coroutine[Any, Any, T]) -> T:
    """Run it; what it left running is cancelled."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story)


async def moment(at: float) -> None:
    """Until so many seconds after the beginning."""
    loop = asyncio.get_running_loop()
    reached = loop.create_future()
    loop.call_at(at, reached.set_result, None)
    await reached
