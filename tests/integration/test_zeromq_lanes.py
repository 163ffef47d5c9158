"""Which lane a message takes, and with which others, seen at a far end that has both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import zmq

from tests.contract.peers import PATIENCE, SETTLED
from tests.integration.zeromq_support import Node, Nodes, Wire, own_topic
from zmesh.core.types import Frames
from zmesh.identity import Identity
from zmesh.transports import publisher
from zmesh.transports.packing import MAX_BUNDLE, pack, unpack
from zmesh.transports.publisher import BUNDLE_BYTES, TOPIC
from zmesh.transports.sockets import NEVER


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    mesh = Nodes()
    yield mesh
    await mesh.stop()


async def subscribed(nodes: Nodes, a: Node) -> tuple[Identity, Wire]:
    """A bare subscriber of ``a``."""
    identity = await nodes.attacker(a)
    subscriber = Wire(nodes.bare(zmq.SUB, identity, a))
    subscriber.socket.set(zmq.RCVHWM, 1)
    subscriber.socket.set(zmq.RECONNECT_IVL, NEVER)  # switched off, it loses what came just before the end
    subscriber.socket.set(zmq.SUBSCRIBE, own_topic(identity))
    await subscriber.connect(a.gossip)
    await a.counted.until_counted("gossip_subscribed")
    return identity, subscriber


async def received(subscriber: Wire, count: int) -> list[list[Frames]]:
    """What each frame of ZMTP brought, until ``count`` messages came."""
    brought: list[list[Frames]] = []
    async with asyncio.timeout(PATIENCE):
        while sum(map(len, brought)) < count:
            brought.append(unpack(await subscriber.socket.recv(), TOPIC))
    return brought


async def test_gossip_takes_the_publisher_and_all_else_the_direct_lane(nodes: Nodes) -> None:
    a = await nodes.node()
    identity, subscriber = await subscribed(nodes, a)
    direct = Wire(nodes.bare(zmq.DEALER, identity, a))
    await direct.connect(a.routes.direct)
    await direct.socket.send(pack((b"h", b"hello")))
    await a.until_received(1)
    assert a.transport.send(identity.public, (b"to all", b"gossip"), gossip=True)
    assert a.transport.send(identity.public, (b"to one", b"direct"), gossip=False)
    async with asyncio.timeout(PATIENCE):
        assert await subscriber.socket.recv() == own_topic(identity) + pack((b"to all", b"gossip"))
        assert await direct.socket.recv() == pack((b"to one", b"direct"))
    subscriber.close()
    direct.close()


async def test_a_full_gossip_lane_refuses_and_leaves_the_direct_lane_to_all_else(nodes: Nodes) -> None:
    """It does not spill over: a flood of gossip must not hold up an ACK. The refused are counted, and nothing else."""
    a = await nodes.node()
    identity, slow = await subscribed(nodes, a)
    direct = Wire(nodes.bare(zmq.DEALER, identity, a))
    await direct.connect(a.routes.direct)
    await direct.socket.send(pack((b"h", b"hello")))
    await a.until_received(1)
    while a.transport.send(identity.public, (bytes(60_000),), gossip=True):
        pass
    for number in range(9):
        assert not a.transport.send(identity.public, (b"gossip", b"%d" % number), gossip=True)
        assert a.transport.send(identity.public, (b"ack", b"%d" % number), gossip=False)
    async with asyncio.timeout(PATIENCE):
        answers = [await direct.socket.recv() for _ in range(9)]
    for wire in (slow, direct):
        wire.close()

    assert answers == [pack((b"ack", b"%d" % number)) for number in range(9)]
    assert (a.counted["gossip_lane_full"], a.counted["direct_lane_full"]) == (10, 0)


async def test_what_follows_a_message_within_one_turn_travels_with_it_in_bundles(nodes: Nodes) -> None:
    a = await nodes.node()
    identity, subscriber = await subscribed(nodes, a)
    messages = [(b"h", b"%d" % number) for number in range(40)]
    assert all(a.transport.send(identity.public, frames, gossip=True) for frames in messages)
    brought = await received(subscriber, 40)
    subscriber.close()

    assert [len(some) for some in brought] == [1, MAX_BUNDLE, MAX_BUNDLE, 7]
    assert [frames for some in brought for frames in some] == messages


async def test_every_turn_begins_with_a_message_that_does_not_wait(nodes: Nodes) -> None:
    a = await nodes.node()
    identity, subscriber = await subscribed(nodes, a)
    for number in range(3):
        assert a.transport.send(identity.public, (b"%d" % number,), gossip=True)
        assert await received(subscriber, 1) == [[(b"%d" % number,)]]
    subscriber.close()


async def test_a_bundle_has_a_bound_in_bytes(nodes: Nodes) -> None:
    a = await nodes.node()
    identity, subscriber = await subscribed(nodes, a)
    sizes = [1, BUNDLE_BYTES // 2, BUNDLE_BYTES // 3, BUNDLE_BYTES // 3, 3 * BUNDLE_BYTES, 1, 1]
    for size in sizes:
        assert a.transport.send(identity.public, (bytes(size),), gossip=True)
    brought = await received(subscriber, len(sizes))
    subscriber.close()

    held = [sizes[:1], sizes[1:3], sizes[3:4], sizes[4:5], sizes[5:]]
    assert [[len(frame) for (frame,) in some] for some in brought] == held


async def test_what_was_taken_for_a_full_queue_leaves_when_it_has_room(nodes: Nodes) -> None:
    """Held messages are in nobody's queue yet: they are neither forgotten, nor more than one bundle."""
    a = await nodes.node()
    identity, subscriber = await subscribed(nodes, a)
    filling, taken = bytes(60_000), 0
    while a.transport.send(identity.public, (b"%d" % taken, filling), gossip=True):
        taken += 1
    for _ in range(SETTLED):  # the turn ends, and finds the queue full
        await asyncio.sleep(0)
    assert not a.transport.send(identity.public, (b"%d" % taken, filling), gossip=True)
    brought = await received(subscriber, taken)
    assert [frames[0] for some in brought for frames in some] == [b"%d" % number for number in range(taken)]
    assert a.transport.send(identity.public, (b"the next",), gossip=True)
    assert await received(subscriber, 1) == [[(b"the next",)]]
    subscriber.close()


async def test_what_is_held_for_a_connection_that_ends_is_counted(nodes: Nodes) -> None:
    a = await nodes.node()
    identity, subscriber = await subscribed(nodes, a)
    for _ in range(5):
        assert a.transport.send(identity.public, (b"h",), gossip=True)
    a.transport.hangup(identity.public)
    subscriber.close()

    assert a.counted["gossip_unsent"] == 4


async def test_what_is_held_for_a_connection_that_a_newer_one_replaces_is_counted(nodes: Nodes) -> None:
    a = await nodes.node()
    identity, slow = await subscribed(nodes, a)
    while a.transport.send(identity.public, (bytes(60_000),), gossip=True):
        pass
    newer = Wire(nodes.bare(zmq.SUB, identity, a))
    newer.socket.set(zmq.SUBSCRIBE, own_topic(identity, 1))
    await newer.connect(a.gossip)
    await a.counted.until_counted("gossip_subscribed", 2)
    for wire in (slow, newer):
        wire.close()

    assert a.counted["gossip_unsent"] == 1


async def test_stopping_sends_what_is_held(nodes: Nodes) -> None:
    a = await nodes.node()
    identity, subscriber = await subscribed(nodes, a)
    for number in range(5):
        assert a.transport.send(identity.public, (b"%d" % number,), gossip=True)
    stopping = asyncio.ensure_future(a.transport.stop(PATIENCE))
    brought = await received(subscriber, 5)
    await stopping
    subscriber.close()

    assert [frames for some in brought for frames in some] == [(b"%d" % number,) for number in range(5)]
    assert a.counted["gossip_unsent"] == 0


async def test_stopping_sends_what_found_the_queue_full_and_would_by_now_have_room(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "RETRY", PATIENCE)
    a = await nodes.node()
    identity, subscriber = await subscribed(nodes, a)
    taken = 0
    while a.transport.send(identity.public, (bytes(60_000),), gossip=True):
        taken += 1
    for _ in range(SETTLED):
        await asyncio.sleep(0)
    assert a.zeromq._publisher._stuck
    brought = await received(subscriber, taken - 1)
    stopping = asyncio.ensure_future(a.transport.stop(PATIENCE))
    brought += await received(subscriber, 1)
    await stopping
    subscriber.close()

    assert brought == [[(bytes(60_000),)]] * taken
    assert a.counted["gossip_unsent"] == 0


async def test_stopping_counts_what_is_held_for_a_full_queue(nodes: Nodes) -> None:
    a = await nodes.node()
    identity, subscriber = await subscribed(nodes, a)
    while a.transport.send(identity.public, (bytes(60_000),), gossip=True):
        pass
    await a.transport.stop(0.1)
    subscriber.close()

    assert a.counted["gossip_unsent"] == 1
