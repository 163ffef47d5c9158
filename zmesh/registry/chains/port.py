"""What a reader sees of a chain, and what it returns: a new chain is one small file between these two.

Rules
 1. A reader knows only names of pallets and items, and asks at one finalized block: what it reads is consistent.
 2. What a chain says is not trusted: accounts are 32 bytes, scores are clamped, stakes outside of u128 are refused, and
    no list is longer than ``MAX_ACCOUNTS``.
 3. Pure: no IO of its own, and no substrate-interface; ``zmesh.registry.substrate`` has both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from zmesh.core.sentence import shown
from zmesh.core.types import Endpoint
from zmesh.registry.port import MAX_STAKE
from zmesh.ss58 import ACCOUNT_SIZE

MAX_ACCOUNTS = 100_000
"""Accounts of one chain: ten times the largest mesh that was simulated."""


class ChainError(Exception):
    """What a chain says cannot be used as a set of validators; one sentence says why."""


class Found(NamedTuple):
    """An account as a reader found it."""

    id: bytes
    """32 bytes."""
    stake: int = 0
    """In the chain's smallest unit."""
    is_validator: bool = True
    """False for one that is only about to become a validator."""
    reputation: float = 100.0
    """0 to 100, the chain's opinion."""
    endpoints: tuple[Endpoint, ...] = ()
    """Its addresses according to the chain, if any."""


class Chain(Protocol):
    """A chain at one finalized block. Every method raises ``ChainError`` for what cannot be read.

    Values are plain: an account is hexadecimal with 0x (``account_id`` reads it), a struct a dict, a vector a list,
    a number an int, an option None or the value, and bytes are text where they are UTF-8.
    """

    def offers(self, pallet: str, item: str) -> bool:
        """Whether the chain's metadata has this storage item."""
        ...

    def fields(self, pallet: str, item: str) -> frozenset[str]:
        """The fields of the item's value if it is a struct; empty if it is not, or if there is no such item."""
        ...

    def value(self, pallet: str, item: str, *keys: Any) -> Any:
        """The value of a plain item, or of a map at ``keys``."""
        ...

    def entries(self, pallet: str, item: str, *keys: Any) -> Iterator[tuple[bytes, Any]]:
        """All entries of a map: the last key as the chain encodes it (an account: its 32 bytes), and the value.

        ``keys`` are all keys but the last. At most ``MAX_ACCOUNTS`` entries.
        """
        ...

    def values(self, pallet: str, item: str, accounts: Sequence[bytes], *keys: Any) -> Mapping[bytes, Any]:
        """The values of a map at these accounts, its last keys; those without one are left out.

        ``keys`` are all keys but the last. Cheaper than ``entries`` if the accounts are known.
        """
        ...


class Reader(Protocol):
    """Reads who belongs from chains of one kind."""

    name: str
    """What ``MESH_REGISTRY=substrate:NAME`` calls it."""
    needs: str
    """The storage it reads, in human-readable form."""

    def suits(self, chain: Chain) -> bool:
        """Whether this chain's metadata offers what ``read`` asks for."""
        ...

    def read(self, chain: Chain) -> Iterable[Found]:
        """All accounts that belong. Raises ``ChainError``."""
        ...


def account_id(value: object) -> bytes:
    """The 32 bytes of an account as ``Chain`` gives it. Raises ``ChainError``."""
    try:
        account = bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else value
    except ValueError:
        account = None
    if not isinstance(account, bytes):
        raise ChainError(f"the chain gives {shown(value)} where an account is expected")
    if len(account) != ACCOUNT_SIZE:
        raise ChainError(f"the chain names an account of {len(account)} bytes, which must have {ACCOUNT_SIZE}")
    return account


def account_ids(values: object) -> list[bytes]:
    """The accounts of a list. Raises ``ChainError``."""
    if not isinstance(values, list | tuple):
        raise ChainError(f"the chain gives {shown(values)} where a list of accounts is expected")
    if len(values) > MAX_ACCOUNTS:
        raise ChainError(f"the chain names {len(values)} accounts: there must be at most {MAX_ACCOUNTS}")
    return [account_id(value) for value in values]


def refuse_twice(accounts: Sequence[bytes]) -> None:
    """Raise ``ChainError`` if an account appears twice: a set has each once, so the answer is broken."""
    if len(set(accounts)) == len(accounts):
        return
    seen: set[bytes] = set()
    for account in accounts:
        if account in seen:
            raise ChainError(f"the chain names the account 0x{account.hex()} twice: its answer is malformed")
        seen.add(account)


def stake(value: object) -> int:
    """``value`` as a balance. Raises ``ChainError`` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_STAKE:
        return value
    raise ChainError(f"the chain gives the stake {shown(value)}, which must be a whole number of at most 128 bits")


def score(value: object) -> float:
    """``value`` as a score, clamped to 0 to 100. Raises ``ChainError`` for anything that is not a number."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(min(100, max(0, value)))
    raise ChainError(f"the chain gives the score {shown(value)}, which must be a number from 0 to 100")


def field(value: object, name: str) -> Any:
    """One field of a struct. Raises ``ChainError`` if there is none of that name."""
    if isinstance(value, Mapping) and name in value:
        return value[name]
    raise ChainError(f"the chain gives {shown(value)} where a struct with the field {name} is expected")
