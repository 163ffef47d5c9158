"""What the tests of the front door share: a door, what stands behind it, and what comes to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from aiohttp import web

from tests.contract.peers import PATIENCE, settle
from tests.integration.zeromq_support import Nodes, Watched
from zmesh.core.types import Endpoint
from zmesh.transports.front_door import DoorBounds, FrontDoor

BIG = 1 << 20
"""Bytes: more than any buffer on the way."""


class House:
    """A front door, an HTTP server behind it, and whatever stands in for the ROUTER.

    This server keeps connections that a node's own would end: the door's limits hold whatever is behind it.
    """

    def __init__(self) -> None:
        self.counted = Watched()
        self.nodes = Nodes()
        self._doors: list[FrontDoor] = []
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        """Serve HTTP."""
        app = web.Application(client_max_size=2 * BIG)
        app.router.add_get("/health", self._health)
        app.router.add_post("/echo", self._echo)
        app.router.add_get("/big", self._big)
        self._runner = web.AppRunner(app)
        await self._runner.setup()

    async def door(self, router: Endpoint, bounds: DoorBounds | None = None, port: int = 0) -> FrontDoor:
        """An open door before ``router``."""

        def http() -> asyncio.Protocol:
            assert self._runner.server is not None
            return self._runner.server()

        door = FrontDoor("127.0.0.1", port, router, http, bounds=bounds, counters=self.counted)
        await door.start()
        self._doors.append(door)
        return door

    async def backend(
        self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object], limit: int = 65536
    ) -> Endpoint:
        """A plain TCP server in the place of the ROUTER."""
        server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=limit)  # type: ignore[arg-type]
        self._servers.append(server)
        return Endpoint("127.0.0.1", server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close all, the door last."""
        await self.nodes.stop()
        for door in self._doors:
            await door.stop()
        for server in self._servers:
            server.close()
        await self._runner.cleanup()
        await settle()

    @staticmethod
    async def _health(request: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    @staticmethod
    async def _big(request: web.Request) -> web.Response:
        """More than the kernel holds for both ends."""
        return web.Response(body=bytes(16 * BIG))

    @staticmethod
    async def _echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())


NOWHERE = Endpoint("127.0.0.1", 1)
"""Nothing listens there."""


ASK = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
"""Over a connection that stays."""
ASK_AND_GO = b"GET /health HTTP/1.0\r\n\r\n"
FIRST, SECOND, THIRD, FOURTH = (f"127.0.0.{number}" for number in range(2, 6))
"""Addresses of strangers."""


async def come(
    port: int, data: bytes = b"", source: str = "127.0.0.1"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection from ``source``, and ``data`` over it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    writer.write(data)
    return reader, writer


async def told(port: int, data: bytes, source: str = "127.0.0.1") -> bytes:
    """Send ``data`` and read until the far end closes."""
    reader, writer = await come(port, source=source)
    answer = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            writer.write(data)
            while piece := await reader.read(65536):
                answer += piece
    writer.close()
    return answer
