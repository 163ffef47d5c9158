"""A ZMTP 3 client with the CURVE mechanism (RFC 23, RFC 26), made by hand: it can say what no library would.

Frames are never joined to messages and nothing is checked: whatever comes back is not read after the handshake.
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

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"CURVE".ljust(20, b"\0") + bytes(32)
COMMAND, LONG, MORE = 4, 2, 1


class CurveClient:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._nonce = 0

    @classmethod
    async def connect(
        cls, endpoint: Endpoint, identity: Identity, server: bytes, *, kind: bytes = b"DEALER", routing_id: bytes = b""
    ) -> CurveClient:
        """Shake hands as ``identity`` with the server whose X25519 key is ``server``; says it is a ``kind``."""
        self = cls(*await asyncio.open_connection(*endpoint))
        try:
            await self._handshake(
                identity, server, _property(b"Socket-Type", kind) + _property(b"Identity", routing_id)
            )
        except BaseException:
            await self.close()
            raise
        return self

    async def _handshake(self, identity: Identity, server: bytes, properties: bytes) -> None:
        self.writer.write(GREETING)
        await self.reader.readexactly(64)
        public, secret = crypto_box_keypair()

        number = self._next()
        box = crypto_box(bytes(64), b"CurveZMQHELLO---" + number, server, secret)
        self._write(b"\x05HELLO\x01\x00" + bytes(72) + public + number + box, COMMAND)

        welcome = await self._read()
        nonce = b"WELCOME-" + welcome[8:24]
        opened = crypto_box_open(welcome[24:], nonce, server, secret)
        self._server, cookie = opened[:32], opened[32:]
        self._secret = secret

        vouch_nonce = os.urandom(16)
        vouch = crypto_box(public + server, b"VOUCH---" + vouch_nonce, self._server, identity.curve_secret)
        number = self._next()
        told = identity.curve_public + vouch_nonce + vouch + properties
        box = crypto_box(told, b"CurveZMQINITIATE" + number, self._server, secret)
        self._write(b"\x08INITIATE" + cookie + number + box, COMMAND)
        assert (await self._read())[:6] == b"\x05READY"

    def send(self, data: bytes, *, more: bool = False, command: bool = False) -> None:
        """One frame."""
        number = self._next()
        flags = bytes([more * MORE | command * 2])
        box = crypto_box(flags + data, b"CurveZMQMESSAGEC" + number, self._server, self._secret)
        self._write(b"\x07MESSAGE" + number + box, 0)

    def send_garbage(self) -> None:
        """A frame that does not decrypt."""
        self._write(b"\x07MESSAGE" + self._next() + bytes(60), 0)

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
        self._nonce += 1
        return self._nonce.to_bytes(8)

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


def _property(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4) + value
