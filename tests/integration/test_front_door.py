"""HTTP and ZMTP on one port, and what may knock there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp import web

from tests.contract.peers import PATIENCE, settle
from tests.integration.zeromq_support import Nodes, Watched
from zmesh.core.errors import ConfigError
from zmesh.core.events import LinkClosed, LinkOpened
from zmesh.core.types import Endpoint
from zmesh.transport import Routes
from zmesh.transports.front_door import DoorBounds, FrontDoor

BIG = 1 << 20
"""Bytes: more than any buffer on the way."""


class House:
    """A front door, an HTTP server behind it, and whatever stands in for the ROUTER."""

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
    async def _echo(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """Everything but the door."""
    house = House()
    await house.start()
    try:
        yield house
    finally:
        await house.stop()


NOWHERE = Endpoint("127.0.0.1", 1)
"""Nothing listens there."""


async def told(port: int, data: bytes) -> bytes:
    """Send ``data`` and read until the far end closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            writer.write(data)
            while piece := await reader.read(65536):
                answer += piece
    writer.close()
    return answer


# ------------------------------------------------------------ what it is for


async def test_http_and_zmtp_pass_one_port(house: House) -> None:
    a, b = await house.nodes.node(), await house.nodes.node()
    a.admit(b)
    b.admit(a)
    door = await house.door(a.routes.direct)
    b.dial(a, Routes(Endpoint("127.0.0.1", door.port)))
    assert await b.until_told(1) == [LinkOpened(a.key)]
    assert b.send(a, b"hello", bytes(100_000))
    assert await a.until_received(1) == [(b"hello", bytes(100_000))]
    assert a.send(b, b"answer", gossip=True)
    assert await b.until_received(1) == [(b"answer",)]
    async with aiohttp.ClientSession() as session:
        for _ in range(3):  # over one connection, kept alive
            async with session.get(f"http://127.0.0.1:{door.port}/health") as response:
                assert (response.status, await response.json()) == (200, {"status": "healthy"})
        async with session.post(f"http://127.0.0.1:{door.port}/echo", data=bytes(BIG)) as response:
            assert await response.read() == bytes(BIG)
    assert house.counted == {"door_zmtp": 1, "door_http": 1}


async def test_a_stranger_is_refused_behind_the_door_as_before_it(house: House) -> None:
    a, b = await house.nodes.node(), await house.nodes.node()
    b.admit(a)
    door = await house.door(a.routes.direct)
    b.dial(a, Routes(Endpoint("127.0.0.1", door.port)))
    assert await b.until_told(1) == [LinkClosed(a.key, "refused our key")]
    assert a.counted["zap_stranger"] == 1


async def test_a_cut_inside_is_a_cut_outside(house: House) -> None:
    a, b = await house.nodes.node(), await house.nodes.node()
    a.admit(b)
    b.admit(a)
    door = await house.door(a.routes.direct)
    b.dial(a, Routes(Endpoint("127.0.0.1", door.port)))
    await b.until_told(1)
    assert b.send(a, b"hello")
    await a.until_received(1)
    a.admit()
    assert (await b.until_told(2))[1] == LinkClosed(a.key, "connection lost")


async def test_a_request_may_come_byte_by_byte(house: House) -> None:
    door = await house.door(NOWHERE)
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    for byte in b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n":
        writer.write(bytes([byte]))
        await writer.drain()
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
    writer.close()


# ------------------------------------------------------------ passing through


async def test_every_byte_passes_in_order_and_both_ways(house: House) -> None:
    data = os.urandom(1 << 16) * 64

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"greeting")
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
        writer.close()

    door = await house.door(await house.backend(echo))
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)

    async def send() -> None:
        writer.write(b"\xff" + data)
        await writer.drain()
        writer.write_eof()

    async with asyncio.timeout(PATIENCE):
        _, received = await asyncio.gather(send(), reader.read())
    assert received == b"greeting\xff" + data
    writer.close()


async def test_an_end_of_sending_leaves_the_other_way_open(house: House) -> None:
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received = await reader.read()
        writer.write(b"%d bytes" % len(received))
        writer.close()

    door = await house.door(await house.backend(answer_at_the_end))
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(b"\xff" * 100)
    writer.write_eof()
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b"100 bytes"
    writer.close()


@pytest.mark.parametrize("slow", ["inside", "outside"])
async def test_a_leg_that_does_not_read_stops_the_other_from_sending(house: House, slow: str) -> None:
    """What waits in the door is bounded; nothing is lost, and all arrives once the slow one reads."""
    piece = bytes(1 << 16)
    stuck, go_on = asyncio.Event(), asyncio.Event()
    sent = [0]

    async def pour(writer: asyncio.StreamWriter) -> None:
        """Write until nobody takes it any more, then a little, then end."""
        while not stuck.is_set() and sent[0] < 1 << 30:
            writer.write(piece)
            sent[0] += len(piece)
            try:
                async with asyncio.timeout(0.5):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
        go_on.set()
        await writer.drain()
        writer.write_eof()

    async def sip(reader: asyncio.StreamReader) -> int:
        await go_on.wait()
        taken = 0
        while data := await reader.read(1 << 20):
            taken += len(data)
        return taken

    inner: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Future()
    door = await house.door(await house.backend(lambda reader, writer: inner.set_result((reader, writer))))
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(b"\xff")
    async with asyncio.timeout(PATIENCE):
        inner_reader, inner_writer = await inner
        assert await inner_reader.readexactly(1) == b"\xff"
        if slow == "inside":
            _, taken = await asyncio.gather(pour(writer), sip(inner_reader))
        else:
            _, taken = await asyncio.gather(pour(inner_writer), sip(reader))
    assert stuck.is_set()
    assert taken == sent[0]
    for each in (writer, inner_writer):
        each.close()


async def test_a_router_that_is_down_is_counted(house: House) -> None:
    door = await house.door(NOWHERE)
    assert await told(door.port, b"\xff" + bytes(9)) == b""
    assert house.counted == {"door_zmtp": 1, "door_backend_down": 1}


async def test_whoever_leaves_during_the_dial_leaves_nothing_behind(house: House) -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        ended.set()

    door = await house.door(await house.backend(serve))
    _, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(b"\xff")
    writer.transport.abort()
    async with asyncio.timeout(PATIENCE):
        await house.counted.until(lambda: house.counted["door_zmtp"] == 1 or not door._open)
        if house.counted["door_zmtp"]:
            await ended.wait()
            await settle()
    assert door._open == {}


# ------------------------------------------------------------ what may knock


async def test_a_connection_that_says_nothing_is_closed_and_counted(house: House) -> None:
    door = await house.door(NOWHERE, DoorBounds(first_byte=0.1))
    assert await told(door.port, b"") == b""
    assert house.counted == {"door_silent": 1}
    assert door._waiting == {}
    assert door._open == {}


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), b"\x00\x01\x02\r\n\r\n", b"\r\n{}\r\n\r\n"]
)
async def test_what_is_neither_is_answered_with_400_and_counted(house: House, data: bytes) -> None:
    door = await house.door(NOWHERE)
    assert (await told(door.port, data)).split(b"\r\n")[0].endswith(b"400 Bad Request")
    assert house.counted["door_not_zmtp_nor_http"] == 1


async def test_an_http_connection_does_not_stay_for_ever(house: House) -> None:
    """Slow headers, one at a time: no parser's time limit covers them."""
    door = await house.door(NOWHERE, DoorBounds(http_lifetime=0.2))
    assert await told(door.port, b"GET /health HTTP/1.1\r\nX-Slow: ") == b""
    assert house.counted == {"door_http": 1, "door_http_expired": 1}


async def test_an_address_has_a_limit_of_waiting_connections(house: House) -> None:
    door = await house.door(NOWHERE, DoorBounds(waiting_per_address=3))
    waiting = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(5)]
    await house.counted.until_counted("door_too_many_from_address", 2)
    for reader, writer in waiting[:3]:
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200")
    assert (await told(door.port, b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.0 404")
    for _, writer in waiting:
        writer.close()


async def test_waiting_connections_have_a_limit_in_all(house: House) -> None:
    door = await house.door(NOWHERE, DoorBounds(waiting=3))
    waiting = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(5)]
    await house.counted.until_counted("door_crowded", 2)
    for _, writer in waiting:
        writer.close()


async def test_one_address_cannot_shut_the_door_for_all_others(house: House) -> None:
    """Whoever begins a request and never ends it waits no longer, and still takes a place for two minutes."""
    door = await house.door(NOWHERE, DoorBounds(per_address=3))
    begun = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(3)]
    for _, writer in begun:
        writer.write(b"GET /health HTTP/1.1\r\n")
    await house.counted.until_counted("door_http", 3)
    assert await told(door.port, b"GET /health HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n") == b""
    assert house.counted["door_too_many_from_address"] == 1

    reader, writer = await asyncio.open_connection("127.0.0.1", door.port, local_addr=("127.0.0.2", 0))
    writer.write(b"GET /health HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        assert b'"healthy"' in await reader.read()
    writer.close()
    # Its places are its own again when its connections end.
    for begun_reader, begun_writer in begun:
        begun_writer.write(b"Connection: close\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(PATIENCE):
            assert b'"healthy"' in await begun_reader.read()
        begun_writer.close()
    assert b'"healthy"' in await told(door.port, b"GET /health HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n")


async def test_connections_have_a_limit_in_all(house: House) -> None:
    """Ended HTTP connections do not count."""
    door = await house.door(NOWHERE, DoorBounds(connections=3))
    for _ in range(5):
        assert (await told(door.port, b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.0 404")
    streams = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(3)]
    for _, writer in streams:
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    await house.counted.until_counted("door_http", 8)
    assert await told(door.port, b"GET / HTTP/1.0\r\n\r\n") == b""
    assert house.counted["door_full"] == 1
    for _, writer in streams:
        writer.close()


async def test_a_flood_of_a_thousand_connections_is_bounded_and_the_mesh_goes_on(house: House) -> None:
    a, b = await house.nodes.node(), await house.nodes.node()
    a.admit(b)
    b.admit(a)
    door = await house.door(a.routes.direct)
    await house.nodes.link(b, a)
    peak = 0
    flood: list[socket.socket] = []
    for number in range(1000):
        visitor = socket.socket()
        visitor.setblocking(False)
        flood.append(visitor)
        await asyncio.get_running_loop().sock_connect(visitor, ("127.0.0.1", door.port))
        peak = max(peak, door._waiting.total())
        if number % 100 == 0:
            assert b.send(a, b"%d" % number)
    bound = door.bounds.waiting_per_address
    await house.counted.until(lambda: house.counted["door_too_many_from_address"] == 1000 - bound)
    assert peak <= bound
    assert len(await a.until_received(10)) == 10
    for visitor in flood:
        visitor.close()
    await house.counted.until_counted("door_left", bound)
    assert b"healthy" in await told(door.port, b"GET /health HTTP/1.0\r\n\r\n")


# ------------------------------------------------------------ opening and closing


async def test_a_port_in_use_is_a_configuration_error(house: House) -> None:
    door = await house.door(NOWHERE)
    text = f"cannot listen on 127.0.0.1:{door.port}: Address already in use; set MESH_LISTEN_PORT to a free port"
    with pytest.raises(ConfigError, match=text):
        await house.door(NOWHERE, port=door.port)


async def test_stopping_closes_everything_and_is_safe_twice(house: House) -> None:
    never = asyncio.Event()
    reached = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        await reader.read()
        writer.close()
        never.set()

    door = await house.door(await house.backend(serve))
    streams = [await asyncio.open_connection("127.0.0.1", door.port) for _ in range(3)]
    streams[0][1].write(b"\xff")
    streams[1][1].write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        await reached.wait()
        await streams[1][0].readuntil(b"}")
        await door.stop()
        await door.stop()
        for reader, writer in streams:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        await never.wait()
    assert door._open == {}
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", door.port)


@pytest.mark.parametrize("turns", range(5))
async def test_a_connection_that_comes_while_the_door_closes_is_closed_too(house: House, turns: int) -> None:
    """Accepting takes the loop a few turns; a door may begin to close in the middle of any."""
    door = await house.door(NOWHERE)
    with socket.create_connection(("127.0.0.1", door.port), timeout=PATIENCE) as visitor:
        for _ in range(turns):
            await asyncio.sleep(0)
        await door.stop()
        with contextlib.suppress(ConnectionResetError):
            assert visitor.recv(1) == b""
    assert house.counted == {}
