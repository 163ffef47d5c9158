"""Questions for the records that this node lacks: when to ask, about which keys, and which answers count.

Rules
 1. A few questions after the start, then one every ten minutes; in between, an answer that brings news and states that
    there is more leads to another question.
 2. A question lists a range of the keys that are held; a larger mesh is asked about range by range.
 3. An answer counts if it comes in time, and once per account: others could be told to some and kept from the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from zmesh.core.events import Broadcast
from zmesh.core.now import Now
from zmesh.core.types import MessageType, PeerKey
from zmesh.handlers.record import Record

ASK_AFTER: Final = (1.0, 5.0, 30.0)
"""Seconds after the start for the first questions: once links are fresh, and again for peers that came up slowly."""
ASK_EVERY: Final = 600.0
"""Seconds between later questions: for what was lost on the way."""
ASK_AGAIN: Final = 1.0
"""Seconds until the next question after an answer that brought news and stated that there is more."""
ANSWERED_WITHIN: Final = 15.0
"""Seconds in which an answer to a question counts: a direct message takes 10 at most."""
MAX_FOLLOW_UPS: Final = 256
"""Questions between two scheduled ones that answers may lead to: as many answers hold four times ``MAX_RECORDS``."""
MAX_KNOWN: Final = 1024
"""Keys listed in one question, 44 KiB."""


class Questions:
    """The questions of one node in one mesh, from the first call of ``due`` on. ``spread``: 0.9 to 1.1, its pace."""

    def __init__(self, spread: float) -> None:
        self._every = ASK_EVERY * spread
        self._scheduled: list[float] = []
        self._again_at = float("inf")
        self._follow_ups = 0
        self._cursor = b""
        """The key up to which the last question asked; empty if it reached the end."""
        self._asked_at = float("-inf")
        self._answerers: set[str] = set()

    @property
    def deadline(self) -> float:
        """When to call ``due`` next, in monotonic seconds."""
        return min(self._scheduled[0], self._again_at) if self._scheduled else 0.0

    def due(self, held: Mapping[PeerKey, Record], now: Now) -> Broadcast | None:
        """The question to ask now, or None."""
        if not self._scheduled:
            self._scheduled = [now.mono + delay for delay in ASK_AFTER]
        if self._scheduled[0] <= now.mono:
            # Several that are due at once, after a sleep, become one question.
            self._scheduled = [at for at in self._scheduled if at > now.mono] or [now.mono + self._every]
            self._follow_ups = 0
        elif self._again_at > now.mono:
            return None
        self._asked_at, self._again_at = now.mono, float("inf")
        self._answerers.clear()
        return self._next(held)

    def _next(self, held: Mapping[PeerKey, Record]) -> Broadcast:
        """The question for what is not ``held``, in the next range of keys."""
        payload: dict[str, Any] = {}
        if self._cursor:
            payload["after"] = self._cursor
        ahead = sorted(key for key in held if key > self._cursor)
        listed = ahead[:MAX_KNOWN]
        self._cursor = b""
        if len(ahead) > MAX_KNOWN:
            self._cursor = payload["until"] = listed[-1]
        payload["known"] = [[key, held[key].sequence] for key in listed]
        return Broadcast(MessageType.PEER_DISCOVERY, payload)

    def soon(self, now: Now) -> None:
        """Ask within a second, once."""
        if self._scheduled:
            self._again_at = min(self._again_at, now.mono + ASK_AGAIN)

    def is_answer(self, account: str, now: Now) -> bool:
        """True if this is the account's first answer to the last question, and in time."""
        if now.mono - self._asked_at > ANSWERED_WITHIN or account in self._answerers:
            return False
        self._answerers.add(account)
        return True

    def follow_up(self, now: Now) -> None:
        """Schedule another question, as there is more to learn."""
        if self._follow_ups < MAX_FOLLOW_UPS and now.mono + ASK_AGAIN < self._again_at:
            self._follow_ups += 1
            self._again_at = now.mono + ASK_AGAIN
