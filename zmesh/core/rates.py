"""How much each account may say: the token buckets of authors.

Rules
 1. A rate limit belongs to an account, so another key, link or address does not reset it.
 2. Gossip is weighed by its size; a direct message counts as one whatever its size.
 3. A check asks first (``TokenBucket.has``) and charges only once the signature is verified (``take``): a forger
    cannot drain the rate of the author it impersonates.
 4. This node counts its own gossip too, to send no faster than others accept it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from zmesh.core.bounds import Bounds
from zmesh.core.envelope import Envelope
from zmesh.core.limits import TokenBucket
from zmesh.core.now import Now
from zmesh.core.types import Member

AUTHOR_UNIT = 2048
"""Bytes of a body that count as one more message of its author's rate: 1 MiB a second and 10 MiB at once. Under
``author_bytes`` that is kept for at least six seconds, so a relay still has what it offered when it is asked."""

OWN_SHARE = 0.9
"""The share we send at once of what others accept at once: messages that bunch up on the way are still accepted."""


def _buckets(rate: float, burst: float) -> defaultdict[str, TokenBucket]:
    """A bucket for each account, by its name."""
    return defaultdict(lambda: TokenBucket(rate, burst))


class AuthorRates:
    """The buckets of all accounts heard from; each is made when it is first asked for."""

    __slots__ = ("_burst", "_direct", "_gossip", "_own", "clear_at")

    def __init__(self, bounds: Bounds) -> None:
        self._burst = bounds.author_burst
        self._gossip = _buckets(bounds.author_rate, bounds.author_burst)
        self._direct = _buckets(bounds.direct_rate, bounds.direct_burst)
        self._own = TokenBucket(bounds.author_rate, OWN_SHARE * bounds.author_burst)
        self.clear_at = float("-inf")
        """When others accept our next gossip, if their bounds are the same: in monotonic seconds."""

    def retain(self, accounts: Collection[str]) -> None:
        """Membership changed: drop the buckets of accounts that no longer belong."""
        for buckets in (self._gossip, self._direct):
            for account in [account for account in buckets if account not in accounts]:
                del buckets[account]

    def gossip(self, author: Member) -> TokenBucket:
        """For the account's gossip, in units of ``weight``."""
        return self._gossip[author.account]

    def direct(self, author: Member) -> TokenBucket:
        """For the account's direct messages to this node, in messages."""
        return self._direct[author.account]

    def weight(self, envelope: Envelope) -> float:
        """The units that a gossip message takes; never more than the burst, or it could not pass at all."""
        units = 1.0 + len(envelope.body) // AUTHOR_UNIT
        return units if units < self._burst else self._burst

    def sent(self, envelope: Envelope, now: Now) -> None:
        """Count our own gossip. A small message does not shorten the wait after a large one: the next may be large."""
        self.clear_at = max(self.clear_at, now.mono + self._own.owe(now.mono, self.weight(envelope)))
