"""The codec under arbitrary bytes and values: a value or the one declared error, and every value comes back."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.core_support import ME, NETWORK, NOON, Person
from zmesh.core import wire
from zmesh.core.bounds import MAX_AROUND, MAX_BODY, MAX_IDS, MAX_PAYLOAD, MAX_VALUES
from zmesh.core.errors import PayloadError, PayloadTooLargeError, WireError
from zmesh.core.types import DropReason
from zmesh.handlers.record import Description, Record, decode_record, encode_record

ALICE = Person(2)
DECLARED = {DropReason.MALFORMED, DropReason.OVERSIZE, DropReason.UNKNOWN_VERSION, DropReason.UNKNOWN_FRAME}

Decoder = Callable[[bytes], object]
DECODERS: list[Decoder] = [
    wire.decode_body,
    wire.decode_payload,
    wire.decode_ids,
    wire.decode_digest,
    wire.decode_slots,
    decode_record,
]


def reads_or_refuses(decode: Decoder, data: bytes) -> None:
    try:
        decode(data)
    except WireError as refusal:
        assert refusal.reason in DECLARED
        assert refusal.detail


# ---------------------------------------------------------------- what may arrive

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.sampled_from([bytes(32), b"\xd6\xff\0\0\0\0", NETWORK, ME.public, 1, 0, 255, 2**63, wire.VERSION]),
    st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20)),
    st.builds(msgpack.Timestamp, st.integers(0, 2**40), st.integers(0, 999_999_999)),
)
keys = st.one_of(st.text(max_size=8), st.binary(max_size=8), st.integers(-3, 300), st.none(), st.floats())
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=6) | st.dictionaries(keys, inner, max_size=6), max_leaves=20
)
packed = values.map(lambda value: bytes(msgpack.packb(value, use_bin_type=True)))
bodies = st.builds(
    lambda fields, more: bytes(msgpack.packb([*fields, *more])),
    st.tuples(
        *(
            st.one_of(st.just(right), leaves) if odd else st.just(right)
            for odd, right in enumerate(ALICE.body(payload=b"\x80"))
        )
    ),
    st.lists(leaves, max_size=2),
)


@st.composite
def mutated(draw: st.DrawFn, good: st.SearchStrategy[bytes]) -> bytes:
    """Valid bytes with a few bytes flipped, cut out, put in or cut off."""
    data = bytearray(draw(good))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["flip", "cut", "insert", "truncate"]))
        if how == "flip" and at < len(data):
            data[at] ^= draw(st.integers(1, 255))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 8))]
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif how == "truncate":
            del data[at:]
    return bytes(data)


def record(endpoints: int = 2) -> Record:
    return encode_record(
        Description("alice", ALICE.member.endpoints * endpoints, 9091, None, ("relay",)),
        NETWORK,
        ALICE.public,
        7,
        NOON.wall_ms,
        ALICE.sign,
    )


GOOD = [
    ALICE.says().body,
    ALICE.hello(ME.public).body,
    wire.encode_payload({"a": [1, {"b": b"c"}], "d": None}),
    wire.encode_ids([bytes(16), bytes([7] * 16)]),
    wire.encode_digest([wire.DigestEntry(5, 1, bytes(8)), wire.DigestEntry(6, 1, bytes(8))]),
    wire.encode_slots([1, 2, 3]),
    record().encoded,
]


@pytest.mark.parametrize("decode", DECODERS, ids=lambda decode: str(decode.__name__))
@given(data=st.one_of(st.binary(max_size=300), packed, bodies, mutated(st.sampled_from(GOOD))))
@example(data=b"\x81\xa1a\xc7\x0c\xff" + b"\xff" * 12)
@example(data=b"\x81\xa1a\xd7\xff" + bytes(8))
@example(data=b"\xdd\xff\xff\xff\xff")
@example(data=b"\x91" * 2000)
@example(data=b"\xc1")
def test_any_bytes_are_read_or_refused(decode: Decoder, data: bytes) -> None:
    reads_or_refuses(decode, data)


@given(st.lists(st.one_of(st.binary(max_size=80), st.sampled_from([b"\x01\x05\x00", b"\x02", bytes(64)])), max_size=5))
def test_any_frames_have_a_type_or_are_refused(frames: list[bytes]) -> None:
    try:
        kind = wire.frame_type(frames)
    except WireError as refusal:
        assert refusal.reason in DECLARED
    else:
        assert kind in range(wire.ENVELOPE, wire.LEAVE + 1)
        assert len(frames) == (3 if kind == wire.ENVELOPE else 2)


# ---------------------------------------------------------------- there and back

uints = st.integers(0, wire.MAX_UINT)
bytes32 = st.binary(min_size=32, max_size=32)
good_bodies = st.builds(
    wire.Body,
    version=st.just(wire.VERSION),
    network=bytes32,
    kind=st.integers(1, 63) | st.integers(128, 255),
    author=bytes32,
    epoch=uints,
    sequence=uints,
    timestamp_ms=uints,
    ttl=st.integers(0, 255),
    expiry_ms=st.none() | uints,
    recipient=st.none() | bytes32,
    correlation=st.none() | bytes32,
    payload=st.binary(max_size=500),
)


@given(good_bodies)
def test_every_body_comes_back(body: wire.Body) -> None:
    assert wire.decode_body(wire.encode_body(body)) == body


def test_the_largest_body_fits_its_bound() -> None:
    most = wire.MAX_UINT
    widest = wire.Body(
        1, bytes(32), 255, bytes(32), most, most, most, 255, most, bytes(32), bytes(32), bytes(MAX_PAYLOAD)
    )
    encoded = wire.encode_body(widest)

    assert wire.decode_body(encoded) == widest
    assert len(encoded) - MAX_PAYLOAD < 200
    assert len(encoded) <= MAX_BODY


@pytest.mark.parametrize(
    "field, wrong",
    [
        ("network", bytes(31)),
        ("network", "x" * 32),
        ("kind", 0),
        ("kind", 256),
        ("kind", -1),
        ("kind", True),
        ("kind", 64),
        ("author", bytes(33)),
        ("author", None),
        ("epoch", -1),
        ("epoch", 2**63),
        ("epoch", 1.0),
        ("sequence", None),
        ("timestamp_ms", 2**64 - 1),
        ("ttl", 256),
        ("ttl", False),
        ("expiry_ms", -1),
        ("expiry_ms", "0"),
        ("recipient", bytes(31)),
        ("correlation", bytes(33)),
        ("payload", "text"),
        ("payload", None),
        ("payload", bytes(MAX_PAYLOAD + 1)),
    ],
)
def test_every_field_has_its_type_and_width(field: str, wrong: Any) -> None:
    fields = ALICE.body()._replace(**{field: wrong})
    with pytest.raises(WireError) as refusal:
        wire.decode_body(msgpack.packb(fields))

    assert refusal.value.reason is DropReason.MALFORMED


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=MAX_IDS))
def test_every_list_of_ids_comes_back(ids: list[bytes]) -> None:
    assert wire.decode_ids(wire.encode_ids(ids)) == ids


@given(st.sets(st.integers(0, 2**64 - 1), min_size=1, max_size=wire.MAX_SLOTS), st.randoms())
def test_every_digest_and_list_comes_back(numbers: set[int], rng: Any) -> None:
    slots = sorted(numbers)
    entries = [wire.DigestEntry(slot, rng.getrandbits(32), rng.randbytes(8)) for slot in slots]

    assert wire.decode_slots(wire.encode_slots(slots)) == slots
    assert wire.decode_digest(wire.encode_digest(entries)) == entries


@pytest.mark.parametrize(
    "decode, data",
    [
        (wire.decode_ids, b""),
        (wire.decode_ids, bytes(16 * (MAX_IDS + 1))),
        (wire.decode_slots, b""),
        (wire.decode_slots, wire.encode_slots(range(wire.MAX_SLOTS + 1))),
        (wire.decode_slots, wire.encode_slots([2, 1])),
        (wire.decode_slots, wire.encode_slots([1, 1])),
        (wire.decode_digest, wire.encode_digest([wire.DigestEntry(n, 1, bytes(8)) for n in range(257)])),
    ],
)
def test_lists_are_bounded_and_in_order(decode: Decoder, data: bytes) -> None:
    with pytest.raises(WireError):
        decode(data)


def test_an_empty_digest_is_a_sign_of_life() -> None:
    assert wire.decode_digest(b"") == []


# ---------------------------------------------------------------- payloads


def view(data: bytes) -> memoryview[int]:
    return memoryview(data)


awkward = st.one_of(
    leaves,
    st.integers(),
    st.sets(st.integers(), max_size=2),
    st.just(object()),
    st.just(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)),
    st.just("\ud800"),
    st.binary(max_size=8).map(bytearray),
    st.binary(max_size=8).map(view),
)
anything = st.recursive(
    awkward,
    lambda inner: (
        st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple) | st.dictionaries(keys, inner, max_size=5)
    ),
    max_leaves=15,
)


def same(sent: Any, came: Any) -> bool:
    """Equal, but for what msgpack has no word for: tuples arrive as lists, byte arrays as bytes."""
    if isinstance(sent, dict):
        return isinstance(came, dict) and sent.keys() == came.keys() and all(same(sent[k], came[k]) for k in sent)
    if isinstance(sent, (list, tuple)):
        return isinstance(came, list) and len(sent) == len(came) and all(map(same, sent, came))
    if isinstance(sent, float) and math.isnan(sent):
        return isinstance(came, float) and math.isnan(came)
    if isinstance(sent, (bytearray, memoryview)):
        return bool(bytes(sent) == came)
    return type(sent) is type(came) and bool(sent == came)


@given(st.dictionaries(st.text(max_size=8), anything, max_size=6))
@example({"when": msgpack.Timestamp(1)})
@example({"outer": {1: "a number as a key"}})
def test_a_payload_arrives_as_it_was_or_is_refused_at_its_sender(payload: dict[str, Any]) -> None:
    try:
        encoded = wire.encode_payload(payload)
    except PayloadError as refusal:
        assert "\n" not in str(refusal)
    else:
        assert same(payload, wire.decode_payload(encoded))


@pytest.mark.parametrize(
    "payload", [{1: "x"}, {b"k": 1}, {"deep": {2: 3}}, {"x": {1, 2}}, {"x": 2**64}, {"x": msgpack.Timestamp(1)}]
)
def test_what_others_would_refuse_is_refused_at_its_sender(payload: Any) -> None:
    with pytest.raises(PayloadError):
        wire.encode_payload(payload)


def in_arrays(value: Any, levels: int) -> Any:
    for _ in range(levels):
        value = [value]
    return value


WIDE = list(range(300))
"""What makes a payload too large for its bytes alone to tell that it is good."""


@pytest.mark.parametrize("beside", [None, WIDE, b"\xff", "\u0100" * 200])
@pytest.mark.parametrize("inner", [[], 0, {}, {"k": 1}, b"\x91" * 600])
def test_nesting_ends_at_the_same_level_whatever_is_nested_and_stands_beside(inner: Any, beside: Any) -> None:
    own = isinstance(inner, (list, dict))
    deepest = {"beside": beside, "deep": in_arrays(inner, wire.MAX_NESTING - 1 - own)}
    assert wire.decode_payload(wire.encode_payload(deepest)) == deepest

    deeper = {"beside": beside, "deep": [deepest["deep"]]}
    with pytest.raises(PayloadError, match="lies deeper than the 32 lists"):
        wire.encode_payload(deeper)
    with pytest.raises(WireError, match="32 deep"):
        wire.decode_payload(msgpack.packb(deeper))


@pytest.mark.parametrize(
    "head", [b"\x91", b"\xdc\0\1", b"\xdd\0\0\0\1", b"\x81\xa1k", b"\xde\0\1\xa1k", b"\xdf\0\0\0\1\xa1k"]
)
def test_nesting_counts_however_an_array_or_map_is_written(head: bytes) -> None:
    wire.decode_payload(b"\x81\xa1v" + head * (wire.MAX_NESTING - 1) + b"\0")
    with pytest.raises(WireError, match="32 deep"):
        wire.decode_payload(b"\x81\xa1v" + head * wire.MAX_NESTING + b"\0")


@given(
    st.integers(0, MAX_PAYLOAD),
    st.integers(0, 2 * MAX_AROUND),
    st.sampled_from([b"\xc5", b"\xc6"]),
)
def test_a_large_body_is_all_payload_but_for_a_few_bytes(size: int, later: int, head: bytes) -> None:
    """Whatever way its payload's size is written."""
    fields = [1, bytes(32), 9, bytes(32), 2**40, 2**40, 2**40, 5, 2**40, bytes(32), bytes(32)]
    payload = head + size.to_bytes(2 if head == b"\xc5" else 4) if size < 2**16 or head != b"\xc5" else b"\xc6\0\1\0\0"
    body = b"\x9d" + b"".join(map(msgpack.packb, fields)) + payload + bytes(size) + msgpack.packb(bytes(later))
    if len(body) - size <= MAX_AROUND:
        assert len(wire.decode_body(body).payload) == size
    else:
        with pytest.raises(WireError) as refusal:
            wire.decode_body(body)
        assert refusal.value.reason in (DropReason.MALFORMED, DropReason.OVERSIZE)


@pytest.mark.parametrize("before", [[], [bytes(32)], [bytes(32), 9, bytes(32), 1, 1, 1, 1, None, None, None]])
@pytest.mark.parametrize("version", [1, 2])
def test_nothing_beyond_the_first_bytes_of_a_large_body_is_read_but_its_payload(
    version: int, before: list[Any]
) -> None:
    many = b"\xdc\xf0\0" + b"\x80" * 0xF000
    body = b"\x9d" + b"".join(map(msgpack.packb, [version, *before])) + many
    read: list[int] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(msgpack, "unpackb", lambda data, **_: read.append(len(data)))
        with pytest.raises(WireError) as refusal:
            wire.decode_body(body)
    assert refusal.value.reason is (DropReason.MALFORMED if version == 1 else DropReason.UNKNOWN_VERSION)
    assert read == []


MANY = MAX_VALUES


@pytest.mark.parametrize(
    "most",
    [
        {"v": [0] * (MANY - 3)},
        {"v": [1.5] * (MANY // 2), "w": [""] * (MANY // 2 - 5)},
        {str(n): n for n in range(MANY // 2 - 2)} | {"v": []},
        {str(n): n for n in range(MANY // 2 - 1)},
        {"v": [{}] * (MANY - 3)},
        {"v": [[[]]] * ((MANY - 5) // 2), "w": None},
        {"v": {str(n): [] for n in range((MANY - 5) // 2)}, "w": None},
    ],
    ids=["ints", "two lists", "keys", "plain", "maps", "nested", "map of lists"],
)
def test_a_payload_has_a_bounded_number_of_values_however_they_are_held(most: dict[str, Any]) -> None:
    held: list[Any] = [most]
    count = 1
    for one in held:
        count += len(one) * (2 if isinstance(one, dict) else 1)
        held += [each for each in (one.values() if isinstance(one, dict) else one) if isinstance(each, (list, dict))]
    assert MANY - 1 <= count <= MANY
    assert wire.decode_payload(wire.encode_payload(most)) == most

    more = most | {"one": 1, "more": 2}
    with pytest.raises(PayloadError, match="more than 8192 values"):
        wire.encode_payload(more)
    with pytest.raises(WireError, match="more than 8192 values"):
        wire.decode_payload(msgpack.packb(more))


@pytest.mark.parametrize("levels", [500, 1022, 1023, 1024, 3000, 60_000])
def test_nesting_without_end_is_refused_on_both_sides(levels: int) -> None:
    """Where msgpack itself ends, too: its compiled form at 1024, its other one wherever Python's stack does."""
    with pytest.raises(WireError) as refusal:
        wire.decode_payload(b"\x81\xa1a" + b"\x91" * levels + b"\xc0")
    assert refusal.value.reason is DropReason.MALFORMED
    with pytest.raises(PayloadError):
        wire.encode_payload({"deep": in_arrays(0, levels)})


@pytest.mark.parametrize(
    "later, reason",
    [
        (b"\xc0", DropReason.UNKNOWN_VERSION),
        (b"\x91" * (wire.MAX_NESTING - 2) + b"\x90", DropReason.UNKNOWN_VERSION),
        (b"\x91" * (wire.MAX_NESTING - 1) + b"\x90", DropReason.MALFORMED),
        (b"\xd6\xff\0\0\0\1", DropReason.MALFORMED),
        (b"\x81\xa1t\x91\xd7\xff" + bytes(8), DropReason.MALFORMED),
        (b"\xd4\x05\0", DropReason.MALFORMED),
        (b"\xc0\xc0", DropReason.MALFORMED),
        (b"\xc1", DropReason.MALFORMED),
        (b"", DropReason.MALFORMED),
    ],
)
@pytest.mark.parametrize("version", [2, 0, -1, 255])
def test_a_body_of_any_version_is_one_plain_array(version: int, later: bytes, reason: DropReason) -> None:
    with pytest.raises(WireError) as refusal:
        wire.decode_body(b"\x92" + msgpack.packb(version) + later)

    assert refusal.value.reason is reason


@given(packed)
def test_the_look_at_the_bytes_alone_never_takes_what_the_values_would_not(data: bytes) -> None:
    """Every payload fares as it does beside so much that its values have to be looked at."""

    def taken(payload: bytes) -> bool:
        try:
            wire.decode_payload(payload)
        except WireError:
            return False
        return True

    assert taken(b"\x81\xa1v" + data) == taken(b"\x82\xa1v" + data + b"\xa1w" + msgpack.packb([b"\xff", WIDE]))


@pytest.mark.parametrize("payload", [b"", [], None, "text", 5])
def test_a_payload_is_a_mapping(payload: Any) -> None:
    with pytest.raises(PayloadError):
        wire.encode_payload(payload)


def test_the_limit_of_a_payload_is_exact() -> None:
    frame = len(wire.encode_payload({"x": bytes(40_000)})) - 40_000
    assert len(wire.encode_payload({"x": bytes(MAX_PAYLOAD - frame)})) == MAX_PAYLOAD
    with pytest.raises(PayloadTooLargeError, match=str(MAX_PAYLOAD)):
        wire.encode_payload({"x": bytes(MAX_PAYLOAD - frame + 1)})


@pytest.mark.parametrize("size", [4, 8, 12])
@pytest.mark.parametrize("head", [b"\xc7%c\xff", b"\xc8\0%c\xff", b"\xc9\0\0\0%c\xff"])
def test_a_timestamp_is_refused_however_its_length_is_written(head: bytes, size: int) -> None:
    timestamp = head % size + bytes(size)
    for payload in (b"\x81\xa1t" + timestamp, b"\x81\xa1t\x92\x01\x81\xa1u" + timestamp):
        with pytest.raises(WireError, match="timestamp"):
            wire.decode_payload(payload)


@given(st.binary(max_size=64))
def test_bytes_that_look_like_a_timestamp_are_bytes(noise: bytes) -> None:
    blob = b"\xd6\xff\xd7\xff\xc7\x0c\xff\xc8\0\x04\xff\xc9\0\0\0\x08\xff" + noise

    assert wire.decode_payload(wire.encode_payload({"x": blob})) == {"x": blob}
