"""Writes the golden vectors: ``python -m tests.vectors.regenerate`` from the top folder.

Running it after a change of the wire is the approval of that change: the difference of the JSON files is what every
other implementation would have to follow. Nothing here depends on a clock, on chance, or on the machine. How JSON holds
values stands in ``kit.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tests.vectors.edges import edges, refused
from tests.vectors.kit import (
    AUTHOR,
    NETWORK,
    RECIPIENT,
    TIME_MS,
    Vectors,
    delegation,
    envelope,
    plain,
    told,
)
from zmesh.core import wire
from zmesh.core.types import AckStatus, Endpoint, MessageType
from zmesh.delegation import Scheme
from zmesh.handlers.record import Description, encode_record

FOLDER = Path(__file__).parent


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
        envelope("heartbeat", code[MessageType.HEARTBEAT], {"status": "healthy", "peers_count": 9}, 4),
        envelope("fl_round_start", code[MessageType.FL_ROUND_START], {"round_id": "round_001", "deadline": 1.7e9}, 5),
        envelope("consensus_vote", code[MessageType.CONSENSUS_VOTE], {"proposal_id": "p", "choice": True}, 6),
        envelope("gossip of an unknown kind", 200, {"of": "later"}, 7),
        envelope("gossip that expires", code[MessageType.GOSSIP], {"soon": 1}, 8, expiry_ms=TIME_MS + 1000),
        envelope("gossip, blobs and floats", code[MessageType.GOSSIP], BLOBS_AND_FLOATS, 17),
        envelope("gossip, nested as deep as may be", code[MessageType.GOSSIP], nested(wire.MAX_NESTING), 18),
        envelope("gossip, a signed ttl of 0", code[MessageType.GOSSIP], {}, 19, ttl=0),
    ]
    links = [
        envelope("direct, the widest header, its ttl included", 255, {}, wire.MAX_UINT, **WIDEST),
        envelope("model_delta_transfer, direct", code[MessageType.MODEL_DELTA_TRANSFER], delta, 9, **direct),
        envelope("HELLO", wire.HELLO_CODE, {"versions": [1]}, 10, **direct),
        envelope("HELLO, the answer", wire.HELLO_CODE, {"versions": [1]}, 11, **direct, correlation=asked),
    ]
    skews = {AckStatus.STALE: -121_000, AckStatus.FUTURE: 11_000}
    for number, status in enumerate(AckStatus, 12):
        answer = {"status": int(status)} | ({"skew_ms": skews[status]} if status in skews else {})
        links.append(
            envelope(f"ACK, {status.name.lower()}", wire.ACK_CODE, answer, number, **direct, correlation=asked)
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
BLOBS_AND_FLOATS: Mapping[str, Any] = {
    "bin": [b"", b"\x00\xff", bytes(256)],
    "float": [1.0, -0.0, 1e300, float("inf")],
    "int": 1,
}


def nested(levels: int) -> Mapping[str, Any]:
    """So many maps and arrays one in another: a map around arrays."""
    value: list[Any] = []
    for _ in range(levels - 2):
        value = [value]
    return {"deep": value}


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
        ("DIGEST", wire.DIGEST, [told(entry._asdict()) for entry in digest], wire.encode_digest(digest)),
        ("DIGEST", wire.DIGEST, [], b""),
        ("LIST", wire.LIST, slots, wire.encode_slots(slots)),
        ("LEAVE", wire.LEAVE, None, b""),
    ]
    return [{"name": name, "content": items, "frames": wire.control(kind, body)} for name, kind, items, body in cases]


def delegations() -> Vectors:
    """What accounts of all three schemes sign, with and without a wallet around it."""
    made = [delegation(scheme, wrapped) for scheme in Scheme for wrapped in (False, True)]
    foreign: Mapping[str, Any] = {"network": "b\u00e9lize, 100 %", "genesis": b""}
    return [*made, delegation(Scheme.ECDSA, False, other_s=True), delegation(Scheme.ED25519, False, **foreign)]


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
                    "time": record.time_ms,
                    "delegation": record.delegation,
                },
                "signing_input": b"zmesh/1 record:" + blake2b(body, digest_size=32).digest(),
                "encoded": record.encoded,
            }
        )
    return made


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
        "edges": edges(),
    }
    for name, vectors in made.items():
        yield FOLDER / f"{name}.json", json.dumps(plain(vectors), indent=1, ensure_ascii=True) + "\n"


def main() -> None:
    """Write them all."""
    for path, content in generate():
        path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
