"""Which lane a message takes, seen at a far end that has both."""

from __future__ import annotations

import asyncio

import zmq

from tests.contract.peers import PATIENCE
from tests.integration.zeromq_support import Nodes, Wire, own_topic
from zmesh.transports.packing import pack


async def test_gossip_takes_the_publisher_and_all_else_the_direct_lane() -> None:
    nodes = Nodes()
    try:
        a = await nodes.node()
        identity = await nodes.attacker(a)
        subscriber = Wire(nodes.bare(zmq.SUB, identity, a))
        subscriber.socket.set(zmq.SUBSCRIBE, own_topic(identity))
        await subscriber.connect(a.gossip)
        direct = Wire(nodes.bare(zmq.DEALER, identity, a))
        await direct.connect(a.routes.direct)
        await direct.socket.send(pack((b"h", b"hello")))
        await a.until_received(1)
        await a.counted.until_counted("gossip_subscribed")
        assert a.transport.send(identity.public, (b"to all", b"gossip"), gossip=True)
        assert a.transport.send(identity.public, (b"to one", b"direct"), gossip=False)
        async with asyncio.timeout(PATIENCE):
            assert await subscriber.socket.recv() == own_topic(identity) + pack((b"to all", b"gossip"))
            assert await direct.socket.recv() == pack((b"to one", b"direct"))
        subscriber.close()
        direct.close()
    finally:
        await nodes.stop()
