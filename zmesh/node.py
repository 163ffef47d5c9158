"""The asyncio shell around the engine: clocks, timer, sockets, threads, and no protocol logic.

Rules
 1. Every entry point ends in the same step: handle the event, carry out the actions, start the application's handlers
    if there is work for them, let the engine finish what nobody waits for, re-arm one timer.
 2. A step is never re-entered: what happens while actions are carried out is queued. The clocks are read once per step,
    and again after many signatures were verified in it, which takes milliseconds.
 3. The engine verifies the signatures of a small batch itself. For a large one it asks, and threads verify them, or the
    loop in one go. When the threads are busy the loop verifies, too, which holds back the sockets: that back-pressure,
    and not a growing queue, bounds a flood.
 4. What the engine asks of the application goes through ``Application``, synchronously.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from zmesh.core.actions import (
    Action,
    Admit,
    Composed,
    Deliver,
    Dial,
    Dropped,
    Failed,
    Hangup,
    LinkDown,
    LinkLive,
    Notice,
    Offence,
    Published,
    Resolved,
    Send,
    Verify,
    WakeAt,
)
from zmesh.core.engine import Engine
from zmesh.core.events import Event, Receipt, SendRefused, Stop, Verified, Wake
from zmesh.core.now import Now
from zmesh.core.types import DropReason, Endpoint, PeerKey
from zmesh.identity import verify
from zmesh.log import get_logger
from zmesh.log_limit import LogLimit
from zmesh.transport import Transport, TransportEvent

MANY = 8
"""Events in one batch from which it pays to verify what they bring together, and then signatures from which threads
pay off: handing over costs about as much as verifying one."""
POOL_CHUNK = 16
"""Signatures handed to a thread at once: 1 ms of work, so that results come back while more is read."""
POOL_LIMIT = 256
"""Signatures out in threads at once: about 10 ms of two cores; beyond it the loop verifies itself."""

_log = get_logger(__name__)


class Dials(Protocol):
    """Finds the routes of peers and dials them on the transport, asynchronously."""

    def dial(self, key: PeerKey, endpoints: tuple[Endpoint, ...]) -> None:
        """Start dialling."""
        ...

    def cancel(self, key: PeerKey) -> None:
        """Stop dialling: the peer was hung up."""
        ...


class Application(Protocol):
    """What the node needs from the code that embeds it. Called within a step: must not block or call back in."""

    def deliver(self, message: Deliver) -> bool:
        """Queue a message for the application's handlers; False if there is no room."""
        ...

    def resolved(self, outcome: Resolved) -> None:
        """A direct send has ended."""
        ...

    def links_changed(self) -> None:
        """Messages start or stop flowing over a link."""
        ...

    def stepped(self) -> None:
        """A step is over: the node may be called again, even from within this method."""
        ...


def read_clocks() -> Now:
    """Both clocks, now."""
    return Now(time.monotonic(), time.time())


def check_all(batch: Sequence[Verify]) -> list[Verified]:
    """Verify one after the other; PyNaCl releases the GIL while it does."""
    return [Verified(item.message_id, verify(item.key, item.data, item.signature)) for item in batch]


class Node:
    """Runs one engine on one transport.

    ``verify_threads``: with 0 or 1, only the loop verifies.
    """

    def __init__(
        self,
        engine: Engine,
        transport: Transport,
        application: Application,
        dialer: Dials,
        *,
        verify_threads: int = 0,
    ) -> None:
        self.engine = engine
        self.transport = transport
        self._application = application
        self._dialer = dialer
        self._events: list[Event] = []
        self._stepping = False
        self._unverified: list[Verify] = []
        self._pooled = 0
        self._threads = verify_threads
        self._pool: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop
        self._timer: asyncio.TimerHandle | None = None
        self._wake_at: float | None = None
        """When the engine asked to be woken; None once the timer is set to it."""
        self._running = False
        self._log_limit = LogLimit()
        self._linked: dict[PeerKey, str] = {}
        """Names of the peers with live links: one that was removed no longer has a name when its link goes down."""
        self.counters: Counter[str] = Counter()
        self._act: dict[type, Callable[[Any], None]] = {
            Send: self._send,
            Verify: self._unverified.append,
            Deliver: self._deliver,
            WakeAt: self._note_wake,
            Dial: self._start_dial,
            Hangup: self._hangup,
            Admit: self._admit,
            Resolved: application.resolved,
            Dropped: self._log_drop,
            Offence: self._log_offence,
            LinkLive: self._note_live,
            LinkDown: self._note_down,
            Notice: self._log_notice,
            Failed: self._log_failure,
            Composed: _nothing,
            Published: _nothing,
        }

    # ------------------------------------------------------------ the step

    def start(self) -> None:
        """Start taking events. Needs the running loop."""
        self._loop = asyncio.get_running_loop()
        self._running = True
        if self._threads > 1:
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="zmesh-verify")

    def receive(self, batch: Sequence[TransportEvent]) -> None:
        """The transport's sink: one batch, one step."""
        if self._running:
            self._events.extend(batch)
            self._step()

    def submit(self, event: Event) -> None:
        """Handle an event now or, from within a step, when its turn comes."""
        if self._running:
            self._events.append(event)
            self._step()

    def ask(self, event: Event) -> list[Action]:
        """Handle a command and return the actions it led to, which have been carried out.

        Raises ``PayloadError`` as the engine does. Must not be called from within a step.
        """
        self._stepping = True
        now = read_clocks()
        try:
            actions = self.engine.handle(event, now)
            self._carry_out(actions)
        finally:
            self._stepping = False
            self._finish(now)
        return actions

    def _step(self) -> None:
        if self._stepping:
            return
        self._stepping = True
        now = read_clocks()
        try:
            while events := self._events:
                self._events = []  # collects what the actions lead to
                self._carry_out(self.engine.handle_all(events, now, ask=len(events) >= MANY))
                if self._unverified and not self._events:
                    self._verify_collected()
                    now = read_clocks()
        finally:
            self._stepping = False
            self._application.stepped()
            self._finish(now)

    def _finish(self, now: Now) -> None:
        """The end of a step: what nobody waits for, what that leads to, and the timer."""
        self._stepping = True
        try:
            self._carry_out(self.engine.finish(now))
        finally:
            self._stepping = False
        if self._events:
            self._step()
        else:
            self._set_timer()

    def _carry_out(self, actions: list[Action]) -> None:
        act = self._act
        for action in actions:
            try:
                act[type(action)](action)
            except Exception as error:  # noqa: BLE001 - logged; the timer, and the step's other actions, must go on
                self._log_failure(Failed(type(action).__name__, error))

    # ------------------------------------------------------------ verifying

    def _verify_collected(self) -> None:
        batch = self._unverified[:]
        self._unverified.clear()
        pool = self._pool
        if pool is None or len(batch) < MANY:
            self._events.extend(check_all(batch))
            return
        while batch and self._pooled < POOL_LIMIT:
            chunk, batch = batch[:POOL_CHUNK], batch[POOL_CHUNK:]
            self._pooled += len(chunk)
            self._loop.run_in_executor(pool, check_all, chunk).add_done_callback(self._pool_answered)
        self._events.extend(check_all(batch))

    def _pool_answered(self, future: asyncio.Future[list[Verified]]) -> None:
        if future.cancelled():
            return
        answers = future.result()
        self._pooled -= len(answers)
        if self._running:
            self._events.extend(answers)
            self._step()

    # ------------------------------------------------------------ actions

    def _send(self, action: Send) -> None:
        send, frames, gossip = self.transport.send, action.frames, action.gossip
        for key in action.links:
            if not send(key, frames, gossip=gossip):
                self._events.append(SendRefused(key, action.ref))

    def _deliver(self, action: Deliver) -> None:
        queued = self._application.deliver(action)
        if action.receipt or not queued:
            self._events.append(Receipt(action.envelope.id, action.envelope.author, queued))

    def _note_wake(self, action: WakeAt) -> None:
        self._wake_at = action.mono

    def _set_timer(self) -> None:
        if self._wake_at is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._wake_at, self._wake)  # its clock is the monotonic one, too
        self._wake_at = None

    def _wake(self) -> None:
        self._timer = None
        self.submit(Wake())

    def _start_dial(self, action: Dial) -> None:
        self._dialer.dial(action.key, action.endpoints)

    def _hangup(self, action: Hangup) -> None:
        _log.debug("hangup", peer=action.key.hex(), why=action.why)
        self._dialer.cancel(action.key)
        self.transport.hangup(action.key)

    def _admit(self, action: Admit) -> None:
        self.transport.admit(action.keys)

    # ------------------------------------------------------------ logging

    def _name(self, key: PeerKey) -> str:
        member = self.engine.peers.get(key)
        return key.hex() if member is None else member.peer_id

    def _log_drop(self, action: Dropped) -> None:
        if action.reason is not DropReason.DUPLICATE:
            identifier = None if action.message_id is None else action.message_id.hex()
            _log.debug("dropped", reason=action.reason.value, link=self._name(action.link), message_id=identifier)

    def _tell(self, write: Callable[..., None], event: str, told_apart_by: str, /, **fields: Any) -> None:
        """Log a line that others can cause as often as they like."""
        more = self._log_limit.take((event, told_apart_by), time.monotonic())
        if more is not None:
            write(event, **fields, **more)

    def _log_offence(self, action: Offence) -> None:
        peer, fault = self._name(action.culprit), action.fault.value
        self._tell(
            _log.warning, "offence", f"{peer} {fault}", peer=peer, fault=fault, reputation=round(action.reputation, 1)
        )

    def _note_live(self, action: LinkLive) -> None:
        self._application.links_changed()
        self._linked[action.key] = self._name(action.key)
        self._tell_link("link_live", action.key, self._linked[action.key])

    def _note_down(self, action: LinkDown) -> None:
        self._application.links_changed()
        peer = self._linked.pop(action.key, None) or self._name(action.key)
        self._tell_link("link_down", action.key, peer, why=action.why)

    def _tell_link(self, event: str, key: PeerKey, peer: str, **fields: Any) -> None:
        self._tell(_log.info, event, key.hex(), peer=peer, key=key.hex(), **fields)

    def _log_notice(self, action: Notice) -> None:
        self._tell(_log.warning, action.event, str(action.fields.get("peer")), **action.fields)

    def _log_failure(self, action: Failed) -> None:
        self.counters["internal_error"] += 1
        self._tell(_log.error, "internal_error", action.what, what=action.what, exc_info=action.error)

    # ------------------------------------------------------------ the end

    async def stop(self, deadline: float) -> None:
        """Send LEAVE, resolve what is under way, and close the transport within ``deadline`` seconds."""
        if not self._running:
            return
        self.submit(Stop())
        self._running = False
        self._events.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        await self.transport.stop(deadline)


def _nothing(action: Action) -> None:
    """Nothing to do: ``ask`` returns the action to its caller."""
