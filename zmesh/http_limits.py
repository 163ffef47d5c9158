"""How often one address may ask and post over HTTP, and all addresses together.

Rules
 1. An address is the far end of the TCP connection, so that nobody spends another's share; of IPv6 its /64, which is
    what one machine has.
 2. Only as many addresses are kept count of as the table holds; the one unused longest is forgotten first.
 3. A loopback address has its own share alone: strangers cannot use up what this machine's own probe needs.
"""

from __future__ import annotations

from collections import Counter

from zmesh.core.limits import Limits, machine

POST_RATE = 4.0
"""Posts a second from one address."""
POST_BURST = 128.0
"""At once: a mesh of 100 behind one address, starting at once."""
POST_RATE_OF_ALL = 100.0
"""Posts a second from everybody: with three verifications of 0.1 ms each, 3 % of a core."""
POST_BURST_OF_ALL = 1024.0
"""At once: a mesh of 1,000 that starts at one seed."""
GET_RATE = 50.0
"""Gets a second from one address: with 0.5 ms each, a connection of its own included, 2.5 % of a core."""
GET_BURST = 1024.0
"""At once: a mesh of 100 behind one address, starting at once, each of which dials ten times; 0.5 s of a core."""
GET_RATE_OF_ALL = 200.0
"""Gets a second from everybody: 10 % of a core."""
GET_BURST_OF_ALL = 4096.0
"""At once: a mesh of 1,000, starting at once, each of which dials four times; 2 s of a core."""
RETRY_AFTER = 1
"""Seconds until a refused address has a share again: more than 1 / ``POST_RATE``, in whole ones as HTTP has it."""


class Requests:
    """Those of one kind, "posts" say. Times are monotonic seconds."""

    def __init__(
        self, kind: str, counters: Counter[str], each: tuple[float, float], together: tuple[float, float]
    ) -> None:
        """``each``: so many a second, and at once, from one address. ``together``: from everybody."""
        self._kind = kind
        self._counters = counters
        self._each = Limits(*each)
        self._together = Limits(*together, most=1)

    def refusal(self, address: str | None, now: float) -> str | None:
        """None if ``address`` may have one more now, or whose limit is reached: ``address`` or ``everybody``.

        None as an address is one that is not known. A refusal is counted.
        """
        name = machine(address)
        is_own = name.startswith("127.") or address == "::1"
        whose = None
        if not self._each.take(name, now):
            whose = "address"
        elif not is_own and not self._together.take("everybody", now):
            whose = "everybody"
        if whose is not None:
            self._counters[f"http_{self._kind}_over_limit_of_{whose}"] += 1
        return whose


class HttpLimits:
    """What one front door counts."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        """How often somebody was refused, by whose limit it was; how often a body that was let in did not come; and
        what would have been a line in the log: what is no HTTP, and what was broken off."""
        self.posts = Requests("posts", self.counters, (POST_RATE, POST_BURST), (POST_RATE_OF_ALL, POST_BURST_OF_ALL))
        self.gets = Requests("gets", self.counters, (GET_RATE, GET_BURST), (GET_RATE_OF_ALL, GET_BURST_OF_ALL))
        """Whatever is no post: what only gets 404 or 405 costs as much."""
