"""Getting a message to every node: push to a few, offer to others, serve those that ask.

Theory
    Random push alone always misses some node; pulling alone is slow. So a message is pushed (eagerly, bounded by ttl),
    and its id is offered by IHAVE (lazily, blind to ttl) to random links for up to a second; a node that lacks it asks
    by IWANT. What both miss, because a node slept or a lane was full, is found by anti-entropy: every few seconds nodes
    compare digests of the last two minutes, DIGEST -> LIST -> IHAVE -> IWANT. PROTOCOL.md has the state machine. This
    file pushes, offers, serves and compares; ``wants.py`` asks.

Rules
 1. Only verified and accepted messages are pushed, offered or served.
 2. A link is served only what it was offered, at most ``want_answers`` times, and as often again after each LIST of
    that second. It never exceeds its byte budget, which listing and serving both draw on.
 3. Ids that are offered together form one batch: the work is per batch and link, not per message.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import ceil, log

from zmesh.core import wire
from zmesh.core.actions import Send
from zmesh.core.bounds import MAX_IDS, MAX_TTL
from zmesh.core.context import Context
from zmesh.core.envelope import Envelope
from zmesh.core.link import Link
from zmesh.core.now import Now
from zmesh.core.seen import Seen
from zmesh.core.types import DropReason, PeerKey

LIST_COST = 64
"""Bytes of a link's budget that listing one id costs: about as much work as sending that many bytes."""
MIN_TTL = 5
"""Hops that even the smallest mesh allows."""
SPARE_TTL = 4
"""Hops beyond the log of the size: random push needs a few more than the ideal tree."""


def usual_ttl(fanout: int, size: int) -> int:
    """Hops for a mesh of ``size`` nodes: ceil(log_k N) and some to spare, defined for every k and N."""
    k, n = max(2, fanout), max(2, size)
    return min(MAX_TTL, max(MIN_TTL, ceil(log(n) / log(k)) + SPARE_TTL))


class _Batch:
    """Messages offered together."""

    __slots__ = ("entries", "last_round", "rounds", "told")

    def __init__(self) -> None:
        self.entries: list[Seen] = []
        self.rounds = 0
        self.last_round = 0
        self.told: set[PeerKey] = set()


class Gossip:
    """Push and repair over the live links."""

    __slots__ = ("_batch", "_bounds", "_context", "_flooded", "_is_full", "_out", "_refused", "_seen", "ttl")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._bounds = context.bounds
        self._seen = context.seen
        self._out = context.out
        self._batch: _Batch | None = None
        """The batch that still accepts ids."""
        self._flooded: list[tuple[Seen, int, int]] = []
        """Messages waiting to be relayed within a full mesh, with the ttl and the hops they came with."""
        self._refused: dict[PeerKey, list[Seen]] = {}
        """What the queue of each link refused within one ``offer_delay``."""
        self.ttl: int
        """Hops that a message of our own is allowed, unless its author says otherwise."""
        self._is_full: bool
        """Whether every member is linked with every other."""
        self.resize(1)

    # ------------------------------------------------------------ push

    def resize(self, size: int) -> None:
        """The mesh has ``size`` nodes now, this one included."""
        self.ttl = usual_ttl(self._bounds.fanout, size)
        self._is_full = size <= self._bounds.max_links + 1

    def targets(self, envelope: Envelope) -> tuple[PeerKey, ...]:
        """Where to push a message of our own: a small one to all links, a large one to a few."""
        if len(envelope.body) <= self._bounds.flood_size and len(self._context.live) <= self._bounds.flood_links:
            return self._context.live
        return tuple(self._pick(self._bounds.fanout, ()))

    def push_own(self, envelope: Envelope, targets: tuple[PeerKey, ...]) -> None:
        """Push a message of our own; ``keep_own`` must follow."""
        if targets:
            self._out.append(Send(targets, envelope.frames(envelope.ttl, 0), envelope.id, True))

    def keep_own(self, envelope: Envelope, targets: tuple[PeerKey, ...], now: Now) -> None:
        """Keep what was pushed for repair, and offer it to links it was not pushed to."""
        entry = self._seen.add(envelope, None)
        entry.relayed_ttl = envelope.ttl
        for target in targets:
            entry.held_by(target)
        if len(targets) < len(self._context.live):
            self._offer_later(entry, self._bounds.offer_rounds, now)

    def carry(self, entry: Seen, ttl: int, hops: int, now: Now) -> None:
        """Relay and offer a message that came in and was just accepted."""
        self.relay(entry, ttl, hops, now)
        bounds = self._bounds
        self._offer_later(entry, bounds.flood_offers if self.is_flooded(entry.body) else bounds.offer_rounds, now)

    def relay(self, entry: Seen, ttl: int, hops: int, now: Now) -> None:
        """Relay a message that arrived with ``ttl`` hops left, if its bytes are still here, to links that may lack it.

        In a full mesh the origin already pushed a small message to every node: a few copies cover lost links. They wait
        until the first ones, which all nodes of a host process at once, have had their turn.
        """
        if ttl <= 1 or entry.body is None:
            return
        entry.relayed_ttl = ttl
        live = self._context.live
        if len(live) == 1 and live[0] in entry.holders:
            return  # a mesh of two, or only one link so far
        if self.is_flooded(entry.body):
            if not self._flooded:
                self._context.timers.note(now.mono + self._bounds.flood_wait, self._relay_flooded)
            self._flooded.append((entry, ttl, hops))
        else:
            self._pass_on(self._bounds.fanout, entry, ttl, hops)

    def is_flooded(self, body: bytes | None) -> bool:
        """Whether the origin of a message with this body pushed it to every node."""
        return self._is_full and body is not None and len(body) <= self._bounds.flood_size

    def _relay_flooded(self, _: None, now: Now) -> None:
        """By now we know better which links have them."""
        flooded, self._flooded = self._flooded, []
        for entry, ttl, hops in flooded:
            # Its author may have been removed meanwhile: then it must not be relayed any more.
            if entry.body is not None and self._context.peers.author(entry.author) is not None:
                self._pass_on(self._bounds.flood_relay, entry, ttl, hops)

    def _pass_on(self, count: int, entry: Seen, ttl: int, hops: int) -> None:
        targets = self._pick(count, (*entry.holders, entry.author))
        self._push(entry, tuple(targets), ttl - 1, min(hops + 1, 255))

    def _push(self, entry: Seen, targets: tuple[PeerKey, ...], ttl: int, hops: int) -> None:
        body = entry.body
        if not targets or body is None:
            return
        for target in targets:
            entry.held_by(target)
        frames = (wire.envelope_head(ttl, hops), body, entry.signature)
        self._out.append(Send(targets, frames, entry.id, True))

    def _pick(self, count: int, excluded: Collection[PeerKey]) -> list[PeerKey]:
        """``count`` random live links, none of them excluded; all that remain if there are no more."""
        live = self._context.live
        size = len(live)
        if size <= count + len(excluded):
            left = [key for key in live if key not in excluded]
            return left if len(left) <= count else self._context.rng.sample(left, count)
        chosen: list[PeerKey] = []
        while len(chosen) < count:
            key = live[int(self._context.rng.random() * size)]
            if key not in excluded and key not in chosen:
                chosen.append(key)
        return chosen

    # ------------------------------------------------------------ offers

    def _offer_later(self, entry: Seen, rounds: int, now: Now) -> None:
        """Add a message to the next batch of IHAVE, which is then offered for that many rounds after the first."""
        batch = self._batch
        if batch is None:
            batch = self._batch = _Batch()
            self._context.timers.note(now.mono + self._bounds.offer_delay, self._offer_round, batch)
        batch.entries.append(entry)
        batch.last_round = max(batch.last_round, rounds)

    def _offer_round(self, batch: _Batch, now: Now) -> None:
        if batch is self._batch:
            self._batch = None
        self._relay_flooded(None, now)  # a link that gets it by push need not be offered it
        for key in self._pick(self._bounds.offer_links, batch.told):
            batch.told.add(key)
            self._offer_to(key, batch.entries)
        batch.rounds += 1
        if batch.rounds <= batch.last_round and len(batch.told) < len(self._context.live):
            self._context.timers.note(now.mono + self._bounds.offer_interval, self._offer_round, batch)

    def refused(self, entry: Seen, key: PeerKey, now: Now) -> None:
        """The queue to this link refused it: offer it to that link alone, once the queue may have room again."""
        entry.lacked_by(key)
        if not self._refused:
            self._context.timers.note(now.mono + self._bounds.offer_delay, self._offer_refused)
        self._refused.setdefault(key, []).append(entry)

    def _offer_refused(self, _: None, now: Now) -> None:
        refused, self._refused = self._refused, {}
        for key, entries in refused.items():
            if key in self._context.live:
                self._offer_to(key, entries)

    def greeted(self, key: PeerKey, now: Now) -> None:
        """The link exchanged HELLO with us: tell it what is here.

        No digest covers the last seconds, so it is offered our own messages of those. Others offer theirs.
        """
        self.send_digest((key,), now)
        self._offer_to(key, self._seen.unsettled(self._context.composer.public, now.wall))

    def _offer_to(self, key: PeerKey, entries: Iterable[Seen]) -> None:
        """Send IHAVE for what the link is not known to have, was not offered since its last LIST, and we can serve."""
        ids: list[bytes] = []
        for entry in entries:
            if entry.body is not None and key not in entry.holders and not entry.was_offered_to(key):
                entry.offer_to(key)
                ids.append(entry.id[: wire.SHORT_ID])
        for start in range(0, len(ids), MAX_IDS):
            frames = wire.control(wire.IHAVE, wire.encode_ids(ids[start : start + MAX_IDS]))
            self._out.append(Send((key,), frames, None, True))

    # ------------------------------------------------------------ serving

    def wanted(self, link: Link, ids: list[bytes], now: Now) -> None:
        """An IWANT came: serve what that link was offered, within its budget."""
        for short in ids:
            entry = self._seen.get(short)
            if entry is None or entry.body is None or (answers := entry.answers) is None or link.key not in answers:
                self._context.drop(DropReason.UNSOLICITED_WANT, link.key, short)
            elif answers[link.key] >= self._bounds.want_answers or not link.want_bucket.take(now.mono, len(entry.body)):
                self._context.drop(DropReason.WANT_BUDGET, link.key, short)
            else:
                answers[link.key] += 1
                # A fresh ttl: the asker's part of the mesh may be as large as the whole.
                self._push(entry, (link.key,), entry.ttl, 1)

    # ------------------------------------------------------------ anti-entropy

    def send_digest(self, targets: tuple[PeerKey, ...], now: Now) -> None:
        """Tell links what the last two minutes look like from here; an empty digest is still a sign of life."""
        if targets:
            entries = self._seen.digest(now.wall)[-wire.MAX_SLOTS :]
            self._out.append(Send(targets, wire.control(wire.DIGEST, wire.encode_digest(entries)), None, False))

    def compared(self, link: Link, theirs: list[wire.DigestEntry], now: Now) -> None:
        """A DIGEST came: ask by LIST for the slots in which the link may know more."""
        if not link.digests.take(now.mono):
            self._context.drop(DropReason.RATE, link.key)
            return
        known = {entry.slot for entry in theirs}
        link.differed = {differs: times for differs, times in link.differed.items() if differs[0] in known}
        slots = []
        for differs in self._seen.lacking(theirs, now.wall):
            times = link.differed[differs] = link.differed.get(differs, 0) + 1
            slot, fewer = differs
            # Ask at the 1st, 2nd, 4th, 8th and 16th digest that shows it: a link that could not serve us for a while is
            # asked again, and one that never can, because it accepted what we refuse, costs five questions in two
            # minutes. Not at the 1st if the link has fewer: it asks us now, and then no longer has fewer.
            if times & (times - 1) == 0 and (times > 1 or not fewer):
                slots.append(slot)
        if not slots:
            return
        self._out.append(Send((link.key,), wire.control(wire.LIST, wire.encode_slots(slots)), None, False))

    def listing(self, link: Link, slots: list[int], now: Now) -> None:
        """A LIST came: offer what is cached of those slots, within the link's byte budget."""
        if not link.lists.take(now.mono):
            self._context.drop(DropReason.RATE, link.key)
            return
        entries: list[Seen] = []
        most = self._bounds.offers_per_link
        for slot in slots:
            held = self._seen.in_slot(slot)
            if entries and len(entries) + len(held) > most:
                break  # more than the link remembers; it asks again for slots that still differ
            if len(held) > most:  # one second alone has more: offer one part of it now, another next time
                start = int(self._context.rng.random() * len(held))
                held = [*held[start:], *held[:start]][:most]
            if not link.want_bucket.take(now.mono, len(held) * LIST_COST):
                self._context.drop(DropReason.WANT_BUDGET, link.key, None)
                break
            entries += [entry for short in held if (entry := self._seen.get(short)) is not None]
        for entry in entries:
            # The link reports that it lacks something of this slot: what we sent may have been lost on the way, or
            # refused by a registry that has caught up since.
            entry.still_lacked_by(link.key)
        self._offer_to(link.key, entries)
