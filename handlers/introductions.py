"""How often a node may introduce another: it gossips the record of a newcomer who came to it by HTTP.

Why: a newcomer has no links, so that its own word reaches only whom it asks. Whoever takes its record passes it on
once, and everybody knows everybody seconds after one meeting.
Rules
 1. Limits are by account, never by address or key alone: who introduces, and who is introduced. Both sides keep the
    same ones, so that an honest introducer is never ignored for its zeal.
 2. What came by gossip, in an answer or from a disk is not introduced: somebody else did that. The exception is a
    record with which an account changes its key, for it may have been shown to some and kept from others.
 3. Of one key only the newest record waits.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from zmesh.core.envelope import Signer
from zmesh.core.limits import Limits
from zmesh.core.types import PeerKey
from zmesh.handlers.record import Record

INTRODUCER_RATE: Final = 8.0
"""Introductions a second that one account may make: each costs every node up to three verifications."""
INTRODUCER_BURST: Final = 256.0
"""At once: a mesh that starts whole at one seed."""
INTRODUCED_RATE: Final = 0.1
"""Introductions a second of one key, by itself or by others: a node that moves, not one that makes all verify."""
INTRODUCED_BURST: Final = 8.0
"""At once: a newcomer asks several seeds, and may move soon after."""
MAX_WAITING: Final = 1024
"""Records that wait to be introduced, at most 4 MiB; beyond, a newcomer is introduced by its other seeds."""
REPEATERS: Final = 4
"""Nodes that introduce again what all should have heard by gossip, on average: some may have ignored it, as its
introducer, or its key, had reached a limit there."""
_LOT_TAG: Final = b"zmesh/1 lot:"
LOOK_AGAIN: Final = 1.0
"""Seconds until those whom a limit held back are looked at again."""


class Repeats:
    """Picks a few of all nodes for a message, and nobody else can tell which: an id is its author's choice."""

    def __init__(self, signer: Signer) -> None:
        self._secret = blake2b(signer.sign(_LOT_TAG), digest_size=32).digest()

    def picks(self, message: bytes, among: int) -> bool:
        """Is this node one of those for the message with this id, in a mesh of ``among``?"""
        lot = blake2b(message, key=self._secret, digest_size=8).digest()
        return int.from_bytes(lot) % max(1, among) < REPEATERS


class Introductions:
    """Those that this node has to make, and the limits of those it hears."""

    def __init__(self) -> None:
        self.deadline = float("inf")
        """When ``due`` is to be asked next, in monotonic seconds."""
        self._waiting: dict[PeerKey, Record] = {}
        self._introducers = Limits(INTRODUCER_RATE, INTRODUCER_BURST)
        self._introduced = Limits(INTRODUCED_RATE, INTRODUCED_BURST)
        self._own = Limits(INTRODUCER_RATE, INTRODUCER_BURST)

    def allows(self, account: str, key: PeerKey, mono: float) -> bool:
        """May ``account`` introduce ``key`` now? Charges nothing, as the record may turn out to be none."""
        return self._introducers.has(account, mono) and self._introduced.has(key, mono)

    def allows_news(self, key: PeerKey, mono: float) -> bool:
        """May ``key`` have another record now, by its own word too? Each one costs a signature and perhaps a roster."""
        return self._introduced.has(key, mono)

    def charge_news(self, key: PeerKey, mono: float) -> None:
        """There was news of ``key``. Only that costs it: anybody can repeat what it once signed."""
        self._introduced.take(key, mono)

    def charge(self, account: str, mono: float) -> None:
        """``account`` introduced somebody."""
        self._introducers.take(account, mono)

    def add(self, record: Record) -> bool:
        """Introduce this newcomer as soon as the limits allow; False when too many wait already."""
        if record.key not in self._waiting and len(self._waiting) >= MAX_WAITING:
            return False
        self._waiting[record.key] = record
        self.deadline = 0.0
        return True

    def forget(self, key: PeerKey) -> None:
        """It does not belong any more."""
        self._waiting.pop(key, None)

    def due(self, mono: float) -> list[Record]:
        """Those that may be introduced now; they are no longer kept."""
        due = []
        for key, record in list(self._waiting.items()):
            if not self._own.has("", mono):
                break
            if self._introduced.take(key, mono):
                self._own.take("", mono)
                del self._waiting[key]
                due.append(record)
        self.deadline = mono + LOOK_AGAIN if self._waiting else float("inf")
        return due
