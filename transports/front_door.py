"""One listener for HTTP and ZMTP: the first byte tells which, and ZMTP is passed through to the ROUTER unread.

Theory
    A ZMTP greeting begins with 0xFF (RFC 37), which no HTTP request does. CURVE stays end to end: behind this door the
    handshake, ZAP and everything else work exactly as on the ROUTER's own port. ZeroMQ loses only the address of the
    far end, so everything that depends on addresses is decided here.
Rules
 1. A connection must send something within ``first_byte`` seconds. Few connections may wait for their first byte, in
    total and per address. One that speaks HTTP is for one request: request and answer have ``http_time`` seconds, and
    the request has ``http_bytes``, because a server parses whatever arrives.
 2. Every refusal is counted under a name of its own, ``door_...``.
 3. No byte is read that cannot be passed on: a leg that cannot write stops the other leg from reading.
 4. ZeroMQ greets as soon as it is reached, so a pair is joined before its inner leg is dialled.
 5. Places are counted in total and per address: one for each connection, and one more for the inner leg of a
    pass-through, from its dial to its end. Some are reserved for this machine's own probes.
 6. The rate at which an address may connect is limited: accepting a connection, and parsing what comes over it, costs
    the event loop more time than it costs to send it. Of this machine's own connections only those to the HTTP server
    count: they may be those of a proxy's clients, while ZMTP may be that of a whole mesh on one machine.
 7. When all places are taken, the oldest HTTP connection makes way for a newcomer: a request that is meant to end has
    ended long before it is the oldest. One of this machine's own makes way only for another of its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

from zmesh import forked
from zmesh.core.errors import ConfigError
from zmesh.core.limits import OWN, Limits, machine
from zmesh.core.types import Endpoint
from zmesh.transports.sockets import SocketBounds, reachable

ZMTP = 0xFF
"""The first byte of every ZMTP greeting."""
TLS = b"\x16\x03"
"""The start of a TLS handshake of any version (RFC 8446, 5.1): the client wants https."""


@dataclass(frozen=True, slots=True)
class DoorBounds:
    """The limits of one front door."""

    first_byte: float = 2.0
    """Seconds in which a connection must send something: a round trip across the world takes a sixth of that."""
    waiting: int = 512
    """Connections that have sent nothing yet; for those of this machine only the limit per address applies."""
    waiting_per_address: int = 128
    """The same per address: all peers of a mesh of 100 behind one load balancer, reconnecting at once."""
    connections: int = 2048
    """Places in total; a pass-through takes two, and costs four file handles."""
    own: int = 64
    """Places reserved for this machine: its probe may come four times a second and never read an answer."""
    per_address: int = 512
    """Places per address, whatever it speaks: one machine cannot shut the door for all others, and a mesh of 250 behind
    one address can be passed through."""
    http_time: float = 15.0
    """Seconds from its first byte to the end of the answer that an HTTP connection has: three lost packets in a row
    cost 7, of the request and of the answer."""
    http_bytes: int = 12 * 1024
    """Bytes that an HTTP connection may send: the largest body, and half of that for its head. Parsing them takes 1 ms
    at worst: 10 % of a core for an address that sends as much over each of ``rate`` connections a second."""
    rate: float = 100.0
    """Connections per second from one address, after ``burst`` at once: at 0.3 ms each, 3 % of a core."""
    burst: float = 1024.0
    """A mesh of 100 behind one address, all starting at once, each connecting ten times."""
    backlog: int = 128
    """Connections that the kernel holds until the event loop accepts them."""


class FrontDoor:
    """Listens on one port. Use it on one running event loop, asyncio's or uvloop's."""

    def __init__(
        self,
        host: str,
        port: int,
        router: Endpoint,
        http: Callable[[], asyncio.Protocol],
        *,
        bounds: DoorBounds | None = None,
        counters: Counter[str] | None = None,
    ) -> None:
        """``host`` is an IP literal and a port of 0 means any.

        ``router`` is where the ROUTER is bound; ``http`` makes a protocol that serves one HTTP connection; pass
        ``counters`` to share them with other parts.
        """
        self.bounds = bounds or DoorBounds()
        self.http = http
        self.router = reachable(router)
        self._address = (host, port)
        self._counters = Counter() if counters is None else counters
        self._server: asyncio.Server | None = None
        self._waiting: Counter[str] = Counter()
        self._arrivals = Limits(self.bounds.rate, self.bounds.burst)
        self._open: dict[asyncio.Transport | Leg, str] = {}
        """What holds each place, and the address that it counts for; a leg being dialled has no transport yet."""
        self._places: Counter[str] = Counter()
        """Places held by each address."""
        self._http: dict[asyncio.Transport, asyncio.TimerHandle] = {}
        """HTTP connections, the oldest first, and the timer that closes each."""
        self._dials: set[asyncio.Task[None]] = set()

    @property
    def counters(self) -> Mapping[str, int]:
        """How often each kind of connection or refusal happened since the start."""
        return self._counters

    @property
    def port(self) -> int:
        """The port that it listens on: the configured one, or the one that was found if that was 0."""
        if self._server is None or not self._server.sockets:
            return self._address[1]
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen. Raises ``ConfigError`` when the address cannot be bound."""
        host, port = self._address
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Visitor(self), host, port, backlog=self.bounds.backlog
            )
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            hint = "set MESH_LISTEN_PORT to a free port, or stop what listens there"
            raise ConfigError(f"cannot listen on {Endpoint(host, port)}: {why}; {hint}") from None
        forked.listeners[self] = (Endpoint(host, self.port),)

    async def stop(self) -> None:
        """Close the listener and every connection, now. Safe to call twice."""
        if self._server is None:
            return
        server, self._server = self._server, None
        # Accepting takes the loop several turns, and asyncio's server leaks connections when closed in between
        # (python/cpython#109564): first stop accepting, then give one turn to the last transports, and one to their
        # visitors.
        for listener in server.sockets:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        await asyncio.sleep(0)
        server.close()
        await asyncio.sleep(0)
        for dial in self._dials:
            dial.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        for holder in list(self._open):
            if not isinstance(holder, Leg):
                holder.abort()
            self.gone(holder)
        await server.wait_closed()
        # One turn of the loop, in which aborted connections notify their protocols.
        await asyncio.sleep(0)
        forked.listeners.pop(self, None)

    # ------------------------------------------------------------ for the connections

    def count(self, name: str) -> None:
        """Count one ``door_<name>``."""
        self._counters[f"door_{name}"] += 1

    def enter(self, address: str) -> str | None:
        """Let a connection from ``address`` wait for its first byte: None, or the name of the limit that it exceeds."""
        bounds = self.bounds
        if address not in OWN and not self.may_come(address):
            return "too_often"
        if self._waiting[address] >= bounds.waiting_per_address:
            return "too_many_from_address"
        if self._waiting.total() >= bounds.waiting and address not in OWN:
            return "crowded"
        limit = self.has_place(address)
        if limit is None:
            self._waiting[address] += 1
        return limit

    def may_come(self, address: str) -> bool:
        """Charge ``address`` with one connection: False if it comes too often."""
        return self._arrivals.take(address, time.monotonic())

    def spoke(self, address: str) -> None:
        """A connection from ``address`` no longer waits."""
        self._waiting[address] -= 1
        if not self._waiting[address]:
            del self._waiting[address]

    def has_place(self, address: str) -> str | None:
        """Make room for one more place of ``address``: None, or the name of the limit that it exceeds."""
        bounds = self.bounds
        is_own = address in OWN
        kept = 0 if is_own else max(0, bounds.own - sum(self._places[own] for own in OWN))
        if self._places[address] >= bounds.per_address:
            return "too_many_from_address"
        if len(self._open) + kept < bounds.connections:
            return None
        for transport in self._http:
            if is_own or self._open[transport] not in OWN:
                self.end(transport, "http_made_way")
                return None
        return "full"

    def came(self, holder: asyncio.Transport | Leg, address: str) -> None:
        """``holder`` takes a place of ``address``; calling this again for the same holder is harmless."""
        if holder not in self._open:
            self._open[holder] = address
            self._places[address] += 1

    def gone(self, holder: asyncio.Transport | Leg) -> bool:
        """``holder`` gives up its place; True if it still had one."""
        address = self._open.pop(holder, None)
        if address is None:
            return False
        self._places[address] -= 1
        if not self._places[address]:
            del self._places[address]
        if not isinstance(holder, Leg) and holder in self._http:
            self._http.pop(holder).cancel()
        return True

    def asks(self, transport: asyncio.Transport) -> None:
        """``transport`` speaks HTTP: its time begins."""
        loop = asyncio.get_running_loop()
        self._http[transport] = loop.call_later(self.bounds.http_time, self.end, transport, "http_slow")

    def end(self, transport: asyncio.Transport, why: str) -> None:
        """Close a connection at once, and count why."""
        self.count(why)
        self.gone(transport)
        transport.abort()

    def pass_through(self, outer: Leg, transport: asyncio.Transport) -> None:
        """Join ``outer`` with a new connection to the ROUTER."""
        task = asyncio.ensure_future(self._dial(outer, transport))
        self._dials.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._dials.discard(task)
            self.gone(outer.other)  # if it never connected

        task.add_done_callback(ended)

    async def _dial(self, outer: Leg, transport: asyncio.Transport) -> None:
        try:
            async with asyncio.timeout(self.bounds.first_byte):
                await asyncio.get_running_loop().create_connection(lambda: outer.other, *self.router)
        except OSError:  # TimeoutError is one
            self.count("backend_down")
            transport.abort()


class Visitor(asyncio.Protocol):
    """A connection whose protocol is not known yet."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door
        self._address = ""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in until its first byte is due, or refuse it."""
        door = self._door
        stream = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._address = machine(str(peer[0]) if peer else None)
        limit = door.enter(self._address)
        if limit is not None:
            door.count(limit)
            stream.abort()
            return
        keep_asking(transport.get_extra_info("socket"))
        self._transport = stream
        self._timer = asyncio.get_running_loop().call_later(door.bounds.first_byte, self._silent)
        door.came(stream, self._address)

    def data_received(self, data: bytes) -> None:
        """The first bytes decide."""
        transport = self._transport
        if transport is None:
            return
        self._leave()
        door = self._door
        if data[0] == ZMTP:
            self._pass_through(transport, data)
            return
        if self._address in OWN and not door.may_come(self._address):
            door.end(transport, "too_often")
            return
        # What is neither goes to the HTTP parser, too: it knows best how to answer with 400.
        door.count(spoken(data))
        door.asks(transport)
        protocol = Metered(door)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        protocol.data_received(data)

    def _pass_through(self, transport: asyncio.Transport, data: bytes) -> None:
        door = self._door
        limit = door.has_place(self._address)
        if limit is not None:
            door.end(transport, limit)
            return
        door.count("zmtp")
        outer = Leg(door, self._address)
        door.came(outer.other, self._address)
        transport.set_protocol(outer)
        outer.connection_made(transport)
        outer.data_received(data)
        door.pass_through(outer, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """It left without sending anything."""
        if self._transport is not None:
            if self._door.gone(self._transport):
                self._door.count("left")
            self._leave()

    def _silent(self) -> None:
        if self._transport is not None:
            self._door.end(self._transport, "silent")

    def _leave(self) -> None:
        """It no longer waits."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        self._door.spoke(self._address)


def spoken(data: bytes) -> str:
    """What these first bytes, which are not ZMTP, look like. An HTTP method begins with an ASCII letter."""
    if data[:1].isalpha():
        return "http"
    return "tls" if data.startswith(TLS) else "not_zmtp_nor_http"


def keep_asking(connection: socket.socket) -> None:
    """Let the kernel notice that the far end's host is gone: a pass-through sends nothing of its own."""
    bounds = SocketBounds()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", bounds.keepalive),
        ("TCP_KEEPINTVL", bounds.keepalive),
        ("TCP_KEEPCNT", bounds.vanished // bounds.keepalive),
        ("TCP_USER_TIMEOUT", bounds.vanished * 1000),
    ):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Metered(asyncio.Protocol):
    """One HTTP connection, whose request has a bound in bytes."""

    def __init__(self, door: FrontDoor) -> None:
        self._door = door
        self._left = door.bounds.http_bytes
        self._http = door.http()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hand the connection to the HTTP server."""
        self._transport = cast(asyncio.Transport, transport)
        self._http.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Pass it on, or hang up if it is too much."""
        self._left -= len(data)
        if self._left >= 0:
            self._http.data_received(data)
        elif self._transport is not None:
            self._door.end(self._transport, "http_too_much")

    def eof_received(self) -> bool | None:
        """Left to the HTTP server."""
        return self._http.eof_received()

    def pause_writing(self) -> None:
        """Left to the HTTP server."""
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """Left to the HTTP server."""
        self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give up the place."""
        if self._transport is not None:
            self._door.gone(self._transport)
        self._http.connection_lost(exc)


class Leg(asyncio.Protocol):
    """One of the two connections of a pass-through; the outer leg creates its inner counterpart."""

    def __init__(self, door: FrontDoor, address: str, other: Leg | None = None) -> None:
        """``address`` is where the outer leg comes from: both legs count for it."""
        self._door = door
        self._address = address
        self.other: Leg = Leg(door, address, self) if other is None else other
        self._is_inner = other is not None
        self._transport: asyncio.Transport | None = None
        self._held: list[bytes] = []
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Write what was held back for this leg, and let the other leg read again."""
        self._transport = cast(asyncio.Transport, transport)
        self._door.gone(self)  # its transport takes the place from now on
        self._door.came(self._transport, self._address)
        other = self.other._transport
        if other is None:
            return
        if other.is_closing():
            self._transport.abort()
            return
        # Resume before writing: what is written may be enough to pause the other leg again.
        other.resume_reading()
        self._transport.writelines(self.other._held)
        self.other._held.clear()

    def data_received(self, data: bytes) -> None:
        """Pass it on, or hold it until the other leg is connected (rule 3 bounds that to what was already read)."""
        other = self.other._transport
        if other is not None:
            other.write(data)
        elif self._transport is not None:
            self._held.append(data)
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The far end will write no more; what the other leg sends still reaches it.

        ZeroMQ never closes one direction alone: its end is the end of both legs, even if the visitor never says a word.
        """
        self._ended = True
        other = self.other._transport
        if other is not None and not other.is_closing():
            other.write_eof()
        return not (self._is_inner or self.other._ended)

    def pause_writing(self) -> None:
        """This leg's buffer is full: pause the other."""
        if self.other._transport is not None:
            self.other._transport.pause_reading()

    def resume_writing(self) -> None:
        """This leg has room: resume the other."""
        if self.other._transport is not None:
            self.other._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other leg too, once it has written what it had."""
        if self._transport is not None:
            self._door.gone(self._transport)
        if self.other._transport is not None:
            self.other._transport.close()
