"""What strangers and registered peers may try on the bound sockets, with bare sockets and real keys."""

from __future__ import annotations

import asyncio
import contextlib
import select
from collections.abc import AsyncIterator
from typing import cast

import pytest
import zmq
import zmq.asyncio

from tests.contract.peers import PATIENCE
from tests.integration.zeromq_curve_client import CurveClient
from tests.integration.zeromq_support import Node, Nodes, Wire, own_topic
from zmesh.core.errors import ZmeshError
from zmesh.core.events import FrameReceived
from zmesh.core.types import Endpoint
from zmesh.identity import Identity
from zmesh.transports.admission import Admission
from zmesh.transports.readiness import has_input
from zmesh.transports.sockets import SocketBounds
from zmesh.transports.zeromq import ZeroMqTransport


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    """An empty mesh on real sockets."""
    nodes = Nodes()
    try:
        yield nodes
    finally:
        await nodes.stop()


async def still_works(a: Node, b: Node) -> None:
    """The attack cost the honest nothing."""
    before = len(b.frames(a)), len(a.frames(b))
    assert a.send(b, b"still", b"here", gossip=True)
    assert b.send(a, b"me", b"too")
    assert (await b.until_received(before[0] + 1, a))[-1] == (b"still", b"here")
    assert (await a.until_received(before[1] + 1, b))[-1] == (b"me", b"too")


# ------------------------------------------------------------ strangers


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


# ------------------------------------------------------------ what is not ZMTP, or stops half way


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


@pytest.mark.parametrize("port", ["direct", "gossip"])
@pytest.mark.parametrize(
    "data",
    [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
        bytes(reversed(range(255))) * 20,
        b"\0" * 100_000,
    ],
    ids=["http", "tls", "random", "zeros"],
)
async def test_what_is_not_zmtp_is_cut_and_counted(nodes: Nodes, port: str, data: bytes) -> None:
    a, b = await nodes.linked()
    await told(a.routes.direct if port == "direct" else a.gossip, data)
    await a.counted.until_counted(f"{port}_not_zmtp")
    await still_works(a, b)


@pytest.mark.parametrize("port", ["direct", "gossip"])
@pytest.mark.parametrize("data", [b"", GREETING_SO_FAR], ids=["silent", "half a greeting"])
async def test_a_connection_that_stops_half_way_is_cut_and_counted(nodes: Nodes, port: str, data: bytes) -> None:
    a, b = await nodes.linked(SocketBounds(handshake=0.2))
    await told(a.routes.direct if port == "direct" else a.gossip, data)
    await a.counted.until_counted(f"{port}_handshake_timeout")
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


# ------------------------------------------------------------ a registered peer on the direct port


async def admitted_dealer(nodes: Nodes, node: Node, routing_id: bytes | None = None) -> tuple[Identity, Wire]:
    """A bare DEALER with a registered key, connected to ``node``."""
    attacker = await nodes.attacker(node)
    wire = Wire(nodes.bare(zmq.DEALER, attacker, node))
    if routing_id is not None:
        wire.socket.set(zmq.ROUTING_ID, routing_id)
    assert await wire.connect(node.routes.direct) == zmq.Event.HANDSHAKE_SUCCEEDED
    return attacker, wire


@pytest.mark.parametrize("after_hello", [False, True])
async def test_a_frame_of_3_mib_is_cut_and_counted(nodes: Nodes, after_hello: bool) -> None:
    a, b = await nodes.linked()
    _, wire = await admitted_dealer(nodes, a)
    if after_hello:
        await wire.socket.send_multipart([b"h", b"hello"])
        await a.until_received(1)
    await wire.socket.send_multipart([b"h", bytes(3 << 20)])
    await wire.until_cut()
    await a.counted.until_counted("direct_frame_refused")
    wire.close()
    await still_works(a, b)


async def test_a_message_of_seven_frames_is_cut_and_counted(nodes: Nodes) -> None:
    a, b = await nodes.linked()
    _, wire = await admitted_dealer(nodes, a)
    await wire.socket.send_multipart([b"f"] * 2000)
    await wire.until_cut()
    assert a.counted["too_many_frames"] == 1
    wire.close()
    await still_works(a, b)


@pytest.mark.parametrize("claimed", [b"squatter", b"\0abc", b"\x01abcd", b"\0abcde", b"x" * 255])
async def test_a_claimed_routing_id_is_cut_and_counted(nodes: Nodes, claimed: bytes) -> None:
    a, b = await nodes.linked()
    told_before = len(a.events)
    client = await curve_client(nodes, a, routing_id=claimed)
    client.send(b"h", more=True)
    client.send(b"hello")
    await client.until_cut()
    assert a.counted["routing_id_claimed"] == 1
    assert len(a.events) == told_before
    await client.close()
    await still_works(a, b)


async def test_the_routing_id_of_another_cannot_be_taken(nodes: Nodes) -> None:
    """Even one who knew it, and it is never told: ROUTER keeps the first, and the link stays the key's."""
    a, b = await nodes.linked()
    taken = a.zeromq._inbound._newest[b.key].routing_id
    client = await curve_client(nodes, a, routing_id=taken)
    client.send(b"h", more=True)
    client.send(b"I am b")
    await still_works(a, b)
    assert a.zeromq._inbound._newest[b.key].routing_id == taken
    assert a.frames(b) == [(b"me", b"too")]
    await client.close()


async def test_the_routing_id_of_one_who_left_gives_no_identity(nodes: Nodes) -> None:
    a, b = await nodes.linked()
    left = a.zeromq._inbound._newest[b.key].routing_id
    b.hangup(a)
    await a.until(lambda: not a.opened(b, inbound=True))
    identity = await nodes.attacker(a)
    client = await CurveClient.connect(a.routes.direct, identity, a.identity.curve_public, routing_id=left)
    client.send(b"h", more=True)
    client.send(b"I am b")
    await a.until_received(1)
    assert [event.link for event in a.events if isinstance(event, FrameReceived)] == [identity.public]
    assert not a.send(b, b"for b alone")
    await client.close()


@pytest.mark.parametrize("port", ["direct", "gossip"])
async def test_a_message_that_never_ends_is_cut_before_it_fills_the_memory(nodes: Nodes, port: str) -> None:
    """High-water marks count whole messages; this one has no end."""
    a, b = await nodes.linked()
    client = await curve_client(nodes, a, gossip=port == "gossip")
    frame = bytes(100_000 if port == "direct" else 900)
    sent = 0
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(PATIENCE):
            while sent < 500 << 20:
                client.send(frame, more=True)
                sent += len(frame)
                await client.writer.drain()
                await asyncio.sleep(0)  # the node lives on this loop too, and draining does not always yield
    assert a.counted[f"{port}_endless"] == 1
    assert sent < 500 << 20
    await client.close()
    await still_works(a, b)


async def test_a_small_message_that_never_ends_is_cut_too(nodes: Nodes) -> None:
    a, b = await nodes.linked(SocketBounds(max_frame=1024))
    client = await curve_client(nodes, a)
    for _ in range(20):
        client.send(bytes(900), more=True)
    await client.until_cut()
    assert a.counted["direct_endless"] == 1
    await client.close()
    await still_works(a, b)


@pytest.mark.parametrize("port", ["direct", "gossip"])
async def test_a_frame_that_does_not_decrypt_is_cut(nodes: Nodes, port: str) -> None:
    a, b = await nodes.linked()
    client = await curve_client(nodes, a, gossip=port == "gossip")
    client.send_garbage()
    await client.until_cut()
    await a.counted.until_counted(f"{port}_frame_refused")
    await client.close()
    await still_works(a, b)


@pytest.mark.parametrize("kind", [b"ROUTER", b"PUB", b"SUB", b"PAIR", b"nonsense", b""])
async def test_a_socket_type_that_does_not_fit_changes_nothing(nodes: Nodes, kind: bytes) -> None:
    a, b = await nodes.linked()
    identity = await nodes.attacker(a)
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, AssertionError):
        client = await CurveClient.connect(a.routes.direct, identity, a.identity.curve_public, kind=kind)
        client.send(b"h", more=True)
        client.send(b"hello")
        await client.close()
    await still_works(a, b)


async def test_nobody_takes_over_a_reply_route(nodes: Nodes) -> None:
    """Two peers claim one routing id: replies go to keys, and neither gets the other's."""
    a, b = await nodes.linked()
    _, first = await admitted_dealer(nodes, a, b"same")
    await first.socket.send_multipart([b"h", b"hello"])
    await first.until_cut()
    _, second = await admitted_dealer(nodes, a, b"same")
    await second.socket.send_multipart([b"h", b"hello"])
    await second.until_cut()
    assert a.counted["routing_id_claimed"] == 2
    await still_works(a, b)
    assert not await second.socket.poll(0)
    first.close()
    second.close()


async def test_a_key_has_one_connection_the_newest(nodes: Nodes) -> None:
    a, b = await nodes.linked()
    attacker, first = await admitted_dealer(nodes, a)
    await first.socket.send_multipart([b"h", b"first"])
    await a.until_received(1)
    second = Wire(nodes.bare(zmq.DEALER, attacker, a))
    await second.connect(a.routes.direct)
    await second.socket.send_multipart([b"h", b"second"])
    await a.until_received(2)
    await first.until_cut()
    assert a.counted["superseded"] == 1
    assert a.transport.send(attacker.public, (b"reply",), gossip=False)
    assert await second.socket.recv_multipart() == [b"reply"]
    first.close()
    second.close()
    await still_works(a, b)


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.SUB])
async def test_a_proven_connection_that_says_nothing_is_cut(nodes: Nodes, kind: int) -> None:
    a, b = await nodes.linked(SocketBounds(silence=0.0))
    wire = Wire(nodes.bare(kind, await nodes.attacker(a), a))
    await wire.connect(a.routes.direct if kind == zmq.DEALER else a.gossip)
    await wire.until_cut()
    assert a.counted["direct_silent"] + a.counted["gossip_silent"] == 1
    wire.close()
    await still_works(a, b)


async def test_removal_cuts_every_connection_of_a_key(nodes: Nodes) -> None:
    a, b = await nodes.linked()
    attacker, direct = await admitted_dealer(nodes, a)
    await direct.socket.send_multipart([b"h", b"hello"])
    await a.until_received(1)
    gossip = Wire(nodes.bare(zmq.SUB, attacker, a))
    gossip.socket.set(zmq.SUBSCRIBE, own_topic(attacker))
    await gossip.connect(a.gossip)
    await a.counted.until_counted("gossip_subscribed", 2)
    await direct.socket.send_multipart([b"h", b"more"])
    a.admit(b)
    await direct.until_cut()
    await gossip.until_cut()
    assert a.counted["removed"] == 2
    assert [frames for frames in a.frames() if frames == (b"h", b"more")] == []
    assert not a.transport.send(attacker.public, (b"x",), gossip=True)
    direct.close()
    gossip.close()
    await still_works(a, b)


async def curve_client(nodes: Nodes, node: Node, *, gossip: bool = False, routing_id: bytes = b"") -> CurveClient:
    """A hand-made client with a registered key, connected to ``node``."""
    identity = await nodes.attacker(node)
    return await CurveClient.connect(
        node.gossip if gossip else node.routes.direct,
        identity,
        node.identity.curve_public,
        kind=b"XSUB" if gossip else b"DEALER",
        routing_id=routing_id,
    )


# ------------------------------------------------------------ a registered peer on the gossip port


@pytest.mark.parametrize(
    "topic",
    [
        pytest.param(lambda victim, own: b"", id="everything"),
        pytest.param(lambda victim, own: b"d/", id="all lanes"),
        pytest.param(lambda victim, own: own_topic(victim)[:67], id="all lanes of the victim"),
        pytest.param(lambda victim, own: own_topic(victim), id="a lane of the victim"),
        pytest.param(lambda victim, own: own_topic(own)[:-1], id="a prefix of its own lanes"),
        pytest.param(lambda victim, own: own_topic(own) + b"0", id="too long"),
    ],
)
async def test_nobody_subscribes_to_anothers_lane(nodes: Nodes, topic) -> None:  # type: ignore[no-untyped-def]
    a, b = await nodes.linked()
    attacker = await nodes.attacker(a)
    wire = Wire(nodes.bare(zmq.SUB, attacker, a))
    wire.socket.set(zmq.SUBSCRIBE, topic(b.identity, attacker))
    await wire.connect(a.gossip)
    assert a.send(b, b"for b alone", gossip=True)
    await wire.until_cut()
    assert a.counted["topic_not_owned"] == 1
    await b.until_received(1)
    assert not await wire.socket.poll(0)
    assert not a.transport.send(attacker.public, (b"x",), gossip=True)
    wire.close()
    await still_works(a, b)


async def test_a_second_subscription_of_one_connection_is_cut(nodes: Nodes) -> None:
    a, b = await nodes.linked()
    attacker = await nodes.attacker(a)
    wire = Wire(nodes.bare(zmq.SUB, attacker, a))
    for nonce in ("0" * 32, "1" * 32):
        wire.socket.set(zmq.SUBSCRIBE, own_topic(attacker, nonce))
    await wire.connect(a.gossip)
    await wire.until_cut()
    assert a.counted["topic_twice"] == 1
    wire.close()
    await still_works(a, b)


async def test_a_message_to_the_publisher_is_cut(nodes: Nodes) -> None:
    a, b = await nodes.linked()
    wire = Wire(nodes.bare(zmq.XSUB, await nodes.attacker(a), a))
    await wire.connect(a.gossip)
    await wire.socket.send(b"not a subscription")
    await wire.until_cut()
    assert a.counted["gossip_unasked"] == 1
    wire.close()
    await still_works(a, b)


async def test_a_frame_over_1_kib_to_the_publisher_is_cut(nodes: Nodes) -> None:
    a, b = await nodes.linked()
    wire = Wire(nodes.bare(zmq.XSUB, await nodes.attacker(a), a))
    await wire.connect(a.gossip)
    await wire.socket.send(b"\x01" + bytes(2000))
    await wire.until_cut()
    await a.counted.until_counted("gossip_frame_refused")
    wire.close()
    await still_works(a, b)


async def test_a_subscription_is_not_shifted_to_another_connection(nodes: Nodes) -> None:
    """ZeroMQ miscounts after an ordinary message, and would give the victim's lane to whoever subscribed next.

    The loop is held while the three messages arrive in that order, so that all of them wait at once.
    """
    a = await nodes.node()
    victim, thief, accomplice = (Identity.generate() for _ in range(3))
    a.transport.admit(frozenset({victim.public, thief.public, accomplice.public}))
    wires = [Wire(nodes.bare(zmq.XSUB, identity, a)) for identity in (victim, thief, accomplice)]
    for wire in wires:
        await wire.connect(a.gossip)
    publisher = a.zeromq._publisher.socket

    def arrives(wire: Wire, data: bytes) -> None:
        has_input(publisher)
        zmq.Socket.shadow(wire.socket).send(data)
        assert select.select([cast(int, publisher.get(zmq.FD))], [], [], PATIENCE)[0]
        assert has_input(publisher)

    arrives(wires[2], b"\x07 an ordinary message")
    arrives(wires[0], b"\x01" + own_topic(victim))
    arrives(wires[1], b"\x01" + own_topic(thief))
    a.zeromq._publisher._drain.touch()  # we looked at its socket, so it would not be woken
    async with asyncio.timeout(PATIENCE):
        await wires[2].until_cut()
    assert not a.transport.send(victim.public, (b"secret",), gossip=True)
    for wire in wires[:2]:
        await wire.until_cut()
    assert not await wires[1].socket.poll(0)
    assert a.counted["gossip_unasked"] == 1
    assert a.counted["gossip_out_of_step"] == 2
    again = Wire(nodes.bare(zmq.SUB, victim, a))
    again.socket.set(zmq.SUBSCRIBE, own_topic(victim))
    await again.connect(a.gossip)
    await a.counted.until_counted("gossip_subscribed")
    assert a.transport.send(victim.public, (b"for the victim",), gossip=True)
    assert (await again.socket.recv_multipart())[1:] == [b"for the victim"]
    for wire in (*wires, again):
        wire.close()


async def test_a_subscriber_that_never_reads_refuses_alone(nodes: Nodes) -> None:
    a, b = await nodes.linked()
    attacker = await nodes.attacker(a)
    slow = Wire(nodes.bare(zmq.SUB, attacker, a))
    slow.socket.set(zmq.RCVHWM, 1)
    slow.socket.set(zmq.SUBSCRIBE, own_topic(attacker))
    await slow.connect(a.gossip)
    await a.counted.until_counted("gossip_subscribed", 2)
    filling = bytes(60_000)
    sent = 0
    while a.transport.send(attacker.public, (filling,), gossip=True):
        sent += 1
        assert sent < 10_000, "the lane has no bound"
    assert a.counted["gossip_lane_full"] == 1
    for number in range(200):
        assert not a.transport.send(attacker.public, (filling,), gossip=True)
        assert a.send(b, b"%d" % number, gossip=True)
    assert await b.until_received(200) == [(b"%d" % number,) for number in range(200)]
    assert a.counted["gossip_lane_full"] == 201
    slow.close()
    await still_works(a, b)
