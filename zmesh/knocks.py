"""How often one address may post, and all addresses together.

Rules
 1. An address is the far end of the TCP connection, so that nobody spends another's share; of IPv6 its /64, which is
    what one machine has.
 2. Only as many addresses are kept count of as the table holds; the one unused longest is forgotten first.
"""

from __future__ import annotations

from collections import Counter

from zmesh.core.limits import Limits, TokenBucket, machine

RATE = 4.0
"""Posts a second from one address."""
BURST = 128.0
"""At once: a mesh of 100 behind one address, starting at once."""
RATE_OF_ALL = 100.0
"""Posts a second from everybody: with three verifications of 0.1 ms each, 3 % of a core."""
BURST_OF_ALL = 1024.0
"""At once: a mesh of 1,000 that starts at one seed."""
RETRY_AFTER = 1
"""Seconds until a refused address has a share again: more than 1 / ``RATE``, in whole ones as HTTP has it."""


class Knocks:
    """Counts them. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        """How often somebody was refused, by whose limit it was; and how often a body that was let in did not come."""
        self._all: TokenBucket | None = None
        self._each = Limits(RATE, BURST)

    def refusal(self, address: str | None, now: float) -> str | None:
        """None if ``address`` may post now, or whose limit is reached: ``address`` or ``everybody``.

        None as an address is one that is not known.
        """
        whose = "address" if not self._each.take(machine(address), now) else None
        if whose is None and not self._everybody(now).take(now):
            whose = "everybody"
        if whose is not None:
            self.counters[f"http_posts_over_limit_of_{whose}"] += 1
        return whose

    def _everybody(self, now: float) -> TokenBucket:
        if self._all is None:
            self._all = TokenBucket(RATE_OF_ALL, BURST_OF_ALL, now)
        return self._all
