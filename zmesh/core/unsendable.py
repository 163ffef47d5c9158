"""Finds the place in a payload that cannot travel, for the sentence that its author reads.

Rules
 1. Only a payload that was refused comes here: nothing here is on the way of a message that can travel.
 2. The walk is bounded in values, depth and text, since the payload may be anything, even contain itself.
 3. It judges as the codec does. If it finds nothing, for instance because it gave up, the codec's own words must do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from zmesh.core.bounds import MAX_VALUES
from zmesh.core.sentence import shown

LOWEST: Final = -(2**63)
HIGHEST: Final = 2**64 - 1
"""The integers that msgpack has room for."""
MAX_PLACE: Final = 120
"""Characters of a place that are shown."""

_CARRIED: Final = (str, float, bytes, bytearray, memoryview, list, tuple, dict)
_MUST_BE: Final = "None, a bool, a number, text, bytes, a list or a dict"


def flaw_of(payload: object, nesting: int) -> str:
    """The first value or key that cannot travel, as a sentence; empty if none is found among ``MAX_VALUES`` values.

    ``nesting``: how many lists and dicts may lie within each other, the payload included.
    """
    within: list[Iterator[tuple[str, object]]] = [iter([("payload", payload)])]
    for _ in range(MAX_VALUES):
        while (found := next(within[-1], None)) is None:
            within.pop()
            if not within:
                return ""
        place, value = found
        if flaw := value.what if isinstance(value, _BadKey) else _flaw(value):
            return f"{_cut(place)} {flaw}"
        if isinstance(value, dict | list | tuple):
            if len(within) > nesting:
                return f"{_cut(place)} lies deeper than the {nesting} lists and dicts that may lie within each other"
            within.append(_of_dict(place, value) if isinstance(value, dict) else _of_list(place, value))
    return ""


class _BadKey:
    """Stands for the value of a key that cannot travel."""

    def __init__(self, what: str) -> None:
        self.what = what


def _of_list(place: str, value: list[Any] | tuple[Any, ...]) -> Iterator[tuple[str, object]]:
    for index, one in enumerate(value):
        yield f"{place}[{index}]", one


def _of_dict(place: str, value: dict[Any, Any]) -> Iterator[tuple[str, object]]:
    for key, one in value.items():
        if not isinstance(key, str | bytes):  # bytes are allowed below the payload itself
            yield place, _BadKey(f"must have text for keys, not a key of type {type(key).__name__}")
        elif _is_torn(key):
            yield place, _BadKey(f"must have Unicode text for keys, not {shown(key)}")
        else:
            is_plain = isinstance(key, str) and key.isidentifier()
            yield f"{place}.{key!s}" if is_plain else f"{place}[{shown(key)}]", one


def _flaw(value: object) -> str:
    """What is wrong with this value itself, in words that follow its place."""
    if isinstance(value, int):
        return "" if LOWEST <= value <= HIGHEST else f"must be a whole number from {LOWEST} to {HIGHEST}"
    if _is_torn(value):
        return f"must be Unicode text, not {shown(value)}"
    if value is None or isinstance(value, _CARRIED):
        return ""
    return f"must be {_MUST_BE}, not a value of type {type(value).__name__}"


def _is_torn(value: object) -> bool:
    """Whether it is text that UTF-8 has no bytes for: it has half of a surrogate pair."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return True
    return False


def _cut(place: str) -> str:
    return place if len(place) <= MAX_PLACE else f"{place[: MAX_PLACE // 2]}...{place[-MAX_PLACE // 2 :]}"
