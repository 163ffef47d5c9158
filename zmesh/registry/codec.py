"""A chain's set of validators as bytes: for the pipe from the worker, and for the disk.

Rules
 1. What is read is checked value by value, since the other process decodes what a stranger sent, and disks fail. Bad
    data raises ``ValueError`` with one sentence and nothing else, whatever the bytes.
 2. A frame on the pipe is its length (4 bytes, big-endian) and a msgpack map; none is larger than ``MAX_FRAME``.
 3. Balances are u128 and msgpack's integers end at 64 bits: a stake is 16 bytes, big-endian.
"""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, BinaryIO

import msgpack

from zmesh.core.bounds import MAX_ENDPOINTS, MAX_HOST, MAX_NAME
from zmesh.core.types import Endpoint
from zmesh.core.wire import UNPACK_ERRORS
from zmesh.registry.chains.port import MAX_ACCOUNTS
from zmesh.registry.port import HASH_SIZE, Account
from zmesh.ss58 import ACCOUNT_SIZE

MAX_FRAME = 32 * 1024 * 1024
"""Bytes: twice 100,000 accounts of 150 bytes."""
STAKE_SIZE = 16
MAX_BLOCK = 2**63
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a chain said at one finalized block."""

    genesis: bytes
    """32 bytes."""
    prefix: int
    """SS58 prefix of the chain."""
    block: int
    hash: bytes
    """32 bytes, of the block."""
    reader: str
    """The name of the reader in ``chains.READERS`` that read it."""
    accounts: Mapping[bytes, Account]
    """By account id. ``snapshot_of`` accepts an empty one; ``caution`` and ``cache`` refuse it."""


def plain_of(snapshot: Snapshot) -> dict[str, Any]:
    """The snapshot as values that msgpack can pack."""
    return {
        "genesis": snapshot.genesis,
        "prefix": snapshot.prefix,
        "block": snapshot.block,
        "hash": snapshot.hash,
        "reader": snapshot.reader,
        "accounts": [_plain(account) for account in snapshot.accounts.values()],
    }


def snapshot_of(value: object) -> Snapshot:
    """The snapshot that these plain values stand for. Raises ``ValueError``."""
    if not isinstance(value, Mapping):
        raise ValueError("a set of validators must be a map")
    listed = value.get("accounts")
    if not isinstance(listed, list) or len(listed) > MAX_ACCOUNTS:
        raise ValueError(f"accounts must be a list of at most {MAX_ACCOUNTS}")
    accounts = {account.id: account for account in map(_account, listed)}
    if len({account.address for account in accounts.values()}) != len(listed):
        raise ValueError("an account or an address is in the set twice")
    return Snapshot(
        genesis=_bytes(value.get("genesis"), HASH_SIZE, "genesis"),
        prefix=number(value.get("prefix"), 2**14, "prefix"),
        block=number(value.get("block"), MAX_BLOCK, "block"),
        hash=_bytes(value.get("hash"), HASH_SIZE, "hash"),
        reader=_text(value.get("reader"), MAX_NAME, "reader"),
        accounts=MappingProxyType(accounts),
    )


def _plain(account: Account) -> list[Any]:
    return [
        account.id,
        account.address,
        account.stake.to_bytes(STAKE_SIZE, "big"),
        account.is_validator,
        account.reputation,
        [[endpoint.host, endpoint.port] for endpoint in account.endpoints],
    ]


def _account(value: object) -> Account:
    if not isinstance(value, list) or len(value) != 6:
        raise ValueError("an account must be a list of six values")
    account, address, stake, is_validator, reputation, endpoints = value
    if not isinstance(is_validator, bool):
        raise ValueError("is_validator must be true or false")
    if not isinstance(reputation, float) or not math.isfinite(reputation) or not 0 <= reputation <= 100:
        raise ValueError("reputation must be a number from 0 to 100")
    if not isinstance(endpoints, list) or len(endpoints) > MAX_ENDPOINTS:
        raise ValueError(f"endpoints must be a list of at most {MAX_ENDPOINTS}")
    return Account(
        id=_bytes(account, ACCOUNT_SIZE, "account"),
        address=_text(address, MAX_NAME, "address"),
        stake=int.from_bytes(_bytes(stake, STAKE_SIZE, "stake"), "big"),
        is_validator=is_validator,
        reputation=reputation,
        endpoints=tuple(_endpoint(endpoint) for endpoint in endpoints),
    )


def _endpoint(value: object) -> Endpoint:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("an endpoint must be a pair of host and port")
    return Endpoint(_text(value[0], MAX_HOST, "host"), number(value[1], 2**16, "port"))


def _bytes(value: object, size: int, what: str) -> bytes:
    if isinstance(value, bytes) and len(value) == size:
        return value
    raise ValueError(f"{what} must be {size} bytes")


def number(value: object, limit: int, what: str) -> int:
    """``value`` if it is a whole number, at least 0 and below ``limit``. Raises ``ValueError``."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < limit:
        return value
    raise ValueError(f"{what} must be a whole number below {limit}")


def _text(value: object, most: int, what: str) -> str:
    if isinstance(value, str) and value.isprintable() and 1 <= len(value) <= most:
        return value
    raise ValueError(f"{what} must be printable text of 1 to {most} characters")


# ---------------------------------------------------------------- frames


def packed(value: Mapping[str, Any]) -> bytes:
    """A frame for the pipe. Raises ``ValueError`` for one beyond ``MAX_FRAME``."""
    body: bytes = msgpack.packb(value)
    if len(body) > MAX_FRAME:
        raise ValueError(f"a frame has {len(body)} bytes and must have at most {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


def unpacked(body: bytes) -> dict[str, Any]:
    """The map in a frame's body. Raises ``ValueError``."""
    try:
        value = msgpack.unpackb(body)
    except UNPACK_ERRORS as error:
        raise ValueError(f"a frame is not msgpack: {type(error).__name__}") from None
    if not isinstance(value, dict):
        raise ValueError("a frame must be a map")
    return value


async def next_body(reader: asyncio.StreamReader) -> bytes:
    """The body of the next frame. Raises ``EOFError`` at the end and ``ValueError`` for a frame that is too large."""
    return await reader.readexactly(_size(await reader.readexactly(_LENGTH.size)))


def read_frame(stream: BinaryIO) -> dict[str, Any]:
    """The next frame of a blocking stream. Raises ``EOFError`` at its end, ``ValueError`` for a bad frame."""
    return unpacked(_exactly(stream, _size(_exactly(stream, _LENGTH.size))))


def _size(head: bytes) -> int:
    (size,) = _LENGTH.unpack(head)
    if size > MAX_FRAME:
        raise ValueError(f"a frame has {size} bytes and must have at most {MAX_FRAME}")
    return int(size)


def _exactly(stream: BinaryIO, size: int) -> bytes:
    content = stream.read(size)
    if len(content) != size:
        raise EOFError("the other end of the pipe is gone")
    return content
