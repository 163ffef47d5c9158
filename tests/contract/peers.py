"""Peers for the contract suite: a transport of some kind, its identity, and everything it told its sink."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from zmesh.core.events import FrameReceived, LinkClosed, LinkOpened
from zmesh.core.types import Endpoint, Frames, PeerKey
from zmesh.identity import Identity
from zmesh.transport import Routes, Transport, TransportEvent
from zmesh.transports.memory import MemoryNetwork, MemoryTransport
from zmesh.transports.zeromq import ZeroMqTransport

PATIENCE = 10.0
"""Seconds that anything may take on a busy machine; most of it takes milliseconds."""
SETTLED = 5
"""Rounds of the loop after which whatever was queued before has run."""


class Peer:
    """One transport under test."""

    def __init__(self, identity: Identity, transport: Transport) -> None:
        self.identity = identity
        self.key: PeerKey = identity.public
        self.transport = transport
        self.routes = Routes(direct=None)  # type: ignore[arg-type]  # start() gives the real ones
        self.events: list[TransportEvent] = []
        self.batches: list[int] = []
        self.in_call = False
        self.sink: Callable[[Sequence[TransportEvent]], None] = lambda events: None
        self._news = asyncio.Event()

    async def start(self) -> None:
        """Bind and record everything from now on."""
        self.routes = await self.transport.start(self._take)

    def _take(self, batch: Sequence[TransportEvent]) -> None:
        assert not self.in_call, "the sink was called from inside a call to the transport"
        self.batches.append(len(batch))
        self.events += batch
        self._news.set()
        self.sink(batch)

    def admit(self, *peers: Peer) -> None:
        """Exactly these."""
        self.in_call = True
        self.transport.admit(frozenset(peer.key for peer in peers))
        self.in_call = False

    def dial(self, peer: Peer, routes: Routes | None = None) -> None:
        """Dial ``peer`` where it is bound."""
        self.in_call = True
        self.transport.dial(peer.key, routes or peer.routes)
        self.in_call = False

    def hangup(self, peer: Peer) -> None:
        """Close every connection with ``peer``."""
        self.in_call = True
        self.transport.hangup(peer.key)
        self.in_call = False

    def send(self, peer: Peer, *frames: bytes, gossip: bool = False) -> bool:
        """Send one message."""
        self.in_call = True
        try:
            return self.transport.send(peer.key, frames, gossip=gossip)
        finally:
            self.in_call = False

    def frames(self, link: Peer | None = None) -> list[Frames]:
        """The messages received so far, from ``link`` or from all."""
        received = [event for event in self.events if isinstance(event, FrameReceived)]
        return [event.frames for event in received if link is None or event.link == link.key]

    def changes(self) -> list[LinkOpened | LinkClosed]:
        """What was told of connections so far."""
        return [event for event in self.events if not isinstance(event, FrameReceived)]

    def opened(self, peer: Peer, *, inbound: bool) -> bool:
        """Does a connection of that direction stand?"""
        told = [event for event in self.changes() if event.link == peer.key and event.inbound == inbound]
        return bool(told) and isinstance(told[-1], LinkOpened)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for events until ``condition`` holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_told(self, count: int) -> list[LinkOpened | LinkClosed]:
        """Wait for ``count`` events of connections and give them all."""
        await self.until(lambda: len(self.changes()) >= count)
        return self.changes()

    async def until_received(self, count: int, link: Peer | None = None) -> list[Frames]:
        """Wait for ``count`` messages and give them all."""
        await self.until(lambda: len(self.frames(link)) >= count)
        return self.frames(link)


class Mesh:
    """Makes peers and stops them."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []

    def transport(self, identity: Identity) -> Transport:
        """A transport of this mesh's kind."""
        raise NotImplementedError

    def transport_at(self, identity: Identity, endpoint: Endpoint) -> Transport:
        """One that will listen at ``endpoint``."""
        raise NotImplementedError

    async def peer(self, identity: Identity | None = None) -> Peer:
        """A started peer."""
        identity = identity or Identity.generate()
        peer = Peer(identity, self.transport(identity))
        await peer.start()
        self.peers.append(peer)
        return peer

    async def pair(self) -> tuple[Peer, Peer]:
        """Two peers that admit each other; the first has dialled the second, and both know."""
        a, b = await self.peer(), await self.peer()
        a.admit(b)
        b.admit(a)
        await self.link(a, b)
        return a, b

    async def link(self, a: Peer, b: Peer) -> None:
        """``a`` dials ``b`` and says hello, as an engine does, so that ``b`` knows too."""
        a.dial(b)
        await a.until(lambda: a.opened(b, inbound=False))
        assert a.send(b, b"hello")
        await b.until_received(1, a)
        b.events[:] = [event for event in b.events if not isinstance(event, FrameReceived)]

    async def stop(self) -> None:
        """Stop all."""
        for peer in self.peers:
            await peer.transport.stop(2.0)


class MemoryMesh(Mesh):
    """In one process."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MemoryNetwork()

    def transport(self, identity: Identity) -> Transport:
        return MemoryTransport(identity, self.network)

    def transport_at(self, identity: Identity, endpoint: Endpoint) -> Transport:
        return MemoryTransport(identity, self.network, host=endpoint.host, port=endpoint.port)


class ZeroMqMesh(Mesh):
    """On real sockets."""

    def transport(self, identity: Identity) -> Transport:
        return ZeroMqTransport(identity)

    def transport_at(self, identity: Identity, endpoint: Endpoint) -> Transport:
        return ZeroMqTransport(identity, host=endpoint.host, router_port=endpoint.port)


MESHES: dict[str, Callable[[], Mesh]] = {"memory": MemoryMesh, "zeromq": ZeroMqMesh}


async def settle() -> None:
    """Let callbacks run that were queued before; not a way to wait for a network."""
    for _ in range(SETTLED):
        await asyncio.sleep(0)
