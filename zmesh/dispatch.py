"""Hands messages to the application's handlers, so that one that raises, blocks or hangs hurts nobody else.

Rules
 1. ``offer`` is synchronous and says whether the message was queued: that answer is what an ACK stands for.
 2. Each handler has its own queue and its own workers: a handler that hangs fills its own queue and no other.
 3. A coroutine handler that has to wait may do so for ``timeout`` seconds, then it is cancelled. A plain callable runs
    on the event loop, as any callback does; one that blocks it is measured and named in the log.
 4. What a handler raises is logged with the message's id and counted. It is never the sender's fault.
 5. Under light load messages reach a handler in their order of arrival; beyond that, up to ``concurrency`` run at once.
"""

from __future__ import annotations

import asyncio
import inspect
import time
import types
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from typing import Any

from zmesh.core.types import MessageType
from zmesh.log import get_logger
from zmesh.messages import MeshMessage

Callback = Callable[[MeshMessage], Awaitable[None] | None]

BLOCKING_SECONDS = 0.1
"""A plain callable that takes longer holds up heartbeats and verification: worth a warning."""

CALLS_AT_ONCE = 32
"""Calls of plain callables in a row before the rest of the event loop has its turn."""

_log = get_logger(__name__)


class _Lane:
    """One handler, its queue and its workers.

    A worker takes messages as long as there are any, so one serves a burst. Only when it has to wait within a call does
    another one take over the queue.
    """

    def __init__(self, dispatcher: Dispatcher, kind: MessageType, callback: Callback) -> None:
        self.callback = callback
        self.kind = kind
        self.queue: deque[MeshMessage] = deque()
        self._dispatcher = dispatcher
        self._workers: set[asyncio.Task[None]] = set()
        self._name = f"zmesh handler of {kind.value}"
        self._free = 0
        """Workers that will look at the queue again without waiting for a call."""

    @property
    def is_full(self) -> bool:
        """Would one more be too many?"""
        return len(self.queue) >= self._dispatcher.limit

    def put(self, message: MeshMessage) -> None:
        """Queue a message, and see to it that somebody works on it."""
        self.queue.append(message)
        if not self._free:
            self._engage()

    def _engage(self) -> None:
        if len(self._workers) < self._dispatcher.concurrency:
            self._free += 1
            worker = asyncio.get_running_loop().create_task(self._work(), name=self._name)
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        calls = 0
        try:
            while self.queue:
                await self._dispatcher.call(self, self.queue.popleft())
                calls += 1
                if calls % CALLS_AT_ONCE == 0:
                    await asyncio.sleep(0)
        finally:
            self._free -= 1
            # Now, not when its end is told: a message that comes in between needs a new one, however few may be.
            if (worker := asyncio.current_task()) is not None:
                self._workers.discard(worker)

    async def wait_for(self, outcome: Awaitable[None]) -> None:
        """Await what a call gave back; if it has to wait, others work on the queue and the clock runs."""
        steps = outcome.__await__()
        try:
            waiting = next(steps)  # most never come to a first pause: a timer for each would cost as much as they do
        except StopIteration:
            return
        self._free -= 1
        if self.queue and not self._free:
            self._engage()
        try:
            async with asyncio.timeout(self._dispatcher.timeout):
                await _go_on(steps, waiting)
        finally:
            self._free += 1

    @property
    def workers(self) -> list[asyncio.Task[None]]:
        """The calls under way; they end when the queue is empty."""
        return list(self._workers)


@types.coroutine
def _go_on(steps: Generator[Any, Any, None], waiting: Any) -> Generator[Any, Any, None]:
    """The rest of an awaitable that was begun by hand and pauses for ``waiting``."""
    while True:
        try:
            try:
                yield waiting
            except BaseException as error:  # noqa: BLE001  # a cancellation: for whoever waits to see
                waiting = steps.throw(error)
            else:
                waiting = next(steps)
        except StopIteration:
            return


class Dispatcher:
    """All handlers and all open ``receive_messages`` iterators of one client.

    ``limit``: messages that wait per handler. ``concurrency``: calls of one handler at once. ``timeout``: seconds for
    one call.
    """

    def __init__(self, limit: int, concurrency: int, timeout: float) -> None:
        self.limit = limit
        self.concurrency = concurrency
        self.timeout = timeout
        self.counters: Counter[str] = Counter()
        self._lanes: dict[MessageType, list[_Lane]] = {}
        self._readers: set[asyncio.Queue[MeshMessage | None]] = set()
        self._closed = False

    @property
    def handlers(self) -> Mapping[MessageType, Sequence[Callback]]:
        """The registered handlers by type, in the order of registration."""
        return {kind: tuple(lane.callback for lane in lanes) for kind, lanes in self._lanes.items()}

    def register(self, kind: MessageType, callback: Callback) -> None:
        """Call ``callback`` for every message of this type from now on."""
        self._lanes.setdefault(kind, []).append(_Lane(self, kind, callback))

    def qsize(self) -> int:
        """Messages that wait for a handler or an iterator, the longest queue of all."""
        waiting = [len(lane.queue) for lanes in self._lanes.values() for lane in lanes]
        return max([*waiting, *(reader.qsize() for reader in self._readers)], default=0)

    def offer(self, message: MeshMessage) -> bool:
        """Queue a message for every handler and iterator of its type that has room.

        False only if somebody wants it and nobody had room: then its sender is told busy and sends it again. A
        listener whose queue is full misses it, which is counted, so that one that hangs hurts nobody else.
        """
        if self._closed:
            self.counters["refused_closed"] += 1
            return False
        wanted = taken = 0
        for lane in self._lanes.get(message.message_type, ()):
            wanted += 1
            if not lane.is_full:
                lane.put(message)
                taken += 1
        for reader in self._readers:
            wanted += 1
            if not reader.full():
                reader.put_nowait(message)
                taken += 1
        if taken < wanted:
            self.counters["missed_queue_full"] += wanted - taken
        self.counters["queued" if taken else "unhandled" if not wanted else "refused_queue_full"] += 1
        return taken > 0 or wanted == 0

    async def call(self, lane: _Lane, message: MeshMessage) -> None:
        """Run one handler on one message; whatever it does ends here."""
        started = time.monotonic()
        try:
            outcome = lane.callback(message)
            if outcome is not None and inspect.isawaitable(outcome):
                await lane.wait_for(outcome)
            elif (took := time.monotonic() - started) > BLOCKING_SECONDS:
                self.counters["handler_blocked"] += 1
                self._complain("handler_blocked_the_loop", lane, message, seconds=round(took, 3))
            self.counters["handled"] += 1
        except Exception as error:  # noqa: BLE001  # whatever an application raises is logged and counted here
            hung = isinstance(error, TimeoutError) and time.monotonic() - started >= self.timeout
            self.counters["handler_timeout" if hung else "handler_raised"] += 1
            if hung:
                self._complain("handler_timed_out", lane, message, seconds=self.timeout)
            else:
                self._complain("handler_raised", lane, message, exc_info=error)

    def _complain(self, event: str, lane: _Lane, message: MeshMessage, **fields: Any) -> None:
        _log.error(
            event,
            message_id=message.message_id,
            message_type=message.message_type.value,
            sender=message.sender_id,
            handler=getattr(lane.callback, "__qualname__", repr(lane.callback)),
            **fields,
        )

    async def iterate(self) -> AsyncIterator[MeshMessage]:
        """Every message from now on, until the client stops; one that is not read fills up and misses messages."""
        queue: asyncio.Queue[MeshMessage | None] = asyncio.Queue(self.limit)
        self._readers.add(queue)
        try:
            while not self._closed or not queue.empty():
                message = await queue.get()
                if message is None:
                    return
                yield message
        finally:
            self._readers.discard(queue)

    async def close(self, deadline: float) -> None:
        """Take no more, let the handlers finish what is queued for ``deadline`` seconds, then cancel them."""
        self._closed = True
        for reader in self._readers:
            if not reader.full():
                reader.put_nowait(None)
        workers = {worker for lanes in self._lanes.values() for lane in lanes for worker in lane.workers}
        workers.discard(asyncio.current_task())  # a handler that stops the node is not waited for, or it never would
        if workers:
            _, hanging = await asyncio.wait(workers, timeout=deadline)
            for worker in hanging:
                worker.cancel()
            await asyncio.gather(*hanging, return_exceptions=True)
        for lanes in self._lanes.values():
            for lane in lanes:
                self.counters["lost_at_stop"] += len(lane.queue)
                lane.queue.clear()

    def reopen(self) -> None:
        """Take messages, from the start on or again after ``close``."""
        self._closed = False
