"""What a registered peer may try on the direct lane, with bare sockets, hand-made ones, and a real key."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial

import pytest
import zmq
import zmq.asyncio

from tests.contract.peers import PATIENCE
from tests.integration.zeromq_by_hand import ByHand
from tests.integration.zeromq_support import Node, Nodes, Wire, curve_client, own_topic, still_works
from zmesh.core.events import FrameReceived, LinkClosed
from zmesh.core.types import Endpoint
from zmesh.identity import Identity
from zmesh.transport import Routes
from zmesh.transports.packing import pack
from zmesh.transports.sockets import SocketBounds


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
        await wire.socket.send(pack((b"h", b"hello")))
        await a.until_received(1)
    await wire.socket.send(pack((b"h", bytes(3 << 20))))
    await wire.until_cut()
    await a.counted.until_counted("direct_frame_refused")
    wire.close()
    await still_works(a, b)


async def test_a_message_of_more_than_one_frame_is_cut_and_counted(nodes: Nodes) -> None:
    a, b = await nodes.linked()
    _, wire = await admitted_dealer(nodes, a)
    await wire.socket.send_multipart([b"f"] * 2000)
    await wire.until_cut()
    assert a.counted["too_many_frames"] == 1
    wire.close()
    await still_works(a, b)


async def test_bytes_that_no_peer_packs_are_a_message_without_frames(nodes: Nodes) -> None:
    """Which the engine calls malformed, and blames on the link."""
    a, b = await nodes.linked()
    attacker, wire = await admitted_dealer(nodes, a)
    await wire.socket.send(b"GET / HTTP/1.1")
    await a.until_received(1)
    assert a.events[-1] == FrameReceived(attacker.public, ())
    wire.close()
    await still_works(a, b)


@pytest.mark.parametrize("claimed", [b"squatter", b"\0abc", b"\x01abcd", b"\0abcde", b"x" * 255])
async def test_a_claimed_routing_id_is_cut_and_counted(nodes: Nodes, claimed: bytes) -> None:
    a, b = await nodes.linked()
    told_before = len(a.events)
    client = await curve_client(nodes, a, routing_id=claimed)
    client.send(pack((b"h", b"hello")))
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
    client.send(pack((b"h", b"I am b")))
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
    client = await ByHand.connect(a.routes.direct, identity, a.identity.curve_public, routing_id=left)
    client.send(pack((b"h", b"I am b")))
    await a.until_received(1)
    assert [event.link for event in a.events if isinstance(event, FrameReceived)] == [identity.public]
    assert not a.send(b, b"for b alone")
    await client.close()


@pytest.mark.parametrize("port", ["direct", "gossip"])
async def test_a_message_that_never_ends_is_cut_before_it_fills_the_memory(nodes: Nodes, port: str) -> None:
    """High-water marks count whole messages; this one has no end."""
    a, b = await nodes.linked()
    client = await curve_client(nodes, a, gossip=port == "gossip")
    limit = 500 << 20
    async with asyncio.timeout(PATIENCE):
        assert await client.send_without_end(bytes(100_000 if port == "direct" else 900), limit) < limit
    assert a.counted[f"{port}_endless"] == 1
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


@pytest.mark.parametrize("kind", ["direct", "gossip"])
async def test_a_neighbour_we_dialled_cannot_fill_the_memory_either(nodes: Nodes, kind: str) -> None:
    """Its DEALER or its SUB gets a message that never ends."""
    a, b = await nodes.linked()
    evil = Identity.generate()
    a.transport.admit(frozenset({b.key, evil.public}))
    limit = 500 << 20
    sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: str) -> None:
        server = ByHand(reader, writer)
        await server.greet_client(evil, kind=b"ROUTER" if port == "direct" else b"XPUB")
        if port == kind:
            sent.set_result(await server.send_without_end(bytes(100_000), limit))
        await server.until_cut()
        await server.close()

    servers = [await asyncio.start_server(partial(serve, port=port), "127.0.0.1", 0) for port in ("direct", "gossip")]
    direct, gossip = (Endpoint("127.0.0.1", server.sockets[0].getsockname()[1]) for server in servers)
    a.transport.dial(evil.public, Routes(direct, gossip))
    async with asyncio.timeout(PATIENCE):
        assert await sent < limit
    await a.counted.until_counted("dialled_endless")
    if kind == "direct":
        await a.until(lambda: LinkClosed(evil.public, "sent a message without end") in a.events)
    for _ in range(3):  # the ticks until it is tried again
        a.zeromq._dials[evil.public].look()
    assert (a.counted["dialled_endless"], a.counted["feed_lost"]) == (1, int(kind == "gossip"))
    a.transport.hangup(evil.public)
    await still_works(a, b)
    for each in servers:
        each.close()


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
        client = await ByHand.connect(a.routes.direct, identity, a.identity.curve_public, kind=kind)
        client.send(pack((b"h", b"hello")))
        await client.close()
    await still_works(a, b)


async def test_nobody_takes_over_a_reply_route(nodes: Nodes) -> None:
    """Two peers claim one routing id: replies go to keys, and neither gets the other's."""
    a, b = await nodes.linked()
    _, first = await admitted_dealer(nodes, a, b"same")
    await first.socket.send(pack((b"h", b"hello")))
    await first.until_cut()
    _, second = await admitted_dealer(nodes, a, b"same")
    await second.socket.send(pack((b"h", b"hello")))
    await second.until_cut()
    assert a.counted["routing_id_claimed"] == 2
    await still_works(a, b)
    assert not await second.socket.poll(0)
    first.close()
    second.close()


async def test_a_key_has_one_connection_the_newest(nodes: Nodes) -> None:
    a, b = await nodes.linked()
    attacker, first = await admitted_dealer(nodes, a)
    await first.socket.send(pack((b"h", b"first")))
    await a.until_received(1)
    second = Wire(nodes.bare(zmq.DEALER, attacker, a))
    await second.connect(a.routes.direct)
    await second.socket.send(pack((b"h", b"second")))
    await a.until_received(2)
    await first.until_cut()
    assert a.counted["superseded"] == 1
    assert a.transport.send(attacker.public, (b"reply",), gossip=False)
    assert await second.socket.recv() == pack((b"reply",))
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
    await direct.socket.send(pack((b"h", b"hello")))
    await a.until_received(1)
    gossip = Wire(nodes.bare(zmq.SUB, attacker, a))
    gossip.socket.set(zmq.SUBSCRIBE, own_topic(attacker))
    await gossip.connect(a.gossip)
    await a.counted.until_counted("gossip_subscribed", 2)
    await direct.socket.send(pack((b"h", b"more")))
    a.admit(b)
    await direct.until_cut()
    await gossip.until_cut()
    assert a.counted["removed"] == 2
    assert [frames for frames in a.frames() if frames == (b"h", b"more")] == []
    assert not a.transport.send(attacker.public, (b"x",), gossip=True)
    direct.close()
    gossip.close()
    await still_works(a, b)
