"""The floors: what the libraries beneath zmesh do by themselves, measured where and when zmesh is measured.

``BareLane`` is the least that a signed, encrypted hop can be in Python: one CURVE socket at each end, read by
readiness and a drain without blocking, one signature made and one checked for each message. No admission, no
deduplication, no identities, no relaying.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import cast

import nacl.bindings
import zmq

CHUNK = 100
"""Signatures between two looks at the clock."""
SIGNED = 49
"""Bytes that are signed for a message of zmesh: a domain tag and an id."""


class BareLane:
    """One end of a CURVE pair on loopback; ``bind`` on one side, ``connect`` on the other.

    ``received(body)`` is called with each body whose signature was good.
    """

    def __init__(self, received: Callable[[bytes], None]) -> None:
        self._received = received
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.PAIR)
        self.public, self._secret = nacl.bindings.crypto_sign_keypair()
        self._theirs = b""
        self._fd = 0

    def bind(self, server: tuple[bytes, bytes]) -> int:
        """Listen with this CURVE key pair (Z85); gives the port."""
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
        """Begin to read; ``theirs`` is the Ed25519 key whose signatures are taken."""
        self._theirs = theirs
        self._fd = cast(int, self._socket.get(zmq.FD))
        asyncio.get_running_loop().add_reader(self._fd, self._drain)

    def send(self, body: bytes) -> None:
        """Sign and send."""
        signature = nacl.bindings.crypto_sign(body, self._secret)[:64]
        self._socket.send_multipart([body, signature], zmq.NOBLOCK)
        # Sending may have swallowed the readiness of what came in: look again before sleeping.
        asyncio.get_running_loop().call_soon(self._drain)

    def close(self) -> None:
        """Let go of everything."""
        asyncio.get_running_loop().remove_reader(self._fd)
        self._socket.close(0)
        self._context.term()

    def _drain(self) -> None:
        while not self._socket.closed and cast(int, self._socket.get(zmq.EVENTS)) & zmq.POLLIN:
            body, signature = self._socket.recv_multipart(zmq.NOBLOCK)
            nacl.bindings.crypto_sign_open(signature + body, self._theirs)  # raises for a bad one
            self._received(body)


def sign_rate(seconds: float) -> float:
    """Ed25519 signatures that PyNaCl makes in a second on this thread, measured for about ``seconds``."""
    _, secret = nacl.bindings.crypto_sign_keypair()
    return _rate(lambda: nacl.bindings.crypto_sign(bytes(SIGNED), secret), seconds)


def verify_rate(seconds: float) -> float:
    """Ed25519 signatures that PyNaCl verifies in a second on this thread, measured for about ``seconds``."""
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
