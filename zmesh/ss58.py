"""Accounts as text: SS58, which is base58 with the chain's prefix and a checksum.

Rules
 1. scalecodec converts, and is imported where that happens: its import takes a tenth of a second. A checksum is checked
    without it, since a mesh without a chain has accounts in its file, too.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from zmesh.core.errors import ConfigError
from zmesh.core.sentence import shown

ACCOUNT_SIZE: Final = 32
"""An AccountId32; a chain of 20-byte accounts (Ethereum's) signs in ways that a delegation does not know."""
GENERIC_PREFIX: Final = 42
"""Substrate's generic prefix, which every chain accepts."""

_BASE58: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_LIKE_SS58: Final = re.compile(f"[{_BASE58}]{{46,49}}")
"""The length of 32 bytes with a prefix and a checksum: no name looks like that, and a key in hexadecimal has 64
digits."""


def to_ss58(account: bytes, prefix: int = GENERIC_PREFIX) -> str:
    """An account (32 bytes) as SS58."""
    from scalecodec.utils.ss58 import ss58_encode

    return str(ss58_encode(account, prefix))


def parse_account(text: str) -> bytes:
    """The 32 bytes of an account, written as SS58 with any prefix or as 0x and 64 digits. Raises ``ConfigError``."""
    from scalecodec.utils.ss58 import ss58_decode

    try:
        account = bytes.fromhex(ss58_decode(text.strip()).removeprefix("0x"))
    except (ValueError, IndexError):
        account = b""
    if len(account) != ACCOUNT_SIZE:
        raise ConfigError(
            f"{shown(text)} is not an account: it must be an SS58 address, or 0x and 64 hexadecimal digits"
        )
    return account


def is_mistyped(text: str) -> bool:
    """Whether ``text`` looks like SS58, but its checksum is wrong: the first two bytes of the hash of prefix and
    account, as in Substrate's ``sp_core::crypto::Ss58Codec``."""
    if not _LIKE_SS58.fullmatch(text):
        return False
    number = 0
    for digit in text:
        number = number * 58 + _BASE58.index(digit)
    zeros = len(text) - len(text.lstrip("1"))
    raw = bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
    # Prefixes from 64 on have two bytes.
    if len(raw) != ACCOUNT_SIZE + (3 if raw[0] < 64 else 4):
        return True
    return blake2b(b"SS58PRE" + raw[:-2]).digest()[:2] != raw[-2:]
