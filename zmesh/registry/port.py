"""The port of a registry: whoever says who is a validator.

What a registry promises
 1. What a person wrote (a file) is right or refused: ``start`` raises ``ConfigError`` for it. What is far away
    (a chain) never stops a node: ``start`` goes on with the last set that was good, or with none yet.
 2. It only ever gives whole, valid sets. What it cannot read leaves the last good one in force, is warned about
    once, and shows in ``status``; never does a fault become an empty set.
 3. ``on_change`` is called on the event loop's thread, from within ``start`` where there is a set by then.
 4. After ``stop`` it may be started again, on another event loop too. That is a new life: its ``on_change`` is told the
    set in force, whether or not the life before was told the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

from zmesh.core.types import EMPTY_ROSTER, Endpoint, Roster


class Account(NamedTuple):
    """An account that belongs, and whose mesh key the registry does not know: a delegation names it."""

    id: bytes
    """32 bytes, the chain's AccountId: what a delegation is signed by."""
    address: str
    """The same as SS58 in the chain's own prefix: how people, votes and limits name it."""
    stake: int = 0
    """In the chain's smallest unit."""
    is_validator: bool = True
    """False for one that is only about to become a validator: it may connect, and counts later."""
    reputation: float = 100.0
    """0 to 100, the chain's opinion: where its score starts and what it decays back to."""
    endpoints: tuple[Endpoint, ...] = ()
    """Where the chain says it is, if it does; its own signed record goes before."""


@dataclass(frozen=True, slots=True)
class ValidatorSet:
    """Who belongs, as a registry last gave it: whole, valid and never changed."""

    roster: Roster = EMPTY_ROSTER
    """Those whose mesh keys the registry itself knows."""
    accounts: Mapping[bytes, Account] = field(default_factory=lambda: MappingProxyType({}))
    """Those who have to prove theirs by a delegation, by account id; nobody of them stands in ``roster``."""
    genesis: bytes = b""
    """32 bytes, the chain's genesis hash; empty where there is no chain."""
    block: int | None = None
    """Number of the finalized block that says so."""

    def __len__(self) -> int:
        return len(self.roster) + len(self.accounts)


OnChange = Callable[[ValidatorSet], None]


@dataclass(frozen=True, slots=True)
class RegistryStatus:
    """How the registry is, for ``/health``."""

    source: str
    """Where the set comes from, for people."""
    members: int
    """How many the set in force names."""
    age: float | None
    """Seconds since the source was last seen to agree with the set in force; None if it never was."""
    problem: str | None
    """Why it does not agree now, in one sentence; None when all is well."""
    block: int | None = None
    """The finalized block that the set is of; None where there is no chain."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Events that are no problem and that /metrics tells, by name."""


class Registry(Protocol):
    """Says who belongs, now and whenever that changes."""

    async def start(self, on_change: OnChange) -> None:
        """Read the source, hand the set to ``on_change``, and watch from then on.

        Raises ``ConfigError`` as the first promise has it.
        """
        ...

    async def read(self) -> ValidatorSet:
        """Look at the source now, within a bounded time, and give the set in force after that."""
        ...

    async def stop(self) -> None:
        """Watch no longer. Safe to call twice, and before ``start``."""
        ...

    def describe(self) -> str:
        """Where the set comes from, for people."""
        ...

    def status(self) -> RegistryStatus:
        """How the registry is now."""
        ...
