"""A peer record: where a key can be reached, signed on its own so that any peer may pass it on.

Rules
 1. A record is ``body + signature (64 B)``; the body is a msgpack array, the signature is Ed25519 (RFC 8032)
    over ``SIGN_TAG + BLAKE2b-256(body)``. Who passes it on, and how, adds nothing to it and proves nothing.
 2. Decoding shows that the bytes have the right shape, never that the signature holds: use ``verify_record`` for that.
 3. Any bytes either decode or raise ``WireError`` with MALFORMED.
 4. Room for later: unknown trailing fields are ignored. What an account signed for the key travels along and is opaque
    here: the code that knows the registry judges it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import msgpack

from zmesh.core.bounds import MAX_DELEGATION, MAX_ENDPOINTS, MAX_HOST, MAX_NAME
from zmesh.core.errors import ConfigError
from zmesh.core.types import Endpoint, PeerKey, VerifySignature
from zmesh.core.wire import KEY_SIZE, SIGNATURE_SIZE, digest32, malformed, unpack
from zmesh.handlers.schema import Check, blob, items, text, whole

VERSION: Final = 1
SIGN_TAG: Final = b"zmesh/1 record:"
MAX_RECORD: Final = 4 * 1024
"""Bytes with signature: eight endpoints of the longest DNS name (2 KiB), sixteen capabilities (1 KiB), the rest."""
MAX_CAPABILITIES: Final = 16
"""Words that a peer uses to describe itself: a record stays small enough for every node to gossip."""
MAX_CAPABILITY: Final = 64
"""Bytes of one such word in UTF-8."""
MAX_WIRE_VERSIONS: Final = 8
"""Wire versions that one node speaks: an upgrade needs two at once."""

Sign = Callable[[bytes], bytes]
"""64 bytes, the Ed25519 signature over the argument."""

_port = whole(1, 65_535)
_short = text(MAX_HOST)
_HOST: Final = re.compile(r"[0-9A-Za-z:_-][0-9A-Za-z.:_-]*")
"""The characters of DNS names and IP literals: a host ends up in addresses, URLs and logs."""


_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
"""Not a valid last label of a name (RFC 3696, section 2); resolvers still read 127.1 and 0x7f000001 as addresses."""


def _is_host(value: object) -> bool:
    return isinstance(value, str) and _short(value) and _HOST.fullmatch(value) is not None and _is_plain(value)


def _is_plain(host: str) -> bool:
    """True for an address in its canonical form, or a name: only of these can ``is_local`` tell where they lead."""
    try:
        ip_address(host)
    except ValueError:
        return ":" not in host and _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) is None
    return True


def _optional(check: Check) -> Check:
    return Check(lambda value: value is None or check.test(value), f"{check.wants}, or nothing")


def _is_endpoint(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and _is_host(value[0]) and _port(value[1])


_endpoint = Check(_is_endpoint, "a host and a port")


_LAYOUT: Final[tuple[tuple[str, Check], ...]] = (
    ("version", whole(VERSION, VERSION)),
    ("network", blob(KEY_SIZE, KEY_SIZE)),
    ("key", blob(KEY_SIZE, KEY_SIZE)),
    ("peer_id", text(MAX_NAME)),
    ("endpoints", items(_endpoint, MAX_ENDPOINTS)),
    ("router_port", _optional(_port)),
    ("gossip_port", _optional(_port)),
    ("capabilities", items(text(MAX_CAPABILITY), MAX_CAPABILITIES)),
    ("wire_versions", items(whole(1, 255), MAX_WIRE_VERSIONS)),
    ("sequence", whole()),
    ("time_ms", whole()),
    ("delegation", _optional(blob(MAX_DELEGATION, 1))),
)
"""The array, field by field in wire order."""


@dataclass(frozen=True, slots=True)
class Record:
    """What a key says about itself."""

    network: bytes
    """32 bytes: the network id of the mesh that it is for."""
    key: PeerKey
    """32 bytes: the mesh key that signed it."""
    peer_id: str
    """A self-chosen name, 1 to 128 bytes."""
    endpoints: tuple[Endpoint, ...]
    """Front doors, best first."""
    router_port: int | None
    """The ROUTER's own port on the same hosts; None if only the front door is open."""
    gossip_port: int | None
    """The publisher's own port on the same hosts; None if gossip rides on the direct lane."""
    capabilities: tuple[str, ...]
    """What it says it can do, at most 16 words."""
    wire_versions: tuple[int, ...]
    """The versions of the wire that it speaks."""
    sequence: int
    """The highest one of a key wins."""
    time_ms: int
    """Unix milliseconds when it was signed: informational only."""
    delegation: bytes | None
    """The delegation of the account that the key speaks for, as it travels; None if the registry names the key."""
    encoded: bytes
    """All of it as it travels, signature included."""

    @property
    def has_local_endpoint(self) -> bool:
        """True if an endpoint leads back to the machine that dials it, or never leaves one network segment."""
        return any(is_local(endpoint.host) for endpoint in self.endpoints)

    @property
    def is_all_local(self) -> bool:
        """True if every endpoint is local, as in a mesh on one machine."""
        return bool(self.endpoints) and all(is_local(endpoint.host) for endpoint in self.endpoints)


@dataclass(frozen=True, slots=True)
class Description:
    """How a node describes itself; ``encode_record`` adds the key, the time and the signature.

    Raises ``ConfigError`` if a name, host, port or number of items is out of bounds.
    """

    peer_id: str
    endpoints: tuple[Endpoint, ...] = ()
    router_port: int | None = None
    gossip_port: int | None = None
    capabilities: tuple[str, ...] = ()
    wire_versions: tuple[int, ...] = (1,)
    delegation: bytes | None = None

    def __post_init__(self) -> None:
        for name, check in _LAYOUT:
            if hasattr(self, name) and not check(getattr(self, name)):
                raise ConfigError(
                    f"own peer record: {name} {getattr(self, name)!r} is out of bounds: it must have a peer_id "
                    f"of 1 to {MAX_NAME} bytes, at most {MAX_ENDPOINTS} endpoints (host, port 1-65535), "
                    f"{MAX_CAPABILITIES} capabilities of at most {MAX_CAPABILITY} bytes, and a delegation of at most "
                    f"{MAX_DELEGATION} bytes"
                )


def encode_record(
    described: Description, network: bytes, key: PeerKey, sequence: int, time_ms: int, sign: Sign
) -> Record:
    """Build and sign a record of ``key``. ``network`` is the mesh's 32-byte id."""
    body: bytes = msgpack.packb(
        [
            VERSION,
            network,
            key,
            described.peer_id,
            [list(endpoint) for endpoint in described.endpoints],
            described.router_port,
            described.gossip_port,
            list(described.capabilities),
            list(described.wire_versions),
            sequence,
            time_ms,
            described.delegation,
        ],
        use_bin_type=True,
    )
    return decode_record(body + sign(_signing_input(body)))


def decode_record(encoded: bytes) -> Record:
    """Parse a record without verifying its signature. Raises ``WireError`` (MALFORMED) and nothing else."""
    if not SIGNATURE_SIZE < len(encoded) <= MAX_RECORD:
        raise malformed(f"a record must have {SIGNATURE_SIZE + 1} to {MAX_RECORD} bytes, not {len(encoded)}")
    fields = unpack(encoded[:-SIGNATURE_SIZE])
    if type(fields) is not list or len(fields) < len(_LAYOUT):
        raise malformed(f"a record must be an array of at least {len(_LAYOUT)} fields")
    for (name, check), value in zip(_LAYOUT, fields, strict=False):
        if not check(value):
            raise malformed(f"the record's {name} is out of bounds")
    _, network, key, peer_id, endpoints, router_port, gossip_port, capabilities, versions = fields[:9]
    sequence, time_ms, delegation = fields[9:12]
    return Record(
        network,
        key,
        peer_id,
        tuple(Endpoint(host, port) for host, port in endpoints),
        router_port,
        gossip_port,
        tuple(capabilities),
        tuple(versions),
        sequence,
        time_ms,
        delegation,
        encoded,
    )


def verify_record(record: Record, verify: VerifySignature) -> bool:
    """True if ``record.key`` signed it. The only call here that costs an Ed25519 verification."""
    body, signature = record.encoded[:-SIGNATURE_SIZE], record.encoded[-SIGNATURE_SIZE:]
    return verify(record.key, _signing_input(body), signature)


def is_local(host: str) -> bool:
    """True for a loopback, link-local, multicast or unspecified address, or the name of one.

    From another machine such an address leads nowhere or, worse, to the reader's own services. Other DNS names pass
    here; the code that resolves one checks its addresses again.
    """
    if host.lower().rstrip(".").rpartition(".")[2] == "localhost":
        return True
    try:
        address = ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified


def _signing_input(body: bytes) -> bytes:
    return SIGN_TAG + digest32(body)
