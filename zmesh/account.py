"""An account of the chain and its secret: derived as wallets and ``subkey`` do, and used to sign once.

Rules
 1. A secret is 12 to 24 words, or a seed of 32 bytes written as 0x and 64 digits. A path of ``//hard`` and, with
    sr25519, ``/soft`` junctions may follow; after words, ``///password`` may end it. ``//Alice`` alone starts from the
    words of Substrate's development accounts.
 2. The secret appears in no repr, error, pickle or log: an error about a secret does not quote any part of it.
 3. Only the command line and the demo import this module: a node never sees the secret of an account.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from hashlib import sha256
from typing import Any, Final, NoReturn

from zmesh.core.errors import ConfigError
from zmesh.core.wire import digest32
from zmesh.delegation import Scheme
from zmesh.identity import Identity

DEVELOPMENT: Final = "bottom drive obey lake curtain smoke basket hold race lonely fit walk"
"""The publicly known words of //Alice, //Bob and the rest."""
CHAIN_CODE_SIZE: Final = 32
MAX_SECRET: Final = 1024
"""Characters of a secret: 24 words, a path and a password."""

_SECRET: Final = re.compile(r"(?P<phrase>[\w ]+)?(?P<path>(//?[^/]+)*)(///(?P<password>.*))?", re.DOTALL)
_SEED: Final = re.compile(r"0x[0-9A-Fa-f]{64}")
_JUNCTION: Final = re.compile(r"(//?)([^/]+)")
_TAGS: Final = {Scheme.ED25519: b"Ed25519HDKD", Scheme.ECDSA: b"Secp256k1HDKD"}


class AccountKey:
    """An account that can sign."""

    __slots__ = ("_sign", "account", "public", "scheme")

    scheme: Scheme
    account: bytes
    """32 bytes, the AccountId."""
    public: bytes
    """33 bytes, the compressed public key of an ECDSA account; else empty."""

    def __init__(self, secret: str, scheme: Scheme) -> None:
        """``secret``: see rule 1. Raises ``ConfigError``, which never repeats any part of it."""
        seed, junctions = _read(secret.strip(), scheme)
        self.scheme = scheme
        self.public = b""
        self._sign: Callable[[bytes], bytes]
        if scheme is Scheme.SR25519:
            self.account, self._sign = _sr25519(seed, junctions)
            return
        for _, chain_code in junctions:
            seed = digest32(_scale(_TAGS[scheme]) + seed + chain_code)
        if scheme is Scheme.ED25519:
            identity = Identity.from_seed(seed)
            self.account, self._sign = identity.public, identity.sign
        else:
            self.public, self._sign = _ecdsa(seed)
            self.account = digest32(self.public)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature over ``message``."""
        return self._sign(message)

    def __repr__(self) -> str:
        return f"AccountKey({self.scheme.name.lower()}, 0x{self.account.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an AccountKey holds a secret and cannot be copied or pickled")


# ---------------------------------------------------------------- derivation


def _read(secret: str, scheme: Scheme) -> tuple[bytes, list[tuple[bool, bytes]]]:
    """The seed, and the junctions to derive from it: whether each is hard, and its chain code (32 bytes)."""
    found = _SECRET.fullmatch(secret) if 0 < len(secret) <= MAX_SECRET else None
    if found is None:
        raise ConfigError("the account's secret (not shown) must be its words, a 0x seed, or a path such as //Alice")
    phrase, password = found["phrase"] or DEVELOPMENT, found["password"]
    if _SEED.fullmatch(phrase):
        if password:
            raise ConfigError(
                "the account's secret (not shown) must not have a password after a seed: only words can have one"
            )
        seed = bytes.fromhex(phrase[2:])
    else:
        seed = _seed_of_words(phrase, password or "")
    junctions = [(slashes == "//", _chain_code(name)) for slashes, name in _JUNCTION.findall(found["path"])]
    if scheme is not Scheme.SR25519 and not all(hard for hard, _ in junctions):
        raise ConfigError(f"{scheme.name.lower()} has no soft junctions: each part of the path must come after `//`")
    return seed, junctions


def _seed_of_words(words: str, password: str) -> bytes:
    import bip39

    # No cause is chained to the error: the library's message may contain the words.
    with suppress(ValueError):
        return bytes(bip39.bip39_to_mini_secret(words, password, "en"))
    raise ConfigError("the account's secret (not shown) must be words with a valid checksum, or a 0x seed")


def _chain_code(name: str) -> bytes:
    """The 32-byte chain code of a junction, as in Substrate's ``DeriveJunction``: a number or a text in SCALE, hashed
    if it is long."""
    is_number = name.isascii() and name.isdigit() and int(name) < 2**64
    encoded = int(name).to_bytes(8, "little") if is_number else _scale(name.encode())
    return (encoded if len(encoded) <= CHAIN_CODE_SIZE else digest32(encoded)).ljust(CHAIN_CODE_SIZE, b"\0")


def _scale(data: bytes) -> bytes:
    """Bytes in SCALE, prefixed with their length; up to 16,383 bytes, more than anybody types."""
    length = len(data) << 2
    return (length.to_bytes(1) if len(data) < 64 else (length | 1).to_bytes(2, "little")) + data


def _sr25519(seed: bytes, junctions: list[tuple[bool, bytes]]) -> tuple[bytes, Callable[[bytes], bytes]]:
    import sr25519

    public, secret = sr25519.pair_from_seed(seed)
    for hard, chain_code in junctions:
        derive = sr25519.hard_derive_keypair if hard else sr25519.derive_keypair
        _, public, secret = derive((chain_code, public, secret), b"")
    return bytes(public), partial(sr25519.sign, (public, secret))


def _ecdsa(seed: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    import ecdsa

    key: Any = None
    with suppress(ecdsa.MalformedPointError):
        key = ecdsa.SigningKey.from_string(seed, curve=ecdsa.SECP256k1)
    if key is None:
        raise ConfigError("the account's secret (not shown) is not a valid ECDSA key: its number is zero or too large")

    def sign(message: bytes) -> bytes:
        return bytes(key.sign_digest_deterministic(digest32(message), hashfunc=sha256))

    return bytes(key.verifying_key.to_string("compressed")), sign
