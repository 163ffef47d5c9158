"""The front door is tested on both event loops that zmesh supports; the rest of this folder on asyncio's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Which loops a coroutine test of this folder runs on."""
    return LOOPS if item.path.name == "test_front_door.py" else {"asyncio": asyncio.new_event_loop}
