"""What the core raises, and at whom.

Rules
 1. A remote fault is a value (``DropReason``, ``Fault``), never an exception that leaves the engine.
 2. The codec raises ``WireError`` and nothing else on any bytes whatsoever; the engine turns it into a drop.
 3. Local misuse raises a ``ZmeshError`` at the caller with one sentence: what is wrong, where, and what is expected.
"""

from __future__ import annotations

from zmesh.core.types import DropReason


class ZmeshError(Exception):
    """Base of everything that zmesh raises at its caller."""


class ConfigError(ZmeshError, ValueError):
    """A setting, file, key or address is unusable; the sentence says what is wrong, where, and what is expected."""


class PayloadError(ZmeshError, ValueError):
    """A payload that cannot travel: not of msgpack types, larger than ``bounds.MAX_PAYLOAD``, or not what its message
    type requires, so that every peer would reject it and blame its author."""


class PayloadTooLargeError(PayloadError):
    """A payload of more than ``bounds.MAX_PAYLOAD``, 64 KiB, once encoded: send a reference to it instead."""


class SelfHarmError(PayloadError):
    """A valid payload that would void what its own account said before: a second, different vote, for instance."""


class NotPledgedError(ZmeshError):
    """A vote or proposal could not be written to disk before it would have left, so it did not leave."""


class NotRunningError(ZmeshError, RuntimeError):
    """The client cannot do that now: it is not running, is running already, or runs on another event loop."""


class WireError(Exception):
    """Bytes that are not a valid frame. Only the codec raises it; ``reason`` is how the drop is counted."""

    def __init__(self, reason: DropReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
