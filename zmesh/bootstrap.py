"""How a node that knows nobody's address meets the mesh: it asks seeds for their records and leaves its own with them.

Rules
 1. A seed is only a place. Who answered there is the key that signed what was served, and whether it belongs is for
    the registry to say: an address admits nobody, and one that answers as several nodes is each of them.
 2. At least three seeds are asked where there are three, as one can lie or serve what is old. Names are resolved afresh
    each time. Whoever takes our record dials us, and tells everybody: the rest is gossip.
 3. It goes on, with growing pauses, until enough seeds have our record and a link is live; and begins anew when no link
    has been live for a while. An attempt asks each place a bounded number of times.
 4. What is wrong is said once, until it changes.
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
from zmesh.handlers import Offer, Taken, decode_record, is_local
from zmesh.log import get_logger

if TYPE_CHECKING:
    from zmesh.http_client import Posted

ENOUGH = 3
"""Seeds that should have our record: one may lie, one may be gone."""
MAX_PER_NAME = 16
"""Addresses asked of one name, chosen anew each time: a headless service may stand for hundreds."""
MAX_ASKS = 4
"""Times one place is asked in one attempt when there are few: it may hide several nodes."""
MAX_KEYS_BEHIND = 8
"""Nodes remembered behind one place."""
EXCHANGE_SECONDS = 5.0
"""Seconds for one exchange with a seed: a lost packet or two may be sent again."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds between attempts, doubled each time: a mesh that starts whole meets in seconds, a lost one is no burden."""
JITTER = 0.25
"""Share of a pause by which it varies, so that nodes that started together drift apart."""
LONELY = 30.0
"""Seconds without a live link after which the seeds are asked again: dials back off no longer than that."""
WATCH = 5.0
"""Seconds between two looks at how many links there are."""

_HINTS = {
    "local_address": "set MESH_LISTEN_HOST=127.0.0.1 on every node if the mesh is on one machine, else MESH_ADVERTISE "
    "on this one, so that others can dial it",
    "unknown_key": "the registry there does not name our key, and we present no delegation: see MESH_DELEGATION",
    "unknown_account": "the registry there does not name our account",
    "other_network": "the chain or MESH_NETWORK is a different one there",
    "other_chain": "our delegation is for a different chain",
    "not_yet": "our delegation is not valid yet, or one of the two clocks is wrong",
    "expired": "our delegation has expired, or one of the two clocks is wrong",
    "superseded": "our account has signed a later delegation",
}
"""What would help, by the reason that a seed gives."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """What the bootstrap needs of its node."""

    resolve: Callable[[Endpoint], Awaitable[list[Endpoint]]]
    """Raises ``OSError`` and ``TimeoutError``."""
    fetch: Callable[[Endpoint, float], Awaitable[bytes]]
    post: Callable[[Endpoint, bytes, float], Awaitable[Posted]]
    """Both within so many seconds; raise ``OSError``, ``TimeoutError`` and ``ValueError``."""
    own: Callable[[], bytes]
    """Our record as it stands; empty while there is none."""
    offer: Callable[[bytes], Offer]
    """Judge somebody else's record, and keep it."""
    located: Callable[[PeerKey, tuple[Endpoint, ...]], None]
    """Tell the engine where a peer is."""
    toward: Callable[[Endpoint], None]
    """The way to this address says which of our own others may reach, if nobody told."""
    links: Callable[[], int]
    """How many links are live."""
    known: Callable[[], tuple[int, int]]
    """How many records of others are held, and how many others belong."""
    withdraw: Callable[[], None] = lambda: None
    """A seed takes no record that tells of an address on one machine: ours should tell none that nobody gave us."""


@dataclass(slots=True)
class _Place:
    """What is known of one address."""

    seed: Endpoint
    """As the operator wrote it."""
    keys: set[PeerKey] = field(default_factory=set)
    """Who answered there."""


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
        """Seeds whose names led nowhere."""
        self._held = b""
        self._holders: set[PeerKey] = set()
        """Who has our record, ``_held``. Behind a balancer another one may have taken it: that one tells them all."""
        self._pause = FIRST_PAUSE
        self._linked_at = clock()
        self._is_met = False
        self._wakeup = asyncio.Event()
        self._said: dict[str, str] = {}
        self._problems: dict[str, str] = {}

    # ------------------------------------------------------------ for the node

    async def run(self) -> None:
        """Meet, and watch over it, until cancelled."""
        while self._seeds:
            try:
                pause = await self.step()
            except Exception as error:  # noqa: BLE001 - a fault of ours, logged whole; nobody else would meet again
                _log.error("bootstrap_failed", exc_info=error)
                pause, self._pause = self._pause, min(LONGEST_PAUSE, self._pause * 2)
            try:
                async with asyncio.timeout(pause):
                    await self._wakeup.wait()
            except TimeoutError:
                continue

    def hurry(self) -> None:
        """Something changed that may let us in (who belongs, our own record): try again at once, and often at first."""
        if not self._is_met or not self._ports.links():
            self._pause = FIRST_PAUSE
            self._begin_anew()
            self._wakeup.set()

    def status(self) -> dict[str, Any]:
        """For /health: how many seeds have our record, how far others' are known, and what is wrong."""
        held, belong = self._ports.known()
        return {
            "seeds_met": f"{len(self._holders)} of {self._wanted()}",
            "records": f"{held} of {belong}",
            "problems": sorted(self._problems.values()),
        }

    async def step(self) -> float:
        """One attempt, or one look at the links; seconds until the next."""
        self._wakeup.clear()
        now = self._clock()
        if self._ports.links():
            self._linked_at = now
        elif now - self._linked_at >= LONELY:
            # Seeds may have started anew, too, and lost what they had of us.
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
        # A seed on this machine says little about the way to those elsewhere.
        for place in sorted(self._places, key=lambda place: is_local(place.host))[:1]:
            self._ports.toward(place)
        # Only now it says where we are.
        own = self._ports.own()
        if own != self._held:
            # A new record is as good as no record to those who have the old one.
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
        """Ask one place, several times where it may hide several nodes, and leave our record with each."""
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
        """Fetch, judge, and post to whom does not have our record yet. Raises ``ValueError`` for what is wrong."""
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
        if offer.taken not in (Taken.NEW, Taken.KNOWN, Taken.OLDER):
            # A stranger, or a member that this node has not heard of yet.
            raise ValueError(f"{who} has a record we refuse: {offer.name}")
        if len(keys) < MAX_KEYS_BEHIND:
            keys.add(key)
        if offer.taken is not Taken.OLDER:
            self._ports.located(key, record.endpoints or self._met_at(key))
        if key not in self._holders:
            posted = await self._ports.post(place, own, EXCHANGE_SECONDS)
            if not posted.is_taken:
                if posted.why == "local_address":
                    self._ports.withdraw()
                hint = _HINTS.get(posted.why)
                raise ValueError(f"{who} does not accept our record: {posted.why}" + (f" ({hint})" if hint else ""))
            self._holders.add(key)

    def _met_at(self, key: PeerKey) -> tuple[Endpoint, ...]:
        """Where to dial one that tells no place of its own: everywhere it answered, for anybody can serve its record.

        By the name, if that stands for nobody else.
        """
        shared = Counter(known.seed for known in self._places.values())
        found = [(place, known.seed) for place, known in self._places.items() if key in known.keys]
        return tuple(dict.fromkeys(seed if shared[seed] == 1 else place for place, seed in found))[:MAX_ENDPOINTS]

    # ------------------------------------------------------------ within

    def _wanted(self) -> int:
        """Seeds that should have our record: as many as there are, and no more than enough."""
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
