"""The contract suite runs on every transport, and on both event loops that zmesh supports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.contract.peers import MESHES, Mesh


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every coroutine test of this folder runs once on each."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=sorted(MESHES))
async def mesh(request: pytest.FixtureRequest) -> AsyncIterator[Mesh]:
    """An empty mesh of one kind of transport, stopped afterwards; the whole test has 20 seconds."""
    mesh = MESHES[request.param]()
    try:
        yield mesh
    finally:
        await mesh.stop()
