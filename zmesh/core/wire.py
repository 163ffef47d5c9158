"""Frames to values and back: wire version 1, bounded, and nothing else. PROTOCOL.md, "Wire", has it in prose.

Rules
 1. Any bytes whatsoever either decode or raise ``WireError``: no other exception leaves a decoder.
 2. Lengths are checked before anything is parsed, so ``bounds.py`` bounds the work.
 3. A body is immutable: a relay passes on the very bytes that the author signed.
 4. Room for later: unknown trailing fields of a body and unknown trailing bytes of a head are ignored; an unknown
    frame type, kind or version has a drop reason of its own and is nobody's fault.

A message is 2 or 3 frames::

    [head: type 0x01, ttl left, hops][body][signature 64 B]     an envelope: everything that is signed
    [head: type 0x02 to 0x06][control body]                     link control, meant for the next hop only
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from itertools import pairwise, product
from typing import Any, Final, NamedTuple

import msgpack

from zmesh.core import bounds
from zmesh.core.errors import PayloadError, PayloadTooLargeError, WireError
from zmesh.core.types import DropReason, Frames, MessageId, MessageType
from zmesh.core.unsendable import flaw_of

VERSION: Final = 1

# Frame types: the first byte of a head.
ENVELOPE: Final = 0x01
IHAVE: Final = 0x02
IWANT: Final = 0x03
DIGEST: Final = 0x04
LIST: Final = 0x05
LEAVE: Final = 0x06
BATCH: Final = 0x10  # reserved: many messages under one signature
BLOB: Final = 0x11  # reserved: a chunk of something announced by its hash

MAX_FRAMES: Final = 3
MAX_HEAD: Final = 16
SIGNATURE_SIZE: Final = 64
KEY_SIZE: Final = 32
ID_SIZE: Final = 32
SHORT_ID: Final = 16
"""Bytes of an id in IHAVE and IWANT: 128 bits, so that a collision on purpose takes 2**64 work."""
MAX_UINT: Final = 2**63 - 1
"""The largest integer of any field: what a signed 64-bit type of another language can hold."""

SIGN_TAG: Final = b"zmesh/1 envelope:"
NETWORK_TAG: Final = b"zmesh/1 network:"

HELLO_CODE: Final = 64
ACK_CODE: Final = 65
LINK_CODES: Final = range(64, 128)
"""Kinds between two ends of a link: they name their recipient and are never relayed."""

KIND_CODES: Final[Mapping[MessageType, int]] = {
    MessageType.PEER_DISCOVERY: 1,
    MessageType.PEER_ANNOUNCE: 2,
    MessageType.FL_ROUND_START: 3,
    MessageType.FL_ROUND_UPDATE: 4,
    MessageType.MODEL_DELTA_OFFER: 5,
    MessageType.MODEL_DELTA_REQUEST: 6,
    MessageType.MODEL_DELTA_TRANSFER: 7,
    MessageType.HEARTBEAT: 8,
    MessageType.GOSSIP: 9,
    MessageType.CONSENSUS_PROPOSE: 10,
    MessageType.CONSENSUS_VOTE: 11,
}
"""The number of each message type in a body. 0 is never used."""
KINDS: Final[Mapping[int, MessageType]] = {code: kind for kind, code in KIND_CODES.items()}

_DIGEST_ENTRY: Final = struct.Struct(">QI8s")
_SLOT: Final = struct.Struct(">Q")
MAX_SLOTS: Final = 256
"""Entries of one DIGEST or LIST: every slot of ``bounds.RETENTION``, with as much again to spare."""

MAX_NESTING: Final = 32
"""Depth of nested arrays and maps, the outermost counted: every msgpack library reads this, and any reader can walk it
by recursion. Libraries' limits range from a hundred levels to none, and nodes that differ would blame the author."""
_PLAIN: Final = frozenset((int, float, bool, str, bytes, type(None)))
"""Types whose values every peer can read once msgpack wrote them: nothing is nested in them."""
_NESTS: Final = bytes((*range(0x80, 0xA0), *range(0xDC, 0xE0)))
"""The first bytes of arrays and maps. They occur in texts and blobs too, so their count only bounds the depth."""
_BLOBS: Final = {0xC4: 1, 0xC5: 2, 0xC6: 4}
"""The first bytes of blobs, and how many bytes encode a blob's size."""
_BUFFER: Final = 1024
"""Initial bytes of the buffer that packs a payload; it grows. By default msgpack allocates 256 KiB for each."""
_SMALL: Final = 512
"""Bytes up to which counting ``_NESTS`` is cheaper than looking at the values."""


UNPACK_ERRORS: Final[tuple[type[Exception], ...]] = (
    ValueError,
    TypeError,
    OverflowError,
    RecursionError,
    msgpack.UnpackException,
)
"""What reading msgpack may raise. The library raises ``ValueError`` for all malformed input (``FormatError``,
``StackError`` and ``ExtraData`` are subclasses), and ``UnicodeDecodeError``, a ``ValueError`` too, for text that is not
UTF-8; the rest guards against a changed library."""


class Body(NamedTuple):
    """The signed part of a message, field by field in wire order."""

    version: int
    network: bytes
    kind: int
    author: bytes
    epoch: int
    sequence: int
    timestamp_ms: int
    ttl: int
    expiry_ms: int | None
    recipient: bytes | None
    correlation: bytes | None
    payload: bytes


BODY_FIELDS: Final = len(Body._fields)
_INT, _BYTES, _NIL = (int,), (bytes,), (type(None),)
_FIELD_TYPES: Final = frozenset(
    product(_INT, _BYTES, _INT, _BYTES, *4 * [_INT], _INT + _NIL, _BYTES + _NIL, _BYTES + _NIL, _BYTES)
)
"""The exact types that a body's fields may have: all eight combinations, so that one look-up decides."""
_pack_body: Final = msgpack.Packer(use_bin_type=True).pack
"""One packer for all bodies, which hold only integers, bytes and nil: creating a packer costs more than packing."""


class DigestEntry(NamedTuple):
    """What one node knows of one second of signed time."""

    slot: int
    """Unix milliseconds divided by ``bounds.DIGEST_SLOT_MS``."""
    held: int
    """How many messages of that second it holds."""
    checksum: bytes
    """8 bytes, see ``seen.SeenStore.digest``."""


def malformed(detail: str) -> WireError:
    """The error for bytes that no honest peer sends."""
    return WireError(DropReason.MALFORMED, detail)


def digest32(data: bytes) -> bytes:
    """32 bytes: BLAKE2b-256 (RFC 7693)."""
    return blake2b(data, digest_size=32).digest()


def network_id(name: str, genesis: bytes = b"") -> bytes:
    """32 bytes that tell one mesh from another: ``digest32`` of genesis hash (32 B, or none) and mesh name."""
    return digest32(NETWORK_TAG + genesis + name.encode())


message_id: Final[Callable[[bytes], MessageId]] = digest32
"""The id of a message, from its body. It covers everything but head and signature."""


def signing_input(identifier: MessageId) -> bytes:
    """What Ed25519 signs: a domain tag and the id, so the cost does not grow with the payload."""
    return SIGN_TAG + identifier


# ---------------------------------------------------------------- body


def encode_body(body: Body) -> bytes:
    """The bytes of a body: one msgpack array with the shortest form of every value."""
    encoded: bytes = _pack_body(body)
    return encoded


def decode_body(data: bytes) -> Body:
    """Parse and check a body. Raises ``WireError`` (OVERSIZE, UNKNOWN_VERSION or MALFORMED)."""
    if len(data) > bounds.MAX_AROUND:
        if len(data) > bounds.MAX_BODY:
            raise WireError(DropReason.OVERSIZE, f"a body must have at most {bounds.MAX_BODY} bytes, not {len(data)}")
        _check_around(data)
    fields = unpack(data)
    if type(fields) is not list or not fields or type(fields[0]) is not int:
        raise malformed("a body must be an array that starts with its version")
    if len(fields) != BODY_FIELDS or fields[0] != VERSION:
        _check_values(data, fields)  # ``_check_fields`` checks the type of each of twelve fields anyway
        if fields[0] != VERSION:
            raise WireError(DropReason.UNKNOWN_VERSION, f"version must be {VERSION}, not {fields[0]}")
        if len(fields) < BODY_FIELDS:
            raise malformed(f"a body must have at least {BODY_FIELDS} fields, not {len(fields)}")
        del fields[BODY_FIELDS:]
    _check_fields(fields)
    return Body._make(fields)


def _check_around(data: bytes) -> None:
    """Check that a body over ``bounds.MAX_AROUND`` is that large by its payload; only its first bytes are parsed.

    Its author is not proven yet: 65,000 empty maps cost 20 ms to read, and a blob of as many bytes 0.1 ms.
    """
    unpacker = msgpack.Unpacker(
        raw=False,
        strict_map_key=True,
        ext_hook=_no_extension,
        max_buffer_size=bounds.MAX_AROUND,  # allocated up front: 1 MiB by default
    )
    unpacker.feed(data[: bounds.MAX_AROUND])
    try:
        count = unpacker.read_array_header()
        version = unpacker.unpack() if count else None
        if type(version) is int and version != VERSION:
            raise WireError(DropReason.UNKNOWN_VERSION, f"version must be {VERSION}, not {version}")
        for _ in range(min(count, BODY_FIELDS) - 2):
            unpacker.unpack()
        start: int = unpacker.tell()
    except UNPACK_ERRORS as error:
        raise malformed(f"no fields of a body within {bounds.MAX_AROUND} bytes: {type(error).__name__}") from None
    width = _BLOBS.get(data[start], 0)
    size = int.from_bytes(data[start + 1 : start + 1 + width])
    if len(data) - size > bounds.MAX_AROUND:
        raise malformed(f"a body must have at most {bounds.MAX_AROUND} bytes besides its payload")


def _check_fields(fields: list[Any]) -> None:
    """Check exact types (True is no integer here), then ranges, of all fields but the version, checked before.

    Spelled out, since this runs for every new message. The values have no annotated types: compiled, a typed name that
    gets another type raises ``TypeError``, and no such error may leave a decoder.
    """
    if tuple(map(type, fields)) not in _FIELD_TYPES:
        raise malformed("fields must have the types that Body says; only expiry, recipient and correlation may be nil")
    _, network, kind, author, epoch, sequence, timestamp_ms, ttl, expiry_ms, recipient, correlation, payload = fields
    if kind == 0 or (kind | ttl) >> 8:  # a sign survives the shift as well as a high bit does
        raise malformed("kind must be 1 to 255, ttl 0 to 255")
    if (epoch | sequence | timestamp_ms | (expiry_ms or 0)) >> 63:
        raise malformed("epoch, sequence, timestamp and expiry must be integers from 0 to 2^63-1")
    if len(network) != KEY_SIZE or len(author) != KEY_SIZE:
        raise malformed("network and author must be 32 bytes")
    if recipient is None:
        if kind in LINK_CODES:
            raise malformed("kinds 64 to 127 must name their recipient")
    elif len(recipient) != KEY_SIZE:
        raise malformed("a recipient must be 32 bytes or nil")
    if correlation is not None and len(correlation) != ID_SIZE:
        raise malformed("a correlation must be 32 bytes or nil")
    if len(payload) > bounds.MAX_PAYLOAD:
        raise malformed(f"a payload must have at most {bounds.MAX_PAYLOAD} bytes")


def unpack(data: bytes) -> Any:
    """msgpack to values with every failure turned into ``WireError`` (MALFORMED)."""
    # The library allocates what the header of an array claims before it checks whether that much is there.
    most = min(len(data), bounds.MAX_VALUES)
    try:
        if len(data) > _SMALL:  # nested, even claims bounded like that add up to megabytes
            unpacker = msgpack.Unpacker(max_buffer_size=len(data), strict_map_key=True)
            unpacker.feed(data)
            unpacker.skip()
        return msgpack.unpackb(
            data, raw=False, strict_map_key=True, ext_hook=_no_extension, max_array_len=most, max_map_len=most
        )
    except UNPACK_ERRORS as error:
        raise malformed(f"not msgpack: {type(error).__name__}") from None


def _no_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"msgpack extension type {code} of {len(data)} bytes is not part of the wire")


def _check_values(data: bytes, value: Any) -> None:
    """Refuse what the library lets through: extension -1, for which it does not call the hook, deep nesting, and more
    than ``bounds.MAX_VALUES`` values.

    ``value`` is the array or map that ``data`` holds. A look at the bytes clears nearly all of them: a timestamp has an
    0xff, and each array or map begins with one of a few bytes.
    """
    size = len(data)
    if size <= _SMALL:
        if _PLAIN.issuperset(map(type, value.values() if type(value) is dict else value)):
            return
        if 0xFF not in data and size - len(data.translate(None, _NESTS)) <= MAX_NESTING:
            return
    level, count = [value], 1
    for _ in range(MAX_NESTING):  # level by level, no recursion: one set of types covers many plain values
        inner: list[Any] = []
        for outer in level:
            count += len(outer)
            if type(outer) is dict:
                count += len(outer)
                inner += outer.values()
            else:
                inner += outer
        if count > bounds.MAX_VALUES:
            raise malformed(f"more than {bounds.MAX_VALUES} values")
        kinds = set(map(type, inner))
        if kinds <= _PLAIN:
            return
        if msgpack.Timestamp in kinds:
            raise malformed("msgpack's timestamp extension is not part of the wire")
        level = [one for one in inner if type(one) is list or type(one) is dict]
    raise malformed(f"arrays and maps over {MAX_NESTING} deep")


# ---------------------------------------------------------------- payload


_TEXT: Final = frozenset((str,))


def encode_payload(payload: Mapping[str, Any]) -> bytes:
    """The bytes of an application's payload: a msgpack map with string keys.

    Raises ``PayloadError``, which says where, if it holds what cannot travel, and ``PayloadTooLargeError`` if it is
    larger than ``bounds.MAX_PAYLOAD``.
    """
    if type(payload) is not dict:
        if not isinstance(payload, Mapping):
            raise PayloadError(f"a payload must be a mapping with string keys, not {type(payload).__name__}")
        payload = dict(payload)
    if not _TEXT.issuperset(map(type, payload)):
        for key in payload:
            if not isinstance(key, str):
                raise PayloadError(f"a payload's keys must be strings, not {type(key).__name__}: {key!r}")
    try:
        encoded: bytes = msgpack.Packer(use_bin_type=True, buf_size=_BUFFER).pack(payload)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        flaw = flaw_of(payload, MAX_NESTING) or f"a payload must be what msgpack can carry: {error}"
        raise PayloadError(flaw) from None
    if len(encoded) > bounds.MAX_PAYLOAD:
        raise PayloadTooLargeError(
            f"a payload of {len(encoded)} bytes is over the limit of {bounds.MAX_PAYLOAD}: "
            "send a reference (a hash or CID) and let peers fetch it"
        )
    if len(encoded) <= bounds.MAX_VALUES and _PLAIN.issuperset(map(type, payload.values())):
        return encoded
    # Others must accept what we send: this refuses, for instance, nested maps with odd keys, or extension types.
    try:
        decode_payload(encoded)
    except WireError as error:
        flaw = flaw_of(payload, MAX_NESTING) or f"this payload would be refused by every peer: {error.detail}"
        raise PayloadError(flaw) from None
    return encoded


def decode_payload(data: bytes) -> dict[str, Any]:
    """The application's values. Raises ``WireError`` (MALFORMED)."""
    payload = unpack(data)
    if type(payload) is not dict:
        raise malformed("a payload must be a map")
    if not _TEXT.issuperset(map(type, payload)):
        raise malformed("a payload's keys must be strings")
    _check_values(data, payload)
    return payload


# ---------------------------------------------------------------- heads and control frames


def envelope_head(ttl: int, hops: int) -> bytes:
    """The only mutable bytes of a message: hops still allowed, hops done."""
    return bytes((ENVELOPE, ttl, hops))


def control(kind: int, body: bytes = b"") -> Frames:
    """A control message for the next hop."""
    return (bytes((kind,)), body)


def frame_type(frames: Sequence[bytes]) -> int:
    """The type of a message, after a check that its shape fits.

    Raises ``WireError``: MALFORMED, OVERSIZE, or UNKNOWN_FRAME for a type that a later version may define.
    """
    if not frames or len(frames) > MAX_FRAMES:
        raise malformed(f"a message must have 2 or 3 frames, not {len(frames)}")
    head = frames[0]
    size = len(head)
    if not 1 <= size <= MAX_HEAD:
        raise malformed(f"a head must have 1 to {MAX_HEAD} bytes, not {size}")
    kind = head[0]
    if kind == ENVELOPE:
        if size < 3 or len(frames) != 3 or len(frames[2]) != SIGNATURE_SIZE:
            raise malformed("an envelope must be a head of 3 bytes, a body and a signature of 64 bytes")
        return kind
    if not IHAVE <= kind <= LEAVE:
        raise WireError(DropReason.UNKNOWN_FRAME, f"unknown frame type {kind}")
    if len(frames) != 2:
        raise malformed("a control message must have 2 frames")
    if len(frames[1]) > bounds.MAX_CONTROL:
        raise WireError(
            DropReason.OVERSIZE, f"a control message must have at most {bounds.MAX_CONTROL} bytes, not {len(frames[1])}"
        )
    return kind


def encode_ids(ids: Sequence[bytes]) -> bytes:
    """Short ids one after the other, at most ``bounds.MAX_IDS``."""
    return b"".join(ids)


def decode_ids(data: bytes) -> list[bytes]:
    """Short ids of an IHAVE or IWANT. Raises ``WireError``."""
    if not data or len(data) % SHORT_ID or len(data) > bounds.MAX_IDS * SHORT_ID:
        raise malformed(f"ids must have 1 to {bounds.MAX_IDS} times {SHORT_ID} bytes, not {len(data)}")
    return [data[start : start + SHORT_ID] for start in range(0, len(data), SHORT_ID)]


def encode_digest(entries: Sequence[DigestEntry]) -> bytes:
    """20 bytes for each slot: slot u64, count u32, checksum 8 bytes, big endian, ascending."""
    return b"".join(_DIGEST_ENTRY.pack(*entry) for entry in entries)


def decode_digest(data: bytes) -> list[DigestEntry]:
    """The entries of a DIGEST, ascending by slot. Raises ``WireError``."""
    if len(data) % _DIGEST_ENTRY.size or len(data) > MAX_SLOTS * _DIGEST_ENTRY.size:
        raise malformed(f"a digest must have up to {MAX_SLOTS} times {_DIGEST_ENTRY.size} bytes, not {len(data)}")
    entries = [DigestEntry._make(entry) for entry in _DIGEST_ENTRY.iter_unpack(data)]
    _check_ascending([entry.slot for entry in entries])
    return entries


def encode_slots(slots: Sequence[int]) -> bytes:
    """8 bytes for each slot, big endian, ascending."""
    return b"".join(map(_SLOT.pack, slots))


def decode_slots(data: bytes) -> list[int]:
    """The slots of a LIST, ascending. Raises ``WireError``."""
    if not data or len(data) % _SLOT.size or len(data) > MAX_SLOTS * _SLOT.size:
        raise malformed(f"slots must have 1 to {MAX_SLOTS} times {_SLOT.size} bytes, not {len(data)}")
    slots = [slot for (slot,) in _SLOT.iter_unpack(data)]
    _check_ascending(slots)
    return slots


def _check_ascending(slots: Sequence[int]) -> None:
    if any(later <= earlier for earlier, later in pairwise(slots)):
        raise malformed("slots must be in ascending order, each once")
