"""How often a node may introduce another: it gossips the record of a newcomer that came to it by HTTP.

Why: a newcomer has no links, so its own messages reach only the peers it asks. A node that accepts its record passes it
on once, so all members know each other seconds after one meeting.
Rules
 1. Introducing is limited by account, being introduced by mesh key, and neither by address. Both sides apply the same
    limits, so an honest introducer is never ignored for its zeal.
 2. A record that came by gossip, in an answer or from disk is not introduced: another node did that. The exception is a
    record with which an account changes its key, since it may have been shown to some and kept from others.
 3. Only the newest record of a key waits.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from zmesh.core.envelope import Signer
from zmesh.core.limits import Limits, TokenBucket
from zmesh.core.types import PeerKey
from zmesh.core.wire import digest32
from zmesh.handlers.record import Record

INTRODUCER_RATE: Final = 8.0
"""Introductions per second that one account may make: each costs every node up to three verifications."""
INTRODUCER_BURST: Final = 256.0
"""At once: a whole mesh that starts at one seed."""
INTRODUCED_RATE: Final = 0.1
"""Introductions per second of one key, by itself or others: enough for a node that moves, not to make all verify."""
INTRODUCED_BURST: Final = 8.0
"""At once: a newcomer asks several seeds, and may move soon after."""
MAX_WAITING: Final = 1024
"""Records that wait to be introduced, at most 4 MiB; beyond that, a newcomer's other seeds introduce it."""
REPEATERS: Final = 4
"""Nodes, on average, that repeat an introduction that all should have heard by gossip: some may have ignored it because
its introducer, or its key, had reached a limit there."""
_LOT_TAG: Final = b"zmesh/1 lot:"
LOOK_AGAIN: Final = 1.0
"""Seconds until introductions that a limit held back are retried."""


class Repeaters:
    """Picks a few nodes for a message. Others cannot foretell which, or an author could choose ids to suit."""

    def __init__(self, signer: Signer) -> None:
        self._secret = digest32(signer.sign(_LOT_TAG))

    def picks(self, message: bytes, among: int) -> bool:
        """True if this node is picked for the message with this id, in a mesh of ``among``."""
        lot = blake2b(message, key=self._secret, digest_size=8).digest()
        return int.from_bytes(lot) % max(1, among) < REPEATERS


class Introductions:
    """The introductions that this node has to make, and the limits on those it hears."""

    def __init__(self) -> None:
        self.deadline = float("inf")
        """When to call ``due`` next, in monotonic seconds."""
        self._waiting: dict[PeerKey, Record] = {}
        self._introducers = Limits(INTRODUCER_RATE, INTRODUCER_BURST)
        self._introduced = Limits(INTRODUCED_RATE, INTRODUCED_BURST)
        self._own = TokenBucket(INTRODUCER_RATE, INTRODUCER_BURST)

    def allows(self, account: str, key: PeerKey, mono: float) -> bool:
        """True if ``account`` may introduce ``key`` now. Charges nothing, as the record may turn out to be invalid."""
        return self._introducers.has(account, mono) and self._introduced.has(key, mono)

    def allows_news(self, key: PeerKey, mono: float) -> bool:
        """True if ``key`` may have news now, announced by itself or not. It costs a signature and perhaps a roster."""
        return self._introduced.has(key, mono)

    def charge_news(self, key: PeerKey, mono: float) -> None:
        """Charge ``key`` for news. Only news is charged: any peer can repeat what the key once signed."""
        self._introduced.take(key, mono)

    def charge(self, account: str, mono: float) -> None:
        """Charge ``account`` for an introduction."""
        self._introducers.take(account, mono)

    def add(self, record: Record) -> bool:
        """Introduce this newcomer as soon as the limits allow; False when too many wait already."""
        if record.key not in self._waiting and len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting[record.key] = record
        self.deadline = 0.0
        return True

    def forget(self, key: PeerKey) -> None:
        """Drop ``key``: it no longer belongs."""
        self._waiting.pop(key, None)

    def due(self, mono: float) -> list[Record]:
        """The records that may be introduced now; they stop waiting."""
        due = []
        for key, record in list(self._waiting.items()):
            if not self._own.has(mono):
                break
            if self._introduced.take(key, mono):
                self._own.take(mono)
                del self._waiting[key]
                due.append(record)
        self.deadline = mono + LOOK_AGAIN if self._waiting else float("inf")
        return due
