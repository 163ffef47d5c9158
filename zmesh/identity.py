"""Who this node is: an Ed25519 key and its X25519 image.

Rules
 1. The secret has one way out, ``sign`` (and ``curve_secret``, which the CURVE handshake cannot do without): it appears
    in no repr, error, pickle or log.
 2. A key is accepted or refused at once: ``load_key`` returns an identity that can sign, or raises one sentence that
    never repeats the value it was given.
 3. Keys are compared and validated as in libsodium: points of small order and non-canonical encodings are refused.
"""

from __future__ import annotations

import os
import re
import string
from pathlib import Path
from typing import NoReturn

import nacl.bindings
from nacl.exceptions import BadSignatureError, CryptoError

from zmesh.core.errors import ConfigError
from zmesh.core.sentence import shown
from zmesh.core.types import PeerKey
from zmesh.core.wire import KEY_SIZE, SIGNATURE_SIZE
from zmesh.files import create_private, read_regular, refuse_exposed

SEED_SIZE = 32
KEY_SUFFIX = ".key"
"""The usual suffix of key files."""
MAX_KEY_FILE = 1024
"""Bytes read of a key file: 64 digits, and room to notice that it is something else."""

_HEX = frozenset(string.hexdigits)
_SECRET = re.compile(r"[0-9A-Za-z+=]{32}|^[0-9A-Za-z+/=]{32,}$|//|\s", re.ASCII)
"""What a mistyped secret contains: a long run of hexadecimal digits or base64 (which may have slashes), a derivation
path, or blanks."""


class Identity:
    """An Ed25519 key pair (RFC 8032) and the X25519 key pair (RFC 7748) that CURVE uses, derived from it."""

    __slots__ = ("_secret", "curve_public", "curve_secret", "public")

    public: PeerKey
    """32 bytes: identifies this node on every link."""
    curve_public: bytes
    """32 bytes: what anyone can compute from ``public`` with ``curve_image``."""
    curve_secret: bytes
    """32 bytes, secret: for the transport alone."""

    def __init__(self, seed: bytes) -> None:
        """``seed``: 32 bytes. Raises ``ConfigError`` for any other length."""
        if len(seed) != SEED_SIZE:
            raise ConfigError(f"the private key must be an Ed25519 seed of {SEED_SIZE} bytes, not {len(seed)}")
        self.public, self._secret = nacl.bindings.crypto_sign_seed_keypair(bytes(seed))
        self.curve_public = curve_image(self.public)
        self.curve_secret = nacl.bindings.crypto_sign_ed25519_sk_to_curve25519(self._secret)

    @classmethod
    def generate(cls) -> Identity:
        """A fresh identity from the system's randomness."""
        return cls(os.urandom(SEED_SIZE))

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity of a 32-byte seed. Raises ``ConfigError`` for any other length."""
        return cls(seed)

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature over ``data``."""
        return nacl.bindings.crypto_sign(data, self._secret)[:SIGNATURE_SIZE]

    def __repr__(self) -> str:
        return f"Identity({self.public.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Identity holds a secret and cannot be copied or pickled: use its public key")


def load_key(value: str | bytes | Path | None) -> Identity:
    """The identity that ``value`` stands for.

    ``value``: 64 hexadecimal digits (``0x`` before them is allowed), the 32 bytes themselves, the path of a
    key file, or None for a fresh key. Raises ``ConfigError``, which never repeats what may be secret.
    """
    if value is None:
        return Identity.generate()
    if isinstance(value, bytes | bytearray):
        return Identity.from_seed(bytes(value))
    if isinstance(value, Path):
        return _read_key_file(Path(os.path.expanduser(value)), str(value))
    seed = unhex(value, SEED_SIZE)
    if seed is not None:
        return Identity.from_seed(seed)
    path = Path(os.path.expanduser(value))
    if value and _may_be_shown(value, path):
        return _read_key_file(path, value)
    raise ConfigError(
        f"the private key of {len(value)} characters (not shown) is neither 64 hexadecimal digits nor the"
        " path of a key file: `zmesh key new PATH` makes one"
    )


def create_key_file(path: Path) -> Identity:
    """Make a key, write it to a new file of mode 0600, and return it.

    Raises ``ConfigError`` when the file exists or cannot be written; nothing is overwritten.
    """
    seed = os.urandom(SEED_SIZE)
    create_private(path, seed.hex().encode() + b"\n")
    return Identity.from_seed(seed)


def verify(key: PeerKey, data: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (64 bytes) over ``data`` is ``key``'s (32 bytes), as libsodium decides it.

    Never raises on bytes of any length; releases the interpreter lock while it computes.
    """
    if len(key) != KEY_SIZE or len(signature) != SIGNATURE_SIZE:
        return False
    try:
        nacl.bindings.crypto_sign_open(signature + data, key)
    except BadSignatureError:
        return False
    return True


def curve_image(public: PeerKey) -> bytes:
    """The 32-byte X25519 public key of an Ed25519 one: its birational image (RFC 7748, section 4.1).

    A key and its negative share one image. Raises ``ConfigError`` for bytes that are not a point of the prime-order
    group: some of these can sign (``verify`` accepts points of mixed order), but none can connect.
    """
    if len(public) == KEY_SIZE:
        try:
            return nacl.bindings.crypto_sign_ed25519_pk_to_curve25519(public)
        except CryptoError:
            pass  # reported below, in the same words as for a wrong length
    raise ConfigError(f"public key {public.hex()[:64]} is not an Ed25519 key: it must be the 32 bytes of a valid point")


def parse_public_key(text: object) -> PeerKey:
    """The key that 64 hexadecimal digits stand for, checked to be one that CURVE can use. Raises ``ConfigError``."""
    key = unhex(text, KEY_SIZE)
    if key is None:
        raise ConfigError(f"public_key must be the 64 hex digits of an Ed25519 public key, not {shown(text)}")
    curve_image(key)
    return key


def unhex(text: object, size: int | None = None) -> bytes | None:
    """The bytes that hexadecimal digits stand for, with or without 0x in front; None for anything else.

    ``size``: how many there must be; by default any number.
    """
    digits = text.strip().removeprefix("0x") if isinstance(text, str) else ""
    is_hex = _HEX.issuperset(digits) and len(digits) % 2 == 0
    return bytes.fromhex(digits) if is_hex and size in (None, len(digits) // 2) else None


def _may_be_shown(text: str, path: Path) -> bool:
    """Whether this is plainly a path, not a mistyped secret: it or its folder exists, or it looks like nothing else."""
    try:
        if path.exists() or (path.parent.is_dir() and path.parent.name != ""):
            return True
    except (OSError, ValueError):  # not a path: too long for a name, or a null byte in it
        return False
    return (text.endswith(KEY_SUFFIX) or os.sep in text) and not _SECRET.search(text)


def _read_key_file(path: Path, named: str) -> Identity:
    """The identity in a file of 64 hexadecimal digits that ``refuse_exposed`` does not refuse."""
    try:
        path.stat()
    except FileNotFoundError:
        raise ConfigError(f"key file {named} does not exist: create it with `zmesh key new {named}`") from None
    except (OSError, ValueError):
        pass  # reported below, as for any file
    content, status = read_regular(path, f"key file {named}", MAX_KEY_FILE)
    refuse_exposed(status, f"key file {named}", named)
    seed = unhex(content.decode("ascii", "replace"), SEED_SIZE)
    if seed is None:
        raise ConfigError(
            f"key file {named} must hold 64 hexadecimal digits, not these {len(content)} bytes (not shown)"
        )
    return Identity.from_seed(seed)
