"""Runs the built-in handlers: asks them, tells them, wakes them, and carries out what they command.

Rules
 1. A handler is asked before a message is relayed (``validate``) and told after it was accepted (``received``).
 2. It is woken once for each deadline, however often that deadline is looked at.
 3. One that raises when it is woken rests for ``REST``: nobody else waits for it, and it does not spin.
 4. What it commands goes through the same door as the application's commands; one that cannot travel is a notice.
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
from zmesh.core.types import Member, Verdict

REST = 1.0
"""Seconds: whatever made it raise may have passed by then, and once a second is no load."""


class Behaviours:
    """The handlers of one engine; ``obey`` carries out one command, and raises ``PayloadError``."""

    __slots__ = ("_context", "_handlers", "_obey_one", "_of", "_planned", "_rests_until")

    def __init__(self, context: Context, handlers: Sequence[Handler], obey: Callable[[Command, Now], None]) -> None:
        self._context = context
        self._handlers = tuple(handlers)
        self._of = {kind: handler for handler in handlers for kind in handler.kinds}
        self._obey_one = obey
        self._planned: dict[Handler, float] = {}
        """When each handler is to be woken."""
        self._rests_until: dict[Handler, float] = {}

    def validate(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Verdict:
        """What the handler of its kind says; where there is none, the mesh carries it."""
        handler = None if envelope.kind is None else self._of.get(envelope.kind)
        return Verdict.ACCEPT if handler is None else handler.validate(envelope, sender, payload, now)

    def as_others_read(self, envelope: Envelope, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """The payload of an own message as it travels, which is what all others judge and count: an application may
        have given values that turn into others on the way, such as an enumeration that is a string."""
        return wire.decode_payload(envelope.payload) if envelope.kind in self._of else payload

    def check_own(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> None:
        """A message of our own is about to be sent: a slip must cost its author nothing, and stays here.

        Raises ``PayloadError``, or ``SelfHarmError``.
        """
        handler = None if envelope.kind is None else self._of.get(envelope.kind)
        if handler is None or envelope.kind is None:
            return
        kind = envelope.kind.value
        if handler.validate(envelope, sender, payload, now) is Verdict.REJECT:
            raise PayloadError(f"every peer would reject this {kind}: {handler.objection(envelope, payload)}")
        harm = handler.harm(envelope, sender, payload)
        if harm:
            raise SelfHarmError(f"this {kind} would harm its author: {harm}")

    def received(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> None:
        """An accepted message, the node's own included."""
        handler = None if envelope.kind is None else self._of.get(envelope.kind)
        if handler is not None:
            self._obey(handler.received(envelope, sender, payload, now), now)
            self._plan(handler, now)

    def wake_due(self, now: Now) -> None:
        """Wake whoever is due. The application may have changed what a handler has to say, and with it when."""
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
            # A deadline of long ago means at once; it does not mean that this node is late.
            self._context.timers.note(max(due, now.mono), self._wake, handler)

    def _wake(self, handler: Handler, now: Now) -> None:
        if now.mono < self._rests_until.get(handler, now.mono):
            return
        due = handler.deadline
        if due is not None and due <= now.mono:
            self._planned.pop(handler, None)
            try:
                self._obey(handler.wake(now), now)
            except Exception as error:  # noqa: BLE001 - told by ``Failed``
                self._context.failed(f"waking {type(handler).__name__}", error)
                self._rests_until[handler] = now.mono + REST
                self._context.timers.note(now.mono + REST, self._wake, handler)
                return
        self._plan(handler, now)
