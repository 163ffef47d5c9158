"""What the tests on real sockets share.

The front door and what becomes of messages are tested on both event loops that zmesh supports; the rest of this folder
on asyncio's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.integration.front_door_support import House
from tests.integration.zeromq_support import Nodes

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
ON_BOTH = ("test_front_door", "test_client_handlers", "test_client_messages")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Which loops a coroutine test of this folder runs on."""
    return LOOPS if item.path.name.startswith(ON_BOTH) else {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    """An empty mesh on real sockets."""
    nodes = Nodes()
    try:
        yield nodes
    finally:
        await nodes.stop()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    """Everything but the front door."""
    house = House()
    await house.start()
    try:
        yield house
    finally:
        await house.stop()
