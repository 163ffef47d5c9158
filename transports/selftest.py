"""Proof, before any peer is let in, that the bound sockets refuse a key that was never admitted.

Why: a CURVE server without a working ZAP handler silently admits everyone. That must end the start, not the mesh.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import nacl.public
import zmq

from zmesh.core.errors import ZmeshError
from zmesh.core.types import Endpoint
from zmesh.transport import Routes
from zmesh.transports.connections import EVENT
from zmesh.transports.readiness import NOBLOCK, Drain, bare_receive
from zmesh.transports.sockets import Sockets, address_of, reachable

PATIENCE = 2.0
"""Seconds allowed for a handshake with ourselves, which takes 5 ms."""
COUNTED = {
    "zap_stranger": 2,
    "direct_accepted": 1,
    "direct_refused_key": 1,
    "gossip_accepted": 1,
    "gossip_refused_key": 1,
}
"""What the two refused strangers add to the counters."""


async def refuses_strangers(sockets: Sockets, image: bytes, routes: Routes, counters: Counter[str]) -> None:
    """Dial both bound sockets with a random key. ``image`` is our X25519 key.

    Raises ``ZmeshError`` unless both refuse it.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            told = [await _knock(sockets, zmq.DEALER, image, routes.direct, counters)]
            if routes.gossip is not None:
                told.append(await _knock(sockets, zmq.SUB, image, routes.gossip, counters))
    except TimeoutError:
        raise ZmeshError(
            f"the self-test of {routes.direct} got no answer within {PATIENCE:g} s: this host must be able"
            " to reach itself at that address"
        ) from None
    if any(event != zmq.Event.HANDSHAKE_FAILED_AUTH for event in told):
        raise ZmeshError(f"the self-test failed: a stranger's key was not refused at {routes.direct}")


def forget_strangers(counters: Counter[str]) -> None:
    """Take back what the self-test added to the counters of its own sockets."""
    for name, count in COUNTED.items():
        counters[name] -= count
        if not counters[name]:
            del counters[name]


async def _knock(sockets: Sockets, kind: int, image: bytes, endpoint: Endpoint, counters: Counter[str]) -> int:
    """The monitor event that ends a dial with a random key."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[int] = loop.create_future()
    target = reachable(endpoint)
    host = target.host
    socket = sockets.dealer(host) if kind == zmq.DEALER else sockets.subscriber(host)
    stranger = nacl.public.PrivateKey.generate()
    socket.set(zmq.CURVE_PUBLICKEY, bytes(stranger.public_key))
    socket.set(zmq.CURVE_SECRETKEY, bytes(stranger))
    monitor = sockets.monitored(socket)
    receive = bare_receive(monitor)

    def read() -> None:
        event, _ = EVENT.unpack(receive(NOBLOCK))
        receive(NOBLOCK)
        if event != zmq.Event.CONNECTED and not told.done():
            told.set_result(event)

    drain = Drain(monitor, read, lambda: None, counters)
    try:
        sockets.as_client(socket, image).connect(address_of(target))
        return await told
    finally:
        drain.close()
        socket.disable_monitor()
        monitor.close(0)
        socket.close(0)
