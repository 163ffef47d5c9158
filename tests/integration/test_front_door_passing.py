"""HTTP and ZMTP on one port: what passes, and how the door opens and closes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import Counter

import aiohttp
import pytest

from tests.contract.peers import PATIENCE, settle
from tests.integration.front_door_support import BIG, NOWHERE, House, come, told
from tests.integration.zeromq_by_hand import greeting
from tests.integration.zeromq_support import still_works
from zmesh.core.errors import ConfigError
from zmesh.core.events import LinkClosed, LinkOpened
from zmesh.core.types import Endpoint
from zmesh.transport import Routes
from zmesh.transports.front_door import DoorBounds, Leg
from zmesh.transports.sockets import SocketBounds

# ------------------------------------------------------------ what it is for


async def test_http_and_zmtp_pass_one_port(house: House) -> None:
    a, b = await house.nodes.node(), await house.nodes.node()
    a.admit(b)
    b.admit(a)
    door = await house.door(a.routes.direct, DoorBounds(http_bytes=2 * BIG))
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


@pytest.mark.parametrize("data", [b"\xff", greeting(as_server=False)[:11]], ids=["a first byte", "half a greeting"])
async def test_a_greeting_that_stops_half_way_is_cut_inside_and_outside(house: House, data: bytes) -> None:
    """The door cannot know how much is to come; the ROUTER behind it does."""
    a, b = await house.nodes.linked(SocketBounds(handshake=0.2))
    door = await house.door(a.routes.direct)
    before = Counter(a.counted)
    assert (await told(door.port, data)).startswith(b"\xff"), "the ROUTER greets, too"
    await a.counted.until_counted("direct_half_greeting")
    assert Counter(a.counted) - before == {"direct_accepted": 1, "direct_half_greeting": 1}
    assert house.counted == {"door_zmtp": 1}
    await settle()
    assert (door._open, door._places) == ({}, {})
    await still_works(a, b)


async def test_the_routers_end_frees_the_place_of_a_visitor_who_does_not_say_a_word(house: House) -> None:
    """It ignores the end of its connection: nothing else would ever end that."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(12)
        writer.write(b"so far")
        writer.close()

    door = await house.door(await house.backend(hang_up))
    reader, writer = await come(door.port, b"\xff" + bytes(8) + b"\x7f\x03\x01")
    async with asyncio.timeout(PATIENCE):
        assert await reader.read() == b"so far"
        await settle()
    assert (door._places, house.counted) == ({}, {"door_zmtp": 1})
    writer.close()


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
async def test_a_leg_that_does_not_read_stops_the_other_from_sending(
    house: House, slow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits in the door is bounded; nothing is lost, and all arrives once the slow one reads."""
    piece, pieces = bytes(1 << 16), 1 << 10  # more than all kernels' buffers on the way
    full = asyncio.Event()
    stopped: list[tuple[bool, int]] = []
    pause_writing = Leg.pause_writing

    def noted(leg: Leg) -> None:
        """Whether its counterpart still reads, and what waits for it."""
        pause_writing(leg)
        assert leg._transport is not None
        assert leg.other._transport is not None
        stopped.append((leg.other._transport.is_reading(), leg._transport.get_write_buffer_size()))
        full.set()

    monkeypatch.setattr(Leg, "pause_writing", noted)

    async def pour(writer: asyncio.StreamWriter) -> None:
        for _ in range(pieces):
            writer.write(piece)
            await writer.drain()
        writer.write_eof()

    async def sip(reader: asyncio.StreamReader) -> int:
        await full.wait()
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
    assert taken == pieces * len(piece)
    assert not any(reading for reading, _ in stopped)
    assert max(waiting for _, waiting in stopped) < BIG
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
