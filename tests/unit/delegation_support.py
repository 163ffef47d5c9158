"""Accounts of all three schemes, and what they sign."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b, sha256
from typing import Any

import ecdsa
import sr25519

from zmesh.delegation import DAY, Delegation, Scheme, Statement, encode_delegation, wrap
from zmesh.identity import Identity

GENESIS = bytes([0x45]) * 32
NETWORK = "belize"
BEGIN = 1_700_000_000
END = BEGIN + 30 * DAY


@dataclass(frozen=True)
class Signer:
    """An account that can sign."""

    scheme: Scheme
    account: bytes
    sign: Callable[[bytes], bytes]
    """64 bytes over a message."""
    public: bytes = b""


def signer(number: int = 1, scheme: Scheme = Scheme.SR25519) -> Signer:
    """The account of the seed that consists of ``number``."""
    seed = bytes([number]) * 32
    if scheme is Scheme.ED25519:
        identity = Identity.from_seed(seed)
        return Signer(scheme, identity.public, identity.sign)
    if scheme is Scheme.SR25519:
        public, secret = sr25519.pair_from_seed(seed)
        return Signer(scheme, public, partial(sr25519.sign, (public, secret)))
    key = ecdsa.SigningKey.from_string(seed, curve=ecdsa.SECP256k1)
    compressed: bytes = key.verifying_key.to_string("compressed")

    def sign(message: bytes) -> bytes:
        signature: bytes = key.sign_digest_deterministic(_hash(message), hashfunc=sha256)
        return signature

    return Signer(scheme, _hash(compressed), sign, compressed)


def delegation(by: Signer, to: Identity, sequence: int = 1, *, wrapped: bool = False, **changed: Any) -> Delegation:
    """What ``by`` signs for ``to``; ``changed`` are fields of the statement."""
    plain = Statement(NETWORK, GENESIS, by.account, to.public, BEGIN, END, sequence)
    statement = plain._replace(**changed)
    message = wrap(statement.text) if wrapped else statement.text
    return encode_delegation(statement, by.scheme, by.sign(message), to.sign, wrapped=wrapped, public=by.public)


def _hash(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()
