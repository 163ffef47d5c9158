"""What a payload field may look like: small checks that the handlers compose into tables.

Rules
 1. A check takes any decoded value and never raises, whatever the network sent. It also states in words what it wants.
 2. Keys that a table does not list are always allowed: applications and later versions add their own.
 3. None stands for a missing value and passes wherever the field is optional.
 4. ``flaw`` alone judges what the network sent: sentences about what is wrong are only for local authors.
 5. A bool is not a number here, although it is one in Python: msgpack tells them apart, and so do other languages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from zmesh.core.envelope import Envelope
from zmesh.core.sentence import shown
from zmesh.core.wire import MAX_UINT, digest32


@dataclass(frozen=True, slots=True)
class Check:
    """What a value must be."""

    test: Callable[[object], bool]
    wants: str
    """In words that follow "must be"."""

    def __call__(self, value: object) -> bool:
        """True if the value passes."""
        return self.test(value)


Schema = Mapping[str, Check]


def text(longest: int, shortest: int = 1) -> Check:
    """A string of ``shortest`` to ``longest`` bytes in UTF-8."""

    def test(value: object) -> bool:
        # Count the characters first: otherwise an attacker could make us encode long strings only to refuse them.
        return isinstance(value, str) and len(value) <= longest and shortest <= len(value.encode()) <= longest

    return Check(test, f"text of {shortest} to {longest} bytes")


def blob(longest: int, shortest: int = 0) -> Check:
    """``shortest`` to ``longest`` bytes."""

    def test(value: object) -> bool:
        return type(value) is bytes and shortest <= len(value) <= longest

    return Check(test, f"{longest} bytes" if shortest == longest else f"{shortest} to {longest} bytes")


def whole(low: int = 0, high: int = MAX_UINT) -> Check:
    """An integer from ``low`` to ``high``."""

    def test(value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return Check(test, f"a whole number from {low} to {high}")


def number(low: float, high: float) -> Check:
    """A finite integer or float from ``low`` to ``high``."""

    def test(value: object) -> bool:
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        # NaN and the infinities fail the comparison: both ends are finite.
        return low <= value <= high

    return Check(test, f"a number from {low:g} to {high:g}")


def items(of: Check, most: int) -> Check:
    """A list (or, before encoding, a tuple) of at most ``most`` values that each pass ``of``."""

    def test(value: object) -> bool:
        return isinstance(value, (list, tuple)) and len(value) <= most and all(map(of.test, value))

    return Check(test, f"a list of at most {most}, each of them {of.wants}")


def flaw(payload: Mapping[str, Any], required: Schema, optional: Schema) -> str | None:
    """The first field that is missing although required, or that fails its check; None if the payload fits."""
    for name, check in required.items():
        if not check.test(payload.get(name)):
            return name
    for name, check in optional.items():
        value = payload.get(name)
        if value is not None and not check.test(value):
            return name
    return None


def terms_of(envelope: Envelope) -> bytes:
    """32 bytes that tell different payloads apart: the BLAKE2b-256 of the payload."""
    return digest32(envelope.payload)


def objection_to(payload: Mapping[str, Any], required: Schema, optional: Schema) -> str:
    """The ``flaw`` as a sentence for the payload's author; empty if it fits."""
    name = flaw(payload, required, optional)
    if name is None:
        return ""
    value, check = payload.get(name), required.get(name) or optional[name]
    came = "is missing" if value is None else f"is {shown(value)}"
    return f"its field {name!r} {came} and must be {check.wants}"


def size_objection(size: int, most: int) -> str:
    """The same for a body with too many bytes."""
    return f"its body has {size} bytes and must have at most {most}"
