"""A whole mesh in one process: N real engines and handlers in virtual time, with faults, from one seed.

What is real: ``zmesh.core.engine.Engine``, every handler, every byte of every frame, and by default every signature.
What is simulated: clocks, randomness, and the connections between nodes. Its arguments alone determine a run: the same
seed gives the same ``digest()`` on any machine and under any PYTHONHASHSEED.

README.md, "Try a strategy before it goes live", has an example.

Rules
 1. Time stands still while an engine works. Only verifying a signature takes time, ``verify_seconds`` of the settings,
    one after the other on each node.
 2. Every link has one fixed latency each way, so it preserves the order of messages, as a TCP connection does. Only
    faults (``transports/faults.py``) lose, repeat, reorder or change anything.
 3. Events at the same time run in the order in which they were scheduled, and nothing iterates over a set.
 4. Queues are unbounded here: back-pressure is tested with the real transport.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from heapq import heappop, heappush
from itertools import count
from random import Random
from struct import Struct
from typing import Any, Final

from zmesh.core import actions as act
from zmesh.core import events as ev
from zmesh.core import wire
from zmesh.core.engine import Engine
from zmesh.core.envelope import Composer, Envelope
from zmesh.core.now import Now
from zmesh.core.types import DropReason, Fault, Frames, MessageId, MessageType, Roster, SendResult
from zmesh.transports import faults as wrongs
from zmesh.transports.simulated import (
    Delivery,
    Keys,
    Life,
    Offence,
    Publication,
    Report,
    Seat,
    SimulationSettings,
    all_handlers,
    line,
    quiet_handlers,
    regions,
    summarise,
    uniform,
)

__all__ = ["Callback", "Delivery", "Life", "Offence", "Publication", "Report", "Simulation", "SimulationSettings"]
__all__ += ["all_handlers", "line", "quiet_handlers", "regions", "uniform"]

EPOCH: Final = 1_700_000_000.0
"""Unix seconds at virtual time 0."""
REFUSED_AFTER: Final = 5.0
"""Seconds until a dial through a partition gives up: the handshake timeout of the real transport."""
OUT: Final = 1
INBOUND: Final = 2

_WAKE: Final = ev.Wake()
_MARK: Final = Struct(">QIB")
Callback = Callable[["Simulation", Delivery], object]
"""What ``Simulation.on`` registers."""


class Simulation:
    """N nodes, numbered from 0, and everything that happens to them.

    Args:
        seed: determines every random choice of the run.
        nodes: the number of nodes.
        faults: what goes wrong, see ``transports/faults.py``.
        settings: latency, bounds, topology, cryptography and handlers.

    Raises ``ValueError`` if a rate, node number or count is out of range.
    """

    def __init__(
        self,
        seed: int = 0,
        nodes: int = 10,
        faults: Sequence[wrongs.Trouble] = (),
        settings: SimulationSettings | None = None,
    ) -> None:
        if nodes < 1:
            raise ValueError(f"a simulation must have at least 1 node, not {nodes}")
        self.seed = seed
        self.settings = settings = settings or SimulationSettings()
        self.time = 0.0
        """Virtual seconds since the start; every node's monotonic clock."""
        self.deliveries: list[Delivery] = []
        """Everything that was handed to an application, in order."""
        self.offences: list[Offence] = []
        self.tampered: Counter[int] = Counter()
        """How many messages each node withheld, rewrote or sent again because of faults."""
        self.published: dict[MessageId, Publication] = {}
        """Every message that was gossiped, including those of handlers."""
        self.results: dict[int, SendResult] = {}
        """How each direct send ended, by the token that ``send_direct`` returned."""
        self._events = 0
        self._heap: list[tuple[float, int, Life | None, Any]] = []
        self._order = count()
        self._tokens = count(1)
        self._hash = blake2b(digest_size=32)
        self._callbacks: dict[MessageType, list[Callback]] = {}
        self._drops: Counter[DropReason] = Counter()
        self._keys = Keys(seed, settings)
        self._network = wire.network_id(f"simulation {seed}")
        self._seats = [self._keys.seat(number, self._network, lambda: self.roster.members) for number in range(nodes)]
        self._number = {seat.member.key: seat.number for seat in self._seats}
        self._lives: list[Life] = []
        self._edges = None if settings.edges is None else {frozenset(edge) for edge in settings.edges}
        self.roster = Roster.of(seat.member for seat in self._seats)
        self._salt = Random(f"{seed}/latency").getrandbits(32)
        self._skew = self._arm(faults)
        self._act: dict[type, Callable[[Life, Any], None]] = {
            act.Send: self._send,
            act.Verify: self._verify,
            act.WakeAt: self._wake_at,
            act.Deliver: self._deliver,
            act.Published: self._published,
            act.Dial: self._dial,
            act.Hangup: self._hangup,
            act.Admit: self._admit,
            act.Resolved: self._resolved,
            act.Offence: self._offence,
            act.Failed: self._failed,
        }
        for unused in (act.Dropped, act.Composed, act.LinkLive, act.LinkDown, act.Notice):
            self._act[unused] = lambda life, action: None
        draw = Random(f"{seed}/start").random
        for seat in self._seats:
            self._lives.append(self._born(seat, int(EPOCH)))
            self.at(draw() * settings.start_within, partial(self._begin, self._lives[-1]))

    # ------------------------------------------------------------ running

    @property
    def wall(self) -> float:
        """Unix seconds now, on a clock without skew."""
        return EPOCH + self.time

    @property
    def nodes(self) -> Sequence[Life]:
        """The current life of each node: its engine, handlers and connections, for inspection."""
        return self._lives

    def run(self, until: float) -> None:
        """Run up to that virtual second."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.time, _, life, event = heappop(heap)
            self._events += 1
            if life is None:
                event()
            elif life.alive:
                if event is _WAKE:
                    if life.wake_at != self.time:
                        continue  # replaced by an earlier one
                    life.wake_at = wrongs.FOREVER
                self._step(life, event)
        self.time = max(self.time, until)

    def run_for(self, seconds: float) -> None:
        """Run for that many virtual seconds."""
        self.run(self.time + seconds)

    def run_until(self, condition: Callable[[], bool], limit: float, step: float = 0.1) -> bool:
        """Run until ``condition()``, checked every ``step`` seconds, is true; False after ``limit`` seconds."""
        end = self.time + limit
        while not condition():
            if self.time >= end:
                return False
            self.run(min(end, self.time + step))
        return True

    def settle(self, limit: float = 60.0) -> bool:
        """Run until every link that two living nodes want and may have is live; False if ``limit`` is too short."""
        return self.run_until(lambda: all(self._is_settled(life) for life in self._lives), limit, step=0.5)

    def at(self, time: float, action: Callable[[], object]) -> None:
        """Call ``action()`` at that virtual second."""
        self._schedule(time, None, action)

    # ------------------------------------------------------------ doing

    def broadcast(self, node: int, kind: MessageType, payload: Mapping[str, Any], ttl: int | None = None) -> MessageId:
        """Make a node gossip a message; returns its id. Raises ``PayloadError``."""
        envelope = self._signed(node, ev.Broadcast(kind, payload, ttl))
        self.published[envelope.id].asked = True
        return envelope.id

    def send_direct(
        self, node: int, recipient: int, kind: MessageType, payload: Mapping[str, Any], timeout: float = 10.0
    ) -> int:
        """Make a node send a direct message; returns a token for ``results``. Raises ``PayloadError``."""
        token = next(self._tokens)
        key = self._seats[recipient].member.key
        self._step(self._lives[node], ev.SendDirect(key, kind, payload, timeout, token))
        return token

    def on(self, kind: MessageType) -> Callable[[Callback], Callback]:
        """A decorator: call the function with ``(simulation, delivery)`` whenever an application gets that kind.

        If it returns False, the application counts as busy: a direct message is then refused, and sent again.
        """

        def register(callback: Callback) -> Callback:
            self._callbacks.setdefault(kind, []).append(callback)
            return callback

        return register

    def compose(
        self, node: int, kind: MessageType, payload: Mapping[str, Any], recipient: int | None = None
    ) -> Envelope:
        """Make a node sign a message without sending it, for attackers to ``inject``. Raises ``PayloadError``."""
        to = None if recipient is None else self._seats[recipient].member.key
        return self._signed(node, ev.Compose(kind, payload, recipient=to))

    def inject(self, sender: int, receiver: int, frames: Frames) -> None:
        """Put frames as they are on the link from ``sender``, bypassing its engine; faults apply."""
        life = self._lives[sender]
        self._transmit(life, self._lives[receiver], ev.FrameReceived(life.seat.member.key, frames), None)

    def tell(self, node: int, event: ev.Event) -> None:
        """Hand any event to a node's engine."""
        self._step(self._lives[node], event)

    def set_roster(self, roster: Roster, nodes: Collection[int] | None = None) -> None:
        """Give these nodes (None: all) a new roster."""
        if nodes is None:
            self.roster = roster
        for life in self._lives if nodes is None else [self._lives[number] for number in sorted(nodes)]:
            if life.alive:
                self._step(life, ev.RosterChanged(roster))

    def remove(self, node: int) -> None:
        """Remove this node from the registry; all others are notified at once."""
        key = self._seats[node].member.key
        self.roster = left = Roster.of(member for member in self.roster.members if member.key != key)
        self.set_roster(left, [number for number in range(len(self._lives)) if number != node])

    def crash(self, node: int) -> None:
        """Kill the node's process: its memory is lost, and its connections close."""
        life = self._lives[node]
        life.alive = False
        self._drops.update({reason: times for reason, times in life.engine.drops.items() if times})
        for number in sorted(life.routes):
            self._disconnect(life, self._lives[number], "the far end went away")

    def restart(self, node: int) -> None:
        """Start a new process of a crashed node, in a later epoch."""
        old = self._lives[node]
        if old.alive:
            raise ValueError(f"node {node} is running: crash it first")
        self._lives[node] = life = self._born(old.seat, max(old.epoch + 1, int(self.wall)))
        self._begin(life)

    # ------------------------------------------------------------ seeing

    @property
    def drops(self) -> Counter[DropReason]:
        """Frames that ended without a delivery, by reason, over all lives of all nodes."""
        total = Counter(self._drops)
        for life in self._lives:
            if life.alive:
                total.update({reason: times for reason, times in life.engine.drops.items() if times})
        return total

    def latency(self, sender: int, receiver: int) -> float:
        """Seconds one way; the same in both directions and for the whole run."""
        low, high = (sender, receiver) if sender < receiver else (receiver, sender)
        # A hash of the pair, since a table of all pairs of 10,000 nodes would not fit.
        mixed = (low * 0x9E3779B1 + high * 0x85EBCA77 + self._salt) & 0xFFFFFFFF
        mixed = ((mixed ^ mixed >> 15) * 0x2C1B3C6D) & 0xFFFFFFFF
        mixed = ((mixed ^ mixed >> 12) * 0x297A2D39) & 0xFFFFFFFF
        return self.settings.latency(sender, receiver, (mixed ^ mixed >> 15) / 0x100000000)

    @property
    def events(self) -> int:
        """Events handled so far: the cost of the run."""
        return self._events

    def blamed(self) -> Counter[tuple[int, Fault]]:
        """How often each node was charged with each fault."""
        return Counter((offence.culprit, offence.fault) for offence in self.offences)

    def report(self, messages: Iterable[MessageId] | None = None) -> Report:
        """What became of these messages; None: of all messages that ``broadcast`` sent. See ``Report``."""
        chosen = messages if messages is not None else [key for key, sent in self.published.items() if sent.asked]
        running = [life.seat.number for life in self._lives if life.alive]
        return summarise([self.published[identifier] for identifier in chosen], running)

    def digest(self) -> str:
        """64 hex digits over every delivery and every direct result so far, in order and to the nanosecond."""
        return self._hash.hexdigest()

    # ------------------------------------------------------------ the actions of an engine

    def _step(self, life: Life, event: ev.Event) -> list[act.Action]:
        now = Now(self.time, EPOCH + self.time + life.skew)
        actions = life.engine.handle(event, now)
        for action in actions:
            self._act[type(action)](life, action)
        for action in life.engine.finish(now):
            self._act[type(action)](life, action)
        return actions

    def _schedule(self, time: float, life: Life | None, event: Any) -> None:
        heappush(self._heap, (time, next(self._order), life, event))

    def _send(self, life: Life, action: act.Send) -> None:
        # One event for all receivers: events are treated as immutable.
        event = ev.FrameReceived(life.seat.member.key, action.frames)
        sent = self.published.get(action.ref) if action.gossip and action.ref is not None else None
        routes, number, lives = life.routes, self._number, self._lives
        for key in action.links:
            receiver = number[key]
            if receiver in routes:
                self._transmit(life, lives[receiver], event, sent)
            else:
                self._schedule(self.time, life, ev.SendRefused(key, action.ref))

    def _transmit(self, life: Life, other: Life, event: ev.FrameReceived, sent: Publication | None) -> None:
        sender, receiver = life.seat.number, other.seat.number
        delay = self.latency(sender, receiver)
        if not self._faulty:
            if sent is not None:
                sent.pushed += 1
                sent.arrived += 1
            heappush(self._heap, (self.time + delay, next(self._order), other, event))
            return
        parcels = [(delay, event.frames)]
        for carry in self._by_sender:
            parcels = carry(self.time, sender, receiver, parcels)
        pushed = len(parcels)
        for carry in self._by_network:
            parcels = carry(self.time, sender, receiver, parcels)
        if sent is not None:
            sent.pushed += pushed
            sent.arrived += len(parcels)
        for delay, frames in parcels:
            arriving = event if frames is event.frames else ev.FrameReceived(event.link, frames)
            heappush(self._heap, (self.time + delay, next(self._order), other, arriving))

    def _verify(self, life: Life, action: act.Verify) -> None:
        ok = self._keys.verify(action.key, action.data, action.signature)
        life.busy_until = max(life.busy_until, self.time) + self.settings.verify_seconds
        self._schedule(life.busy_until, life, ev.Verified(action.message_id, ok))

    def _wake_at(self, life: Life, action: act.WakeAt) -> None:
        life.wake_at = max(action.mono, self.time)
        self._schedule(life.wake_at, life, _WAKE)

    def _deliver(self, life: Life, action: act.Deliver) -> None:
        envelope, node, direct = action.envelope, life.seat.number, action.receipt
        author = self._number[envelope.author]
        assert envelope.kind is not None
        delivery = Delivery(self.time, node, author, envelope.kind, envelope.id, action.payload, direct)
        self.deliveries.append(delivery)
        self._note(node, 0, envelope.id)
        if (sent := self.published.get(envelope.id)) is not None:
            sent.delivered_to(node, self.time)
        busy = [callback(self, delivery) is False for callback in self._callbacks.get(envelope.kind, ())]
        if action.receipt or any(busy):
            self._step(life, ev.Receipt(envelope.id, envelope.author, not any(busy)))

    def _signed(self, node: int, event: ev.Broadcast | ev.Compose) -> Envelope:
        """Hand a command to a node and return what it signed; handlers may send more in the same step."""
        actions = self._step(self._lives[node], event)
        return next(action.envelope for action in actions if isinstance(action, (act.Published, act.Composed)))

    def _published(self, life: Life, action: act.Published) -> None:
        envelope = action.envelope
        assert envelope.kind is not None
        self.published[envelope.id] = Publication(envelope.id, envelope.kind, life.seat.number, self.time)

    def _resolved(self, life: Life, action: act.Resolved) -> None:
        if action.token:  # sends by handlers have none
            self.results[action.token] = action.result
        self._note(life.seat.number, 1, action.message_id + action.result.value.encode())

    def _offence(self, life: Life, action: act.Offence) -> None:
        culprit = self._number[action.culprit]
        self.offences.append(Offence(self.time, life.seat.number, culprit, action.fault, action.reputation))

    def _failed(self, life: Life, action: act.Failed) -> None:
        raise action.error

    def _note(self, node: int, what: int, data: bytes) -> None:
        self._hash.update(_MARK.pack(round(self.time * 1e9), node, what) + data)

    # ------------------------------------------------------------ connections

    def _dial(self, life: Life, action: act.Dial) -> None:
        other = self._lives[self._number[action.key]]
        me, them = life.seat.number, other.seat.number
        trip = self.latency(me, them)
        if self._edges is not None and frozenset((me, them)) not in self._edges:
            self._schedule(self.time + trip, life, ev.LinkClosed(action.key, "there is no route to it"))
        elif any(not wall(self.time, me, them, [(0.0, ())]) for wall in self._walls):
            self._schedule(self.time + REFUSED_AFTER, life, ev.LinkClosed(action.key, "the dial timed out"))
        else:
            # TCP and CURVE: one and a half round trips until the far end has a connection, two until we have one.
            self._schedule(self.time + 3 * trip, None, partial(self._connect, life, them, trip))

    def _connect(self, life: Life, them: int, trip: float) -> None:
        other = self._lives[them]
        mine, theirs = life.seat.member.key, other.seat.member.key
        if not life.alive:
            return
        if not other.alive or mine not in other.admitted or theirs not in life.admitted:
            why = "it does not admit us" if other.alive else "connection refused"
            self._schedule(self.time + trip, life, ev.LinkClosed(theirs, why))
            return
        me = life.seat.number
        life.routes[them] = life.routes.get(them, 0) | OUT
        other.routes[me] = other.routes.get(me, 0) | INBOUND
        self._schedule(self.time, other, ev.LinkOpened(mine, inbound=True))
        self._schedule(self.time + trip, life, ev.LinkOpened(theirs))

    def _disconnect(self, life: Life, other: Life, why: str) -> None:
        """``life`` closes both directions between two nodes; ``other`` is notified."""
        me, them = life.seat.number, other.seat.number
        life.routes.pop(them, None)
        theirs = other.routes.pop(me, 0)
        key, when = life.seat.member.key, self.time + self.latency(me, them)
        for way in (OUT, INBOUND):
            if theirs & way:
                self._schedule(when, other, ev.LinkClosed(key, why, inbound=way == INBOUND))

    def _hangup(self, life: Life, action: act.Hangup) -> None:
        self._disconnect(life, self._lives[self._number[action.key]], f"hung up: {action.why}")

    def _admit(self, life: Life, action: act.Admit) -> None:
        life.admitted = action.keys
        for number in sorted(life.routes):
            if self._seats[number].member.key not in action.keys:
                self._disconnect(life, self._lives[number], "no longer admitted")

    # ------------------------------------------------------------ within

    def _arm(self, faults: Sequence[wrongs.Trouble]) -> dict[int, float]:
        """Bind the faults to this run; returns the skew of each node's clock."""
        self._by_sender: list[wrongs.Carry] = []
        self._by_network: list[wrongs.Carry] = []
        self._walls: list[wrongs.Carry] = []
        skew: dict[int, float] = {}
        for place, fault in enumerate(faults):
            named = (fault.node,) if isinstance(fault, wrongs.Crash) else fault.nodes or ()
            if any(not 0 <= node < len(self._seats) for node in named):
                raise ValueError(f"{fault}: nodes must be numbers from 0 to {len(self._seats) - 1}")
            if isinstance(fault, wrongs.Crash):
                self.at(fault.at, partial(self.crash, fault.node))
                if fault.back < wrongs.FOREVER:
                    self.at(fault.back, partial(self.restart, fault.node))
            elif isinstance(fault, wrongs.Skew):
                skew |= dict.fromkeys(fault.nodes, fault.seconds)
            else:
                own = Random(f"{self.seed}/fault/{place}")
                carry = fault.arm(wrongs.Arena(len(self._seats), own, self.tampered))
                (self._by_sender if fault.by_sender else self._by_network).append(carry)
                if isinstance(fault, wrongs.Partition):
                    self._walls.append(carry)
        self._faulty = bool(self._by_sender or self._by_network)
        return skew

    def _born(self, seat: Seat, epoch: int) -> Life:
        rng = Random(f"{self.seed}/node/{seat.number}/{epoch}")
        bounds, handlers = self.settings.bounds, self.settings.handlers(seat)
        engine = Engine(Composer(seat.signer, self._network, epoch), rng, bounds=bounds, handlers=handlers)
        return Life(seat, engine, tuple(handlers), epoch, self._skew.get(seat.number, 0.0))

    def _begin(self, life: Life) -> None:
        if life.alive:
            self._step(life, ev.Start())
            self._step(life, ev.RosterChanged(self.roster))

    def _is_settled(self, life: Life) -> bool:
        if not life.alive:
            return True
        if not life.engine.links and len(self.roster) > 1:
            return False
        return all(
            key in life.engine.live or not self._may_link(life, key)
            for key, link in life.engine.links.items()
            if link.wanted
        )

    def _may_link(self, life: Life, key: bytes) -> bool:
        number = self._number[key]
        allowed = self._edges is None or frozenset((life.seat.number, number)) in self._edges
        return allowed and self._lives[number].alive
