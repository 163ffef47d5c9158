"""A payload that cannot travel is refused with the place in it that cannot."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import msgpack
import pytest

from zmesh.core import wire
from zmesh.core.bounds import MAX_VALUES
from zmesh.core.errors import PayloadError
from zmesh.core.unsendable import flaw_of

ANY = "must be None, a bool, a number, text, bytes, a list or a dict, not a value of type"
SELF: dict[str, Any] = {}
SELF["me"] = [SELF]


def refused(payload: Mapping[Any, Any]) -> str:
    with pytest.raises(PayloadError) as caught:
        wire.encode_payload(payload)
    return str(caught.value)


@pytest.mark.parametrize(
    "payload, sentence",
    [
        ({"a": {"b": {1, 2}}}, f"payload.a.b {ANY} set"),
        ({"a": [0, {"b": object()}]}, f"payload.a[1].b {ANY} object"),
        (MappingProxyType({"a": MappingProxyType({})}), f"payload.a {ANY} mappingproxy"),
        ({"model weights": (1.0, 1j)}, f"payload['model weights'][1] {ANY} complex"),
        ({"at": datetime.now(UTC)}, f"payload.at {ANY} datetime"),
        ({"at": msgpack.Timestamp(1)}, f"payload.at {ANY} Timestamp"),
        ({"n": 2**64}, f"payload.n must be a whole number from {-(2**63)} to {2**64 - 1}"),
        ({"n": [-(10**5000)]}, f"payload.n[0] must be a whole number from {-(2**63)} to {2**64 - 1}"),
        ({"votes": {7: "yes"}}, "payload.votes must have text for keys, not a key of type int"),
        ({"votes": {None: "yes"}}, "payload.votes must have text for keys, not a key of type NoneType"),
        ({"t": "\ud800"}, r"payload.t must be Unicode text, not '\ud800'"),
        ({"t": {"\ud800": 1}}, r"payload.t must have Unicode text for keys, not '\ud800'"),
        ({"\ud800": 1}, r"payload must have Unicode text for keys, not '\ud800'"),
    ],
)
def test_the_sentence_names_the_place(payload: Mapping[Any, Any], sentence: str) -> None:
    assert refused(payload) == sentence


def test_nesting_without_end_is_told_from_where_it_is_too_deep() -> None:
    said = refused(SELF)
    assert said.startswith("payload.me[0].me[0].me[0].")
    assert said.endswith(f" lies deeper than the {wire.MAX_NESTING} lists and dicts that may lie within each other")
    assert len(said) < 250


def test_the_search_is_bounded_and_then_the_codec_has_the_last_word() -> None:
    far = {"n": [*range(MAX_VALUES), {1}]}
    assert flaw_of(far, wire.MAX_NESTING) == ""
    assert refused(far).startswith("a payload must be what msgpack can carry: ")
    assert flaw_of({"n": [*range(MAX_VALUES - 3), {1}]}, wire.MAX_NESTING).startswith(f"payload.n[{MAX_VALUES - 3}] ")


@pytest.mark.parametrize(
    "payload",
    [
        {"": None, "a": [True, 1, 1.5, "text", b"bytes", (), {}], "b": bytearray(b"x"), "c": memoryview(b"x")},
        {"n": [-(2**63), 2**64 - 1], "keys": {b"bytes": 1, "text": 2}},
    ],
)
def test_what_can_travel_has_no_flaw(payload: dict[str, Any]) -> None:
    assert wire.encode_payload(payload)
    assert flaw_of(payload, wire.MAX_NESTING) == ""


@pytest.mark.parametrize("levels", [wire.MAX_NESTING - 1, wire.MAX_NESTING])
def test_both_count_levels_alike(levels: int) -> None:
    deep: Any = 0
    for _ in range(levels):
        deep = [deep]
    payload = {"deep": deep}
    if levels < wire.MAX_NESTING:
        assert wire.encode_payload(payload)
    else:
        refused(payload)
    assert bool(flaw_of(payload, wire.MAX_NESTING)) is (levels >= wire.MAX_NESTING)
