"""The floors: what the libraries under zmesh do on their own, measured where and when zmesh is measured.

``BareLane`` is the least that a signed, encrypted hop in Python can be: one CURVE socket at each end, read on readiness
by a non-blocking drain, one signature made and one checked per message. No admission, no deduplication, no identities,
no relaying.

``BareNode`` is the least that a place in a mesh can be: the sockets of a node, linked and unused.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import nacl.bindings
import zmq

CHUNK = 100
"""Signatures between two readings of the clock."""
SIGNED = 49
"""Bytes that zmesh signs for a message: a domain tag and an id."""
TOPIC = 16
"""Bytes of a subscription, unique to each subscriber."""


class BareLane:
    """One end of a CURVE pair on loopback; ``bind`` on one side, ``connect`` on the other.

    ``received(body)`` is called with each body whose signature is valid.
    """

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self.public, self._secret = nacl.bindings.crypto_sign_keypair()
        self._theirs = b""
        self._fd = 0

    def bind(self, server: tuple[bytes, bytes]) -> int:
        """Listen with this CURVE key pair (Z85); returns the port."""
        self._socket.set(zmq.CURVE_SERVER, 1)
        self._socket.set(zmq.CURVE_PUBLICKEY, server[0])
        self._socket.set(zmq.CURVE_SECRETKEY, server[1])
        return self._socket.bind_to_random_port("tcp://127.0.0.1")

    def connect(self, port: int, server: bytes) -> None:
        """Dial the other end, whose CURVE public key is ``server`` (Z85)."""
        public, secret = zmq.curve_keypair()
        self._socket.set(zmq.CURVE_SERVERKEY, server)
        self._socket.set(zmq.CURVE_PUBLICKEY, public)
        self._socket.set(zmq.CURVE_SECRETKEY, secret)
        self._socket.connect(f"tcp://127.0.0.1:{port}")

    def start(self, theirs: bytes) -> None:
        """Begin to read; ``theirs`` is the Ed25519 key whose signatures are accepted."""
        self._theirs = theirs
        self._fd = cast(int, self._socket.get(zmq.FD))
        asyncio.get_running_loop().add_reader(self._fd, self._drain)

    def send(self, body: bytes) -> None:
        """Sign and send."""
        signature = nacl.bindings.crypto_sign(body, self._secret)[:64]
        self._socket.send_multipart([body, signature], zmq.NOBLOCK)
        # Sending may have consumed the readiness event of incoming messages: check again before sleeping.
        asyncio.get_running_loop().call_soon(self._drain)

    def close(self) -> None:
        """Stop reading and close the socket."""
        asyncio.get_running_loop().remove_reader(self._fd)
        self._socket.close(0)
        self._context.term()

    def _drain(self) -> None:
        while _has_input(self._socket):
            body, signature = self._socket.recv_multipart(zmq.NOBLOCK)
            nacl.bindings.crypto_sign_open(signature + body, self._theirs)  # raises for a bad one
            self._received(body)


class BareAddress(NamedTuple):
    """Where a ``BareNode`` can be reached on loopback."""

    public: bytes
    """Its CURVE key (Z85)."""
    router: int
    """Port."""
    xpub: int
    """Port."""


class BareNode:
    """A bound ROUTER and XPUB, and a DEALER and a SUB per neighbour, all of them CURVE and read on readiness.

    Each connection carries one message and its answer, which proves that it is up, and then falls silent.
    """

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._public, self._secret = zmq.curve_keypair()
        self._sockets: list[zmq.Socket[bytes]] = []
        self._neighbours: set[BareAddress] = set()
        self._came: Counter[int] = Counter()
        self._news = asyncio.Event()
        ports = []
        for kind, take in ((zmq.ROUTER, _echo), (zmq.XPUB, _welcome)):
            socket = self._socket(kind)
            socket.set(zmq.CURVE_SERVER, 1)
            ports.append(socket.bind_to_random_port("tcp://127.0.0.1"))
            self._read(socket, take)
        self.address = BareAddress(self._public, *ports)

    def introduce(self, addresses: Sequence[BareAddress]) -> None:
        """Connect to the new ones among these addresses."""
        for address in addresses:
            if address != self.address and address not in self._neighbours:
                self._neighbours.add(address)
                dealer = self._connected(zmq.DEALER, address.public, address.router)
                dealer.send(b"", zmq.NOBLOCK)
                self._read(dealer, _take)
                subscriber = self._connected(zmq.SUB, address.public, address.xpub)
                subscriber.set(zmq.SUBSCRIBE, secrets.token_bytes(TOPIC))
                self._read(subscriber, _take)

    async def linked(self, count: int, seconds: float) -> None:
        """Wait until all four connections with ``count`` neighbours are up. Raises ``TimeoutError``."""
        async with asyncio.timeout(seconds):
            while min(self._came[kind] for kind in (zmq.ROUTER, zmq.XPUB, zmq.DEALER, zmq.SUB)) < count:
                self._news.clear()
                await self._news.wait()

    def close(self) -> None:
        """Stop reading and close all sockets."""
        for socket in self._sockets:
            asyncio.get_running_loop().remove_reader(cast(int, socket.get(zmq.FD)))
            socket.close()
        self._context.term()

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket = self._context.socket(kind)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.CURVE_PUBLICKEY, self._public)
        socket.set(zmq.CURVE_SECRETKEY, self._secret)
        self._sockets.append(socket)
        return socket

    def _connected(self, kind: int, server: bytes, port: int) -> zmq.Socket[bytes]:
        socket = self._socket(kind)
        socket.set(zmq.CURVE_SERVERKEY, server)
        socket.connect(f"tcp://127.0.0.1:{port}")
        return socket

    def _read(self, socket: zmq.Socket[bytes], take: Callable[[zmq.Socket[bytes]], None]) -> None:
        kind = cast(int, socket.get(zmq.TYPE))

        def drain() -> None:
            while _has_input(socket):
                take(socket)
                self._came[kind] += 1
                self._news.set()

        loop = asyncio.get_running_loop()
        loop.add_reader(cast(int, socket.get(zmq.FD)), drain)
        loop.call_soon(drain)


def _has_input(socket: zmq.Socket[bytes]) -> bool:
    return not socket.closed and bool(cast(int, socket.get(zmq.EVENTS)) & zmq.POLLIN)


def _take(socket: zmq.Socket[bytes]) -> None:
    socket.recv_multipart(zmq.NOBLOCK)


def _echo(socket: zmq.Socket[bytes]) -> None:
    """Answer a DEALER."""
    socket.send_multipart(socket.recv_multipart(zmq.NOBLOCK), zmq.NOBLOCK)


def _welcome(socket: zmq.Socket[bytes]) -> None:
    """Answer a subscription on its own topic."""
    socket.send(socket.recv(zmq.NOBLOCK)[1:], zmq.NOBLOCK)


def sign_rate(seconds: float) -> float:
    """Ed25519 signatures per second that PyNaCl makes on this thread, measured for about ``seconds``."""
    _, secret = nacl.bindings.crypto_sign_keypair()
    return _rate(lambda: nacl.bindings.crypto_sign(bytes(SIGNED), secret), seconds)


def verify_rate(seconds: float) -> float:
    """Ed25519 signatures per second that PyNaCl verifies on this thread, measured for about ``seconds``."""
    public, secret = nacl.bindings.crypto_sign_keypair()
    signed = nacl.bindings.crypto_sign(bytes(SIGNED), secret)
    return _rate(lambda: nacl.bindings.crypto_sign_open(signed, public), seconds)


def _rate(work: Callable[[], object], seconds: float) -> float:
    done = 0
    started = time.perf_counter()
    while (took := time.perf_counter() - started) < seconds:
        for _ in range(CHUNK):
            work()
        done += CHUNK
    return done / took
