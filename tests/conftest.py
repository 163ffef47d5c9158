"""What holds for every test: nothing fails in silence, and nothing is left behind.

Rules
 1. An exception that only the event loop saw (a task nobody awaited, a callback, a reader) fails the test.
 2. A task, a reader or a thread that outlives its test fails the test that left it.
 3. Objects that complain when they are collected (sockets, contexts, transports) are collected within the
    test that made them: their ResourceWarning is an error there.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import signal
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# The same examples in every run, and a failure says how to replay it; a busy machine is no failure.
settings.register_profile(
    "zmesh", derandomize=True, print_blob=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("zmesh")

# A shell ignores Ctrl-C for what it starts in the background, and a process hands that on to its children. The tests
# that press Ctrl-C mean processes that nobody started so.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A loop's own pool lives as long as the loop; the runner joins it when it closes the loop. Until 0.23, uvloop gave its
# own no name, so the threads have the name that any pool without one gives; zmesh names all of its pools.
POOLS_OF_LOOPS = ("asyncio_", "uvloop_", "ThreadPoolExecutor-")

ENDING_SECONDS = 1.0
"""Most seconds that a thread which was told to end, as a node's verifiers are, has for it: its core may be busy."""


def _describe(context: dict[str, Any]) -> str:
    """One line for what the loop's exception handler was told."""
    exception = context.get("exception")
    told = f"{context.get('message')}: {exception!r}" if exception is not None else str(context.get("message"))
    source = context.get("task") or context.get("future") or context.get("handle")
    return f"{told} ({source!r})" if source is not None else told


def _readers(loop: asyncio.AbstractEventLoop) -> set[int]:
    """File descriptors the loop watches; empty on loops that do not tell (uvloop)."""
    selector = getattr(loop, "_selector", None)
    return set(selector.get_map()) if selector is not None else set()


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.name.startswith(POOLS_OF_LOOPS)}


def pytest_collection_finish() -> None:
    """What imports made stays: a collection after each test then takes a millisecond, not a tenth of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture
async def _quiet_loop() -> AsyncIterator[None]:
    """Fail on anything the loop was told, and on what the test left in it."""
    loop = asyncio.get_running_loop()
    told: list[str] = []
    loop.set_exception_handler(lambda _loop, context: told.append(_describe(context)))
    readers, threads, tasks = _readers(loop), _threads(), asyncio.all_tasks(loop)
    yield
    left = asyncio.all_tasks(loop) - tasks - {asyncio.current_task(loop)}
    told += [f"task left running: {task!r}" for task in left]
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    gc.collect()
    # Callbacks that closing scheduled (connection_lost, call_soon) get one turn before the count.
    await asyncio.sleep(0)
    told += [f"file descriptor {fd} left watched by the loop" for fd in sorted(_readers(loop) - readers)]
    left_over = [thread for thread in _threads() - threads if not thread.daemon]
    for thread in left_over:
        thread.join(ENDING_SECONDS)
    told += [f"thread left running: {thread!r}" for thread in left_over if thread.is_alive()]
    if told:
        pytest.fail("\n".join(told), pytrace=False)


@pytest.fixture(autouse=True)
def nothing_in_silence(request: pytest.FixtureRequest) -> None:
    """Guard every coroutine test with ``_quiet_loop``; a plain test has no loop to be silent in."""
    function = getattr(request, "function", None)
    if function is not None and inspect.iscoroutinefunction(function):
        request.getfixturevalue("_quiet_loop")
