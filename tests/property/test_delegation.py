"""Delegations under arbitrary bytes: one decodes, or there is the one declared error; and no question raises."""

from __future__ import annotations

from typing import Any

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.delegation_support import delegation, signer
from zmesh.core.errors import ConfigError, WireError
from zmesh.core.types import DropReason
from zmesh.delegation import Scheme, decode_delegation, parse_text
from zmesh.identity import Identity

NODE = Identity.from_seed(bytes([101]) * 32)
WHOLE = [delegation(signer(1, scheme), NODE) for scheme in Scheme]
WHOLE_NUMBERS = st.integers(-(2**63), 2**64 - 1)
"""Those that msgpack carries."""
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    WHOLE_NUMBERS,
    st.floats(),
    st.text(max_size=70),
    st.binary(max_size=70),
    st.sampled_from([bytes(32), bytes(33), bytes(64), b"\xff" * 32, b"\xff" * 64]),
    st.lists(WHOLE_NUMBERS, max_size=2),
)


def asks_everything(encoded: bytes) -> None:
    try:
        made = decode_delegation(encoded)
    except WireError as refusal:
        assert refusal.reason is DropReason.MALFORMED
    else:
        assert made.encoded == encoded
        # Junk never holds: no example can find a signature.
        holds = made.held_by_key() and made.signed_by_account()
        assert not holds or any(made.statement == whole.statement for whole in WHOLE)
        assert parse_text(made.statement.text) == made.statement


@given(st.binary(max_size=520))
def test_arbitrary_bytes_decode_or_are_malformed(encoded: bytes) -> None:
    asks_everything(encoded)


@given(st.sampled_from(WHOLE), st.dictionaries(st.integers(0, 12), VALUES, max_size=3))
def test_nearly_right_fields_decode_or_are_malformed(whole: Any, changes: dict[int, Any]) -> None:
    fields = msgpack.unpackb(whole.encoded)
    for position, value in changes.items():
        fields[position] = value
    asks_everything(msgpack.packb(fields))


@given(st.sampled_from(WHOLE), st.integers(0, 400), st.integers(1, 255))
def test_a_flipped_byte_never_holds(whole: Any, position: int, flip: int) -> None:
    encoded = bytearray(whole.encoded)
    encoded[position % len(encoded)] ^= flip
    try:
        made = decode_delegation(bytes(encoded))
    except WireError:
        return
    assert not (made.held_by_key() and made.signed_by_account())


@given(st.one_of(st.binary(max_size=600), st.sampled_from(WHOLE).map(lambda whole: whole.statement.text[:-1])))
def test_arbitrary_text_is_a_statement_or_one_sentence(text: bytes) -> None:
    try:
        statement = parse_text(text)
    except ConfigError as refusal:
        assert "\n" not in str(refusal)
    else:
        assert statement.text == text.removesuffix(b"\n")
