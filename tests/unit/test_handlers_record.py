"""The format of a peer record: signed, bounded, and strict."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.handlers_support import NOON, verify
from tests.unit.records_support import (
    ALICE,
    PUBLIC,
    record,
)
from zmesh.core import wire
from zmesh.core.errors import ConfigError, WireError
from zmesh.core.types import DropReason, Endpoint
from zmesh.handlers import (
    Description,
    decode_record,
    is_local,
    verify_record,
)


def test_a_record_comes_back_as_it_was_signed() -> None:
    made = record(ALICE, sequence=7)

    back = decode_record(made.encoded)

    assert back == made
    assert (back.peer_id, back.endpoints, back.router_port, back.gossip_port) == (
        "alice",
        (Endpoint("203.0.113.7", 9090), Endpoint("a.example", 9090)),
        41001,
        41002,
    )
    assert (back.capabilities, back.wire_versions, back.sequence, back.time_ms) == (
        ("train",),
        (1,),
        7,
        NOON.wall_ms,
    )
    assert verify_record(back, verify)


def test_no_byte_of_a_record_can_be_changed() -> None:
    encoded = record(ALICE).encoded
    for position in range(len(encoded)):
        forged = bytearray(encoded)
        forged[position] ^= 1
        try:
            decoded = decode_record(bytes(forged))
        except WireError as error:
            assert error.reason is DropReason.MALFORMED
        else:
            assert not verify_record(decoded, verify), position


def test_every_truncation_is_malformed_and_a_trailing_field_is_ignored() -> None:
    made = record(ALICE)
    for size in range(len(made.encoded)):
        with pytest.raises(WireError):
            decode_record(made.encoded[:size])
    fields = msgpack.unpackb(made.encoded[:-64])
    grown = decode_record(msgpack.packb([*fields, "later", 1]) + made.encoded[-64:])
    assert replace(grown, encoded=made.encoded) == made


def test_nested_arrays_that_claim_to_be_large_take_no_memory() -> None:
    body = b"\xdc\x0b\x00" * 1000  # each claims 2,816 values
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            decode_record(body + bytes(64))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


@given(st.binary(max_size=300))
def test_garbage_is_only_ever_malformed(data: bytes) -> None:
    for encoded in (data, data + bytes(64)):
        with pytest.raises(WireError) as caught:
            decode_record(encoded)
        assert caught.value.reason is DropReason.MALFORMED


@given(st.lists(st.one_of(st.none(), st.integers(-1, 2**63), st.text(), st.binary(max_size=33), st.lists(st.text()))))
def test_an_array_of_anything_is_only_ever_malformed(values: list[object]) -> None:
    with pytest.raises(WireError) as caught:
        decode_record(msgpack.packb(values) + bytes(64))
    assert caught.value.reason is DropReason.MALFORMED


@pytest.mark.parametrize(
    "wrong",
    [
        {"peer_id": ""},
        {"peer_id": "é" * 65},
        {"endpoints": (Endpoint("a.example", 0),)},
        {"endpoints": (Endpoint("a b", 1),)},
        {"endpoints": (Endpoint("a/../b", 1),)},
        {"endpoints": (Endpoint("", 1),)},
        {"endpoints": (Endpoint("127.1", 1),)},
        {"endpoints": (Endpoint("2130706433", 1),)},
        {"endpoints": (Endpoint("0x7f000001", 1),)},
        {"endpoints": (Endpoint("0177.0.0.1", 1),)},
        {"endpoints": (Endpoint("127.0.0.1.", 1),)},
        {"endpoints": (Endpoint("a::b::c", 1),)},
        {"endpoints": tuple(Endpoint("a.example", port) for port in range(1, 10))},
        {"router_port": 65536},
        {"capabilities": ("x" * 65,)},
        {"wire_versions": (0,)},
    ],
)
def test_a_description_out_of_bounds_is_refused_at_its_maker(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="out of bounds: it must have a peer_id"):
        replace(PUBLIC, **wrong)


def test_the_widest_record_fits() -> None:
    widest = Description(
        "p" * 128,
        tuple(Endpoint("h" * 253, 65535) for _ in range(8)),
        65535,
        65535,
        tuple("c" * 64 for _ in range(16)),
        (1,) * 8,
    )
    assert decode_record(record(ALICE, wire.MAX_UINT, widest).encoded).peer_id == "p" * 128


@pytest.mark.parametrize(
    "host,local",
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", True),
        ("169.254.1.1", True),
        ("fe80::1", True),
        ("224.0.0.1", True),
        ("localhost", True),
        ("LOCALHOST.", True),
        ("node.localhost", True),
        ("10.0.0.1", False),
        ("203.0.113.7", False),
        ("localhost.example", False),
        ("a.example", False),
    ],
)
def test_local_addresses_are_told_apart(host: str, local: bool) -> None:
    assert is_local(host) is local
