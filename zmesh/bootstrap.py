"""How a node without any peer's address joins the mesh: it asks seeds for their records and leaves its own with them.

Rules
 1. A seed is only an address. The node behind it is identified by the key that signed the record it serves, and whether
    that key belongs is for the registry to say. An address admits no node, and one that answers as several nodes counts
    as each of them.
 2. At least three seeds are asked if there are three, since one may lie or serve old data. Names are resolved again
    each time. A node that accepts our record dials us and gossips the record to all others.
 3. Attempts go on, with growing pauses, until enough seeds have our record and a link is live. They begin again once no
    link has been live for a while. One attempt asks each address a bounded number of times.
 4. Each problem is logged once, until it changes.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from zmesh.core.bounds import MAX_ENDPOINTS
from zmesh.core.errors import WireError
from zmesh.core.types import Endpoint, PeerKey
from zmesh.handlers import Offer, RecordOutcome, decode_record, is_local
from zmesh.log import get_logger
from zmesh.registry.refusals import REMEDIES

if TYPE_CHECKING:
    from zmesh.http_client import Posted

ENOUGH = 3
"""Seeds that should have our record: one may lie, and one may be gone."""
MAX_PER_NAME = 16
"""Addresses used per name, drawn again each time: a headless service may stand for hundreds."""
MAX_ASKS = 4
"""Times that one address is asked in an attempt if there are few: several nodes may be behind it."""
MAX_KEYS_BEHIND = 8
"""Nodes remembered behind one address."""
EXCHANGE_SECONDS = 5.0
"""Seconds for one exchange with a seed: enough to resend a lost packet or two."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between attempts, doubled each time: a mesh that starts together meets within seconds, and a lost one is no
burden."""
JITTER = 0.25
"""Share by which a pause varies, so that nodes that started together drift apart."""
LONELY = 30.0
"""Seconds without a live link after which the seeds are asked again: dials back off no further than that."""
WATCH = 5.0
"""Seconds between two checks of the number of links."""

_HINTS = {
    **{standing.value: f"{standing.why}: {remedy}" for standing, remedy in REMEDIES.items()},
    "local_address": "set MESH_LISTEN_HOST=127.0.0.1 on every node if the mesh is on one machine, else MESH_ADVERTISE "
    "on this one, so that others can dial it",
    "other_network": "the chain or MESH_NETWORK is a different one there",
}
"""What would help, by the seed's reason for its refusal."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """What the bootstrap needs from its node."""

    resolve: Callable[[Endpoint], Awaitable[list[Endpoint]]]
    """Raises ``OSError`` and ``TimeoutError``."""
    fetch: Callable[[Endpoint, float], Awaitable[bytes]]
    post: Callable[[Endpoint, bytes, float], Awaitable[Posted]]
    """Both take a timeout in seconds, and raise ``OSError``, ``TimeoutError`` and ``ValueError``."""
    own: Callable[[], bytes]
    """Our current record; empty while there is none."""
    offer: Callable[[bytes], Offer]
    """Judge another node's record, and keep it."""
    located: Callable[[PeerKey, tuple[Endpoint, ...]], None]
    """Tell the engine where a peer is."""
    toward: Callable[[Endpoint], None]
    """Called with a seed's address: the route to it shows which of our own addresses others may reach, if none is
    configured."""
    links: Callable[[], int]
    """The number of live links."""
    known: Callable[[], tuple[int, int]]
    """How many other nodes' records are held, and how many other nodes belong."""
    withdraw: Callable[[], None] = lambda: None
    """Called when a seed refuses records with an address on its own machine: ours must not carry one that nobody
    configured."""


@dataclass(slots=True)
class _Place:
    """What is known about one address."""

    seed: Endpoint
    """As the operator wrote it."""
    keys: set[PeerKey] = field(default_factory=set)
    """The keys that answered there."""


class Bootstrap:
    """Runs as one task. ``seeds`` as the operator wrote them; ``me`` is the node's own key."""

    def __init__(
        self, seeds: Sequence[Endpoint], me: PeerKey, ports: Ports, rng: random.Random, clock: Callable[[], float]
    ) -> None:
        self._seeds = tuple(seeds)
        self._me = me
        self._ports = ports
        self._rng = rng
        self._clock = clock
        self._places: dict[Endpoint, _Place] = {}
        self._own_places: set[Endpoint] = set()
        self._lost = len(self._seeds)
        """Seeds whose names resolved to no address."""
        self._held = b""
        self._holders: set[PeerKey] = set()
        """Keys of the nodes that have our record, ``_held``. Behind a balancer another node may have taken it, which
        gossips it to all."""
        self._pause = FIRST_PAUSE
        self._linked_at = clock()
        self._is_met = False
        self._wakeup = asyncio.Event()
        self._said: dict[str, str] = {}
        self._problems: dict[str, str] = {}

    # ------------------------------------------------------------ for the node

    async def run(self) -> None:
        """Join the mesh and watch over the links, until cancelled."""
        while self._seeds:
            try:
                pause = await self.step()
            except Exception as error:  # noqa: BLE001 - our own bug, logged in full; nothing else would join again
                _log.error("bootstrap_failed", exc_info=error)
                pause, self._pause = self._pause, min(LONGEST_PAUSE, self._pause * 2)
            try:
                async with asyncio.timeout(pause):
                    await self._wakeup.wait()
            except TimeoutError:
                continue

    def hurry(self) -> None:
        """Something changed that may let us in (who belongs, or our own record): try again at once, and often at
        first."""
        if not self._is_met or not self._ports.links():
            self._pause = FIRST_PAUSE
            self._begin_anew()
            self._wakeup.set()

    def status(self) -> dict[str, Any]:
        """For /health: how many seeds have our record, how many of the others' records are known, and what is wrong."""
        held, belong = self._ports.known()
        return {
            "seeds_met": f"{len(self._holders)} of {self._wanted()}",
            "records": f"{held} of {belong}",
            "problems": sorted(self._problems.values()),
        }

    async def step(self) -> float:
        """One attempt, or one check of the links; returns the seconds until the next."""
        self._wakeup.clear()
        now = self._clock()
        if self._ports.links():
            self._linked_at = now
        elif now - self._linked_at >= LONELY:
            # The seeds may have restarted too, and lost our record.
            if self._is_met:
                _log.info("bootstrap_again", why="no link is live", seconds=LONELY)
                self._pause = FIRST_PAUSE
            self._linked_at = now
            self._begin_anew()
        if self._is_met:
            return WATCH
        if not self._ports.own():
            return self._varied(FIRST_PAUSE)
        await self._attempt()
        if len(self._holders) >= self._wanted() and self._ports.links():
            self._is_met = True
            _log.info("met", seeds=len(self._holders))
            return WATCH
        pause, self._pause = self._pause, min(LONGEST_PAUSE, self._pause * 2)
        return self._varied(pause)

    # ------------------------------------------------------------ one attempt

    async def _attempt(self) -> None:
        self._problems.clear()
        found = await asyncio.gather(*(self._addresses(seed) for seed in self._seeds))
        self._lost = found.count([])
        places = [(seed, place) for seed, some in zip(self._seeds, found, strict=True) for place in some]
        self._places = {place: self._places.get(place) or _Place(seed) for seed, place in places}
        # A seed on this machine says little about the route to seeds elsewhere.
        for place in sorted(self._places, key=lambda place: is_local(place.host))[:1]:
            self._ports.toward(place)
        # Only now does our record say where we are.
        own = self._ports.own()
        if own != self._held:
            # Seeds that have our old record do not have the new one.
            self._held = own
            self._holders.clear()
        others = [place for place in self._places if place not in self._own_places]
        self._rng.shuffle(others)
        for begin in range(0, len(others), ENOUGH):
            if len(self._holders) >= self._wanted():
                break
            await asyncio.gather(*(self._visit(place, own) for place in others[begin : begin + ENOUGH]))
        self._report()

    async def _addresses(self, seed: Endpoint) -> list[Endpoint]:
        try:
            found = await self._ports.resolve(seed)
        except TimeoutError:
            self._problems[str(seed)] = f"{seed}: its name did not resolve in time"
        except OSError as error:
            self._problems[str(seed)] = f"{seed}: {error.strerror or error}"
        else:
            return found if len(found) <= MAX_PER_NAME else self._rng.sample(found, MAX_PER_NAME)
        return []

    async def _visit(self, place: Endpoint, own: bytes) -> None:
        """Ask one address, several times if several nodes may be behind it, and leave our record with each node."""
        known = self._places[place]
        asks = MAX_ASKS if len(self._places) < ENOUGH or len(known.keys) > 1 else 1
        try:
            for _ in range(asks):
                await self._exchange(place, own)
        except (OSError, TimeoutError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            self._problems[str(place)] = f"{place}: {why or 'no answer in time'}"
        if known.keys == {self._me}:
            self._own_places.add(place)

    async def _exchange(self, place: Endpoint, own: bytes) -> None:
        """Fetch and judge the node's record, and post ours if it does not have that yet. Raises ``ValueError`` for
        anything wrong."""
        served = await self._ports.fetch(place, EXCHANGE_SECONDS)
        try:
            record = decode_record(served)
        except WireError as error:
            raise ValueError(f"its record is malformed ({error.detail})") from None
        key, keys = record.key, self._places[place].keys
        if key == self._me:
            keys.add(key)
            return
        offer = self._ports.offer(served)
        who = f"the node there ({key.hex()[:12]}...)"
        if offer.outcome not in (RecordOutcome.NEW, RecordOutcome.KNOWN, RecordOutcome.OLDER):
            # A stranger, or a member that this node has not heard of yet.
            raise ValueError(f"{who} has a record we refuse: {offer.name}")
        if len(keys) < MAX_KEYS_BEHIND:
            keys.add(key)
        if offer.outcome is not RecordOutcome.OLDER and not record.endpoints:
            self._ports.located(key, self._met_at(key))
        if key not in self._holders:
            posted = await self._ports.post(place, own, EXCHANGE_SECONDS)
            if not posted.is_taken:
                if posted.why == "local_address":
                    self._ports.withdraw()
                hint = _HINTS.get(posted.why)
                raise ValueError(f"{who} does not accept our record: {posted.why}" + (f" ({hint})" if hint else ""))
            self._holders.add(key)

    def _met_at(self, key: PeerKey) -> tuple[Endpoint, ...]:
        """Where to dial a peer whose record names no address: everywhere it answered, since any node can serve its
        record.

        A seed's name stands in for the address if it resolved to that one alone.
        """
        shared = Counter(known.seed for known in self._places.values())
        found = [(place, known.seed) for place, known in self._places.items() if key in known.keys]
        return tuple(dict.fromkeys(seed if shared[seed] == 1 else place for place, seed in found))[:MAX_ENDPOINTS]

    # ------------------------------------------------------------ within

    def _wanted(self) -> int:
        """How many seeds should have our record: as many as there are, but at most ``ENOUGH``."""
        others = [known.keys - {self._me} for place, known in self._places.items() if place not in self._own_places]
        return min(ENOUGH, len(set().union(*others)) + others.count(set()) + self._lost)

    def _begin_anew(self) -> None:
        self._is_met = False
        self._holders.clear()
        self._own_places.clear()

    def _varied(self, pause: float) -> float:
        return pause * self._rng.uniform(1 - JITTER, 1 + JITTER)

    def _report(self) -> None:
        for place, known in self._places.items():
            if len(known.keys) > 1:
                hint = "list the address of each node, and set MESH_ADVERTISE on each"
                self._problems[f"many {place}"] = f"{place} answers as {len(known.keys)} different nodes: {hint}"
        for name, problem in self._problems.items():
            if self._said.get(name) != problem:
                _log.warning("seed_problem", problem=problem)
        self._said = dict(self._problems)
