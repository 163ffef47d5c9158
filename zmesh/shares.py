"""Whose messages wait in a queue, and who may add to them.

Rules
 1. Nothing that was queued makes way: it may have been acknowledged. So a queue is shared while there is room.
 2. Until it is half full it takes whatever comes; from then on nobody has more of it than an even share, and whoever is
    alone has all of it.
 3. Others may have filled it before somebody came: of a full queue everybody still gets one place in ``RESERVE``. With
    all of these it is twice its limit at most.
"""

from __future__ import annotations

from typing import Final

RESERVE: Final = 64


class Shares:
    """Of one queue of ``limit`` messages."""

    __slots__ = ("_held", "_limit", "_waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting = 0
        self._held: dict[str, int] = {}
        """Messages by account; who has none is not in it."""

    def take(self, account: str) -> bool:
        """A place for one more of this account, if it may have one."""
        held = self._held.get(account, 0)
        if self._waiting >= self._limit // 2:
            share = self._limit // (len(self._held) + (held == 0))
            if held >= max(1, share) or (self._waiting >= self._limit and held >= max(1, self._limit // RESERVE)):
                return False
        self._held[account] = held + 1
        self._waiting += 1
        return True

    def leave(self, account: str) -> None:
        """One of its messages has had its turn."""
        self._waiting -= 1
        if self._held[account] == 1:
            del self._held[account]
        else:
            self._held[account] -= 1
