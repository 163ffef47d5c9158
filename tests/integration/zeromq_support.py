"""Nodes whose counters can be waited for, and attackers made of bare ZeroMQ sockets with a real key."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

import zmq
import zmq.asyncio

from tests.contract.peers import PATIENCE, Mesh, Peer
from tests.integration.zeromq_by_hand import ByHand
from zmesh.core.types import Endpoint
from zmesh.identity import Identity
from zmesh.transports.connections import EVENT
from zmesh.transports.publisher import TOPIC
from zmesh.transports.sockets import SocketBounds, address_of
from zmesh.transports.zeromq import ZeroMqTransport

AsyncSocket = zmq.asyncio.Socket


class Watched(Counter[str]):
    """Counters that wake up whoever waits for one of them."""

    def __init__(self) -> None:
        super().__init__()
        self._news = asyncio.Event()

    def __setitem__(self, name: str, count: int) -> None:
        super().__setitem__(name, count)
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until ``condition`` holds."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def until_counted(self, name: str, count: int = 1) -> None:
        """Wait until ``name`` was counted ``count`` times, and not more."""
        try:
            await self.until(lambda: self[name] >= count)
        except TimeoutError:
            raise AssertionError(f"{name} was not counted {count} times: {dict(self)}") from None
        assert self[name] == count


class Node(Peer):
    """A peer on ZeroMQ."""

    def __init__(self, identity: Identity, bounds: SocketBounds, host: str = "127.0.0.1") -> None:
        self.counted = Watched()
        self.zeromq = ZeroMqTransport(identity, host=host, bounds=bounds, counters=self.counted)
        super().__init__(identity, self.zeromq)

    @property
    def gossip(self) -> Endpoint:
        """Where its publisher is."""
        assert self.routes.gossip is not None
        return self.routes.gossip


class Nodes(Mesh):
    """A mesh of nodes, and the attackers' context."""

    def __init__(self) -> None:
        super().__init__()
        self.context = zmq.asyncio.Context()

    async def node(self, bounds: SocketBounds | None = None, *, host: str = "127.0.0.1") -> Node:
        """A started node."""
        node = Node(Identity.generate(), bounds or SocketBounds(), host)
        await node.start()
        self.peers.append(node)
        return node

    async def linked(self, bounds: SocketBounds | None = None) -> tuple[Node, Node]:
        """Two nodes; the second dialled the first, and its subscription there is accepted."""
        a, b = await self.node(bounds), await self.node()
        a.admit(b)
        b.admit(a)
        before = a.counted["gossip_subscribed"]
        await self.link(b, a)
        await a.counted.until_counted("gossip_subscribed", before + 1)
        return a, b

    async def stop(self) -> None:
        await super().stop()
        self.context.destroy(linger=0)

    def bare(self, kind: int, identity: Identity, server: Node) -> AsyncSocket:
        """An unconnected socket that holds ``identity``'s secret and expects ``server``'s key."""
        socket = self.context.socket(kind)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.RECONNECT_IVL, -1)
        socket.set(zmq.CURVE_PUBLICKEY, identity.curve_public)
        socket.set(zmq.CURVE_SECRETKEY, identity.curve_secret)
        socket.set(zmq.CURVE_SERVERKEY, server.identity.curve_public)
        return socket

    async def attacker(self, node: Node) -> Identity:
        """An identity that ``node`` admits besides those of its other peers; who is behind it is up to the test."""
        identity = Identity.generate()
        node.transport.admit(frozenset({identity.public, *(peer.key for peer in self.peers if peer is not node)}))
        return identity


class Wire:
    """What the monitor of a bare socket says."""

    def __init__(self, socket: AsyncSocket) -> None:
        self.socket = socket
        self._monitor: AsyncSocket = socket.get_monitor_socket()

    async def connect(self, endpoint: Endpoint) -> zmq.Event:
        """Connect, and how the handshake ended."""
        self.socket.connect(address_of(endpoint))
        ends = (
            zmq.Event.HANDSHAKE_SUCCEEDED,
            zmq.Event.HANDSHAKE_FAILED_AUTH,
            zmq.Event.HANDSHAKE_FAILED_NO_DETAIL,
            zmq.Event.HANDSHAKE_FAILED_PROTOCOL,
            zmq.Event.DISCONNECTED,
        )
        return await self._until(*ends)

    async def until_cut(self) -> None:
        """Wait for the end of the connection."""
        await self._until(zmq.Event.DISCONNECTED)

    async def _until(self, *events: zmq.Event) -> zmq.Event:
        async with asyncio.timeout(PATIENCE):
            while True:
                event, _ = EVENT.unpack((await self._monitor.recv_multipart())[0])
                if event in events:
                    return zmq.Event(event)

    def close(self) -> None:
        """Close both."""
        self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close(0)


def noise(seed: int) -> bytes:
    """Random bytes, the same for the same seed."""
    return random.Random(seed).randbytes(5000)


def own_topic(identity: Identity, number: int = 0) -> bytes:
    """A topic that nobody else has: the same for the same number."""
    return bytes([number]) + identity.public[: TOPIC - 1]


async def still_works(a: Node, b: Node) -> None:
    """The attack cost the honest nothing."""
    before = len(b.frames(a)), len(a.frames(b))
    assert a.send(b, b"still", b"here", gossip=True)
    assert b.send(a, b"me", b"too")
    assert (await b.until_received(before[0] + 1, a))[-1] == (b"still", b"here")
    assert (await a.until_received(before[1] + 1, b))[-1] == (b"me", b"too")


async def curve_client(nodes: Nodes, node: Node, *, gossip: bool = False, routing_id: bytes = b"") -> ByHand:
    """A hand-made client with a registered key, connected to ``node``."""
    identity = await nodes.attacker(node)
    return await ByHand.connect(
        node.gossip if gossip else node.routes.direct,
        identity,
        node.identity.curve_public,
        kind=b"XSUB" if gossip else b"DEALER",
        routing_id=routing_id,
    )
