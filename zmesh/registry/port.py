"""The port of a registry, which says who is a validator.

What a registry promises
 1. What a person wrote (a file) must be valid, or ``start`` raises ``ConfigError``. What is remote (a chain) never
    stops a node: ``start`` continues with the last good set, or with none yet.
 2. It only ever gives complete, valid sets. If it cannot read its source, the last good set stays in force, and the
    problem is warned about once and shows in ``status``; a fault never becomes an empty set.
 3. ``on_change`` is called on the event loop's thread, from within ``start`` if there is a set by then.
 4. After ``stop`` it can be started again, even on another event loop. The new ``on_change`` is then given the set in
    force, whether or not the previous one was given the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

from zmesh.core.types import EMPTY_ROSTER, Endpoint, Roster

HASH_SIZE = 32
"""Bytes of the hash of a block, such as the genesis."""
MAX_STAKE = 2**128 - 1
"""A chain's balance: u128."""


class Account(NamedTuple):
    """An account that belongs, but whose mesh key the registry does not know: a delegation names the key."""

    id: bytes
    """32 bytes, the chain's AccountId, which signs delegations."""
    address: str
    """The same in SS58 with the chain's own prefix: the name that people, votes and limits use."""
    stake: int = 0
    """In the chain's smallest unit."""
    is_validator: bool = True
    """False for one that is only about to become a validator: it may connect, and counts later."""
    reputation: float = 100.0
    """0 to 100, the chain's opinion: where its score starts and what it decays back to."""
    endpoints: tuple[Endpoint, ...] = ()
    """Its addresses according to the chain, if any; its own signed record takes precedence."""


@dataclass(frozen=True, slots=True)
class ValidatorSet:
    """Who belongs, as a registry last gave it: complete, valid and immutable."""

    roster: Roster = EMPTY_ROSTER
    """Those whose mesh keys the registry itself knows."""
    accounts: Mapping[bytes, Account] = field(default_factory=lambda: MappingProxyType({}))
    """Those who must prove theirs by a delegation, by account id; none of them is in ``roster``."""
    genesis: bytes = b""
    """32 bytes, the chain's genesis hash; empty where there is no chain."""
    block: int | None = None
    """Number of the finalized block that the set is from."""

    def __len__(self) -> int:
        return len(self.roster) + len(self.accounts)


OnChange = Callable[[ValidatorSet], None]
"""Called with each new set; it accepts the same set again."""


@dataclass(frozen=True, slots=True)
class RegistryStatus:
    """The state of the registry, for ``/health``."""

    source: str
    """Where the set comes from, in human-readable form."""
    members: int
    """How many the set in force has."""
    age: float | None
    """Seconds since the source was last seen to agree with the set in force; None if it never was."""
    problem: str | None
    """Why it does not agree now, in one sentence; None if all is well."""
    block: int | None = None
    """The finalized block that the set is from; None if there is no chain."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Events that are not problems, by name, for ``/metrics``."""


class Registry(Protocol):
    """Says who belongs, now and whenever that changes."""

    async def start(self, on_change: OnChange) -> None:
        """Read the source, hand the set to ``on_change``, and watch from then on.

        Raises ``ConfigError`` as the first promise says.
        """
        ...

    async def read(self) -> ValidatorSet:
        """Read the source now, within a bounded time, and return the set then in force."""
        ...

    async def stop(self) -> None:
        """Stop watching. Safe to call twice, and before ``start``."""
        ...

    def status(self) -> RegistryStatus:
        """The state of the registry now."""
        ...
