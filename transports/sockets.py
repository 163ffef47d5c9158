"""Makes ZeroMQ sockets: every option that stands between a hostile network and this process, in one place.

Rules
 1. CURVE always. A bound socket always asks ZAP, and says nothing to a client that ZAP does not know.
 2. Every queue has a high-water mark and every frame a size limit; their product is what one peer can occupy.
 3. Options are set before bind or connect: later, ZeroMQ ignores them.
 4. Never ZMTP heartbeats: in libzmq 4.3.5 a heartbeat that falls due while the receive queue is full and the connection
    was just reset aborts the process (``Assertion failed: !_io_error``), and that is just what the death of a busy peer
    looks like. TCP keepalive detects a vanished host as soon.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import resource
from dataclasses import dataclass
from typing import NamedTuple, cast

import zmq

from zmesh.core.bounds import MAX_FRAME
from zmesh.core.errors import ConfigError
from zmesh.core.types import Endpoint
from zmesh.identity import Identity
from zmesh.log import get_logger
from zmesh.transport import MAX_LINKS
from zmesh.transports.admission import ZAP_DOMAIN, ZAP_ENDPOINT
from zmesh.transports.readiness import ZmqSocket

_log = get_logger(__name__)

MAX_SOCKETS = 9 * MAX_LINKS
"""ZeroMQ sockets of one context: six per neighbour (DEALER, SUB, and the two ends of a monitor for each), and half as
many again for those that ZeroMQ is still closing while their successors are created."""
NEVER = 3_600_000
"""Milliseconds until ZeroMQ would reconnect if the socket were not closed as soon as its connection ends. Turning
reconnection off (-1), or setting ZMQ_IMMEDIATE, would also discard what arrived just before the end and was not read
yet (measured)."""
FILES_WANTED = 14 * MAX_LINKS + 8_192
"""File handles: fourteen per neighbour, and some for connections that prove nothing, which are limited where they are
accepted, and for whatever else the program holds."""
FILES_LEAST = 14 * 100 + 8_192
"""The same for the default of 100 neighbours."""


@dataclass(frozen=True, slots=True)
class SocketBounds:
    """The limits of one transport, in messages, bytes or seconds as each line says."""

    max_frame: int = MAX_FRAME
    """Bytes of one frame; ZeroMQ cuts a connection that announces more."""
    max_subscription: int = 1024
    """Bytes of one frame sent to the publisher: a topic has 16, but a limit of 256 would break the handshake."""
    direct_out: int = 512
    """Messages waiting for one peer on the direct lane, 32 MiB at most: beyond that, ``send`` returns False."""
    gossip_out: int = 1024
    """Messages or bundles waiting for one subscriber: a legitimate burst of 1,000 announcements, 64 MiB at most."""
    inbound: int = 128
    """Messages or bundles that ZeroMQ reads ahead from one connection: more would add delay, not throughput."""
    dial_timeout: float = 5.0
    """Seconds from a dial to its answer: three retries of a lost SYN."""
    handshake: float = 5.0
    """Seconds in which a connection must prove its key."""
    silence: float = 10.0
    """Seconds in which a connection that proved its key must say something: HELLO or a subscription."""
    keepalive: int = 5
    """Seconds of quiet until the kernel probes whether the far end's host is still there."""
    vanished: int = 15
    """Seconds without an answer from its kernel until a connection is given up; no event loop takes part in this."""
    feed_first_retry: float = 1.0
    """Seconds until a lost subscription is remade while its direct lane is up; doubles with each attempt."""
    feed_max_retry: float = 30.0
    """Seconds between such attempts."""
    max_connections: int = 1024
    """Connections accepted on one bound socket. One more cuts the oldest that has not proven its key."""
    arrivals: float = 100.0
    """Connections a second that one address may open to one bound socket, after ``arrivals_burst`` at once. A handshake
    costs 0.7 ms of a core; cutting a connection before its handshake costs half of that."""
    arrivals_burst: float = 1024.0
    """A mesh of 100 behind one address, starting at once, each of which dials ten times."""

    @property
    def unread(self) -> int:
        """Bytes that a connection may send without completing a message: twelve of the largest frames."""
        return 12 * self.max_frame


def raise_file_limit() -> None:
    """Raise the soft limit of file handles towards ``FILES_WANTED``; warn if it stays under ``FILES_LEAST``.

    Why: 80 neighbours reach the usual soft limit of 1,024. A process without free handles can accept no connection, and
    ZeroMQ and asyncio both keep retrying in a busy loop.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # a platform with a lower ceiling of its own, reported below
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES_LEAST:
        hint = "raise the hard limit (ulimit -Hn, LimitNOFILE=), or keep strangers away from the ports"
        _log.warning("few_file_handles", limit=soft, wanted=FILES_LEAST, hint=hint)


def address_of(endpoint: Endpoint) -> str:
    """The ZeroMQ address of an IP literal and a port."""
    return f"tcp://{endpoint}"


def reachable(endpoint: Endpoint) -> Endpoint:
    """Where this host itself can reach what is bound to ``endpoint``: a wildcard address is no destination."""
    if ipaddress.ip_address(endpoint.host).is_unspecified:
        return endpoint._replace(host="::1" if ":" in endpoint.host else "127.0.0.1")
    return endpoint


class Bound(NamedTuple):
    """A bound socket, the monitor of its connections, and where it is bound."""

    socket: ZmqSocket
    monitor: ZmqSocket
    endpoint: Endpoint

    def close(self) -> None:
        """Close it before anything reads from it."""
        self.socket.disable_monitor()
        self.monitor.close(0)
        self.socket.close(0)


_contexts: set[zmq.Context[ZmqSocket]] = set()
"""Those that were not terminated. If Python collected one, because its event loop ended before the node did, pyzmq
would terminate it in the midst of whatever runs, and wait for its sockets for ever."""


class Sockets:
    """One context and the sockets in it."""

    def __init__(self, identity: Identity, bounds: SocketBounds) -> None:
        self.bounds = bounds
        self.context: zmq.Context[ZmqSocket] = zmq.Context(io_threads=1)
        self.context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        _contexts.add(self.context)
        self._identity = identity
        self._monitors = 0

    def terminate(self) -> None:
        """Blocks until all that lingers in closed sockets is sent, or their lingers are over."""
        self.context.term()
        _contexts.discard(self.context)

    def bound(self, kind: int, host: str, port: int, setting: str) -> Bound:
        """A CURVE server socket on ``host`` and ``port`` (0: any).

        Raises ``ConfigError`` if it cannot be bound there; ``setting`` names the setting that would change that.
        """
        socket = self._socket(kind, host)
        monitor: ZmqSocket | None = None
        try:
            socket.set(zmq.CURVE_SERVER, 1)
            socket.set(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
            socket.set(zmq.ZAP_ENFORCE_DOMAIN, 1)
            if kind == zmq.ROUTER:
                socket.set(zmq.ROUTER_MANDATORY, 1)
                socket.set(zmq.SNDHWM, self.bounds.direct_out)
            else:
                socket.set(zmq.XPUB_MANUAL, 1)
                socket.set(zmq.XPUB_NODROP, 1)
                socket.set(zmq.SNDHWM, self.bounds.gossip_out)
                socket.set(zmq.MAXMSGSIZE, self.bounds.max_subscription)
            monitor = self.monitored(socket)
            socket.bind(address_of(Endpoint(host, port)))
        except zmq.ZMQError as error:
            if monitor is not None:
                monitor.close(0)
            socket.close(0)
            why = os.strerror(error.errno or 0)
            hint = f"set {setting} to a free port, or to 0 for any"
            raise ConfigError(f"cannot listen on {Endpoint(host, port)}: {why}; {hint}") from None
        last = cast(bytes, socket.get(zmq.LAST_ENDPOINT))
        return Bound(socket, monitor, Endpoint(host, int(last.rstrip(b"\0").rpartition(b":")[2])))

    def dealer(self, host: str) -> ZmqSocket:
        """An unconnected DEALER towards ``host``."""
        socket = self._socket(zmq.DEALER, host)
        socket.set(zmq.SNDHWM, self.bounds.direct_out)
        return socket

    def subscriber(self, host: str) -> ZmqSocket:
        """An unconnected SUB towards ``host``."""
        return self._socket(zmq.SUB, host)

    def as_client(self, socket: ZmqSocket, server: bytes) -> ZmqSocket:
        """Expect the X25519 key ``server`` (32 bytes) at the far end, and do not reconnect."""
        socket.set(zmq.CURVE_SERVERKEY, server)
        socket.set(zmq.RECONNECT_IVL, NEVER)
        socket.set(zmq.CONNECT_TIMEOUT, int(self.bounds.dial_timeout * 1000))
        return socket

    def monitored(self, socket: ZmqSocket) -> ZmqSocket:
        """A PAIR on which ``socket`` reports its connections; its owner closes it after ``socket``."""
        self._monitors += 1
        # A name of our own: pyzmq derives one from a descriptor number, and those are reused too soon.
        address = f"inproc://monitor.{self._monitors}"
        pair = self.context.socket(zmq.PAIR)
        pair.set(zmq.LINGER, 0)
        try:
            socket.monitor(address, int(MONITORED))
            pair.connect(address)
        except zmq.ZMQError:
            pair.close(0)
            raise
        return pair

    def authenticator(self) -> ZmqSocket:
        """The socket that receives ZAP requests."""
        socket = self.context.socket(zmq.ROUTER)
        socket.set(zmq.LINGER, 0)
        socket.bind(ZAP_ENDPOINT)
        return socket

    def _socket(self, kind: int, host: str) -> ZmqSocket:
        bounds = self.bounds
        socket = self.context.socket(kind)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.IPV6, int(":" in host))
        socket.set(zmq.CURVE_PUBLICKEY, self._identity.curve_public)
        socket.set(zmq.CURVE_SECRETKEY, self._identity.curve_secret)
        socket.set(zmq.RCVHWM, bounds.inbound)
        socket.set(zmq.MAXMSGSIZE, bounds.max_frame)
        socket.set(zmq.HANDSHAKE_IVL, int(bounds.handshake * 1000))
        socket.set(zmq.TCP_KEEPALIVE, 1)
        socket.set(zmq.TCP_KEEPALIVE_IDLE, bounds.keepalive)
        socket.set(zmq.TCP_KEEPALIVE_INTVL, bounds.keepalive)
        socket.set(zmq.TCP_KEEPALIVE_CNT, bounds.vanished // bounds.keepalive)
        socket.set(zmq.TCP_MAXRT, bounds.vanished * 1000)
        return socket


MONITORED = (
    zmq.Event.ACCEPTED
    | zmq.Event.CONNECTED
    | zmq.Event.CLOSED
    | zmq.Event.DISCONNECTED
    | zmq.Event.HANDSHAKE_SUCCEEDED
    | zmq.Event.HANDSHAKE_FAILED_AUTH
    | zmq.Event.HANDSHAKE_FAILED_NO_DETAIL
)
"""The connection events that anything here reacts to.

Not ``ACCEPT_FAILED``: once out of file handles, ZeroMQ would report it without pause, and wait for us to read it.
Not ``HANDSHAKE_FAILED_PROTOCOL``: reporting it overwrites the ``errno`` by which ZeroMQ decides what to do next. If the
sender is lucky, a broken connection is then kept half dead instead of being closed (libzmq 4.3.5).
"""
