"""Writes the golden vectors: ``python -m tests.vectors.regenerate`` from the top folder.

Running it after a change of the wire is the approval of that change: the difference of the JSON files is what every
other implementation would have to follow. Nothing here depends on a clock, on chance, or on the machine.

Bytes are lower-case hexadecimal, or ``{"zeros": n}`` for n zero bytes; integers are numbers, ``null`` is nil.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

import ecdsa
import msgpack
import sr25519

from zmesh.core import wire
from zmesh.core.bounds import MAX_BODY
from zmesh.core.types import AckStatus, Endpoint, MessageType
from zmesh.delegation import Scheme, Statement, encode_delegation, possession, wrap
from zmesh.handlers.record import Description, encode_record
from zmesh.identity import Identity

FOLDER = Path(__file__).parent
AUTHOR = Identity.from_seed(bytes(range(32)))
RECIPIENT = Identity.from_seed(bytes(range(32, 64)))
NETWORK = wire.network_id("golden", bytes([7]) * 32)
EPOCH = 1_700_000_000
TIME_MS = 1_700_000_123_456

ACCOUNT_SEED = bytes(range(64, 96))
"""Of the accounts of all three schemes."""
SR25519_SIGNATURES = {
    False: "bc9edadc612b9154f2c8eb2dad853a36a17776afa293d893138f4a097acecb1f"
    "296ef52c5eb302a2e81d8898b29569c768439c3b7873e2dbd960f7fa9d57bc81",
    True: "b8f6609a212ebc7a81cd82bb946e744a7064a1312fe249d3c1ee9a1f7b90fa74"
    "c0c9aad9dc687f331163d38f2e8a34e4e85be5cee4436a45b6ed315058fbd281",
}
"""Over the text as it is, and wrapped: made once, for sr25519 draws a random number for each signature."""

Vectors = Sequence[Mapping[str, Any]]


def plain(value: Any) -> Any:
    """The value as JSON can hold it."""
    if isinstance(value, bytes):
        return {"zeros": len(value)} if len(value) > 1024 and not any(value) else value.hex()
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


# ---------------------------------------------------------------- keys, networks, packing, checksums


def keys() -> Vectors:
    """Ed25519 seeds, their public keys and X25519 images, and one signature each."""
    return [
        {
            "seed": seed,
            "public": identity.public,
            "x25519": identity.curve_public,
            "signed": b"zmesh",
            "signature": identity.sign(b"zmesh"),
        }
        for seed, identity in ((bytes(range(32)), AUTHOR), (bytes(range(32, 64)), RECIPIENT))
    ]


def networks() -> Vectors:
    """Mesh names with and without a genesis hash."""
    cases = [("zmesh", b""), ("golden", bytes([7]) * 32), ("", b""), ("b\u00e9lize", b"")]
    return [{"name": name, "genesis": genesis, "id": wire.network_id(name, genesis)} for name, genesis in cases]


def packed() -> Vectors:
    """Messages as one frame of ZMTP; what cannot be unpacked is one message of no frames."""
    ids = bytes(range(16))
    envelope, ihave, leave = (b"\x01\x05\x00", b"body", bytes(64)), (b"\x02", ids), (b"\x06", b"")
    packed_envelope = b"\x03\0\0\0\x03\0\0\0\x04\x01\x05\x00body" + bytes(64)
    packed_ihave, packed_leave = b"\x02\0\0\0\x01\x02" + ids, b"\x02\0\0\0\x01\x06"
    both = bytes((0, 2, 0, 0, 0, len(packed_ihave))) + packed_ihave + packed_leave
    malformed: Sequence[Sequence[bytes]] = ((),)
    cases: list[tuple[str, Sequence[Sequence[bytes]], bytes]] = [
        ("an envelope", (envelope,), packed_envelope),
        ("an IHAVE of one id", (ihave,), packed_ihave),
        ("a LEAVE", (leave,), packed_leave),
        ("a frame alone", ((b"\x06",),), b"\x01\x06"),
        ("six empty frames", ((b"",) * 6,), b"\x06" + bytes(20)),
        ("nothing", malformed, b""),
        ("a count of 7", malformed, b"\x07" + bytes(24)),
        ("fewer sizes than counted", malformed, b"\x03" + bytes(7)),
        ("a frame that is shorter than its size", malformed, b"\x02\0\0\0\x02\x06"),
        ("a size beyond everything", malformed, b"\x02\xff\xff\xff\xff\x06"),
        ("a bundle of two", (ihave, leave), both),
        (
            "a bundle of sixteen",
            (leave,) * 15 + (envelope,),
            b"\0\x10" + bytes((0, 0, 0, len(packed_leave))) * 15 + packed_leave * 15 + packed_envelope,
        ),
        ("a bundle that says no more than that", malformed, b"\0"),
        ("a bundle of none", malformed, b"\0\0"),
        ("a bundle of one", malformed, b"\0\x01" + packed_leave),
        ("a bundle of seventeen", malformed, b"\0\x11" + bytes((0, 0, 0, 6)) * 16 + packed_leave * 17),
        ("a bundle of fewer sizes than counted", malformed, b"\0\x02\0\0\0"),
        ("a bundle of a message that is shorter than its size", malformed, b"\0\x02\0\0\0\x07" + packed_leave),
        ("a bundle of which one message cannot be unpacked", ((), leave), b"\0\x02\0\0\0\x01\x07" + packed_leave),
        ("a bundle within a bundle", (leave, ()), b"\0\x02\0\0\0\x06" + packed_leave + both),
    ]
    return [{"name": name, "messages": messages, "packed": data} for name, messages, data in cases]


def checksums() -> Vectors:
    """Short ids of one slot in any order, and the slot's checksum."""
    ids = [bytes([number]) * 16 for number in (3, 1, 2)]
    return [
        {"ids": some, "checksum": blake2b(b"".join(sorted(some)), digest_size=8).digest()} for some in (ids[:1], ids)
    ]


# ---------------------------------------------------------------- envelopes


def envelope(name: str, kind: int, content: Mapping[str, Any], sequence: int, **more: Any) -> Mapping[str, Any]:
    """One signed message, from its fields to its frames."""
    fields: dict[str, Any] = {
        "version": wire.VERSION,
        "network": NETWORK,
        "kind": kind,
        "author": AUTHOR.public,
        "epoch": EPOCH,
        "sequence": sequence,
        "timestamp_ms": TIME_MS,
        "ttl": 5,
        "expiry_ms": None,
        "recipient": None,
        "correlation": None,
        "payload": wire.encode_payload(content),
    } | more
    body = wire.encode_body(wire.Body(**fields))
    identifier = wire.message_id(body)
    signing_input = wire.signing_input(identifier)
    signature = AUTHOR.sign(signing_input)
    return {
        "name": name,
        "fields": fields,
        "content": content,
        "body": body,
        "id": identifier,
        "signing_input": signing_input,
        "signature": signature,
        "frames": [wire.envelope_head(fields["ttl"], 0), body, signature],
    }


def envelopes() -> Vectors:
    """Gossip, direct messages, and link kinds."""
    code = wire.KIND_CODES
    direct: dict[str, Any] = {"recipient": RECIPIENT.public, "ttl": 0}
    delta = {"round_id": "round_001", "model_cid": "QmX", "quality_score": 95.5}
    asked = wire.message_id(b"the message that is answered")
    gossip = [
        envelope("gossip", code[MessageType.GOSSIP], {"custom": "data"}, 1),
        envelope("gossip, an empty payload", code[MessageType.GOSSIP], {}, 2),
        envelope("gossip, every type of value", code[MessageType.GOSSIP], VALUES, 3),
        envelope("gossip, the widest header", 255, {}, wire.MAX_UINT, **WIDEST),
        envelope("heartbeat", code[MessageType.HEARTBEAT], {"status": "healthy", "peers_count": 9}, 4),
        envelope("fl_round_start", code[MessageType.FL_ROUND_START], {"round_id": "round_001", "deadline": 1.7e9}, 5),
        envelope("consensus_vote", code[MessageType.CONSENSUS_VOTE], {"proposal_id": "p", "choice": True}, 6),
        envelope("gossip of an unknown kind", 200, {"of": "later"}, 7),
        envelope("gossip that expires", code[MessageType.GOSSIP], {"soon": 1}, 8, expiry_ms=TIME_MS + 1000),
    ]
    links = [
        envelope("model_delta_transfer, direct", code[MessageType.MODEL_DELTA_TRANSFER], delta, 9, **direct),
        envelope("HELLO", wire.HELLO_CODE, {"versions": [1]}, 10, **direct),
        envelope("HELLO, the answer", wire.HELLO_CODE, {"versions": [1]}, 11, **direct, correlation=asked),
    ]
    skews = {AckStatus.STALE: -121_000, AckStatus.FUTURE: 11_000}
    for number, status in enumerate(AckStatus, 12):
        content = {"status": int(status)} | ({"skew_ms": skews[status]} if status in skews else {})
        links.append(
            envelope(f"ACK, {status.name.lower()}", wire.ACK_CODE, content, number, **direct, correlation=asked)
        )
    return [*gossip, *links]


VALUES: Mapping[str, Any] = {
    "nil": None,
    "true": True,
    "int": [0, 127, 128, 255, 256, 65535, 65536, 2**32, 2**64 - 1, -1, -32, -33, -(2**63)],
    "float": 0.1,
    "text": "b\u00e9lize",
    "list": [[], [1, [2]]],
    "map": {"deep": {"er": {}}},
}
WIDEST: Mapping[str, Any] = {
    "epoch": wire.MAX_UINT,
    "timestamp_ms": wire.MAX_UINT,
    "ttl": 255,
    "expiry_ms": wire.MAX_UINT,
    "recipient": RECIPIENT.public,
    "correlation": bytes([255]) * 32,
}


# ---------------------------------------------------------------- control frames, records, refusals


def controls() -> Vectors:
    """One of each control frame: what it says, and its two frames."""
    ids = [bytes([number]) * 16 for number in (1, 2)]
    digest = [wire.DigestEntry(1_700_000_000, 3, b"checksum"), wire.DigestEntry(1_700_000_001, 1, bytes(8))]
    slots = [1_700_000_000, 1_700_000_002]
    cases: list[tuple[str, int, Any, bytes]] = [
        ("IHAVE", wire.IHAVE, ids, wire.encode_ids(ids)),
        ("IWANT", wire.IWANT, ids[:1], wire.encode_ids(ids[:1])),
        ("DIGEST", wire.DIGEST, [entry._asdict() for entry in digest], wire.encode_digest(digest)),
        ("DIGEST", wire.DIGEST, [], b""),
        ("LIST", wire.LIST, slots, wire.encode_slots(slots)),
        ("LEAVE", wire.LEAVE, None, b""),
    ]
    return [
        {"name": name, "content": content, "frames": wire.control(kind, body)} for name, kind, content, body in cases
    ]


def delegations() -> Vectors:
    """What accounts of all three schemes sign, with and without a wallet around it."""
    made = [delegation(scheme, wrapped) for scheme in Scheme for wrapped in (False, True)]
    foreign = {"network": "b\u00e9lize, 100 %", "genesis": b""}
    return [*made, delegation(Scheme.ED25519, False, **foreign)]


def delegation(scheme: Scheme, wrapped: bool, **changed: Any) -> Mapping[str, Any]:
    """One delegation, from its fields to its bytes."""
    account, public, sign = account_of(scheme)
    statement = Statement(
        "golden", bytes([7]) * 32, account, AUTHOR.public, EPOCH, EPOCH + 30 * 86_400, EPOCH + 600
    )._replace(**changed)
    message = wrap(statement.text) if wrapped else statement.text
    signature = sign(message) if sign is not None else bytes.fromhex(SR25519_SIGNATURES[wrapped])
    made = encode_delegation(statement, scheme, signature, AUTHOR.sign, wrapped=wrapped, public=public)
    return {
        "name": f"{scheme.name.lower()}, {'wrapped' if wrapped else 'plain'}, {statement.network}",
        "fields": {"scheme": int(scheme), "wrapped": wrapped, **statement._asdict(), "public": public},
        "network_id": statement.network_id,
        "text": statement.text.decode("ascii"),
        "account_signature": signature,
        "possession": possession(statement, signature),
        "key_signature": made.key_signature,
        "encoded": made.encoded,
    }


def account_of(scheme: Scheme) -> tuple[bytes, bytes, Callable[[bytes], bytes] | None]:
    """The account of ``ACCOUNT_SEED``, its public key if that is another, and how it signs if that can be repeated."""
    if scheme is Scheme.SR25519:
        return bytes(sr25519.pair_from_seed(ACCOUNT_SEED)[0]), b"", None
    if scheme is Scheme.ED25519:
        identity = Identity.from_seed(ACCOUNT_SEED)
        return identity.public, b"", identity.sign
    key = ecdsa.SigningKey.from_string(ACCOUNT_SEED, curve=ecdsa.SECP256k1)
    public = bytes(key.verifying_key.to_string("compressed"))

    def sign(message: bytes) -> bytes:
        digest = blake2b(message, digest_size=32).digest()
        return bytes(key.sign_digest_deterministic(digest, hashfunc=sha256))

    return blake2b(public, digest_size=32).digest(), public, sign


def records() -> Vectors:
    """Peer records, signed on their own."""
    described = [
        Description("validator_001", (Endpoint("192.0.2.1", 9090),), 40001, 40002, ("relay",)),
        Description("v", (Endpoint("mesh.example.org", 443), Endpoint("2001:db8::1", 9090)), wire_versions=(1, 2)),
        Description("nowhere"),
        Description("validator_002", delegation=delegation(Scheme.ED25519, False)["encoded"]),
    ]
    made = []
    for sequence, description in enumerate(described, TIME_MS):
        record = encode_record(description, NETWORK, AUTHOR.public, sequence, TIME_MS, AUTHOR.sign)
        body = record.encoded[: -wire.SIGNATURE_SIZE]
        made.append(
            {
                "fields": {
                    "network": NETWORK,
                    "key": AUTHOR.public,
                    "peer_id": record.peer_id,
                    "endpoints": record.endpoints,
                    "router_port": record.router_port,
                    "gossip_port": record.gossip_port,
                    "capabilities": record.capabilities,
                    "wire_versions": record.wire_versions,
                    "sequence": record.sequence,
                    "time_ms": record.time_ms,
                    "delegation": record.delegation,
                },
                "signing_input": b"zmesh/1 record:" + blake2b(body, digest_size=32).digest(),
                "encoded": record.encoded,
            }
        )
    return made


def refused() -> Vectors:
    """Messages that every implementation refuses, and the name under which it does. Their signatures are junk."""
    good = dict(envelope("", 9, {}, 1)["fields"])
    junk = bytes(64)

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
        ("a body over its bound", "oversize", bytes(MAX_BODY + 1)),
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
        ("the same, its length in a byte", "malformed", b"\x9d" + whole[1:] + b"\xc7\x04\xff" + bytes(4)),
        ("the same, its length in two bytes", "malformed", b"\x9d" + whole[1:] + b"\xc8\0\x08\xff" + bytes(8)),
        ("the same, its length in four bytes", "malformed", b"\x9d" + whole[1:] + b"\xc9\0\0\0\x0c\xff" + bytes(12)),
    ]
    made = [{"name": name, "reason": reason, "frames": [b"\x01\x05\x00", data, junk]} for name, reason, data in bodies]
    return [*made, *refused_shapes(whole, junk), *refused_controls()]


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


def generate() -> Iterable[tuple[Path, str]]:
    """Every file and what belongs into it."""
    made = {
        "keys": keys(),
        "networks": networks(),
        "packed": packed(),
        "checksums": checksums(),
        "envelopes": envelopes(),
        "controls": controls(),
        "delegations": delegations(),
        "records": records(),
        "refused": refused(),
    }
    for name, vectors in made.items():
        yield FOLDER / f"{name}.json", json.dumps(plain(vectors), indent=1, ensure_ascii=True) + "\n"


def main() -> None:
    """Write them all."""
    for path, content in generate():
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
