"""The queue of one handler, and how accounts share it.

Rules
 1. Nothing that was queued is evicted: it may have been acknowledged. So sharing begins while there is room.
 2. Until it is half full, it accepts everything. From then on no account may have more than an even share; an account
    that is alone may have all of it.
 3. Others may fill it before an account's first message arrives. So a full queue still takes up to ``limit / RESERVE``
    messages of each account, until it is twice as long as its limit.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from zmesh.messages import MeshMessage

RESERVE: Final = 64


class FairQueue:
    """First in, first out; ``limit`` messages, shared among the accounts that wrote them."""

    __slots__ = ("_held", "_limit", "messages")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[str, int] = {}
        """Messages by account; an account that has none has no entry."""
        self.messages: deque[MeshMessage] = deque()
        """For reading only: whether there are any, and how many."""

    def put(self, message: MeshMessage) -> bool:
        """Add it if its account may have one more place; returns whether it may."""
        account = message.account_id
        mine = self._held.get(account, 0)
        if len(self.messages) >= self._limit // 2 and not self._has_place(mine):
            return False
        self._held[account] = mine + 1
        self.messages.append(message)
        return True

    def get(self) -> MeshMessage:
        """Remove and return the oldest message. Raises ``IndexError`` if there is none."""
        message = self.messages.popleft()
        left = self._held[message.account_id] - 1
        if left:
            self._held[message.account_id] = left
        else:
            del self._held[message.account_id]
        return message

    def clear(self) -> int:
        """Drop all messages; returns how many there were."""
        waiting = len(self.messages)
        self.messages.clear()
        self._held.clear()
        return waiting

    def _has_place(self, mine: int) -> bool:
        """Whether there is one more place for an account that has ``mine`` of them."""
        waiting = len(self.messages)
        if mine >= max(1, self._limit // (len(self._held) + (mine == 0))):
            return False
        return waiting < self._limit or (waiting < 2 * self._limit and mine < max(1, self._limit // RESERVE))
