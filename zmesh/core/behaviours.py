"""Runs the built-in handlers: asks for their verdicts, notifies them, wakes them, and carries out their commands.

Rules
 1. A handler is asked before a message is relayed (``validate``) and notified once it is accepted (``received``).
 2. It is woken once per deadline, however often that deadline is checked.
 3. A handler that raises when woken rests for ``REST``: nothing else waits for it, and it does not spin.
 4. Its commands take the same path as the application's; one that cannot travel becomes a notice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zmesh.core import wire
from zmesh.core.actions import Notice
from zmesh.core.context import Context
from zmesh.core.envelope import Envelope
from zmesh.core.errors import PayloadError, SelfHarmError
from zmesh.core.events import Command
from zmesh.core.handler import Handler
from zmesh.core.now import Now
from zmesh.core.types import Member, MessageType, Verdict

REST = 1.0
"""Seconds: the cause may have passed by then, and one attempt a second is no load."""


class Behaviours:
    """The handlers of one engine; ``obey`` carries out one command and may raise ``PayloadError``."""

    __slots__ = ("_context", "_handlers", "_obey_one", "_of", "_planned", "_rests_until")

    def __init__(self, context: Context, handlers: Sequence[Handler], obey: Callable[[Command, Now], None]) -> None:
        self._context = context
        self._handlers = tuple(handlers)
        self._of: dict[MessageType | None, Handler] = {kind: one for one in handlers for kind in one.kinds}
        """By kind. ``None``, for the kinds between two ends of a link and unknown ones, has no handler."""
        self._obey_one = obey
        self._planned: dict[Handler, float] = {}
        """When each handler is to be woken."""
        self._rests_until: dict[Handler, float] = {}

    def validate(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Verdict:
        """The verdict of the handler for this kind; without one, the mesh carries the message."""
        handler = self._of.get(envelope.kind)
        return Verdict.ACCEPT if handler is None else handler.validate(envelope, sender, payload, now)

    def check_own(self, envelope: Envelope, payload: Mapping[str, Any], now: Now) -> Mapping[str, Any]:
        """Check a message of our own before it is sent: a mistake must stay here and cost its author nothing.

        Returns its payload as all others decode, judge and count it: an application may pass values that change when
        they are encoded, such as an enum that is a string. Raises ``PayloadError`` or ``SelfHarmError``.
        """
        handler = self._of.get(envelope.kind)
        if handler is None:
            return payload
        sender, payload = self._context.peers.myself, wire.decode_payload(envelope.payload)
        if handler.validate(envelope, sender, payload, now) is Verdict.REJECT:
            raise PayloadError(f"every peer would reject this {envelope.kind}: {handler.objection(envelope, payload)}")
        harm = handler.harm(envelope, sender, payload)
        if harm:
            raise SelfHarmError(f"this {envelope.kind} would harm its author: {harm}")
        return payload

    def received(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> None:
        """Hand an accepted message, the node's own included, to its handler."""
        handler = self._of.get(envelope.kind)
        if handler is not None:
            self._obey(handler.received(envelope, sender, payload, now), now)
            self._plan(handler, now)

    def wake_due(self, now: Now) -> None:
        """Wake every handler that is due. The application may have changed what a handler has to say, and when."""
        for handler in self._handlers:
            self._wake(handler, now)

    def _obey(self, commands: Sequence[Command], now: Now) -> None:
        for command in commands:
            try:
                self._obey_one(command, now)
            except PayloadError as error:
                self._context.out.append(Notice("handler_command_refused", {"error": str(error)}))

    def _plan(self, handler: Handler, now: Now) -> None:
        due = handler.deadline
        if due is not None and due != self._planned.get(handler):
            self._planned[handler] = due
            # A deadline long past means at once; it does not mean that this node is late.
            self._context.timers.note(max(due, now.mono), self._wake, handler)

    def _wake(self, handler: Handler, now: Now) -> None:
        if now.mono < self._rests_until.get(handler, now.mono):
            return
        due = handler.deadline
        if due is not None and due <= now.mono:
            self._planned.pop(handler, None)
            try:
                self._obey(handler.wake(now), now)
            except Exception as error:  # noqa: BLE001 - reported as ``Failed``
                self._context.failed(f"waking {type(handler).__name__}", error)
                self._rests_until[handler] = now.mono + REST
                self._context.timers.note(now.mono + REST, self._wake, handler)
                return
        self._plan(handler, now)
