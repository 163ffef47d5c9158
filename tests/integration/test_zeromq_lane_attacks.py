"""What a registered peer may try on the publisher, with bare sockets and a real key."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import cast

import pytest
import zmq
import zmq.asyncio

from tests.contract.peers import PATIENCE
from tests.integration.zeromq_support import Nodes, Wire, own_topic, still_works
from zmesh.identity import Identity
from zmesh.transports.packing import pack
from zmesh.transports.readiness import has_input


@pytest.mark.parametrize(
    "topic",
    [
        pytest.param(lambda victim: b"", id="everything"),
        pytest.param(lambda victim: victim[:1], id="lanes that begin like the victim's"),
        pytest.param(lambda victim: victim[:-1], id="almost the victim's"),
        pytest.param(lambda victim: victim + b"0", id="more than the victim's"),
        pytest.param(lambda victim: victim, id="the victim's"),
    ],
)
async def test_nobody_subscribes_to_anothers_lane(nodes: Nodes, topic: Callable[[bytes], bytes]) -> None:
    """Not even one who knew the victim's topic, which is drawn at random and told to nobody but the publisher."""
    a, b = await nodes.linked()
    victim = a.zeromq._publisher._lanes[b.key].topic
    attacker = await nodes.attacker(a)
    wire = Wire(nodes.bare(zmq.SUB, attacker, a))
    wire.socket.set(zmq.SUBSCRIBE, topic(victim))
    await wire.connect(a.gossip)
    assert a.send(b, b"for b alone", gossip=True)
    await wire.until_cut()
    assert a.counted["topic_taken" if topic(victim) == victim else "topic_malformed"] == 1
    await b.until_received(1)
    assert not await wire.socket.poll(0)
    assert not a.transport.send(attacker.public, (b"x",), gossip=True)
    wire.close()
    await still_works(a, b)


async def test_a_second_subscription_of_one_connection_is_cut(nodes: Nodes) -> None:
    a, b = await nodes.linked()
    attacker = await nodes.attacker(a)
    wire = Wire(nodes.bare(zmq.SUB, attacker, a))
    for number in (0, 1):
        wire.socket.set(zmq.SUBSCRIBE, own_topic(attacker, number))
    await wire.connect(a.gossip)
    await wire.until_cut()
    assert a.counted["topic_twice"] == 1
    wire.close()
    await still_works(a, b)


@pytest.mark.parametrize(
    "sent, counted",
    [(b"not a subscription", "gossip_unasked"), (b"\x01" + bytes(2000), "gossip_frame_refused")],
    ids=["an ordinary message", "a frame over 1 KiB"],
)
async def test_what_is_no_subscription_is_cut(nodes: Nodes, sent: bytes, counted: str) -> None:
    a, b = await nodes.linked()
    wire = Wire(nodes.bare(zmq.XSUB, await nodes.attacker(a), a))
    await wire.connect(a.gossip)
    await wire.socket.send(sent)
    await wire.until_cut()
    await a.counted.until_counted(counted)
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
    assert await again.socket.recv() == own_topic(victim) + pack((b"for the victim",))
    for wire in (*wires, again):
        wire.close()


async def test_a_subscriber_that_never_reads_refuses_alone(nodes: Nodes) -> None:
    """Another gets each message while the slow one is stuffed, and before the next is sent: nothing of it waits."""
    a, b = await nodes.linked()
    attacker = await nodes.attacker(a)
    slow = Wire(nodes.bare(zmq.SUB, attacker, a))
    slow.socket.set(zmq.RCVHWM, 1)
    slow.socket.set(zmq.SUBSCRIBE, own_topic(attacker))
    await slow.connect(a.gossip)
    await a.counted.until_counted("gossip_subscribed", 2)
    filling = bytes(60_000)
    taken = 0

    def stuff() -> None:
        """Until it is refused; the kernel may have made room for some more."""
        nonlocal taken
        while a.transport.send(attacker.public, (filling,), gossip=True):
            taken += 1
            assert taken < 10_000, "the lane has no bound"

    stuff()
    async with asyncio.timeout(PATIENCE):  # for all of them: 50 ms each
        for number in range(200):
            assert a.send(b, b"%d" % number, gossip=True)
            assert (await b.until_received(number + 1))[number:] == [(b"%d" % number,)]
            stuff()
    assert a.counted["gossip_lane_full"] == 201
    # It was slow and not broken: all that was taken for it is still there.
    async with asyncio.timeout(PATIENCE):
        for _ in range(taken):
            assert await slow.socket.recv() == own_topic(attacker) + pack((filling,))
    slow.close()
    await still_works(a, b)
