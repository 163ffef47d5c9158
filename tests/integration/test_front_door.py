"""What may knock at the front door: for how long, how many, and who makes way for whom."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket

import pytest

from tests.contract.peers import PATIENCE, settle
from tests.integration.front_door_support import (
    ASK,
    ASK_AND_GO,
    FIRST,
    FOURTH,
    NOWHERE,
    SECOND,
    THIRD,
    House,
    come,
    told,
)
from tests.integration.zeromq_support import noise
from zmesh.config import Settings
from zmesh.handlers import Offer, RecordOutcome
from zmesh.http import MAX_BODY, Answers
from zmesh.server import Server
from zmesh.transports.front_door import DoorBounds


async def test_a_connection_that_says_nothing_is_closed_and_counted(house: House) -> None:
    door = await house.door(NOWHERE, DoorBounds(first_byte=0.1))
    assert await told(door.port, b"") == b""
    assert house.counted == {"door_silent": 1}
    assert door._waiting == {}
    assert door._open == {}


@pytest.mark.parametrize(
    "data, seems",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), "tls", id="tls"),
        pytest.param(b"\x00\x01\x02\r\n\r\n", "not_zmtp_nor_http", id="bytes"),
        pytest.param(b"\r\n{}\r\n\r\n", "not_zmtp_nor_http", id="json"),
        # Of random bytes one in five begins as a method does, and half of them as a letter of some alphabet.
        *(pytest.param(noise(seed), "not_zmtp_nor_http", id=f"random {seed}") for seed in (0, 1, 3, 4)),
        *(pytest.param(noise(seed), "http", id=f"random {seed}, first a letter") for seed in (2, 5)),
    ],
)
async def test_what_is_neither_is_answered_with_400_and_counted_as_what_it_seems(
    house: House, data: bytes, seems: str
) -> None:
    door = await house.door(NOWHERE)
    assert (await told(door.port, data)).split(b"\r\n")[0].endswith(b"400 Bad Request")
    assert house.counted == {f"door_{seems}": 1}


async def test_a_request_and_its_answer_have_their_time_and_nothing_prolongs_it(house: House) -> None:
    """Slow headers, one at a time, a connection that stays, an answer that nobody reads: no parser limits that."""
    door = await house.door(NOWHERE, DoorBounds(http_time=0.2))
    assert await told(door.port, b"GET /health HTTP/1.1\r\nX-Slow: ") == b""
    assert b'"healthy"' in await told(door.port, ASK)
    _, unread = await come(door.port, ASK_AND_GO.replace(b"health", b"big"))
    await house.counted.until_counted("door_http_slow", 3)
    unread.close()
    await settle()
    assert house.counted == {"door_http": 3, "door_http_slow": 3}
    assert (door._open, door._http, door._places) == ({}, {}, {})


async def test_a_node_answers_one_request_over_a_connection_and_ends_it() -> None:
    """Whatever it was, and whatever else is asked over it."""
    settings = Settings(peer_id="a", listen_host="127.0.0.1", listen_port=0)
    server = Server(settings, Answers(lambda: {"status": "healthy"}, str, bytes, lambda _: Offer(RecordOutcome.NEW)))
    await server.start(NOWHERE)
    try:
        answers = [
            await told(server.port, one.replace(b"\r\n\r\n", b"\r\nConnection: keep-alive\r\n\r\n") + ASK)
            for one in (
                ASK,
                ASK.replace(b"health", b"record"),
                ASK.replace(b"health", b"nothing"),
                ASK.replace(b"GET", b"POST"),
                b"POST /records HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
                ASK.replace(b"1.1", b"9.9"),
            )
        ]
        assert [re.findall(rb"HTTP/1.[01] (\d+)", answer) for answer in answers] == [
            [status] for status in (b"200", b"503", b"404", b"405", b"202", b"400")
        ]
        assert all(b"\r\nConnection: close\r\n" in answer for answer in answers[:-1]), "HTTP/1.0 needs no word for it"
        assert server.counters == {"door_http": 6, "http_malformed": 1}
        assert server._door is not None
        assert (server._door._open, server._door._http) == ({}, {})
    finally:
        await server.stop()


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


async def test_waiting_connections_have_a_limit_in_all_but_for_this_machines_own(house: House) -> None:
    door = await house.door(NOWHERE, DoorBounds(waiting=3))
    waiting = [await come(door.port, source=stranger) for stranger in (FIRST, SECOND, THIRD, FOURTH, FIRST)]
    await house.counted.until_counted("door_crowded", 2)
    assert b'"healthy"' in await told(door.port, ASK_AND_GO)
    for _, writer in waiting:
        writer.close()


async def test_one_address_cannot_shut_the_door_for_all_others(house: House) -> None:
    """Whoever begins a request and never ends it waits no longer, and still takes a place for a while."""
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


async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A ROUTER that says nothing."""
    await reader.read()
    writer.close()


async def test_what_is_passed_through_takes_two_places_of_its_address_until_it_ends(house: House) -> None:
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await swallow(reader, writer)
        ended.set()

    door = await house.door(await house.backend(serve), DoorBounds(per_address=3))
    _, passed = await come(door.port, b"\xff", FIRST)
    await house.counted.until_counted("door_zmtp")
    assert await told(door.port, b"\xff", FIRST) == b"", "there is a place for it, and none for its inner leg"
    assert b'"healthy"' in await told(door.port, ASK_AND_GO, FIRST), "it left no place behind"
    assert b'"healthy"' in await told(door.port, ASK_AND_GO, SECOND)
    assert house.counted == {"door_zmtp": 1, "door_too_many_from_address": 1, "door_http": 2}
    passed.close()
    async with asyncio.timeout(PATIENCE):
        await ended.wait()
    await settle()
    assert (door._open, door._places) == ({}, {})


async def test_a_router_that_is_down_costs_no_place(house: House) -> None:
    door = await house.door(NOWHERE, DoorBounds(per_address=2))
    for _ in range(3):
        assert await told(door.port, b"\xff", FIRST) == b""
    assert house.counted == {"door_zmtp": 3, "door_backend_down": 3}
    assert (door._open, door._places) == ({}, {})


async def test_connections_have_a_limit_in_all_and_places_are_kept_for_this_machine(house: House) -> None:
    """Two machines of strangers that speak ZMTP; ended HTTP connections do not count."""
    door = await house.door(await house.backend(swallow), DoorBounds(connections=6, own=2))
    for _ in range(7):
        assert b'"healthy"' in await told(door.port, ASK_AND_GO, THIRD)

    async def probe() -> asyncio.StreamWriter:
        """Asks, and leaves its connection open."""
        reader, writer = await come(door.port, ASK)
        async with asyncio.timeout(PATIENCE):
            assert b'"healthy"' in await reader.readuntil(b"}")
        return writer

    probes = [await probe()]
    strangers = [await come(door.port, b"\xff", stranger) for stranger in (FIRST, SECOND)]
    await house.counted.until_counted("door_zmtp", 2)
    assert await told(door.port, ASK_AND_GO, THIRD) == b""
    assert await told(door.port, b"\xff", FOURTH) == b""
    assert house.counted == {"door_http": 8, "door_zmtp": 2, "door_full": 2}
    # Strangers get none of the probe's places, and it gets them again.
    for _ in range(2):
        probes.append(await probe())
        assert await told(door.port, ASK_AND_GO, THIRD) == b""
    assert house.counted == {"door_http": 10, "door_zmtp": 2, "door_full": 4, "door_http_made_way": 1}
    for writer in (*probes, *(writer for _, writer in strangers)):
        writer.close()


async def test_when_the_door_is_full_the_oldest_http_connection_makes_way(house: House) -> None:
    door = await house.door(NOWHERE, DoorBounds(connections=3, own=0))
    begun = []
    async with asyncio.timeout(PATIENCE):
        for number, stranger in enumerate((FIRST, SECOND, THIRD), 1):
            begun.append(await come(door.port, ASK[:-2], stranger))
            await house.counted.until_counted("door_http", number)
        assert b'"healthy"' in await told(door.port, ASK_AND_GO, FOURTH)
        with contextlib.suppress(ConnectionResetError):
            assert await begun[0][0].read() == b""
        for reader, writer in begun[1:]:
            writer.write(ASK[-2:])
            assert b'"healthy"' in await reader.readuntil(b"}")
    assert house.counted == {"door_http": 4, "door_http_made_way": 1}
    for _, writer in begun:
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


async def test_how_often_an_address_may_come_has_a_rate_but_for_zmtp_of_this_machine(house: House) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    door = await house.door(await house.backend(hang_up), DoorBounds(rate=1e-9, burst=3))
    for address in ("127.0.0.1", FIRST):
        answers = [await told(door.port, ASK_AND_GO, address) for _ in range(5)]
        assert [answer[:15] for answer in answers] == [b"HTTP/1.0 200 OK"] * 3 + [b""] * 2
    assert await told(door.port, b"\r\n") == b"", "whatever the HTTP server would have to parse"
    assert (await told(door.port, ASK_AND_GO, SECOND)).startswith(b"HTTP/1.0 200")
    for address in ("127.0.0.1", "127.0.0.1", FIRST):
        await told(door.port, b"\xff", address)
    assert house.counted == {"door_http": 7, "door_too_often": 6, "door_zmtp": 2}
    assert (door._open, door._http, door._places) == ({}, {}, {})


@pytest.mark.parametrize(
    "begin, more",
    [
        (ASK.replace(b"x\r\n", b"x\r\nTransfer-Encoding: chunked\r\n"), b"1\r\na\r\n" * 1000),
        (ASK, ASK * 100),
        (ASK[:-2], b"X-More: x\r\n" * 500),
    ],
    ids=["body", "requests", "headers"],
)
async def test_what_comes_over_an_http_connection_has_a_bound_asked_for_or_not(
    house: House, begin: bytes, more: bytes
) -> None:
    """A server goes on to parse the body of a request that it has answered, so that its sender reads the answer."""
    door = await house.door(NOWHERE)
    reader, writer = await come(door.port, begin, FIRST)
    sent = 0
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError):
            while True:
                writer.write(more)
                sent += len(more)
                await writer.drain()
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
    writer.close()
    assert house.counted == {"door_http": 1, "door_http_too_much": 1}
    assert sent < 16 << 20, "no more than the kernel holds for both ends"
    assert (door._open, door._http, door._places) == ({}, {}, {})


async def test_the_largest_body_with_a_large_head_is_within_that_bound(house: House) -> None:
    door = await house.door(NOWHERE)
    head = b"POST /echo HTTP/1.0\r\nCookie: " + b"x" * 3900 + b"\r\nContent-Length: %d\r\n\r\n" % MAX_BODY
    assert (await told(door.port, head + bytes(MAX_BODY))).endswith(b"\r\n\r\n" + bytes(MAX_BODY))
