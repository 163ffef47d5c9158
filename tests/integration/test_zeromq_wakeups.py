"""ZeroMQ's descriptors tell of news once: whoever looks at a socket out of turn must look again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.contract.peers import Mesh, ZeroMqMesh
from zmesh.core.events import LinkClosed, LinkOpened
from zmesh.transports.zeromq import ZeroMqTransport


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    made = ZeroMqMesh()
    yield made
    await made.stop()


async def test_the_end_of_a_connection_is_told_however_its_beginning_was_noticed(mesh: Mesh) -> None:
    """The event of the handshake may be read on behalf of the first message, out of the monitor's own turn."""
    a, b = await mesh.peer(), await mesh.peer()
    a.admit(b)
    b.admit(a)
    a.dial(b)
    assert isinstance(a.transport, ZeroMqTransport)
    dealer = a.transport._dials[b.key]._dealer
    assert dealer is not None
    loop, watch = asyncio.get_running_loop(), dealer._watch

    def read_on_behalf_of_the_dealer() -> None:
        dealer.drain.run()
        if dealer.up:
            loop.add_reader(watch._fd, watch.run)

    loop.add_reader(watch._fd, read_on_behalf_of_the_dealer)
    await a.until(lambda: a.opened(b, inbound=False))
    assert a.send(b, b"hello")
    await b.until_received(1, a)
    b.hangup(a)
    changes = await a.until_told(2)
    assert changes == [LinkOpened(b.key), LinkClosed(b.key, "connection lost")]
