"""The vectors of what is refused, and of what is just within a bound or just beyond."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgpack

from tests.vectors.kit import AUTHOR, EPOCH, NETWORK, TIME_MS, Vectors, delegation, fields_of
from zmesh.core import wire
from zmesh.core.bounds import MAX_AROUND, MAX_BODY, MAX_VALUES
from zmesh.core.types import Endpoint
from zmesh.delegation import Scheme
from zmesh.handlers.record import Description, encode_record


def refused() -> Vectors:
    """Messages that every implementation refuses, and the name under which it does. Their signatures are junk."""
    good = fields_of()
    junk, deepest = bytes(64), wire.MAX_NESTING

    def body(**changed: Any) -> bytes:
        return wire.encode_body(wire.Body(**(good | changed)))

    whole = body()
    late_extension = msgpack.packb([*good.values(), msgpack.Timestamp(1)])
    bodies: list[tuple[str, str, bytes]] = [
        ("a body that is no array", "malformed", msgpack.packb({"version": 1})),
        ("an empty array", "malformed", msgpack.packb([])),
        ("bytes after the body", "malformed", whole + b"\xc0"),
        ("a field short", "malformed", msgpack.packb(list(good.values())[:-1])),
        ("a version that is text", "malformed", body(version="1")),
        ("a later version", "unknown_version", body(version=2)),
        ("a later version of another shape", "unknown_version", msgpack.packb([2, "anything"])),
        ("a later version with an extension type", "malformed", msgpack.packb([2, msgpack.ExtType(5, b"")])),
        ("a later version with a timestamp", "malformed", bytes.fromhex("9202d6ff00000001")),
        ("a later version, nested too deep", "malformed", b"\x92\x02" + b"\x91" * (deepest - 1) + b"\x90"),
        ("a later version, bytes after it", "malformed", msgpack.packb([2]) + b"\x00"),
        (
            "a later version, too deep and beyond what is read of it",
            "unknown_version",
            b"\x92\x02" + b"\x91" * MAX_AROUND,
        ),
        ("a body over its bound", "oversize", bytes(MAX_BODY + 1)),
        ("513 bytes beside the payload", "malformed", widest(body(payload=bytes(300)), MAX_AROUND + 1)),
        ("a field of many values before the payload", "malformed", b"\x9c\x01\x91" + b"\x80" * MAX_AROUND),
        ("a network of 31 bytes", "malformed", body(network=bytes(31))),
        ("kind 0", "malformed", body(kind=0)),
        ("kind 256", "malformed", body(kind=256)),
        ("a link kind without recipient", "malformed", body(kind=64)),
        ("a boolean for a number", "malformed", body(ttl=True)),
        ("a negative sequence", "malformed", body(sequence=-1)),
        ("an integer of 64 bits", "malformed", body(epoch=2**63)),
        ("a ttl of 256", "malformed", body(ttl=256)),
        ("a recipient of text", "malformed", body(recipient="x" * 32)),
        ("a payload of text", "malformed", body(payload="text")),
        ("an extension type in a later field", "malformed", late_extension),
        ("a later field nested too deep", "malformed", b"\x9d" + whole[1:] + b"\x91" * (deepest - 1) + b"\x90"),
        ("a later field of text that is not UTF-8", "malformed", b"\x9d" + whole[1:] + b"\xa2\xc3\x28"),
        ("the extension type, its length in a byte", "malformed", b"\x9d" + whole[1:] + b"\xc7\x04\xff" + bytes(4)),
        (
            "the extension type, its length in two bytes",
            "malformed",
            b"\x9d" + whole[1:] + b"\xc8\0\x08\xff" + bytes(8),
        ),
        (
            "the extension type, its length in four bytes",
            "malformed",
            b"\x9d" + whole[1:] + b"\xc9\0\0\0\x0c\xff" + bytes(12),
        ),
    ]
    made = [{"name": name, "reason": reason, "frames": [b"\x01\x05\x00", data, junk]} for name, reason, data in bodies]
    return [*made, *refused_shapes(whole, junk), *refused_controls()]


def widest(body: bytes, around: int, payload: int = 300) -> bytes:
    """The body with a thirteenth field, a blob that makes it ``around`` bytes besides its payload."""
    blob = around + payload - len(body) - 3
    return b"\x9d" + body[1:] + b"\xc5" + blob.to_bytes(2) + bytes(blob)


def refused_shapes(whole: bytes, junk: bytes) -> Vectors:
    """Frames that are wrong before a body is looked at."""
    cases: list[tuple[str, str, list[bytes]]] = [
        ("one frame", "malformed", [b"\x01\x05\x00"]),
        ("four frames", "malformed", [b"\x01\x05\x00", whole, junk, b""]),
        ("an empty head", "malformed", [b"", whole, junk]),
        ("a head of 17 bytes", "malformed", [b"\x01" * 17, whole, junk]),
        ("an envelope's head of 2 bytes", "malformed", [b"\x01\x05", whole, junk]),
        ("a signature of 63 bytes", "malformed", [b"\x01\x05\x00", whole, junk[1:]]),
        ("an envelope without signature", "malformed", [b"\x01\x05\x00", whole]),
        ("frame type 0", "unknown_frame", [b"\x00", b""]),
        ("the reserved BATCH", "unknown_frame", [b"\x10", b""]),
        ("the reserved BLOB", "unknown_frame", [b"\x11", b"", b""]),
        ("a control message of 3 frames", "malformed", [b"\x02", bytes(16), b""]),
    ]
    return [{"name": name, "reason": reason, "frames": frames} for name, reason, frames in cases]


def refused_controls() -> Vectors:
    """Control bodies that are wrong."""
    cases: list[tuple[str, str, int, bytes]] = [
        ("an IHAVE of nothing", "malformed", wire.IHAVE, b""),
        ("an IHAVE of 15 bytes", "malformed", wire.IHAVE, bytes(15)),
        ("an IWANT of 2049 ids", "malformed", wire.IWANT, bytes(16 * 2049)),
        ("a control body over its bound", "oversize", wire.IWANT, bytes(40 * 1024 + 1)),
        ("a DIGEST of 19 bytes", "malformed", wire.DIGEST, bytes(19)),
        ("a DIGEST out of order", "malformed", wire.DIGEST, bytes(40)),
        ("a DIGEST of 257 slots", "malformed", wire.DIGEST, bytes(20 * 257)),
        ("a LIST of nothing", "malformed", wire.LIST, b""),
        ("a LIST out of order", "malformed", wire.LIST, wire.encode_slots([2, 1])),
    ]
    return [{"name": name, "reason": reason, "frames": wire.control(kind, body)} for name, reason, kind, body in cases]


# ---------------------------------------------------------------- just within, and just beyond


def edges() -> Vectors:
    """Payloads, bodies, records and delegations at their edges; the reason is None for what is taken."""
    return [
        {"name": name, "part": part, "reason": reason, "data": data}
        for part, cases in (
            ("payload", edges_of_payloads()),
            ("body", edges_of_bodies()),
            ("record", edges_of_records()),
            ("delegation", edges_of_delegations()),
        )
        for name, reason, data in cases
    ]


Edges = list[tuple[str, str | None, bytes]]


def edges_of_payloads() -> Edges:
    """Each is a map of one value, under ``v``, but for those that are none."""
    wrong, deepest = "bad_payload", wire.MAX_NESTING
    values: Edges = [
        ("NaN", None, b"\xcb\x7f\xf8" + bytes(6)),
        ("minus infinity", None, b"\xcb\xff\xf0" + bytes(6)),
        ("a float of 32 bits", None, b"\xca" + bytes(4)),
        ("an integer in more bytes than it needs", None, b"\xcf" + bytes(8)),
        ("text in more bytes than it needs", None, b"\xdb\0\0\0\x01x"),
        ("text that begins with a byte order mark", None, b"\xa4\xef\xbb\xbfx"),
        ("text with a zero", None, b"\xa1\0"),
        ("text that is not UTF-8", wrong, b"\xa2\xc3\x28"),
        ("text with a surrogate", wrong, b"\xa3\xed\xa0\x80"),
        ("text in more bytes of UTF-8 than it needs", wrong, b"\xa2\xc0\x80"),
        ("a map with a key of bytes", None, b"\x81\xc4\x01k\x01"),
        ("a map with a number as a key", wrong, b"\x81\x01\x01"),
        ("the deepest nesting", None, b"\x91" * (deepest - 2) + b"\x90"),
        ("one deeper", wrong, b"\x91" * (deepest - 1) + b"\x90"),
        ("an extension type", wrong, b"\xd4\x05\0"),
        ("a timestamp", wrong, b"\xd6\xff" + bytes(4)),
        ("a timestamp in an array", wrong, b"\x91\xd6\xff" + bytes(4)),
        ("the byte that msgpack never uses", wrong, b"\xc1"),
        ("8192 values", None, b"\xdc" + (MAX_VALUES - 3).to_bytes(2) + bytes(MAX_VALUES - 3)),
        ("8193 values", wrong, b"\xdc" + (MAX_VALUES - 2).to_bytes(2) + bytes(MAX_VALUES - 2)),
        ("8193 values, many of them arrays", wrong, b"\xdc" + (4095).to_bytes(2) + b"\x91\xc0" * 4095),
    ]
    return [
        *((name, reason, b"\x81\xa1v" + value) for name, reason, value in values),
        ("a key twice", None, b"\x82\xa1v\x01\xa1v\x02"),
        ("nothing", wrong, b""),
        ("an array", wrong, b"\x90"),
        ("a key of bytes", wrong, b"\x81\xc4\x01v\x01"),
        ("bytes behind it", wrong, b"\x80\xc0"),
        ("cut short", wrong, b"\x81\xa1v"),
    ]


def edges_of_bodies() -> Edges:
    """What may stand behind the twelfth field; the wrong ones are in ``refused``."""
    fields = list(fields_of().values())
    whole = wire.encode_body(wire.Body(*fields))
    return [
        ("a thirteenth field", None, msgpack.packb([*fields, {"later": [1, "x"]}])),
        (
            "a thirteenth field of the deepest nesting",
            None,
            b"\x9d" + whole[1:] + b"\x91" * (wire.MAX_NESTING - 2) + b"\x90",
        ),
        (
            "512 bytes beside the payload",
            None,
            widest(wire.encode_body(wire.Body(**fields_of(payload=bytes(300)))), 512),
        ),
        ("an array head of 16 bits", None, b"\xdc\0\x0c" + whole[1:]),
        ("a sequence in more bytes than it needs", None, whole.replace(b"\x53\xf1\x00\x01", b"\x53\xf1\x00\xcc\x01")),
    ]


def edges_of_records() -> Edges:
    """A record with one field changed, in a signature that would hold for it."""
    described = Description("v", (Endpoint("192.0.2.1", 9090),), 40001, 40002, ("relay",))
    good = msgpack.unpackb(
        encode_record(described, NETWORK, AUTHOR.public, TIME_MS, TIME_MS, AUTHOR.sign).encoded[: -wire.SIGNATURE_SIZE]
    )

    def record(*fields: Any, **changed: Any) -> bytes:
        names = ["version", "network", "key", "peer_id", "endpoints", "router_port", "gossip_port", "capabilities"]
        names += ["wire_versions", "sequence", "time", "delegation"]
        body: bytes = msgpack.packb([*(dict(zip(names, good, strict=True)) | changed).values(), *fields])
        return body + AUTHOR.sign(b"zmesh/1 record:" + blake2b(body, digest_size=32).digest())

    whole, wrong = record(), "malformed"
    return [
        ("a thirteenth field", None, record({"later": 1})),
        ("a thirteenth field that is an extension type", wrong, record(msgpack.ExtType(5, b"\0"))),
        ("a host of two labels", None, record(endpoints=[["a.b", 1]])),
        ("cut short", wrong, whole[:-1]),
        ("a byte behind it", wrong, whole + b"\0"),
        ("its signature alone", wrong, whole[-64:]),
        ("version 2", wrong, record(version=2)),
        ("a network of 31 bytes", wrong, record(network=bytes(31))),
        ("a name of nothing", wrong, record(peer_id="")),
        ("a name of 129 bytes", wrong, record(peer_id="x" * 129)),
        ("a name that is not UTF-8", wrong, record(peer_id="xy").replace(b"\xa2xy", b"\xa2\xc3\x28")),
        ("nine addresses", wrong, record(endpoints=[["192.0.2.1", 9090]] * 9)),
        ("port 0", wrong, record(endpoints=[["192.0.2.1", 0]])),
        ("a host that only resolvers read as an address", wrong, record(endpoints=[["127.1", 9090]])),
        ("a host that begins with a dot", wrong, record(endpoints=[[".example.org", 9090]])),
        ("a sequence of 2^63", wrong, record(sequence=2**63)),
        ("a delegation of nothing", wrong, record(delegation=b"")),
        ("a delegation of 513 bytes", wrong, record(delegation=bytes(513))),
    ]


def edges_of_delegations() -> Edges:
    """A delegation with one field changed. What is well formed and yet does not hold is none of these."""
    names = ["version", "scheme", "wrapped", "network", "genesis", "account", "key", "not_before", "not_after"]
    names += ["sequence", "public", "account_signature", "key_signature"]
    good = dict(zip(names, msgpack.unpackb(delegation(Scheme.ED25519, False)["encoded"]), strict=True))

    def changed(*more: Any, **fields: Any) -> bytes:
        return bytes(msgpack.packb([*(good | fields).values(), *more]))

    year, wrong = 366 * 86_400, "malformed"
    return [
        ("of 366 days", None, changed(not_after=EPOCH + year)),
        ("of a second more", wrong, changed(not_after=EPOCH + year + 1)),
        ("that ends when it begins", wrong, changed(not_after=EPOCH)),
        ("cut short", wrong, changed()[:-1]),
        ("a byte behind it", wrong, changed() + b"\0"),
        ("a fourteenth field", wrong, changed(None)),
        ("version 2", wrong, changed(version=2)),
        ("scheme 3", wrong, changed(scheme=3)),
        ("wrapped that is a number", wrong, changed(wrapped=0)),
        ("a network of nothing", wrong, changed(network="")),
        ("a network that is not UTF-8", wrong, changed(network="xy").replace(b"\xa2xy", b"\xa2\xc3\x28")),
        ("a genesis of 31 bytes", wrong, changed(genesis=bytes(31))),
        ("a public key beside ed25519", wrong, changed(public=bytes(33))),
        ("ecdsa without a public key", wrong, changed(scheme=2)),
        ("a signature of 65 bytes", wrong, changed(account_signature=bytes(65))),
    ]
