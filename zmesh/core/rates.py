"""How much each account may say: the token buckets of authors.

Rules
 1. A rate belongs to an account, so another key, link or address washes nothing.
 2. Gossip is weighed by its size; a direct message is one message whatever its size.
 3. Whoever checks a message asks first (``TokenBucket.has``) and charges once its signature was found good
    (``take``): a forger cannot drain the rate of the author whose name it uses.
 4. This node keeps count of its own gossip too, to send no faster than others take it.
"""

from __future__ import annotations

from collections.abc import Collection

from zmesh.core.bounds import Bounds
from zmesh.core.envelope import Envelope
from zmesh.core.limits import TokenBucket
from zmesh.core.now import Now
from zmesh.core.types import Member

AUTHOR_UNIT = 2048
"""Bytes of a body that count as one more message of its author's rate: 1 MiB a second and 10 MiB at once. Under
``author_bytes`` that is kept for six seconds at least, so what a relay offered is there when it is asked for."""

OWN_SHARE = 0.9
"""Of what others take at once, as much as we send at once: what comes a little closer together there is still taken."""


class AuthorRates:
    """The buckets of all accounts that were heard of; they start full, so it does not matter when they are made."""

    __slots__ = ("_bounds", "_burst", "_direct", "_gossip", "_own")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._burst = bounds.author_burst
        self._gossip: dict[str, TokenBucket] = {}
        self._direct: dict[str, TokenBucket] = {}
        self._own = TokenBucket(bounds.author_rate, OWN_SHARE * bounds.author_burst, 0.0)

    def retain(self, accounts: Collection[str]) -> None:
        """Membership changed: drop the buckets of those who no longer belong."""
        for buckets in (self._gossip, self._direct):
            for account in [account for account in buckets if account not in accounts]:
                del buckets[account]

    def gossip(self, author: Member) -> TokenBucket:
        """For what the account says to everybody, in units of ``weight``."""
        bucket = self._gossip.get(author.account)
        if bucket is None:
            bucket = TokenBucket(self._bounds.author_rate, self._bounds.author_burst, 0.0)
            self._gossip[author.account] = bucket
        return bucket

    def direct(self, author: Member) -> TokenBucket:
        """For what the account says to this node alone, in messages."""
        bucket = self._direct.get(author.account)
        if bucket is None:
            bucket = TokenBucket(self._bounds.direct_rate, self._bounds.direct_burst, 0.0)
            self._direct[author.account] = bucket
        return bucket

    def weight(self, envelope: Envelope) -> float:
        """Units of gossip; never more than may come at once, or it could not come at all."""
        units = 1.0 + len(envelope.body) // AUTHOR_UNIT
        return units if units < self._burst else self._burst

    def sent(self, envelope: Envelope, now: Now) -> float:
        """Our own account gossiped this: seconds until others take the next, if their bounds are as ours."""
        return self._own.owe(now.mono, self.weight(envelope))
