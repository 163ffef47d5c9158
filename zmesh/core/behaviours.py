"""Runs the built-in handlers: asks them, tells them, wakes them, and carries out what they command.

Rules
 1. A handler is asked before a message is relayed (``validate``) and told after it was accepted (``received``).
 2. It is woken once for each deadline, however often that deadline is looked at.
 3. What it commands goes through the same door as the application's commands; one that cannot travel is a notice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zmesh.core.actions import Notice
from zmesh.core.context import Context
from zmesh.core.envelope import Envelope
from zmesh.core.errors import PayloadError, SelfHarmError
from zmesh.core.events import Command
from zmesh.core.handler import Handler
from zmesh.core.now import Now
from zmesh.core.types import Member, Verdict


class Behaviours:
    """The handlers of one engine; ``obey`` carries out one command, and raises ``PayloadError``."""

    __slots__ = ("_context", "_handlers", "_obey_one", "_of", "_planned")

    def __init__(self, context: Context, handlers: Sequence[Handler], obey: Callable[[Command, Now], None]) -> None:
        self._context = context
        self._handlers = tuple(handlers)
        self._of = {kind: handler for handler in handlers for kind in handler.kinds}
        self._obey_one = obey
        self._planned: dict[Handler, float] = {}
        """When each handler is to be woken."""

    def validate(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Verdict:
        """What the handler of its kind says; where there is none, the mesh carries it."""
        handler = None if envelope.kind is None else self._of.get(envelope.kind)
        return Verdict.ACCEPT if handler is None else handler.validate(envelope, sender, payload, now)

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
        if handler.deadline is not None and handler.deadline != self._planned.get(handler):
            self._planned[handler] = handler.deadline
            # A deadline of long ago means at once; it does not mean that this node is late.
            self._context.agenda.note(max(handler.deadline, now.mono), self._wake, handler)

    def _wake(self, handler: Handler, now: Now) -> None:
        if handler.deadline is not None and handler.deadline <= now.mono:
            self._planned.pop(handler, None)
            self._obey(handler.wake(now), now)
        self._plan(handler, now)
