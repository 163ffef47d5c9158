"""What somebody without an admitted key may try on the bound sockets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from types import SimpleNamespace
from typing import cast

import pytest
import zmq
import zmq.asyncio

from tests.contract.peers import PATIENCE
from tests.integration.zeromq_by_hand import ByHand, greeting
from tests.integration.zeromq_support import Node, Nodes, Wire, noise, still_works
from zmesh.core.errors import ZmeshError
from zmesh.core.types import Endpoint
from zmesh.identity import Identity
from zmesh.transports.admission import Admission
from zmesh.transports.sockets import SocketBounds
from zmesh.transports.zeromq import ZeroMqTransport


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.SUB])
async def test_a_stranger_is_refused_at_both_ports(nodes: Nodes, kind: int) -> None:
    a, b = await nodes.linked()
    stranger = Wire(nodes.bare(kind, Identity.generate(), a))
    target = a.routes.direct if kind == zmq.DEALER else a.gossip
    assert await stranger.connect(target) == zmq.Event.HANDSHAKE_FAILED_AUTH
    await a.counted.until_counted("direct_refused_key" if kind == zmq.DEALER else "gossip_refused_key")
    assert a.counted["zap_stranger"] == 1
    stranger.close()
    await still_works(a, b)


async def test_a_client_without_curve_is_refused(nodes: Nodes) -> None:
    a, b = await nodes.linked()
    await told(a.routes.direct, NULL_GREETING)
    await a.counted.until_counted("direct_not_zmtp")
    await still_works(a, b)


async def test_a_node_whose_door_keeper_is_broken_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The self-test: whatever the reason, a node that would admit a stranger must not come up."""
    monkeypatch.setattr(Admission, "answer", lambda self, request: (b"1.0", request[1], b"200", b"OK", b"ab", b""))
    transport = ZeroMqTransport(Identity.generate())
    with pytest.raises(ZmeshError, match="the self-test failed: a stranger's key was not refused"):
        await transport.start(lambda batch: None)
    await transport.stop(1.0)


async def test_the_self_test_leaves_no_trace(nodes: Nodes) -> None:
    a = await nodes.node()
    assert a.counted == {}


NULL_GREETING = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\0NULL".ljust(64, b"\0")
GREETING_SO_FAR = b"\xff\0\0\0\0\0\0\0\x01\x7f\x03"


async def told(endpoint: Endpoint, data: bytes) -> bytes:
    """Send ``data`` over plain TCP and read until the far end closes."""
    reader, writer = await asyncio.open_connection(*endpoint)
    answer = b""
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(data)
            while piece := await reader.read(65536):
                answer += piece
    except ConnectionError:
        pass
    writer.close()
    return answer


async def assert_cut(a: Node, port: str, data: bytes, why: str) -> None:
    """Whoever says ``data`` is cut, and counted under that name and no other."""
    before = Counter(a.counted)
    await told(a.routes.direct if port == "direct" else a.gossip, data)
    await a.counted.until_counted(f"{port}_{why}")
    assert Counter(a.counted) - before == {f"{port}_accepted": 1, f"{port}_{why}": 1}


@pytest.mark.parametrize("port", ["direct", "gossip"])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", id="http"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), id="tls"),
        *(pytest.param(noise(seed), id=f"random {seed}") for seed in range(4)),
        *(pytest.param(b"\xff" + noise(seed), id=f"random {seed} after a first byte of zmtp") for seed in range(4)),
        pytest.param(b"\0" * 100_000, id="zeros"),
    ],
)
async def test_what_is_not_zmtp_is_cut_and_counted(nodes: Nodes, port: str, data: bytes) -> None:
    a, b = await nodes.linked()
    await assert_cut(a, port, data, "not_zmtp")
    await still_works(a, b)


@pytest.mark.parametrize("port", ["direct", "gossip"])
@pytest.mark.parametrize(
    "data, why",
    [
        pytest.param(b"", "no_greeting", id="silent"),
        pytest.param(b"\xff", "half_greeting", id="a first byte"),
        pytest.param(GREETING_SO_FAR, "half_greeting", id="half a greeting"),
        pytest.param(greeting(as_server=False)[:-1], "half_greeting", id="all of a greeting but a byte"),
        pytest.param(greeting(as_server=False), "handshake_timeout", id="a greeting"),
    ],
)
async def test_a_connection_that_stops_half_way_is_cut_and_counted(
    nodes: Nodes, port: str, data: bytes, why: str
) -> None:
    a, b = await nodes.linked(SocketBounds(handshake=0.2))
    await assert_cut(a, port, data, why)
    await still_works(a, b)


async def test_a_key_that_is_claimed_and_not_held_is_a_bad_handshake(nodes: Nodes) -> None:
    """All is right but the proof, which another secret made."""
    a, b = await nodes.linked()
    thief = SimpleNamespace(curve_public=b.identity.curve_public, curve_secret=Identity.generate().curve_secret)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await ByHand.connect(a.routes.direct, cast(Identity, thief), a.identity.curve_public)
    await a.counted.until_counted("direct_bad_handshake")
    await still_works(a, b)


async def test_a_greeting_that_leaves_is_counted(nodes: Nodes) -> None:
    a, b = await nodes.linked()
    _, writer = await asyncio.open_connection(*a.routes.direct)
    writer.write(GREETING_SO_FAR)
    await a.counted.until_counted("direct_accepted", 2)
    writer.close()
    await a.counted.until_counted("direct_handshake_abandoned")
    await still_works(a, b)


async def test_connections_over_the_limit_are_cut_at_once(nodes: Nodes) -> None:
    a, b = await nodes.linked(SocketBounds(max_connections=4))
    streams = [await asyncio.open_connection(*a.routes.direct) for _ in range(6)]
    await a.counted.until_counted("direct_full", 3)
    await still_works(a, b)
    for _, writer in streams:
        writer.close()


async def test_an_address_that_connects_too_often_is_cut_before_its_handshake_and_no_other_is(nodes: Nodes) -> None:
    """Nor is this machine itself, from which the front door connects for those it let in."""
    a, b = await nodes.linked(SocketBounds(arrivals=0.001, arrivals_burst=2.0))
    opened: list[asyncio.StreamWriter] = []

    async def is_greeted(source: str) -> bool:
        """Does the node answer a greeting with its own, all of it?"""
        try:
            reader, writer = await asyncio.open_connection(*a.routes.direct, local_addr=(source, 0))
            opened.append(writer)
            writer.write(greeting(as_server=False))
            return len(await reader.readexactly(64)) == 64
        except (OSError, asyncio.IncompleteReadError):
            return False  # it may be cut before it has connected

    async with asyncio.timeout(PATIENCE):
        assert [await is_greeted("127.0.0.2") for _ in range(2)] == [True, True]
        for _ in range(3):
            await is_greeted("127.0.0.2")  # perhaps, as ZeroMQ's thread may be faster than our loop
        await a.counted.until_counted("direct_too_often", 3)
        assert [await is_greeted(source) for source in ("127.0.0.3", *3 * ["127.0.0.1"])] == 4 * [True]
    await still_works(a, b)
    assert a.counted["direct_too_often"] == 3
    for writer in opened:
        writer.close()


async def test_an_address_that_connects_too_often_pushes_out_nobody(nodes: Nodes) -> None:
    """What is cut stands until ZeroMQ has noticed, and takes no place meanwhile."""
    a, b = await nodes.linked(SocketBounds(arrivals=0.001, arrivals_burst=2.0, max_connections=6))
    address = (a.routes.direct.host, a.routes.direct.port)
    with contextlib.ExitStack() as streams:

        def come(source: str) -> socket.socket:
            stream = socket.create_connection(address, source_address=(source, 0))
            return streams.enter_context(stream)

        honest = come("127.0.0.3")
        flood = [come("127.0.0.2") for _ in range(20)]  # all at once for the loop, which does nothing else meanwhile
        await a.counted.until_counted("direct_too_often", len(flood) - 2)
        honest.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(honest, greeting(as_server=False))
        async with asyncio.timeout(PATIENCE):
            assert await loop.sock_recv(honest, 64)
    assert a.counted["direct_full"] == 0
    await still_works(a, b)
