"""The transport port within one process, without sockets: the fake that must pass the same contract suite as ZeroMQ.

Theory
    A ``MemoryNetwork`` stands for the wire. A connection is two pipes, one for each direction. A pipe holds, in order,
    its opening, its messages and its end; the receiver's event loop reads the pipes in turn.
Rules
 1. Every promise of ``zmesh.transport`` holds: the contract suite runs against this transport and ZeroMQ alike.
 2. A call only queues; the far end sees its effect in a later turn of the loop.
 3. All transports of one network live on one event loop.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Mapping

from zmesh.core.errors import ConfigError
from zmesh.core.events import FrameReceived
from zmesh.core.types import Endpoint, Frames, PeerKey
from zmesh.identity import Identity
from zmesh.transport import MAX_BATCH, Routes, Sink
from zmesh.transports.admission import ZAP_DOMAIN, ZAP_VERSION, Admission
from zmesh.transports.links import Links

CAPACITY = 512
"""Messages that one pipe can hold, as on a direct lane of the ZeroMQ transport."""
UNREACHABLE = "could not connect: refused or unreachable"
SOMEBODY_ELSE = "ended the handshake: not the expected key, or not a mesh node"


class MemoryNetwork:
    """Where transports find each other by endpoint."""

    def __init__(self) -> None:
        self.bound: dict[Endpoint, MemoryTransport] = {}

    def bind(self, host: str, port: int, transport: MemoryTransport) -> Endpoint:
        """Listen on ``host`` and ``port`` (0: any). Raises ``ConfigError`` if the endpoint is taken."""
        if port == 0:
            port = next(free for free in range(1, 65536) if Endpoint(host, free) not in self.bound)
        endpoint = Endpoint(host, port)
        if endpoint in self.bound:
            raise ConfigError(f"cannot listen on {endpoint}: address already in use; set another port, or 0 for any")
        self.bound[endpoint] = transport
        return endpoint


class Opening:
    """The first thing in a pipe: the handshake is done."""


class End:
    """The last thing in a pipe."""

    def __init__(self, why: str) -> None:
        self.why = why


class Pipe:
    """One direction of a connection, towards ``reader``; ``key`` is the writer's."""

    def __init__(self, reader: MemoryTransport, key: PeerKey, *, inbound: bool) -> None:
        self.reader = reader
        self.key = key
        self.inbound = inbound
        """True if the writer dialled the reader."""
        self.waiting: deque[Opening | Frames | End] = deque([Opening()])
        self.other: Pipe
        """The opposite direction of the same connection."""
        self.open = False
        """The reader has seen the opening and not yet the end, so it may write into ``other``."""
        self.shut = False
        """Nothing more is read from it, or its end is already queued."""


class MemoryTransport:
    """Implements ``zmesh.transport.Transport`` within a ``MemoryNetwork``. Gossip rides on the direct lane."""

    def __init__(
        self,
        identity: Identity,
        network: MemoryNetwork,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self._identity = identity
        self._network = network
        self._address = (host, port)
        self._counters: Counter[str] = Counter()
        self._admission = Admission(identity, self._counters)
        self._pipes: list[Pipe] = []
        """Every pipe that this transport reads from, opened or not."""
        self._ready: deque[Pipe] = deque()
        self._turn_queued = False
        self._running = False

    @property
    def counters(self) -> Mapping[str, int]:
        """How often each named refusal or event happened since the start."""
        return self._counters

    async def start(self, sink: Sink) -> Routes:
        """Listen; returns the endpoint. Raises ``ConfigError`` if it is taken."""
        self._loop = asyncio.get_running_loop()
        self._endpoint = self._network.bind(*self._address, self)
        self._links = Links(self._loop, sink, self._counters)
        self._running = True
        return Routes(direct=self._endpoint)

    async def stop(self, deadline: float) -> None:
        """End every connection after what is queued in it. Safe to call twice; ``deadline`` is never needed."""
        del deadline
        if not self._running:
            return
        self._running = False
        del self._network.bound[self._endpoint]
        self._links.close()
        for pipe in list(self._pipes):
            self._shut(pipe, "closed the connection")

    def admit(self, keys: frozenset[PeerKey]) -> None:
        """Exactly these keys may connect from now on; connections of others are cut."""
        for key in self._admission.replace(keys):
            if self._running:
                self._cut(key, "removed")
                for inbound in (True, False):
                    self._links.closed(key, "no longer admitted", inbound=inbound)

    def dial(self, key: PeerKey, routes: Routes) -> None:
        """Connect to ``key`` there, replacing an earlier dial to it."""
        if not self._running:
            return
        for pipe in [pipe for pipe in self._pipes if pipe.key == key and not pipe.inbound]:
            self._shut(pipe, "closed the connection")
        self._links.dialled(key)
        why = self._connect(key, self._network.bound.get(routes.direct))
        if why in (UNREACHABLE, SOMEBODY_ELSE) and routes.spare is not None:
            self._counters["dialled_spare"] += 1
            why = self._connect(key, self._network.bound.get(routes.spare))
        if why is not None:
            self._links.closed(key, why, inbound=False)

    def hangup(self, key: PeerKey) -> None:
        """Close every connection with ``key``, ours and its own."""
        if self._running:
            self._cut(key, "hung_up")
            self._links.forget(key)

    def send(self, key: PeerKey, frames: Frames, *, gossip: bool) -> bool:
        """Queue one message to ``key``; False when nothing was queued."""
        del gossip
        open_pipes = [pipe for pipe in self._pipes if pipe.key == key and pipe.open]
        if not self._running or not open_pipes:
            return False
        # Ours before theirs, the newest of each.
        target = min(reversed(open_pipes), key=lambda pipe: pipe.inbound).other
        if target.shut:
            self._counters["direct_lane_gone"] += 1
            return False
        if len(target.waiting) >= CAPACITY:
            self._counters["direct_lane_full"] += 1
            return False
        self._put(target, frames)
        return True

    def _connect(self, key: PeerKey, far: MemoryTransport | None) -> str | None:
        """The handshake: None, or the reason why it failed."""
        if key not in self._admission:
            return "not admitted"
        if far is None:
            return UNREACHABLE
        if far._identity.curve_public != self._admission.image(key):
            return SOMEBODY_ELSE
        request = (ZAP_VERSION, b"1", ZAP_DOMAIN, b"", b"", b"CURVE", self._identity.curve_public)
        reply = far._admission.answer(request)
        if reply[2] != b"200":
            return "refused our key"
        # Their table determines who we are, as with CURVE; our own claim never does.
        there = Pipe(far, bytes.fromhex(reply[4].decode()), inbound=True)
        back = Pipe(self, key, inbound=False)
        there.other, back.other = back, there
        for pipe in (there, back):
            pipe.reader._pipes.append(pipe)
            pipe.reader._wake(pipe)
        return None

    def _cut(self, key: PeerKey, why: str) -> None:
        for pipe in [pipe for pipe in self._pipes if pipe.key == key]:
            self._counters[why] += 1
            self._shut(pipe, "closed the connection")

    def _shut(self, pipe: Pipe, why: str) -> None:
        """End a connection from this side: read nothing more, but let the far end read what was sent."""
        self._pipes.remove(pipe)
        pipe.waiting.clear()
        pipe.open = False
        pipe.shut = True
        if not pipe.other.shut:
            self._put(pipe.other, End(why))
            pipe.other.shut = True

    @staticmethod
    def _put(pipe: Pipe, item: Frames | End) -> None:
        pipe.waiting.append(item)
        pipe.reader._wake(pipe)

    def _wake(self, pipe: Pipe) -> None:
        if pipe not in self._ready:
            self._ready.append(pipe)
        if not self._turn_queued:
            self._turn_queued = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Read one pipe, then yield to the loop."""
        self._turn_queued = False
        pipe = self._ready.popleft()
        for _ in range(min(MAX_BATCH, len(pipe.waiting))):
            self._read(pipe, pipe.waiting.popleft())
        if pipe.waiting:
            self._ready.append(pipe)
        if self._ready:
            self._turn_queued = True
            self._loop.call_soon(self._turn)
        self._links.flush()

    def _read(self, pipe: Pipe, item: Opening | Frames | End) -> None:
        if isinstance(item, End):
            self._pipes.remove(pipe)
            pipe.open = False
            pipe.other.shut = True
            self._links.closed(pipe.key, item.why, inbound=pipe.inbound)
        elif isinstance(item, Opening):
            self._supersede(pipe)
            pipe.open = True
            self._links.opened(pipe.key, inbound=pipe.inbound)
        else:
            self._links.pending.append(FrameReceived(pipe.key, item))

    def _supersede(self, newer: Pipe) -> None:
        """A key has one connection to us, the newest."""
        for pipe in [pipe for pipe in self._pipes if pipe.key == newer.key and pipe.inbound and pipe.open]:
            if newer.inbound:
                self._counters["superseded"] += 1
                self._shut(pipe, "closed the connection")
