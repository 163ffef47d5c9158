"""Rate limits for HTTP requests, per address and for all addresses together.

Rules
 1. An address is the far end of the TCP connection, so that no client can spend another's share; for IPv6 its /64,
    which is what one machine has.
 2. Addresses are counted only as far as the table holds; the one unused longest is forgotten first.
 3. This machine (``OWN``) has only its own share: strangers cannot use up what its health probe needs.
"""

from __future__ import annotations

from collections import Counter

from zmesh.core.limits import OWN, Limits, TokenBucket, machine

POST_RATE = 4.0
"""Posts per second from one address."""
POST_BURST = 128.0
"""Posts at once from one address: a mesh of 100 behind it, starting together."""
POST_RATE_OF_ALL = 100.0
"""Posts per second from all addresses: with three verifications of 0.1 ms each, 3 % of a core."""
POST_BURST_OF_ALL = 1024.0
"""Posts at once from all addresses: a mesh of 1,000 that starts with one seed."""
GET_RATE = 50.0
"""Gets per second from one address: at 0.5 ms each, a connection of its own included, 2.5 % of a core."""
GET_BURST = 1024.0
"""Gets at once from one address: a mesh of 100 behind it, starting together, each node dialling ten times; 0.5 s of a
core."""
GET_RATE_OF_ALL = 200.0
"""Gets per second from all addresses: 10 % of a core."""
GET_BURST_OF_ALL = 4096.0
"""Gets at once from all addresses: a mesh of 1,000, starting together, each node dialling four times; 2 s of a core."""
RETRY_AFTER = 1
"""Seconds until a refused address has a share again: more than 1 / ``POST_RATE``, in whole seconds as HTTP requires."""


class Requests:
    """The limits for requests of one kind, such as "posts". Times are monotonic seconds."""

    def __init__(
        self, kind: str, counters: Counter[str], each: tuple[float, float], together: tuple[float, float]
    ) -> None:
        """``each``: rate per second and burst for one address. ``together``: the same for all addresses."""
        self._kind = kind
        self._counters = counters
        self._each = Limits(*each)
        self._together = TokenBucket(*together)

    def refusal(self, address: str | None, now: float) -> str | None:
        """None if ``address`` may send one more now, else whose limit is reached: ``address`` or ``everybody``.

        ``address`` is None if it is not known. A refusal is counted.
        """
        name = machine(address)
        whose = None
        if not self._each.take(name, now):
            whose = "address"
        elif name not in OWN and not self._together.take(now):
            whose = "everybody"
        if whose is not None:
            self._counters[f"http_{self._kind}_over_limit_of_{whose}"] += 1
        return whose


class HttpLimits:
    """The limits and counters of one front door."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        """Refusals, by whose limit was reached; bodies that were let in and did not arrive; and, counted instead of
        logged, malformed HTTP."""
        self.posts = Requests("posts", self.counters, (POST_RATE, POST_BURST), (POST_RATE_OF_ALL, POST_BURST_OF_ALL))
        self.gets = Requests("gets", self.counters, (GET_RATE, GET_BURST), (GET_RATE_OF_ALL, GET_BURST_OF_ALL))
        """All requests but posts: one that only gets 404 or 405 costs as much."""
