"""Blocking work in a thread of its own.

Rules
 1. The threads of the event loop's own pool are the application's, too, and may all wait for what the node does. What
    must go on even then comes here.
 2. The thread is a daemon: work that hangs keeps no process from ending, so it must survive being cut off anywhere.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


def aside(work: Callable[[], T], name: str) -> asyncio.Future[T]:
    """Start it; the future has its outcome. Cancelling that does not stop the work. Raises ``RuntimeError`` if there
    can be no more threads."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(set_it: Callable[[Any], None], outcome: object) -> None:
        if not answer.done():
            set_it(outcome)

    def run() -> None:
        set_it: Callable[[Any], None] = answer.set_result
        outcome: object
        try:
            outcome = work()
        except BaseException as error:  # noqa: BLE001 - raised where the future is awaited
            set_it, outcome = answer.set_exception, error
        with suppress(RuntimeError):  # the loop was closed before the work was done
            loop.call_soon_threadsafe(tell, set_it, outcome)

    threading.Thread(target=run, name=name, daemon=True).start()
    return answer
