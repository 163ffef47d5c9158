"""How one vector is made: whose it is, how JSON holds its values, and what is signed.

Bytes are lower-case hexadecimal, or ``{"zeros": n}`` for n zero bytes; ``null`` is nil. Integers are numbers up to
2^53-1, which is all that many a reader of JSON can tell apart, and ``{"int": "..."}`` beyond. In the content of a
payload, where any type may stand, a float is ``{"float": "..."}`` and a blob ``{"bin": "..."}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b, sha256
from typing import Any

import ecdsa
import sr25519

from zmesh.core import wire
from zmesh.core.types import MessageType
from zmesh.delegation import Scheme, Statement, encode_delegation, possession, wrap
from zmesh.identity import Identity

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


JSON_INTEGER = 2**53 - 1
"""The largest integer that JavaScript's JSON.parse keeps."""
FIELD_NAMES = {"timestamp_ms": "timestamp", "expiry_ms": "expiry", "time_ms": "time", "held": "count"}
"""Where PROTOCOL.md calls a field otherwise than the code."""


def plain(value: Any) -> Any:
    """The value as JSON can hold it."""
    if isinstance(value, bytes):
        return {"zeros": len(value)} if len(value) > 1024 and not any(value) else value.hex()
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    if type(value) is int and abs(value) > JSON_INTEGER:
        return {"int": str(value)}
    return value


def content(value: Any) -> Any:
    """A value of a payload as JSON can hold it: floats and blobs say what they are."""
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, float):
        return {"float": "Infinity" if value == float("inf") else str(value)}
    if isinstance(value, Mapping):
        return {name: content(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [content(one) for one in value]
    return plain(value)


def told(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Fields under the names that they have in PROTOCOL.md."""
    return {FIELD_NAMES.get(name, name): plain(value) for name, value in fields.items()}


def envelope(name: str, kind: int, said: Mapping[str, Any], sequence: int, **more: Any) -> Mapping[str, Any]:
    """One signed message, from its fields to its frames."""
    fields = fields_of(**{"kind": kind, "sequence": sequence, "payload": wire.encode_payload(said), **more})
    body = wire.encode_body(wire.Body(**fields))
    identifier = wire.message_id(body)
    signing_input = wire.signing_input(identifier)
    signature = AUTHOR.sign(signing_input)
    return {
        "name": name,
        "fields": told(fields),
        "content": content(said),
        "body": body,
        "id": identifier,
        "signing_input": signing_input,
        "signature": signature,
        "frames": [wire.envelope_head(fields["ttl"], 0), body, signature],
    }


def fields_of(**changed: Any) -> dict[str, Any]:
    """Those of a plain gossip message, but for what is changed."""
    return {
        "version": wire.VERSION,
        "network": NETWORK,
        "kind": wire.KIND_CODES[MessageType.GOSSIP],
        "author": AUTHOR.public,
        "epoch": EPOCH,
        "sequence": 1,
        "timestamp_ms": TIME_MS,
        "ttl": 5,
        "expiry_ms": None,
        "recipient": None,
        "correlation": None,
        "payload": wire.encode_payload({}),
    } | changed


def delegation(scheme: Scheme, wrapped: bool, *, other_s: bool = False, **changed: Any) -> Mapping[str, Any]:
    """One delegation, from its fields to its bytes; ``other_s``: its ECDSA signature is the other of the two."""
    account, public, sign = account_of(scheme)
    statement = Statement(
        "golden", bytes([7]) * 32, account, AUTHOR.public, EPOCH, EPOCH + 30 * 86_400, EPOCH + 600
    )._replace(**changed)
    message = wrap(statement.text) if wrapped else statement.text
    signature = sign(message) if sign is not None else bytes.fromhex(SR25519_SIGNATURES[wrapped])
    if other_s:
        order = ecdsa.SECP256k1.order
        signature = signature[:32] + (order - int.from_bytes(signature[32:])).to_bytes(32)
    made = encode_delegation(statement, scheme, signature, AUTHOR.sign, wrapped=wrapped, public=public)
    return {
        "name": f"{name_of(scheme, signature)}, {'wrapped' if wrapped else 'plain'}, {statement.network}",
        "fields": {"scheme": int(scheme), "wrapped": wrapped, **statement._asdict(), "public": public},
        "network_id": statement.network_id,
        "text": statement.text.decode("ascii"),
        "account_signing_input": message.decode("ascii"),
        "account_signature": signature,
        "key_signing_input": possession(statement, signature),
        "key_signature": made.key_signature,
        "encoded": made.encoded,
    }


def name_of(scheme: Scheme, signature: bytes) -> str:
    """With ECDSA, in which half of the order s lies: libraries differ in whether they take the upper one."""
    if scheme is not Scheme.ECDSA:
        return scheme.name.lower()
    half = "high" if int.from_bytes(signature[32:]) > ecdsa.SECP256k1.order // 2 else "low"
    return f"ecdsa with a {half} s"


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
