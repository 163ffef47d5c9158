"""What every registry promises a client that starts it, stops it, and starts it again."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support import client
from tests.unit.test_registry import entry, toml
from tests.unit.test_registry_chain import PATIENCE, QUICK, Watched, same, says, snapshot
from zmesh.registry.port import Registry, ValidatorSet
from zmesh.registry.static import StaticRegistry
from zmesh.testing import Validators

LIVES = 2
READERS = 3
"""That ask at once: one of them has to wait for another."""


@pytest.fixture(params=["file", "chain", "memory"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Registry]:
    """One of each kind, which names two members in each life."""
    if request.param == "file":
        path = tmp_path / "validators.toml"
        path.write_bytes(toml(entry(0), entry(1)))
        yield StaticRegistry(path)
        return
    if request.param == "memory":
        validators = Validators()
        validators.add(client("a"), client("b"))
        yield validators.registry()
        return
    with socket.create_server(("127.0.0.1", 0)) as rpc:  # that it takes connections is enough
        url = f"ws://127.0.0.1:{rpc.getsockname()[1]}"
        # The first question is that of the start itself.
        plans = [
            [says(snapshot(1, 2, block=2 * life + 1)), *[["hear"]] * (1 + READERS), same(2 * life + 2, asked=READERS)]
            for life in range(LIVES)
        ]
        watched = Watched(tmp_path, *plans, urls=[url], patience=replace(QUICK, first=PATIENCE, read=PATIENCE))
        yield watched.registry


async def life(registry: Registry) -> tuple[list[int], list[int]]:
    """Start, ask from several sides at once, and stop: how large were the sets handed over, and those read?"""
    told: list[ValidatorSet] = []
    async with asyncio.timeout(PATIENCE):
        await registry.start(told.append)
        within = [len(found) for found in told]
        try:
            return within, [len(found) for found in await asyncio.gather(*(registry.read() for _ in range(READERS)))]
        finally:
            await registry.stop()
            assert [len(found) for found in told] == within, "nothing has changed since"


async def test_each_start_hands_over_the_set_that_there_is(registry: Registry) -> None:
    for _ in range(LIVES):
        assert await life(registry) == ([2], [2] * READERS)
        assert registry.status().problem is None


def test_a_life_may_have_an_event_loop_of_its_own(registry: Registry) -> None:
    for _ in range(LIVES):
        assert asyncio.run(life(registry)) == ([2], [2] * READERS)


async def test_stopping_is_safe_before_the_start_and_twice(registry: Registry) -> None:
    await registry.stop()
    assert await life(registry) == ([2], [2] * READERS)
    await registry.stop()
