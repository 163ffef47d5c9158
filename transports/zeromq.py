"""The ZeroMQ transport: CURVE links between keys, over a bound ROUTER and XPUB and a dialled DEALER and SUB per peer.

Rules
 1. One event loop owns every socket; there are no threads and no polling (``readiness.py``).
 2. Gossip goes to the publisher if the peer has subscribed. Everything else, and gossip to other peers, takes the
    connection we dialled, or failing that the one dialled to us. Each has its own queue per peer, so a slow peer
    refuses alone, and nothing spills into the next lane: a flood of gossip leaves room for ACK, HELLO and DIGEST.
 3. A key that is not admitted is refused in the handshake (``admission.py``), and ``start`` proves it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

import zmq

from zmesh import forked
from zmesh.aside import aside
from zmesh.core.errors import ConfigError, NotRunningError, ZmeshError
from zmesh.core.types import Frames, PeerKey
from zmesh.identity import Identity
from zmesh.log import get_logger
from zmesh.multiaddr import is_address
from zmesh.transport import Routes, Sink
from zmesh.transports.admission import Admission
from zmesh.transports.connections import TICK
from zmesh.transports.dialled import Dial, Neighbour
from zmesh.transports.inbound import Inbound
from zmesh.transports.links import Links
from zmesh.transports.publisher import Publisher
from zmesh.transports.readiness import NOBLOCK, NOBLOCK_MORE, Drain, ZmqSocket, bare_receive, bare_send
from zmesh.transports.selftest import forget_strangers, refuses_strangers
from zmesh.transports.sockets import Bound, SocketBounds, Sockets, raise_file_limit

log = get_logger(__name__)

LINGER_SHARE = 0.8
"""The share of ``stop``'s deadline for sending what is queued; the rest is for closing."""


class ZeroMqTransport:
    """Implements ``zmesh.transport.Transport``. Use it on one running event loop, asyncio's or uvloop's."""

    def __init__(
        self,
        identity: Identity,
        *,
        host: str = "127.0.0.1",
        router_port: int = 0,
        gossip_port: int = 0,
        bounds: SocketBounds | None = None,
        counters: Counter[str] | None = None,
    ) -> None:
        """``host`` is an IP literal to listen on; a port of 0 means any. ``counters`` may be shared with other parts.

        Raises ``ConfigError`` for a host that is not an IP literal.
        """
        if not is_address(host):
            raise ConfigError(f"cannot listen on {host!r}: it must be an IP address such as 127.0.0.1, 0.0.0.0 or ::")
        self._identity = identity
        self._host = host
        self._ports = (router_port, gossip_port)
        self._bounds = bounds or SocketBounds()
        self._counters = Counter() if counters is None else counters
        self._admission = Admission(identity, self._counters)
        self._dials: dict[PeerKey, Dial] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._running = False
        self._stopped: asyncio.Task[None] | None = None

    @property
    def counters(self) -> Mapping[str, int]:
        """How often each named refusal or event happened since the start."""
        return self._counters

    async def start(self, sink: Sink) -> Routes:
        """Bind, prove that strangers are refused, and begin to read; returns the bound endpoints.

        Raises ``ConfigError`` if an address cannot be bound, ``ZmeshError`` if the proof fails or on a second start.
        """
        if self._running or self._stopped is not None:
            raise NotRunningError("a transport can be started only once: make a new one")
        raise_file_limit()
        loop = asyncio.get_running_loop()
        self._links = Links(loop, sink, self._counters)
        self._sockets = Sockets(self._identity, self._bounds)
        self._zap = self._sockets.authenticator()
        bound: list[Bound] = []
        try:
            bound.append(self._sockets.bound(zmq.ROUTER, self._host, self._ports[0], "MESH_ROUTER_PORT"))
            bound.append(self._sockets.bound(zmq.XPUB, self._host, self._ports[1], "MESH_GOSSIP_PORT"))
        except ConfigError:
            for socket in bound:
                socket.close()
            self._zap.close(0)
            self._sockets.terminate()
            raise
        self._read_zap(self._zap)
        router, publisher = bound
        forked.listeners[self] = (router.endpoint, publisher.endpoint)
        bounds, counters, admission = self._bounds, self._counters, self._admission
        self._inbound = Inbound(router, admission, self._links, bounds, counters)
        self._publisher = Publisher(publisher, admission, bounds, counters)
        self._running = True
        routes = Routes(direct=router.endpoint, gossip=publisher.endpoint)
        try:
            await refuses_strangers(self._sockets, self._identity.curve_public, routes, counters)
        except ZmeshError:
            await self.stop(1.0)
            raise
        self._inbound.connections.refresh()
        self._publisher.connections.refresh()
        forget_strangers(counters)
        self._timer = loop.call_later(TICK, self._tick)
        return routes

    async def stop(self, deadline: float) -> None:
        """Send what is queued and close, within ``deadline`` seconds. Safe to call twice."""
        if self._running:
            self._running = False
            self._stopped = asyncio.ensure_future(self._close(deadline))
        if self._stopped is not None:
            await asyncio.shield(self._stopped)

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
        earlier = self._dials.pop(key, None)
        if earlier is not None:
            earlier.close()
        self._links.dialled(key)
        why = self._undialable(key, routes)
        if why is not None:
            self._links.closed(key, why, inbound=False)
            return
        image = self._admission.image(key)
        dial = self._dials[key] = Dial(Neighbour(key, image, self._sockets, self._links, self._counters))
        dial.start(routes)

    def hangup(self, key: PeerKey) -> None:
        """Close every connection with ``key``, ours and its own."""
        if self._running:
            self._cut(key, "hung_up")
            self._links.forget(key)

    def send(self, key: PeerKey, frames: Frames, *, gossip: bool) -> bool:
        """Queue one message to ``key``; False when nothing was queued."""
        if not self._running:
            return False
        if gossip and (taken := self._publisher.send(key, frames)) is not None:
            return taken
        dial = self._dials.get(key)
        if dial is not None and dial.up:
            return dial.send(frames)
        return self._inbound.send(key, frames)

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)
        for dial in list(self._dials.values()):
            dial.look()

    def _undialable(self, key: PeerKey, routes: Routes) -> str | None:
        """The reason why ``key`` cannot be dialled at ``routes``, or None."""
        if key not in self._admission:
            return "not admitted"
        for endpoint in (routes.direct, routes.gossip, routes.spare):
            # ZeroMQ's only thread would resolve a name, and every link would wait for the answer.
            if endpoint is not None and not (is_address(endpoint.host) and 0 < endpoint.port < 65536):
                return f"{endpoint} is not an IP address and port"
        return None

    def _cut(self, key: PeerKey, why: str) -> None:
        dial = self._dials.pop(key, None)
        if dial is not None:
            dial.close()
        self._inbound.bar(key, why)
        self._publisher.bar(key, why)

    def _read_zap(self, socket: ZmqSocket) -> None:
        """Answer ZAP from the loop. A reply never blocks: each request waits on its own pipe."""
        receive, send = bare_receive(socket), bare_send(socket)

        def answer() -> None:
            envelope = [receive(NOBLOCK)]
            while socket.get(zmq.RCVMORE):
                envelope.append(receive(NOBLOCK))
            reply = [*envelope[:2], *self._admission.answer(envelope[2:])]
            for frame in reply[:-1]:
                send(frame, NOBLOCK_MORE)
            send(reply[-1], NOBLOCK)

        self._zap_drain = Drain(socket, answer, lambda: None, self._counters)

    async def _close(self, deadline: float) -> None:
        linger = max(0, int(deadline * LINGER_SHARE * 1000))
        if self._timer is not None:
            self._timer.cancel()
        self._links.close()
        for dial in self._dials.values():
            dial.close(linger)
        self._dials.clear()
        self._inbound.close(linger)
        self._publisher.close(linger)
        self._zap_drain.close()
        self._zap.close(0)
        if not await _terminated(self._sockets, deadline):
            self._counters["stop_deadline"] += 1
            log.warning("transport_stop_deadline", seconds=deadline)
        forked.listeners.pop(self, None)


async def _terminated(sockets: Sockets, deadline: float) -> bool:
    """Terminate them; True if that took at most ``deadline`` seconds.

    It blocks until all that lingers is sent, which this loop may be carrying, and ends on its own, as every linger is
    bounded.
    """
    try:
        async with asyncio.timeout(deadline):
            await aside(sockets.terminate, "zmesh-term")
    except TimeoutError:
        return False
    return True
