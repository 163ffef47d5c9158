"""A delegation: an account signs, offline, that a mesh key speaks for it, and the mesh key signs that it agrees.

Rules
 1. The account signs a text of a few ASCII lines, so that a person can read what is signed on whatever machine or
    wallet holds the account. PROTOCOL.md ("Delegations") specifies it byte by byte. The text names chain, mesh,
    account, key, time and sequence, so that it is valid nowhere else.
 2. The mesh key signs a hash of that text and of the account's signature: an account cannot claim a key that it does
    not hold.
 3. Any bytes decode or raise ``WireError`` with MALFORMED. A decoded delegation has the right shape and nothing more:
    call ``held_by_key`` and ``signed_by_account``. Neither raises, and neither reads a clock.
 4. Two delegations are the same if their texts are: signatures over one text differ, since sr25519 draws a random
    number.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, unique
from pathlib import Path
from typing import Final, NamedTuple

import msgpack

from zmesh.core.bounds import MAX_DELEGATION
from zmesh.core.errors import ConfigError, WireError
from zmesh.core.sentence import shown
from zmesh.core.types import PeerKey
from zmesh.core.wire import KEY_SIZE, MAX_UINT, SIGNATURE_SIZE, digest32, malformed, network_id, unpack
from zmesh.files import read_regular
from zmesh.identity import unhex, verify

VERSION: Final = 1
SIGN_TAG: Final = b"zmesh/1 delegation:"
HEADING: Final = "zmesh delegation 1"
MAX_NETWORK: Final = 64
"""Bytes of a mesh's name in UTF-8: people type it."""
DAY: Final = 86_400
MAX_DAYS: Final = 366
"""Days that one may be valid: a key that was stolen and forgotten is worth nothing after a year."""
USUAL_DAYS: Final = 30
"""Days by default: a month to notice a theft, and signing once a month is no burden."""
MAX_TEXT: Final = 1024
"""Bytes of the text: the longest one has 567, and reading a file needs a bound."""

MAX_FILE: Final = 2048
"""Bytes read of a file: 1,024 digits, and room to notice that it is something else."""

_LEAST: Final = 64
"""Bytes: the two signatures alone have twice as many, and no path looks like that."""
_LABELS: Final = ("network", "genesis", "account", "mesh key", "not before", "not after", "sequence")
_NO_GENESIS: Final = "none"
_PLAIN: Final = frozenset(range(0x21, 0x7F)) - {ord("%")}
_PUBLIC_SIZE: Final = 33

Sign = Callable[[bytes], bytes]
"""64 bytes, the mesh key's Ed25519 signature over the argument."""


@unique
class Scheme(IntEnum):
    """How an account signs; the numbers are those of Substrate's ``MultiSignature``."""

    ED25519 = 0
    """RFC 8032. The account id is the public key."""
    SR25519 = 1
    """Schnorrkel with Substrate's signing context. The account id is the public key."""
    ECDSA = 2
    """secp256k1 over the BLAKE2b-256 of the message. The account id is BLAKE2b-256 of the compressed public key."""


class Statement(NamedTuple):
    """What an account signs: that a mesh key speaks for it."""

    network: str
    """Name of the mesh."""
    genesis: bytes
    """32 bytes, the genesis hash of the chain; empty in a mesh without one."""
    account: bytes
    """32 bytes, the AccountId of the signer."""
    key: PeerKey
    """The mesh key that speaks for it."""
    not_before: int
    """Unix seconds: it is valid from then on ..."""
    not_after: int
    """... up to and including this second."""
    sequence: int
    """An account's highest sequence ends all its other delegations."""

    @property
    def network_id(self) -> bytes:
        """32 bytes: the mesh that it is for."""
        return network_id(self.network, self.genesis)

    @property
    def text(self) -> bytes:
        """The ASCII text that is signed: eight lines, without a newline after the last."""
        said = (
            _escape(self.network),
            self.genesis.hex() or _NO_GENESIS,
            self.account.hex(),
            self.key.hex(),
            str(self.not_before),
            str(self.not_after),
            str(self.sequence),
        )
        lines = (f"{label}: {value}" for label, value in zip(_LABELS, said, strict=True))
        return "\n".join((HEADING, *lines)).encode("ascii")


@dataclass(frozen=True, slots=True)
class Delegation:
    """A statement with both signatures. ``encoded``: the whole delegation as it travels."""

    statement: Statement
    scheme: Scheme
    wrapped: bool
    """Whether a wallet put ``<Bytes>`` and ``</Bytes>`` around the text before signing it."""
    public: bytes
    """33 bytes, the compressed public key of an ECDSA account, whose id is only a hash of it; else empty."""
    account_signature: bytes
    """64 bytes."""
    key_signature: bytes
    """64 bytes, Ed25519."""
    encoded: bytes

    def held_by_key(self) -> bool:
        """Whether the mesh key agrees. One Ed25519 verification, about 0.1 ms."""
        proof = possession(self.statement, self.account_signature)
        return verify(self.statement.key, proof, self.key_signature)

    def is_of_account(self) -> bool:
        """Whether ``public`` is the account's. Only with ECDSA can it be another's; costs a hash."""
        is_hash = self.scheme is Scheme.ECDSA
        return not is_hash or digest32(self.public) == self.statement.account

    def signed_by_account(self) -> bool:
        """Whether the account signed it. About 0.1 ms, or about 10 ms with ECDSA (pure Python)."""
        message = wrap(self.statement.text) if self.wrapped else self.statement.text
        return self.is_of_account() and _VERIFY[self.scheme](
            self.public or self.statement.account, message, self.account_signature
        )


def wrap(text: bytes) -> bytes:
    """What a wallet signs if it is asked to sign ``text``: wrapped, a transaction cannot pass for text."""
    return b"<Bytes>" + text + b"</Bytes>"


def possession(statement: Statement, account_signature: bytes) -> bytes:
    """The bytes that the mesh key signs."""
    return SIGN_TAG + digest32(statement.text + account_signature)


def check_statement(statement: Statement) -> str | None:
    """What is out of bounds, in one sentence, or None."""
    if not 1 <= len(statement.network.encode()) <= MAX_NETWORK:
        return f"its network {shown(statement.network)} is not a name of 1 to {MAX_NETWORK} bytes"
    if not 0 <= statement.not_before < statement.not_after <= MAX_UINT:
        return "it ends before it begins"
    if statement.not_after - statement.not_before > MAX_DAYS * DAY:
        return f"it holds for more than {MAX_DAYS} days"
    return None if 0 <= statement.sequence <= MAX_UINT else f"its sequence is not from 0 to {MAX_UINT}"


# ---------------------------------------------------------------- bytes


def encode_delegation(
    statement: Statement,
    scheme: Scheme,
    account_signature: bytes,
    sign: Sign,
    *,
    wrapped: bool = False,
    public: bytes = b"",
) -> Delegation:
    """Make a delegation of the account's signature and the mesh key's. Raises ``WireError`` for what is out of bounds.

    ``account_signature``: 64 bytes. ``public``: 33 bytes for ECDSA, else empty.
    """
    key_signature = sign(possession(statement, account_signature))
    encoded: bytes = msgpack.packb(
        [VERSION, int(scheme), wrapped, *statement, public, account_signature, key_signature], use_bin_type=True
    )
    return decode_delegation(encoded)


def decode_delegation(encoded: bytes) -> Delegation:
    """Parse a delegation. Raises ``WireError`` (MALFORMED) and nothing else; does not check signatures."""
    if len(encoded) > MAX_DELEGATION:
        raise malformed(f"a delegation must have at most {MAX_DELEGATION} bytes, not {len(encoded)}")
    fields = unpack(encoded)
    # Exactly these fields and nothing more: bytes that no signature covers would let anyone make further versions of
    # it.
    if type(fields) is not list or [type(field) for field in fields] != _TYPES:
        raise malformed("a delegation must be an array of its thirteen fields")
    version, scheme, wrapped, *said = fields
    statement = Statement(*said[:7])
    public, account_signature, key_signature = said[7:]
    if version != VERSION or scheme not in _SCHEMES:
        raise malformed(f"a delegation has the unknown version {version} or scheme {scheme}")
    sizes = (len(statement.account), len(statement.key), len(account_signature), len(key_signature))
    if sizes != (KEY_SIZE, KEY_SIZE, SIGNATURE_SIZE, SIGNATURE_SIZE) or len(statement.genesis) not in (0, KEY_SIZE):
        raise malformed("a delegation's keys must have 32 bytes and its signatures 64")
    if len(public) != (_PUBLIC_SIZE if scheme == Scheme.ECDSA else 0):
        raise malformed("a delegation must have a public key of 33 bytes exactly if it is ECDSA")
    problem = check_statement(statement)
    if problem is not None:
        raise malformed(f"a delegation: {problem}")
    return Delegation(statement, Scheme(scheme), wrapped, public, account_signature, key_signature, encoded)


_SCHEMES: Final = frozenset(int(scheme) for scheme in Scheme)
_TYPES: Final[list[type]] = [
    *(int, int, bool),
    *(str, bytes, bytes, bytes, int, int, int),
    *(bytes, bytes, bytes),
]


# ---------------------------------------------------------------- text


def parse_text(text: bytes) -> Statement:
    """The statement of a text as read from a file: a newline after the last line is allowed.

    Raises ``ConfigError`` with one sentence for anything that is not such a text, byte for byte.
    """
    text = text.removesuffix(b"\n")
    statement = _read_text(text) if len(text) <= MAX_TEXT else None
    if statement is None or statement.text != text:
        raise ConfigError(f"{shown(text)} must be the text of a delegation, as `zmesh key delegate --print` writes it")
    problem = check_statement(statement)
    if problem is not None:
        raise ConfigError(f"the text of this delegation cannot be used: {problem}")
    return statement


def _read_text(text: bytes) -> Statement | None:
    """Parse leniently: the caller compares the result's own text with the input."""
    try:
        heading, *lines = text.decode("ascii").split("\n")
        network, genesis, account, key, *numbers = (line.partition(": ")[2] for line in lines)
        not_before, not_after, sequence = map(int, numbers)
        raw = bytes.fromhex("" if genesis == _NO_GENESIS else genesis)
        statement = Statement(
            _unescape(network), raw, bytes.fromhex(account), bytes.fromhex(key), not_before, not_after, sequence
        )
    except ValueError:
        return None
    sizes = (len(raw) in (0, KEY_SIZE), len(statement.account), len(statement.key))
    return statement if heading == HEADING and sizes == (True, KEY_SIZE, KEY_SIZE) else None


def _escape(name: str) -> str:
    """Printable ASCII without blanks: other UTF-8 bytes, and %, become %XX (RFC 3986, section 2.1)."""
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in name.encode())


def _unescape(text: str) -> str:
    first, *rest = text.encode().split(b"%")
    return b"".join([first, *(bytes.fromhex(part[:2].decode()) + part[2:] for part in rest)]).decode()


# ---------------------------------------------------------------- where a node finds its own


def load_delegation(value: str | Path) -> Delegation:
    """The delegation that ``value`` stands for: its hexadecimal digits, or the path of a file that holds them.

    Raises ``ConfigError`` with one sentence.
    """
    text = str(value).strip()
    encoded = unhex(text) or b""
    if len(encoded) < _LEAST:
        named = f"delegation file {value}"
        text = read_regular(Path(os.path.expanduser(text)), named, MAX_FILE)[0].decode("ascii", "replace").strip()
        encoded = unhex(text) or b""
        if len(encoded) < _LEAST:
            raise ConfigError(f"{named} must hold the hexadecimal digits that `zmesh key delegate` writes")
    try:
        return decode_delegation(encoded)
    except WireError as error:
        raise ConfigError(f"{shown(text)} is not a delegation: {error.detail}") from None


# ---------------------------------------------------------------- signatures of accounts


def _verify_sr25519(public: bytes, message: bytes, signature: bytes) -> bool:
    import sr25519

    # The neutral element is a public key for which anyone can make signatures; libsodium refuses its like on its own.
    if not any(public):
        return False
    try:
        return bool(sr25519.verify(signature, message, public))
    except ValueError:  # not a point, or not a signature
        return False


def _verify_ecdsa(public: bytes, message: bytes, signature: bytes) -> bool:
    import ecdsa

    digest = digest32(message)
    try:
        key = ecdsa.VerifyingKey.from_string(public, curve=ecdsa.SECP256k1)
        return bool(key.verify_digest(signature, digest))
    except (ecdsa.BadSignatureError, ecdsa.errors.MalformedPointError):
        return False


def recover_public(account: bytes, message: bytes, signature: bytes) -> bytes | None:
    """The 33-byte public key whose hash is ``account`` and that signed, or None. ``signature``: 64 bytes of ECDSA;
    about 30 ms."""
    import ecdsa

    digest = digest32(message)
    try:
        found = ecdsa.VerifyingKey.from_public_key_recovery_with_digest(signature, digest, ecdsa.SECP256k1)
    except (ecdsa.BadSignatureError, ecdsa.errors.MalformedPointError, ecdsa.numbertheory.Error, ValueError):
        return None
    candidates = [bytes(key.to_string("compressed")) for key in found]
    return next((one for one in candidates if digest32(one) == account), None)


_VERIFY: Final[dict[Scheme, Callable[[bytes, bytes, bytes], bool]]] = {
    Scheme.ED25519: verify,
    Scheme.SR25519: _verify_sr25519,
    Scheme.ECDSA: _verify_ecdsa,
}
