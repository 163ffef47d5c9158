"""The order in which a socket is read, and what it brought is handed on."""

from __future__ import annotations

import asyncio
from collections import Counter

import zmq

from zmesh.transports.readiness import NOBLOCK, Drain, ZmqSocket

ADDRESS = "inproc://readiness"


async def test_the_first_message_of_a_turn_is_handed_on_before_the_next_one_is_read() -> None:
    context: zmq.Context[ZmqSocket] = zmq.Context()
    near, far = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    near.bind(ADDRESS)
    far.connect(ADDRESS)
    for word in (b"one", b"two", b"three"):
        far.send(word)
    steps: list[bytes] = []
    done = asyncio.Event()

    def after() -> None:
        steps.append(b"handed on")
        if steps.count(b"handed on") == 2:
            done.set()

    drain = Drain(near, lambda: steps.append(near.recv(NOBLOCK)), after, Counter())
    async with asyncio.timeout(5):
        await done.wait()
    drain.close()
    for socket in (near, far):
        socket.close(0)
    context.term()

    assert steps[:5] == [b"one", b"handed on", b"two", b"three", b"handed on"]
