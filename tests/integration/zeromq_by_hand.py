"""ZMTP 3 with the CURVE mechanism (RFC 23, RFC 26), made by hand: it can say what no library would.

Nothing is checked, and what comes back after the handshake is thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct

from nacl.bindings import crypto_box, crypto_box_keypair, crypto_box_open

from zmesh.core.types import Endpoint
from zmesh.identity import Identity

COMMAND, LONG, MORE = 4, 2, 1
HIDDEN_COMMAND = 2
"""The same flag inside an encrypted frame."""


def greeting(*, as_server: bool) -> bytes:
    """The 64 bytes that a connection begins with."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes([as_server]) + bytes(31)


def properties(kind: bytes, routing_id: bytes = b"") -> bytes:
    """What a socket says of itself."""
    pairs = ((b"Socket-Type", kind), (b"Identity", routing_id))
    return b"".join(bytes([len(name)]) + name + len(value).to_bytes(4) + value for name, value in pairs)


class ByHand:
    """One end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._count = 0
        self._prefix = b""
        self._theirs = b""
        self._secret = b""

    @classmethod
    async def connect(
        cls, endpoint: Endpoint, identity: Identity, server: bytes, *, kind: bytes = b"DEALER", routing_id: bytes = b""
    ) -> ByHand:
        """Shake hands as ``identity`` with the server whose X25519 key is ``server``; says it is a ``kind``."""
        self = cls(*await asyncio.open_connection(*endpoint))
        try:
            await self._greet_server(identity, server, properties(kind, routing_id))
        except BaseException:
            await self.close()
            raise
        return self

    async def _greet_server(self, identity: Identity, server: bytes, metadata: bytes) -> None:
        self.writer.write(greeting(as_server=False))
        await self.reader.readexactly(64)
        public, secret = crypto_box_keypair()
        number = self._next()
        box = crypto_box(bytes(64), b"CurveZMQHELLO---" + number, server, secret)
        self._write(b"\x05HELLO\x01\x00" + bytes(72) + public + number + box, COMMAND)

        welcome = await self._read()
        opened = crypto_box_open(welcome[24:], b"WELCOME-" + welcome[8:24], server, secret)
        theirs, cookie = opened[:32], opened[32:]

        nonce = os.urandom(16)
        vouch = crypto_box(public + server, b"VOUCH---" + nonce, theirs, identity.curve_secret)
        number = self._next()
        told = identity.curve_public + nonce + vouch + metadata
        box = crypto_box(told, b"CurveZMQINITIATE" + number, theirs, secret)
        self._write(b"\x08INITIATE" + cookie + number + box, COMMAND)
        assert (await self._read())[:6] == b"\x05READY"
        self._prefix, self._theirs, self._secret = b"CurveZMQMESSAGEC", theirs, secret

    async def greet_client(self, identity: Identity, *, kind: bytes = b"ROUTER") -> None:
        """Shake hands as a server that is ``identity`` and takes whoever comes."""
        self.writer.write(greeting(as_server=True))
        await self.reader.readexactly(64)
        theirs = (await self._read())[80:112]
        public, secret = crypto_box_keypair()
        nonce = os.urandom(16)
        box = crypto_box(public + bytes(96), b"WELCOME-" + nonce, theirs, identity.curve_secret)
        self._write(b"\x07WELCOME" + nonce + box, COMMAND)
        assert (await self._read())[:9] == b"\x08INITIATE"
        number = self._next()
        box = crypto_box(properties(kind), b"CurveZMQREADY---" + number, theirs, secret)
        self._write(b"\x05READY" + number + box, COMMAND)
        self._prefix, self._theirs, self._secret = b"CurveZMQMESSAGES", theirs, secret

    def send(self, data: bytes, *, more: bool = False, command: bool = False) -> None:
        """One frame."""
        number = self._next()
        flags = bytes([more * MORE | command * HIDDEN_COMMAND])
        box = crypto_box(flags + data, self._prefix + number, self._theirs, self._secret)
        self._write(b"\x07MESSAGE" + number + box, 0)

    def send_garbage(self) -> None:
        """A frame that does not decrypt."""
        self._write(b"\x07MESSAGE" + self._next() + bytes(60), 0)

    async def send_without_end(self, frame: bytes, limit: int) -> int:
        """Frame after frame of one message until somebody ends the connection; bytes sent, at most ``limit``."""
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < limit:
                self.send(frame, more=True)
                sent += len(frame)
                await self.writer.drain()
                await asyncio.sleep(0)  # the node lives on this loop too, and draining does not always yield
        return sent

    async def until_cut(self) -> None:
        """Read until the far end closes."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """End the connection as the kernel does for a killed process that had not read everything."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        """Close the connection."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def _next(self) -> bytes:
        self._count += 1
        return self._count.to_bytes(8)

    def _write(self, body: bytes, flags: int) -> None:
        if len(body) > 255:
            self.writer.write(bytes([flags | LONG]) + len(body).to_bytes(8) + body)
        else:
            self.writer.write(bytes([flags, len(body)]) + body)

    async def _read(self) -> bytes:
        """One frame of the handshake."""
        flags = (await self.reader.readexactly(1))[0]
        size = int.from_bytes(await self.reader.readexactly(8 if flags & LONG else 1))
        return await self.reader.readexactly(size)
