"""The golden vectors: unchanged, read whole, refused when cut short, and strict about what follows.

A failure of the first test means that the wire has changed. If that is meant, ``python -m tests.vectors.regenerate``
writes them anew, and the change of the files is what other implementations have to follow.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgpack
import pytest

from tests.vectors import kit, regenerate
from zmesh.core import wire
from zmesh.core.bounds import MAX_CONTROL
from zmesh.core.errors import WireError
from zmesh.core.types import DropReason
from zmesh.delegation import decode_delegation, encode_delegation, parse_text, wrap
from zmesh.handlers.record import Description, decode_record, encode_record, verify_record
from zmesh.identity import Identity, curve_image, verify
from zmesh.transports.packing import bundle, pack, unpack

FOLDER = Path(__file__).parent
CONTROL: dict[int, tuple[Callable[[bytes], Any], int]] = {
    wire.IHAVE: (wire.decode_ids, 16),
    wire.IWANT: (wire.decode_ids, 16),
    wire.DIGEST: (wire.decode_digest, 20),
    wire.LIST: (wire.decode_slots, 8),
}
"""Decoder and bytes of one item."""


def load(name: str) -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return vectors


def frames_of(vector: dict[str, Any]) -> tuple[bytes, ...]:
    return tuple(
        bytes(frame["zeros"]) if isinstance(frame, dict) else bytes.fromhex(frame) for frame in vector["frames"]
    )


def named(vectors: list[dict[str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=lambda vector: vector["name"])


ENVELOPES, CONTROLS, RECORDS, REFUSED = map(load, ("envelopes", "controls", "records", "refused"))
DELEGATIONS, EDGES, PACKED = map(load, ("delegations", "edges", "packed"))
COMPLETED: dict[str, list[tuple[bytes, ...]]] = {
    "fewer sizes than counted": [(b"", b"", b"")],
    "a frame that is shorter than its size": [(b"\x06\x00", b"")],
    "a bundle of fewer sizes than counted": [(), ()],
    "a bundle of a message that is shorter than its size": [(b"\x06", b"\x00"), ()],
}
"""What cannot be unpacked and lacks one byte only, with a zero behind it."""
PARTS: dict[str, Callable[[bytes], object]] = {
    "payload": wire.decode_payload,
    "body": wire.decode_body,
    "record": decode_record,
    "delegation": decode_delegation,
}


def reason(decode: Callable[[Any], object], data: object) -> DropReason | None:
    """Why it was refused, or None. Any other exception fails the test."""
    try:
        decode(data)
    except WireError as refusal:
        return refusal.reason
    return None


def read(frames: tuple[bytes, ...]) -> object:
    """What the engine reads of a message."""
    kind = wire.frame_type(frames)
    if kind == wire.ENVELOPE:
        return wire.decode_body(frames[1])
    return CONTROL[kind][0](frames[1]) if kind in CONTROL else None


def test_the_wire_has_not_changed() -> None:
    made = {path.name: content for path, content in regenerate.generate()}

    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")} == made


# ---------------------------------------------------------------- whole


def test_keys_have_one_image_and_one_signature() -> None:
    for vector in load("keys"):
        identity = Identity.from_seed(bytes.fromhex(vector["seed"]))
        assert identity.public.hex() == vector["public"]
        assert identity.curve_public == curve_image(identity.public) == bytes.fromhex(vector["x25519"])
        assert verify(identity.public, bytes.fromhex(vector["signed"]), bytes.fromhex(vector["signature"]))


def test_a_network_id_is_a_hash_of_tag_genesis_and_name() -> None:
    for vector in load("networks"):
        genesis = bytes.fromhex(vector["genesis"])
        told = blake2b(b"zmesh/1 network:" + genesis + vector["name"].encode(), digest_size=32).hexdigest()
        assert told == vector["id"] == wire.network_id(vector["name"], genesis).hex()


@named(PACKED)
def test_messages_travel_as_one_frame(vector: dict[str, Any]) -> None:
    messages = [frames_of({"frames": frames}) for frames in vector["messages"]]
    data = bytes.fromhex(vector["packed"])

    assert unpack(data) == messages
    assert unpack(b"a topic before it" + data, len(b"a topic before it")) == messages
    if all(messages):
        assert bundle([pack(frames) for frames in messages]) == data


@named(ENVELOPES)
def test_an_envelope_says_what_it_says(vector: dict[str, Any]) -> None:
    head, body, signature = frames_of(vector)
    fields = wire.decode_body(body)

    assert wire.frame_type(frames_of(vector)) == wire.ENVELOPE
    assert head == bytes([1, fields.ttl, 0])
    assert kit.told(fields._asdict()) == vector["fields"]
    assert kit.content(wire.decode_payload(fields.payload)) == vector["content"]
    assert wire.encode_body(fields) == body
    assert blake2b(body, digest_size=32).digest() == wire.message_id(body) == bytes.fromhex(vector["id"])
    assert b"zmesh/1 envelope:" + wire.message_id(body) == bytes.fromhex(vector["signing_input"])
    assert verify(fields.author, bytes.fromhex(vector["signing_input"]), signature)


@named(CONTROLS)
def test_a_control_frame_says_what_it_says(vector: dict[str, Any]) -> None:
    frames = frames_of(vector)
    content = read(frames)
    if frames[0][0] == wire.DIGEST:
        content = [kit.told(entry._asdict()) for entry in wire.decode_digest(frames[1])]

    assert kit.plain(content) == vector["content"]


@pytest.mark.parametrize("vector", RECORDS, ids=lambda vector: vector["fields"]["peer_id"])
def test_a_record_says_what_it_says(vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["encoded"])
    record = decode_record(encoded)
    said = vector["fields"]
    names = {told: name for name, told in kit.FIELD_NAMES.items()}

    assert {name: kit.plain(getattr(record, names.get(name, name))) for name in said} == said
    assert verify_record(record, verify)
    assert verify(record.key, bytes.fromhex(vector["signing_input"]), encoded[-64:])
    described = Description(
        record.peer_id,
        record.endpoints,
        record.router_port,
        record.gossip_port,
        record.capabilities,
        record.wire_versions,
        record.delegation,
    )
    again = encode_record(described, record.network, record.key, record.sequence, record.time_ms, kit.AUTHOR.sign)
    assert again.encoded == encoded


@named(DELEGATIONS)
def test_a_delegation_says_what_it_says_and_holds(vector: dict[str, Any]) -> None:
    made = decode_delegation(bytes.fromhex(vector["encoded"]))
    said = {"scheme": int(made.scheme), "wrapped": made.wrapped, **made.statement._asdict(), "public": made.public}
    hashed = blake2b(vector["text"].encode() + made.account_signature, digest_size=32).hexdigest()

    assert kit.plain(said) == vector["fields"]
    assert made.statement.text.decode() == vector["text"]
    assert parse_text(vector["text"].encode()) == made.statement
    assert made.statement.network_id.hex() == vector["network_id"]
    assert made.account_signature.hex() == vector["account_signature"]
    assert (b"zmesh/1 delegation:".hex() + hashed) == vector["key_signing_input"]
    signed = wrap(made.statement.text) if made.wrapped else made.statement.text
    assert signed.decode() == vector["account_signing_input"]
    assert made.held_by_key()
    assert made.signed_by_account()
    again = encode_delegation(
        made.statement,
        made.scheme,
        made.account_signature,
        kit.AUTHOR.sign,
        wrapped=made.wrapped,
        public=made.public,
    )
    assert again == made


@named(REFUSED)
def test_what_is_refused_is_refused_under_its_name(vector: dict[str, Any]) -> None:
    assert reason(read, frames_of(vector)) == vector["reason"]


@pytest.mark.parametrize("vector", EDGES, ids=lambda vector: f"{vector['part']}: {vector['name']}")
def test_what_is_just_within_is_taken_and_what_is_just_beyond_is_not(vector: dict[str, Any]) -> None:
    told = reason(PARTS[vector["part"]], bytes.fromhex(vector["data"]))
    if vector["part"] == "payload" and told is not None:
        told = DropReason.BAD_PAYLOAD  # as the engine calls it, whose author it is to blame for

    assert told == vector["reason"]


def test_both_halves_of_ecdsas_order_are_among_the_vectors() -> None:
    assert {vector["name"] for vector in DELEGATIONS} >= {
        "ecdsa with a high s, plain, golden",
        "ecdsa with a low s, plain, golden",
    }


def test_a_body_written_out_by_hand_is_the_first_vector() -> None:
    """As PROTOCOL.md writes it out, byte for byte."""
    author, network = kit.AUTHOR.public, kit.NETWORK
    body = (
        b"\x9c"  # an array of 12
        b"\x01"  # version
        b"\xc4\x20" + network + b"\x09"  # kind: gossip
        b"\xc4\x20" + author + b"\xce\x65\x53\xf1\x00"  # epoch
        b"\x01"  # sequence
        b"\xcf\x00\x00\x01\x8b\xcf\xe7\x4a\x40"  # timestamp
        b"\x05"  # ttl
        b"\xc0\xc0\xc0"  # expiry, recipient, correlation
        b"\xc4\x0d\x81\xa6custom\xa4data"  # payload
    )

    assert body.hex() == ENVELOPES[0]["body"]


# ---------------------------------------------------------------- cut short, and with more behind


@named(ENVELOPES)
def test_an_envelope_cut_short_anywhere_is_malformed(vector: dict[str, Any]) -> None:
    head, body, signature = frames_of(vector)
    for length in range(len(body)):
        assert reason(wire.decode_body, body[:length]) is DropReason.MALFORMED
    for length in range(len(head)):
        assert reason(read, (head[:length], body, signature)) is DropReason.MALFORMED
    for length in range(len(signature)):
        assert reason(read, (head, body, signature[:length])) is DropReason.MALFORMED


@named(ENVELOPES)
def test_a_payload_cut_short_anywhere_is_malformed(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["fields"]["payload"])
    for length in range(len(payload)):
        assert reason(wire.decode_payload, payload[:length]) is DropReason.MALFORMED
    assert reason(wire.decode_payload, payload + b"\x00") is DropReason.MALFORMED


@named(ENVELOPES)
def test_bytes_behind_an_envelope_are_refused_and_fields_and_head_may_grow(vector: dict[str, Any]) -> None:
    head, body, signature = frames_of(vector)
    for more in (b"\x00", b"\xc0", body):
        assert reason(wire.decode_body, body + more) is DropReason.MALFORMED
    assert reason(read, (head, body, signature + b"\x00")) is DropReason.MALFORMED

    grown = msgpack.packb([*msgpack.unpackb(body), "later", {"more": [1]}])
    assert wire.decode_body(grown) == wire.decode_body(body)
    assert read((head + bytes(13), body, signature)) == wire.decode_body(body)


def cut(message: tuple[bytes, ...], length: int) -> tuple[bytes, ...]:
    """What the first bytes of a packed message say: only its last frame may be short, for its size stands nowhere."""
    last = 1 + 4 * (len(message) - 1) + sum(map(len, message[:-1]))
    return (*message[:-1], message[-1][: length - last]) if message and length >= last else ()


@named(PACKED)
def test_a_packed_message_cut_short_ends_in_a_shorter_frame_or_is_no_message(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["packed"])
    *before, last = [frames_of({"frames": frames}) for frames in vector["messages"]]
    start = 0
    if data[:1] == b"\0" and (before or last):
        ends = range(2, 2 + 4 * len(before), 4)
        start = 2 + 4 * len(before) + sum(int.from_bytes(data[end : end + 4]) for end in ends)
    for length in range(len(data)):
        assert unpack(data[:length]) == ([*before, cut(last, length - start)] if length >= start else [()])


@named(PACKED)
def test_bytes_behind_a_packed_message_are_of_its_last_frame(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["packed"])
    *before, last = [frames_of({"frames": frames}) for frames in vector["messages"]]
    if before or last:
        for more in (b"\x00", b"\x06", data):
            assert unpack(data + more) == [*before, (*last[:-1], last[-1] + more) if last else ()]
    else:
        assert unpack(data + b"\x00") == COMPLETED.get(vector["name"], [()])


@named(CONTROLS)
def test_a_control_frame_has_a_head_that_may_grow_and_one_body(vector: dict[str, Any]) -> None:
    head, body = frames_of(vector)
    assert read((head + bytes(15), body)) == read((head, body))
    for frames in ((b"", body), (head + bytes(16), body), (head,), (head, body, b"")):
        assert reason(read, frames) is DropReason.MALFORMED


@named([vector for vector in CONTROLS if vector["name"] == "LEAVE"])
def test_the_body_of_a_leave_is_ignored_up_to_its_bound(vector: dict[str, Any]) -> None:
    head, body = frames_of(vector)
    assert body == b""
    for more in (b"\x00", b"\xc0", bytes(MAX_CONTROL)):
        assert wire.frame_type((head, more)) == wire.LEAVE
    assert reason(read, (head, bytes(MAX_CONTROL + 1))) is DropReason.OVERSIZE


@named([vector for vector in CONTROLS if vector["name"] != "LEAVE"])
def test_a_control_body_cut_short_is_refused_or_says_less(vector: dict[str, Any]) -> None:
    head, body = frames_of(vector)
    decode, size = CONTROL[head[0]]
    whole = decode(body)
    for length in range(len(body)):
        if length % size or (length == 0 and head[0] != wire.DIGEST):
            assert reason(decode, body[:length]) is DropReason.MALFORMED
        else:
            assert decode(body[:length]) == whole[: length // size]
    for more in range(1, size):
        assert reason(decode, body + bytes(more)) is DropReason.MALFORMED


@named(DELEGATIONS)
def test_a_delegation_cut_short_or_with_more_behind_is_malformed(vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["encoded"])
    for length in range(len(encoded)):
        assert reason(decode_delegation, encoded[:length]) is DropReason.MALFORMED
    for more in (b"\x00", b"\xc0", encoded):
        assert reason(decode_delegation, encoded + more) is DropReason.MALFORMED


@pytest.mark.parametrize("vector", RECORDS, ids=lambda vector: vector["fields"]["peer_id"])
def test_a_record_cut_short_or_with_more_behind_proves_nothing(vector: dict[str, Any]) -> None:
    encoded = bytes.fromhex(vector["encoded"])
    for length in range(len(encoded)):
        assert reason(decode_record, encoded[:length]) is DropReason.MALFORMED
    for more in (b"\x00", bytes(64), encoded):
        assert reason(decode_record, encoded + more) is DropReason.MALFORMED
