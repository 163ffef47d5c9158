"""The port of a registry: whoever says who is a validator.

What a registry promises
 1. ``start`` gives a roster or raises ``ConfigError``: a node never runs on a registry it could not read once.
 2. Afterwards it only ever gives whole, valid rosters. What it cannot read later leaves the last good one in
    force, is warned about once, and shows in ``status``; never does a fault become an empty set.
 3. ``on_change`` is called on the event loop's thread, first from within ``start``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from zmesh.core.types import Roster

OnChange = Callable[[Roster], None]


@dataclass(frozen=True, slots=True)
class RegistryStatus:
    """How the registry is, for ``/health``."""

    source: str
    """Where the roster comes from, for people."""
    members: int
    """How many the roster in force names."""
    age: float
    """Seconds since the source was last seen to agree with the roster in force."""
    problem: str | None
    """Why it does not agree now, in one sentence; None when all is well."""


class Registry(Protocol):
    """Says who belongs, now and whenever that changes."""

    async def start(self, on_change: OnChange) -> None:
        """Read the source, hand the roster to ``on_change``, and watch from then on.

        Raises ``ConfigError`` when there is no valid roster.
        """
        ...

    async def read(self) -> Roster:
        """Look at the source now, and give the roster in force after that."""
        ...

    async def stop(self) -> None:
        """Watch no longer. Safe to call twice, and before ``start``."""
        ...

    def describe(self) -> str:
        """Where the roster comes from, for people."""
        ...

    def status(self) -> RegistryStatus:
        """How the registry is now."""
        ...
