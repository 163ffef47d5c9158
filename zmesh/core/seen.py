"""What was seen, and the copies kept for repair: one store for both, ordered by signed time.

Theory
    A message may be taken while its timestamp is at most ``PAST`` old. So an id that is remembered until its timestamp
    is ``RETENTION`` old can be forgotten without ever letting a replay in: by then it is stale. The store is divided
    into slots of one second of signed time. Forgetting means dropping a slot, and slots are also what two nodes
    compare in anti-entropy.

Rules
 1. Only verified messages enter the store (marking them earlier would let anyone suppress a message by sending it
    first with a junk signature).
 2. Quotas are per author: an author that floods evicts only its own. Bodies go first (still seen, no longer served),
    then ids, which a low-water mark of (epoch, sequence) replaces. The body that just came is never the one to go: it
    has yet to be relayed.
 3. The keys are short ids (the first 16 bytes of the id).
 4. An entry keeps the bytes that repair sends, and no parsed envelope. Python's garbage collector visits all that is
    kept again and again, so a message is one object, and what messages have in common is shared.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Container, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b

from zmesh.core.bounds import DIGEST_SLOT_MS, PAST, RETENTION, Bounds
from zmesh.core.envelope import Envelope
from zmesh.core.types import PeerKey
from zmesh.core.wire import DigestEntry

SETTLED = 2.0
"""Seconds until a slot is compared: younger messages are still on their way by push."""

_NOBODY: frozenset[PeerKey] = frozenset()


@lru_cache(maxsize=1024)  # links, of all nodes of a process
def _only(link: PeerKey) -> frozenset[PeerKey]:
    return frozenset((link,))


def _slot_at(seconds: float) -> int:
    """The slot of a time in Unix seconds, as ``Envelope.slot`` is that of a timestamp."""
    return int(seconds * 1000) // DIGEST_SLOT_MS


class _Ledger:
    """What is held of one author."""

    __slots__ = ("author", "bytes", "cached", "ids", "low_water")

    def __init__(self, author: PeerKey) -> None:
        self.author = author
        self.ids: deque[bytes] = deque()
        self.cached: deque[bytes] = deque()
        self.bytes = 0
        self.low_water = (0, 0)


class _Slot:
    """What is held of one second of signed time."""

    __slots__ = ("checksum", "ids", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.ids: list[bytes] = []
        """Ascending, as the checksum needs them: an author may stamp all its messages with one second, and sorting
        them again for every digest would cost more than everything else."""
        self.checksum: bytes | None = None


class Seen:
    """One remembered message."""

    __slots__ = (
        "answers",
        "author",
        "body",
        "epoch",
        "holders",
        "id",
        "relayed_ttl",
        "sequence",
        "signature",
        "slot",
        "ttl",
    )

    def __init__(self, envelope: Envelope, author: PeerKey, slot: _Slot, link: PeerKey | None) -> None:
        self.author = author
        self.epoch = envelope.epoch
        self.sequence = envelope.sequence
        self.slot = slot
        self.ttl = envelope.ttl
        """Hops as signed."""
        self.id = envelope.id
        self.body: bytes | None = envelope.body
        """None once only the id is remembered; ``id``, ``signature``, ``holders`` and ``answers`` are empty then."""
        self.signature = envelope.signature
        self.relayed_ttl = 0
        """Hops left in the copy that was relayed; 0 while all came starved, so that a better one is relayed once."""
        self.holders: set[PeerKey] | frozenset[PeerKey] = _NOBODY if link is None else _only(link)
        """Links known to have it: they sent it, offered it, or we sent it to them. Frozen while there is one at most:
        most messages of a flood stay so, and a set for each would be a second object for the collector to visit."""
        self.answers: dict[PeerKey, int] | None = None
        """Copies sent on request, per link, since its last LIST. Has only links that were offered the message."""

    def held_by(self, link: PeerKey) -> None:
        """Note that the link has it. That matters, and is kept, only as long as the body can be sent."""
        holders = self.holders
        if self.body is None:
            return
        if not holders:
            self.holders = _only(link)
        elif isinstance(holders, set):
            holders.add(link)
        elif link not in holders:
            self.holders = {*holders, link}

    def lacked_by(self, link: PeerKey) -> None:
        """Note that it did not reach the link after all."""
        if isinstance(self.holders, set):
            self.holders.discard(link)
        elif link in self.holders:
            self.holders = _NOBODY

    def still_lacked_by(self, link: PeerKey) -> None:
        """Note that no copy sent so far was of use to the link: once offered the message again, it may ask anew."""
        self.lacked_by(link)
        if self.answers is not None:
            self.answers.pop(link, None)

    def was_offered_to(self, link: PeerKey) -> bool:
        """Whether the link was offered it since its last LIST, and so may ask for it."""
        return self.answers is not None and link in self.answers

    def offer_to(self, link: PeerKey) -> None:
        """Note that the link was offered it, and so may ask for it."""
        if self.answers is None:
            self.answers = {}
        self.answers.setdefault(link, 0)


class SeenStore:
    """Ids and cached copies of everything accepted in the last ``RETENTION`` seconds."""

    __slots__ = ("_author_bytes", "_author_ids", "_bytes", "_cache_bytes", "_entries", "_ledgers", "_slots")

    def __init__(self, bounds: Bounds) -> None:
        self._author_ids = bounds.author_ids
        self._author_bytes = bounds.author_bytes
        self._cache_bytes = bounds.cache_bytes
        self._entries: dict[bytes, Seen] = {}
        self._slots: dict[int, _Slot] = {}
        self._ledgers: dict[PeerKey, _Ledger] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, short_id: object) -> bool:
        return short_id in self._entries

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._entries)

    def get(self, short_id: bytes) -> Seen | None:
        """What is known of a message, or None if it was never accepted (or too long ago)."""
        return self._entries.get(short_id)

    def below_low_water(self, envelope: Envelope) -> bool:
        """Whether it is so old, by its author's own count, that it may have been seen and forgotten."""
        ledger = self._ledgers.get(envelope.author)
        return ledger is not None and (envelope.epoch, envelope.sequence) <= ledger.low_water

    def add(self, envelope: Envelope, link: PeerKey | None, *, keep: bool = True) -> Seen:
        """Remember a verified message that came over ``link``, or is our own; with ``keep``, also its bytes."""
        short = envelope.short
        number = envelope.slot
        slot = self._slots.get(number)
        if slot is None:
            slot = self._slots[number] = _Slot(number)
        insort(slot.ids, short)
        slot.checksum = None
        ledger = self._ledgers.get(envelope.author)
        if ledger is None:
            ledger = self._ledgers[envelope.author] = _Ledger(envelope.author)
        ledger.ids.append(short)
        entry = self._entries[short] = Seen(envelope, ledger.author, slot, link)
        size = len(envelope.body)
        ledger.bytes += size
        self._bytes += size
        if keep:
            ledger.cached.append(short)
            if ledger.bytes > self._author_bytes or self._bytes > self._cache_bytes:
                self._make_room(ledger)
        else:
            self._drop_body(entry, ledger)
        if len(ledger.ids) > self._author_ids:
            self._forget_oldest(ledger)
        return entry

    def _make_room(self, ledger: _Ledger) -> None:
        """Drop bodies, oldest first, until the quotas are met; never the one that just came, the ledger's last."""
        while ledger.bytes > self._author_bytes and len(ledger.cached) > 1:
            self._drop_oldest_body(ledger)
        while self._bytes > self._cache_bytes:
            # Only when all authors together exceed the quota: the one that holds most gives way.
            older = [
                held for held in self._ledgers.values() if held.bytes and (held is not ledger or len(held.cached) > 1)
            ]
            if not older:
                return
            self._drop_oldest_body(max(older, key=lambda held: held.bytes))

    def _forget_oldest(self, ledger: _Ledger) -> None:
        short = ledger.ids.popleft()
        entry = self._entries.get(short)
        if entry is not None:
            self._forget(short, entry, ledger)
            slot = entry.slot
            del slot.ids[bisect_left(slot.ids, short)]
            slot.checksum = None

    def _drop_oldest_body(self, ledger: _Ledger) -> None:
        entry = self._entries.get(ledger.cached.popleft())
        if entry is not None:
            self._drop_body(entry, ledger)

    def _drop_body(self, entry: Seen, ledger: _Ledger) -> None:
        if entry.body is not None:
            ledger.bytes -= len(entry.body)
            self._bytes -= len(entry.body)
            entry.body = None
            entry.id = entry.signature = b""
            entry.holders = _NOBODY
            entry.answers = None

    def _forget(self, short: bytes, entry: Seen, ledger: _Ledger) -> None:
        self._drop_body(entry, ledger)
        del self._entries[short]
        ledger.low_water = max(ledger.low_water, (entry.epoch, entry.sequence))

    def expire(self, wall: float) -> None:
        """Forget the slots whose messages are stale at ``wall`` (Unix seconds)."""
        horizon = _slot_at(wall - RETENTION)
        for number in sorted(number for number in self._slots if number < horizon):
            for short in self._slots.pop(number).ids:
                entry = self._entries[short]
                self._forget(short, entry, self._ledgers[entry.author])
        for ledger in self._ledgers.values():
            for queue in (ledger.ids, ledger.cached):
                while queue and queue[0] not in self._entries:
                    queue.popleft()

    def clear(self) -> None:
        """Forget all messages; each author's low-water mark stays, so that none comes back as new."""
        for short, entry in list(self._entries.items()):
            self._forget(short, entry, self._ledgers[entry.author])
        self._slots.clear()
        for ledger in self._ledgers.values():
            ledger.ids.clear()
            ledger.cached.clear()

    def retain(self, authors: Container[PeerKey]) -> None:
        """Drop the ledgers of all other authors, once none of their messages is remembered any more."""
        for author in [key for key, held in self._ledgers.items() if key not in authors and not held.ids]:
            del self._ledgers[author]

    # ------------------------------------------------------------ anti-entropy

    def unsettled(self, author: PeerKey, wall: float) -> list[Seen]:
        """This author's messages of the seconds that are not compared yet, oldest first."""
        ledger = self._ledgers.get(author)
        newest = _slot_at(wall - SETTLED)
        found: list[Seen] = []
        for short in reversed(ledger.ids) if ledger is not None else ():
            entry = self._entries.get(short)
            if entry is None or entry.slot.number < newest:
                break
            found.append(entry)
        return found[::-1]

    def digest(self, wall: float) -> list[DigestEntry]:
        """Every settled, non-empty slot, ascending.

        The checksum is BLAKE2b-64 over the slot's short ids in ascending order: unlike with a sum or XOR, an attacker
        cannot choose messages that cancel each other out.
        """
        newest = _slot_at(wall - SETTLED)
        return [
            DigestEntry(number, len(slot.ids), self._checksum(slot))
            for number, slot in sorted(self._slots.items())
            if number < newest and slot.ids
        ]

    def lacking(self, theirs: list[DigestEntry], wall: float) -> list[tuple[int, bool]]:
        """The slots in which the sender of a digest may have something that is not here, and whether it has fewer.

        If it has fewer messages than we do, it will ask us first; then it no longer has fewer, and we see the rest.
        Unless it cannot take what is here, which an attacker may have sent to us alone. Slots that are stale by now are
        left out: their messages would not be taken any more.
        """
        horizon = _slot_at(wall - PAST)
        slots = []
        for number, count, checksum in theirs:
            if number <= horizon:
                continue
            mine = self._slots.get(number)
            if mine is None:
                slots.append((number, False))
            elif self._checksum(mine) != checksum:
                slots.append((number, count < len(mine.ids)))
        return slots

    def in_slot(self, number: int) -> Sequence[bytes]:
        """Short ids of that slot, ascending."""
        slot = self._slots.get(number)
        return () if slot is None else slot.ids

    @staticmethod
    def _checksum(slot: _Slot) -> bytes:
        if slot.checksum is None:
            slot.checksum = blake2b(b"".join(slot.ids), digest_size=8).digest()
        return slot.checksum
