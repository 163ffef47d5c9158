"""Who belongs, who is alive, and which of them to link with.

Rules
 1. Only two sources make a peer: the roster (what the registry says now) and the operator, by hand. An address, a name
    or a message never does.
 2. Removal is immediate: the previous roster gets no grace period. Registries of different nodes differ for a moment;
    that is why an unknown author is nobody's fault, and why repair brings back what was refused in the meantime.
 3. A peer is alive if a frame it signed was verified within ``bounds.alive``. What relays say about it does not count.
 4. Links are chosen by position, never by reputation or stake alone, which an attacker can buy or earn.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Protocol

from zmesh.core.bounds import MAX_ENDPOINTS, Bounds
from zmesh.core.reputation import Reputation
from zmesh.core.types import EMPTY_ROSTER, Endpoint, Fault, Member, PeerKey, Roster


class Rng(Protocol):
    """The draws that the engine makes; ``random.Random`` fits."""

    def random(self) -> float:
        """A number from 0 up to, but not including, 1."""
        ...

    def sample(self, population: Sequence[PeerKey], k: int) -> list[PeerKey]:
        """``k`` different members of ``population``."""
        ...


class Peers:
    """All members but this node. Times are monotonic seconds."""

    __slots__ = (
        "_bounds",
        "_endpoints",
        "_heard",
        "_ignored",
        "_ignored_at",
        "_me",
        "_unlisted",
        "card",
        "manual",
        "reputation",
        "roster",
    )

    def __init__(self, me: PeerKey, bounds: Bounds, peer_id: str | None = None) -> None:
        self._me = me
        self._unlisted = Member(me, me.hex(), me.hex() if peer_id is None else peer_id)
        self._bounds = bounds
        self._endpoints: dict[PeerKey, tuple[Endpoint, ...]] = {}
        self._heard: dict[PeerKey, float] = {}
        self._ignored: frozenset[str] = frozenset()
        self._ignored_at = float("-inf")
        self.roster: Roster = EMPTY_ROSTER
        self.manual: dict[PeerKey, Member] = {}
        self.card: Member | None = None
        """What the operator says about this node itself."""
        self.reputation = Reputation(bounds.heal)

    # ------------------------------------------------------------ membership

    def get(self, key: PeerKey) -> Member | None:
        """The member that speaks with this key now (this node included), or None: not admitted."""
        return self.roster.by_key.get(key) or self.manual.get(key)

    @property
    def myself(self) -> Member:
        """This node: what the registry says, else what the operator says, else its key without stake."""
        return self.roster.by_key.get(self._me) or self.card or self._unlisted

    def author(self, key: PeerKey) -> Member | None:
        """The member that may have written with this key, or this node itself; None if it does not belong."""
        return self.roster.by_key.get(key) or self.manual.get(key) or (self.myself if key == self._me else None)

    def __contains__(self, key: object) -> bool:
        return key != self._me and (key in self.roster.by_key or key in self.manual)

    def __iter__(self) -> Iterator[Member]:
        """Every member but this node: the roster in its order, then those added by hand."""
        for member in self.roster.members:
            if member.key != self._me:
                yield member
        for key, member in self.manual.items():
            if key not in self.roster.by_key:
                yield member

    def __len__(self) -> int:
        by_key = self.roster.by_key
        extra = sum(1 for key in self.manual if key not in by_key) if self.manual else 0
        return len(by_key) - (self._me in by_key) + extra

    def named(self, name: str) -> list[Member]:
        """All members that ``name`` may mean: a peer_id, an account, or a key in hex. More than one is ambiguous."""
        return [m for m in self if name in (m.peer_id, m.account) or name == m.key.hex()]

    # ------------------------------------------------------------ addresses

    def endpoints(self, member: Member) -> tuple[Endpoint, ...]:
        """Where to dial: what the member's own record says, then what the registry or the operator said."""
        learnt = self._endpoints.get(member.key, ())
        return (learnt + tuple(known for known in member.endpoints if known not in learnt))[:MAX_ENDPOINTS]

    def locate(self, key: PeerKey, endpoints: tuple[Endpoint, ...]) -> bool:
        """Accept a member's own word for where it is; True if that is news."""
        if key not in self or self._endpoints.get(key) == endpoints:
            return False
        self._endpoints[key] = endpoints[:MAX_ENDPOINTS]
        return True

    # ------------------------------------------------------------ life

    def heard(self, key: PeerKey, now: float) -> None:
        """A signed frame of this author was verified."""
        self._heard[key] = now

    def last_heard(self, key: PeerKey) -> float | None:
        """When that last happened, or None."""
        return self._heard.get(key)

    def prune(self) -> None:
        """Drop what is remembered of peers that no longer belong."""
        for book in (self._heard, self._endpoints):
            for key in [key for key in book if key not in self]:
                del book[key]

    # ------------------------------------------------------------ reputation

    def charge(self, member: Member, fault: Fault, now: float) -> float:
        """Blame the member's account; returns the score that is left."""
        line = self._bounds.ignore_below
        before = self.reputation.score(member, now)
        left = self.reputation.charge(member, fault, now)
        if left < line <= before:  # else it can wait: offences may come by the hundred, and this visits all members
            self._ignored_at = float("-inf")
        return left

    def is_ignored(self, member: Member, now: float) -> bool:
        """Whether to hide this author's messages from handlers. Worked out once a second, and when one falls so low."""
        if now - self._ignored_at >= 1.0:
            # Lazily: members are not visited while no account has a score, and a mesh may have 10,000 of them.
            self._ignored = self.reputation.ignored(chain(self, (self.myself,)), self._bounds.ignore_below, now)
            self._ignored_at = now
        return member.account in self._ignored

    # ------------------------------------------------------------ neighbours

    def neighbours(self, held: Mapping[PeerKey, object], rng: Rng) -> list[PeerKey]:
        """The keys to link with, ascending; ``held`` are the current links, kept where there is room.

        All members, if they fit ``max_links``. Otherwise the ring neighbours on both sides, which keep the mesh
        connected whatever the dice say, random others up to ``sparse_links``, and those added by hand while there is
        room.
        """
        if len(self) <= self._bounds.max_links:
            return sorted(member.key for member in self)
        ring = self.roster.ring
        target = min(self._bounds.sparse_links, self._bounds.max_links)
        chosen = set(self._beside(ring)[:target])
        for key in sorted(held):
            if len(chosen) >= target:
                break
            if key in self:
                chosen.add(key)
        others = target - len(chosen)
        if others > 0 and ring:
            # All simulated nodes share the ring, so it is sampled as it is; a few extra draws make up for keys that
            # are already chosen.
            drawn = rng.sample(ring, min(len(ring), others + len(chosen) + 1))
            chosen.update([key for key in drawn if key != self._me and key not in chosen][:others])
        by_hand = [key for key in sorted(self.manual) if key not in chosen]
        chosen.update(by_hand[: self._bounds.max_links - len(chosen)])
        return sorted(chosen)

    def _beside(self, ring: Sequence[PeerKey]) -> list[PeerKey]:
        """The next and the previous key on the ring: none, one or two."""
        if not ring:
            return []
        at = bisect_left(ring, self._me)
        mine = at < len(ring) and ring[at] == self._me
        return [key for key in dict.fromkeys((ring[(at + mine) % len(ring)], ring[at - 1])) if key != self._me]
