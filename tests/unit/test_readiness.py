"""How much of a socket is read before others have their turn, and when what it brought is handed on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
import zmq

from zmesh.transport import MAX_BATCH
from zmesh.transports.readiness import NOBLOCK, Drain, ZmqSocket

ADDRESS = "inproc://readiness"


@pytest.fixture
def near() -> Iterator[ZmqSocket]:
    """A socket with a hundred messages to read."""
    context: zmq.Context[ZmqSocket] = zmq.Context()
    near, far = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    near.bind(ADDRESS)
    far.connect(ADDRESS)
    for _ in range(100):
        far.send(b"")
    yield near
    for socket in (near, far):
        socket.close(0)
    context.term()


@pytest.mark.parametrize("held, frames", [(None, MAX_BATCH), (1, MAX_BATCH), (16, 2), (15, 3)])
async def test_a_turn_ends_with_the_frame_that_makes_a_batch_of_messages(
    near: ZmqSocket, held: int | None, frames: int
) -> None:
    """The first of them is handed on before anything else is asked of the socket."""
    handed_on = [0]
    done = asyncio.Event()

    def receive() -> int | None:
        near.recv(NOBLOCK)
        handed_on[-1] += 1
        if sum(handed_on) == 100:
            done.set()
        return held

    drain = Drain(near, receive, lambda: handed_on.append(0), Counter())
    async with asyncio.timeout(5):
        await done.wait()
    drain.close()

    assert handed_on[:4] == [1, frames - 1, 1, frames - 1]
    assert max(handed_on) == frames - 1
