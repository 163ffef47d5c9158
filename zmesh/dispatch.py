"""Passes messages to the application's handlers, so that one that raises, blocks or hangs harms no other.

Rules
 1. ``offer`` is synchronous and returns whether the message was queued: an ACK stands for that answer.
 2. Each handler has its own queue and its own workers: one that hangs fills only its own queue.
 3. A coroutine handler that has to wait may do so for ``timeout`` seconds, then it is cancelled. A plain callable runs
    at once and on the event loop, like any callback; one that blocks the loop is measured and named in the log.
 4. What a handler raises is logged with the message's id and counted. It is never the sender's fault. This includes a
    ``CancelledError`` of its own, such as from a cancelled future that it looks at.
 5. A queue is shared: once it is half full, no account may have more than an even share of it. So a member that sends
    as fast as it may is refused, or answered with busy, and the others are not. Nothing that was queued is evicted.
 6. A sender may know what makes a handler raise, so the log lines about it are rate-limited: a few at once, then one
    now and then (``log_limit.py``).
 7. Under light load messages reach a handler in their order of arrival; beyond that, up to ``concurrency`` run at once.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import time
import types
import weakref
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Generator, Mapping, Sequence
from typing import Any

from zmesh.core.types import MessageType
from zmesh.fair_queue import FairQueue
from zmesh.log import get_logger
from zmesh.log_limit import LogLimit
from zmesh.messages import MeshMessage

MessageHandler = Callable[[MeshMessage], object]
"""What an application registers: a coroutine function or a plain callable. An awaitable that it returns is awaited; any
other result, and the result of the awaitable, is ignored."""

OWN_TYPES = frozenset({MessageType.HEARTBEAT, MessageType.PEER_ANNOUNCE, MessageType.PEER_DISCOVERY})
"""What zmesh itself sends and answers. No application needs a handler for these, so none is missed."""

BLOCKING_SECONDS = 0.1
"""Seconds after which a plain callable is logged: it holds up heartbeats and verification."""

CALLS_AT_ONCE = 32
"""Consecutive calls that did not have to wait, before the rest of the event loop gets its turn."""

CLEANING_SHARE = 0.2
"""Share of the time for a shutdown that cancelled handlers have to clean up."""

_log = get_logger(__name__)


class _HungError(Exception):
    """A call waited for longer than it may, and was cancelled."""


class _Reader:
    """The messages that an iterator over all messages has not returned yet."""

    def __init__(self, limit: int) -> None:
        self.queue = FairQueue(limit)
        self._news = asyncio.Event()
        self._ended = False

    def offer(self, message: MeshMessage) -> bool:
        """Queue it if there is room; returns whether there was."""
        taken = self.queue.put(message)
        self._news.set()
        return taken

    def end(self) -> None:
        """Nothing follows what is queued."""
        self._ended = True
        self._news.set()

    async def get(self) -> MeshMessage | None:
        """The next message, or None at the end."""
        while not self.queue.messages:
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        return self.queue.get()


class _Lane:
    """One handler, its queue and its workers.

    The dispatcher's turn starts the calls. The first one that returns an awaitable gets a worker, a task, which then
    takes messages as long as there are any, so that one worker serves a burst. Only when it has to wait within a call
    do others work on the queue again.
    """

    def __init__(self, dispatcher: Dispatcher, kind: MessageType, callback: MessageHandler) -> None:
        self.callback = callback
        self.kind = kind
        self.queue = FairQueue(dispatcher.limit)
        self._dispatcher = dispatcher
        self._workers: set[asyncio.Task[None]] = set()
        self._name = f"zmesh handler of {kind.value}"
        self._free = 0
        """Workers that will look at the queue again without waiting for a call."""
        self.is_due = False
        """Whether the dispatcher is going to give it a turn."""

    @property
    def label(self) -> str:
        """The handler's name, for the log."""
        return str(getattr(self.callback, "__qualname__", repr(self.callback)))

    def reopen(self) -> None:
        """Forget workers that were cancelled before their first step: none of their code ran, not even their
        ``finally``."""
        if not self._workers:
            self._free = 0

    @property
    def needs_turn(self) -> bool:
        """Whether a message waits that no worker will get to on its own, and another call may be started."""
        return bool(self.queue.messages) and not self._free and len(self._workers) < self._dispatcher.concurrency

    def turn(self) -> None:
        """Start calls until one has to be awaited, or until the rest of the event loop is due a turn."""
        for _ in range(CALLS_AT_ONCE):
            if not self.needs_turn:
                return
            message = self.queue.get()
            outcome = self._dispatcher.begin(self, message)
            if outcome is not None:
                self._free += 1
                worker = _started(self._work(message, outcome), self._name)
                if not worker.done():
                    self._workers.add(worker)
                    worker.add_done_callback(self._workers.discard)

    async def _work(self, message: MeshMessage, begun: Awaitable[object]) -> None:
        outcome: Awaitable[object] | None = begun
        calls = 0
        try:
            while True:
                if outcome is not None:
                    await self._dispatcher.finish(self, message, outcome)
                calls += 1
                if calls % CALLS_AT_ONCE == 0:
                    await asyncio.sleep(0)
                if not self.queue.messages:
                    return
                message = self.queue.get()
                outcome = self._dispatcher.begin(self, message)
        finally:
            self._free -= 1
            # Now, not in the done callback: a message that arrives in between needs a new worker, however few are
            # allowed.
            if (worker := asyncio.current_task()) is not None:
                self._workers.discard(worker)

    async def wait_for(self, outcome: Awaitable[object]) -> None:
        """Await what a call returned; if it has to wait, others work on the queue and the timeout runs."""
        steps = outcome.__await__()
        try:
            waiting = next(steps)  # most never pause: a timer for each would cost as much as they do
        except StopIteration:
            return
        self._free -= 1
        self._dispatcher.wants_turn(self)
        limit = asyncio.timeout(self._dispatcher.timeout)
        try:
            async with limit:
                await _go_on(steps, waiting)
        except TimeoutError as error:
            if limit.expired():  # only it knows: a loop's own clock may be coarse, and its timers early by ours
                raise _HungError from error
            raise
        finally:
            self._free += 1

    @property
    def workers(self) -> list[asyncio.Task[None]]:
        """The tasks under way; each ends once the queue is empty."""
        return list(self._workers)


def _started(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A task for ``work``, which has already run to its first pause where Python can do that."""
    loop = asyncio.get_running_loop()
    if sys.version_info >= (3, 12):
        task = asyncio.Task(work, loop=loop, name=name, eager_start=True)
    else:
        task = loop.create_task(work, name=name)
    return task


@types.coroutine
def _go_on(steps: Generator[Any, Any, object], waiting: Any) -> Generator[Any, Any, None]:
    """The rest of an awaitable that was started by hand and now waits for ``waiting``."""
    while True:
        try:
            try:
                yield waiting
            except BaseException as error:  # noqa: BLE001  # a cancellation, which the awaitable must see
                waiting = steps.throw(error)
            else:
                waiting = next(steps)
        except StopIteration:
            return


async def _read(reader: _Reader) -> AsyncGenerator[MeshMessage]:
    while (message := await reader.get()) is not None:
        yield message


class Dispatcher:
    """All handlers and all open ``receive_messages`` iterators of one client.

    ``limit``: messages that wait per handler. ``concurrency``: concurrent calls of one handler. ``timeout``: seconds
    for one call.
    """

    def __init__(self, limit: int, concurrency: int, timeout: float) -> None:
        self.limit = limit
        self.concurrency = concurrency
        self.timeout = timeout
        self.counters: Counter[str] = Counter()
        self._lanes: dict[MessageType, list[_Lane]] = {}
        self._log_limit = LogLimit()
        self._readers: list[weakref.ref[_Reader]] = []
        """Readers of the iterators that are still referenced: one that was dropped, read or not, costs nothing."""
        self._due: list[_Lane] = []
        self._is_turning = False
        self._is_planned = False
        self._closed = False

    @property
    def handlers(self) -> Mapping[MessageType, Sequence[MessageHandler]]:
        """The registered handlers by type, in the order of registration."""
        return {kind: tuple(lane.callback for lane in lanes) for kind, lanes in self._lanes.items()}

    def register(self, kind: MessageType, callback: MessageHandler) -> None:
        """Call ``callback`` for every message of this type from now on."""
        self._lanes.setdefault(kind, []).append(_Lane(self, kind, callback))

    def qsize(self) -> int:
        """Messages that wait in the longest queue of all handlers and iterators."""
        queues = [lane.queue for lane in self._all_lanes()]
        queues += [reader.queue for reader in self._reading()]
        return max((len(queue.messages) for queue in queues), default=0)

    def offer(self, message: MeshMessage) -> bool:
        """Queue a message for every handler and iterator of its type that has room; the next ``turn`` starts the calls.

        False only if there are listeners and none had room: the sender of a direct message is then answered with busy
        and sends it again; gossip is lost to this application. Both count once as ``refused_queue_full``. If only some
        listeners have room, each of the others misses the message (``missed_queue_full``), so that one that hangs harms
        no other.
        """
        if self._closed:
            self.counters["refused_closed"] += 1
            return False
        wanted = taken = 0
        for lane in self._lanes.get(message.message_type, ()):
            wanted += 1
            if lane.queue.put(message):
                self._note(lane)
                taken += 1
        for reader in self._reading() if self._readers else ():
            wanted += 1
            taken += reader.offer(message)
        if taken:
            self.counters["queued"] += 1
            if taken < wanted:
                self.counters["missed_queue_full"] += wanted - taken
        elif wanted:
            self.counters["refused_queue_full"] += 1
        elif message.message_type not in OWN_TYPES:
            self.counters["unhandled"] += 1
        return taken > 0 or wanted == 0

    def wants_turn(self, lane: _Lane) -> None:
        """Give the lane a turn in the next round of the event loop, if not sooner."""
        self._note(lane)
        self._plan()

    def _note(self, lane: _Lane) -> None:
        if not lane.is_due and lane.needs_turn:
            lane.is_due = True
            self._due.append(lane)

    def _plan(self) -> None:
        if self._due and not self._is_planned:
            self._is_planned = True
            asyncio.get_running_loop().call_soon(self._planned)

    def _planned(self) -> None:
        self._is_planned = False
        self.turn()

    def turn(self) -> None:
        """Start the waiting calls. After ``offer``, call this as soon as handlers may call back."""
        if self._is_turning:
            return  # called by a handler that made the node take a step; what that queued gets its turn afterwards
        self._is_turning = True
        due, self._due = self._due, []
        try:
            for lane in due:
                lane.turn()
        finally:
            self._is_turning = False
            for lane in due:
                lane.is_due = False
                self._note(lane)
            self._plan()

    def begin(self, lane: _Lane, message: MeshMessage) -> Awaitable[object] | None:
        """Call one handler; returns what has to be awaited, if anything. Nothing that the handler raises escapes."""
        started = time.monotonic()
        try:
            outcome = lane.callback(message)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # whatever an application raises ends here
            self._raised(lane, message, error)
            return None
        if outcome is not None and inspect.isawaitable(outcome):
            return outcome
        if (took := time.monotonic() - started) > BLOCKING_SECONDS:
            self.counters["handler_blocked"] += 1
            self._complain("handler_blocked_the_loop", lane, message, seconds=round(took, 3))
        self.counters["handled"] += 1
        return None

    async def finish(self, lane: _Lane, message: MeshMessage, outcome: Awaitable[object]) -> None:
        """Await what a call returned; whatever it raises ends here."""
        try:
            await lane.wait_for(outcome)
            self.counters["handled"] += 1
        except asyncio.CancelledError as error:
            if (worker := asyncio.current_task()) is not None and worker.cancelling():
                raise  # the end of the node, or of the loop
            self._raised(lane, message, error)
        except _HungError:
            self.counters["handler_timeout"] += 1
            self._complain("handler_timed_out", lane, message, seconds=self.timeout)
        except Exception as error:  # noqa: BLE001  # as above
            self._raised(lane, message, error)

    def _raised(self, lane: _Lane, message: MeshMessage, error: BaseException) -> None:
        self.counters["handler_raised"] += 1
        self._complain("handler_raised", lane, message, exc_info=error)

    def _complain(self, event: str, lane: _Lane, message: MeshMessage, **fields: Any) -> None:
        more = self._log_limit.take((event, lane.label, message.account_id), time.monotonic())
        if more is None:
            return
        fields.update(more)
        _log.error(
            event,
            message_id=message.message_id,
            message_type=message.message_type.value,
            sender=message.sender_id,
            handler=lane.label,
            **fields,
        )

    def iterate(self) -> AsyncGenerator[MeshMessage]:
        """Every message from this call on, until the client stops next; an iterator that is not read misses some."""
        reader = _Reader(self.limit)
        self._readers.append(weakref.ref(reader, self._forget))
        return _read(reader)

    def _forget(self, reader: weakref.ref[_Reader]) -> None:
        if reader in self._readers:  # else ``close`` removed it
            self._readers.remove(reader)

    def _reading(self) -> list[_Reader]:
        # Iterates over a copy: a garbage collection here shortens the list itself.
        return [reader for found in (*self._readers,) if (reader := found()) is not None]

    def _working(self, but: Collection[asyncio.Task[Any]]) -> dict[asyncio.Task[None], _Lane]:
        """The workers under way except those in ``but``, with their lanes."""
        return {worker: lane for lane in self._all_lanes() for worker in lane.workers if worker not in but}

    def _all_lanes(self) -> list[_Lane]:
        return [lane for lanes in self._lanes.values() for lane in lanes]

    async def close(self, seconds: float, waiting: Collection[asyncio.Task[Any]] = ()) -> None:
        """Accept no more, let handlers finish what is queued, then cancel them: within ``seconds``, whatever they do.

        The tasks in ``waiting``, which may grow meanwhile, are themselves waiting for this to finish, as a handler that
        stops the node does. So they are not waited for.
        """
        self._closed = True
        for reader in self._reading():
            reader.end()
        self._readers.clear()
        over = time.monotonic() + seconds
        end = over - CLEANING_SHARE * seconds
        while time.monotonic() < end:
            self.turn()
            if workers := self._working(waiting):
                left = max(0.0, end - time.monotonic())
                await asyncio.wait(workers, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            elif self._due:
                await asyncio.sleep(0)
            else:
                break
        lost = {lane: count for lane in self._all_lanes() if (count := lane.queue.clear())}
        workers = self._working(waiting)
        self._tell_lost(lost, list(workers.values()))
        if workers:
            await self._cancel(workers, max(0.0, over - time.monotonic()))

    def _tell_lost(self, lost: Mapping[_Lane, int], cancelled: Sequence[_Lane]) -> None:
        """Count and log what no handler finished: nobody reads the counters of a node that has stopped."""
        if not lost and not cancelled:
            return
        self.counters["lost_at_stop"] += (count := sum(lost.values()))
        self.counters["cancelled_at_stop"] += len(cancelled)
        handlers = sorted({lane.label for lane in (*lost, *cancelled)})
        _log.warning("messages_lost_at_stop", lost=count, cancelled=len(cancelled), handlers=handlers)

    async def _cancel(self, workers: Mapping[asyncio.Task[None], _Lane], seconds: float) -> None:
        """Cancel these workers, and log those that do not end."""
        for worker in workers:
            worker.cancel()
        _, left = await asyncio.wait(workers, timeout=seconds)
        if left:
            self.counters["left_running"] += len(left)
            _log.error("handlers_left_running", calls=len(left), handlers=sorted({workers[one].label for one in left}))

    def reopen(self) -> None:
        """Accept messages, at first or again after ``close``."""
        self._closed = False
        for lane in self._all_lanes():
            lane.reopen()
