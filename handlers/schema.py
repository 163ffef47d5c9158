"""What a field of a payload may look like: small checks that the handlers compose into tables.

Rules
 1. A check is a function from any decoded value to bool; it never raises, whatever the network sent.
 2. Keys that a table does not name are always allowed: applications and later versions add their own.
 3. None stands for "not said" and passes wherever the field is optional.
 4. A bool is not a number here, although Python says so: msgpack tells them apart, and so do other languages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

from zmesh.core.envelope import Envelope
from zmesh.core.wire import MAX_UINT

Check = Callable[[object], bool]
Schema = Mapping[str, Check]


def text(longest: int, shortest: int = 1) -> Check:
    """A string of ``shortest`` to ``longest`` bytes in UTF-8."""

    def check(value: object) -> bool:
        # The characters are counted first: encoding a long string only to refuse it would be work for an
        # attacker.
        return isinstance(value, str) and len(value) <= longest and shortest <= len(value.encode()) <= longest

    return check


def blob(longest: int, shortest: int = 0) -> Check:
    """``shortest`` to ``longest`` bytes."""

    def check(value: object) -> bool:
        return type(value) is bytes and shortest <= len(value) <= longest

    return check


def whole(low: int = 0, high: int = MAX_UINT) -> Check:
    """An integer from ``low`` to ``high``."""

    def check(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return check


def number(low: float, high: float) -> Check:
    """A finite integer or float from ``low`` to ``high``."""

    def check(value: object) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        # NaN and the infinities fail the comparison: both ends are finite.
        return low <= value <= high

    return check


def items(of: Check, most: int) -> Check:
    """A list (or, before it was encoded, a tuple) of at most ``most`` values that each pass ``of``."""

    def check(value: object) -> bool:
        return isinstance(value, (list, tuple)) and len(value) <= most and all(map(of, value))

    return check


def flaw(payload: Mapping[str, Any], required: Schema, optional: Schema) -> str | None:
    """The first field that is required and missing, or that a table names and that fails its check; None if it fits."""
    for name, check in required.items():
        if not check(payload.get(name)):
            return name
    for name, check in optional.items():
        value = payload.get(name)
        if value is not None and not check(value):
            return name
    return None


def terms_of(envelope: Envelope) -> bytes:
    """32 bytes that tell what one payload says from what another does: its BLAKE2b-256."""
    return blake2b(envelope.payload, digest_size=32).digest()


def field_objection(name: str | None) -> str:
    """What is wrong with a payload of that ``flaw``, for whoever wrote it."""
    return f"its field {name!r} is missing or not what that type asks for"


def size_objection(size: int, most: int) -> str:
    """The same of a body of too many bytes."""
    return f"its body has {size} bytes, at most {most} are right"
