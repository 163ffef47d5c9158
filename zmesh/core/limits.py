"""Token buckets: how much of something may come at once, and at what rate it may continue.

Rules
 1. A bucket starts full: a legitimate burst right after the start passes.
 2. Asking (``has``) costs nothing; only ``take`` and ``owe`` do. So a forger cannot drain the bucket of the author it
    impersonates: an author is charged only after its signature is verified.
"""

from __future__ import annotations

from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Final

MAX_NAMES: Final = 4096
"""Names that have a bucket at once, about 1 MiB."""


class TokenBucket:
    """``rate`` units a second, ``burst`` at once. Times are monotonic seconds."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        # Full when it is first asked, whenever that is: infinity is not below the burst, nor is NaN, at a rate of 0.
        self._at = float("-inf")

    def has(self, now: float, amount: float = 1.0) -> bool:
        """Whether ``take`` would succeed."""
        tokens = self._tokens + (now - self._at) * self._rate
        self._tokens = tokens if tokens < self._burst else self._burst
        self._at = now
        return self._tokens >= amount

    def take(self, now: float, amount: float = 1.0) -> bool:
        """Take ``amount`` if it is available; otherwise take nothing and return False."""
        # Same as in ``has``, without the call: every frame comes through here.
        tokens = self._tokens + (now - self._at) * self._rate
        tokens = tokens if tokens < self._burst else self._burst
        self._at = now
        taken = tokens >= amount
        self._tokens = tokens - amount if taken else tokens
        return taken

    def owe(self, now: float, amount: float) -> float:
        """Take ``amount`` even if it is not available; returns the seconds until as much could be taken again."""
        self.has(now)  # brings it up to date
        self._tokens -= amount
        lacking = min(amount, self._burst) - self._tokens
        return lacking / self._rate if lacking > 0 else 0.0


class Limits:
    """A token bucket for each of up to ``MAX_NAMES`` names: beyond, the least recently used starts afresh."""

    __slots__ = ("_buckets", "_burst", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: dict[Hashable, TokenBucket] = {}

    def take(self, name: Hashable, now: float, amount: float = 1.0) -> bool:
        """Take ``amount`` from the bucket of ``name``, if it is available."""
        # Put back at the end, so that the first is the least recently used.
        bucket = self._buckets.pop(name, None) or TokenBucket(self._rate, self._burst)
        if len(self._buckets) >= MAX_NAMES:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[name] = bucket
        return bucket.take(now, amount)

    def has(self, name: Hashable, now: float) -> bool:
        """Whether ``take`` would succeed. Creates no bucket, so that asking about many names evicts none."""
        bucket = self._buckets.get(name)
        return bucket is None or bucket.has(now)


def machine(address: str | None) -> str:
    """Whose limit an address counts against: for IPv6 its /64, which is what one machine has; None means unknown."""
    try:
        parsed = ip_address((address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(ip_network((parsed, 64), strict=False))
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


OWN: Final = frozenset(map(machine, ("127.0.0.1", "::1")))
"""This machine itself: a local probe, a proxy in front of the node, or the node's own front door."""
