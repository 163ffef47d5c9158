"""How far a single answer from a chain is believed: a set that lost many members must be confirmed.

Rules
 1. An empty set is never accepted.
 2. A set that lacks more than a third of the members in force is accepted only once another block, or another endpoint,
    agrees. To agree is to have most of what was claimed, that is, to lose no more than a third of the claim in turn. A
    later claim that disagrees replaces the first.
 3. Everything else is accepted at once, and ends the doubt. Newcomers are no reason for doubt: each must still bring a
    delegation.

Pure: sets in, a verdict out. The third is that of Byzantine fault tolerance: a chain whose validators change faster has
lost what it promises in any case.
"""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass

SHARE = 3
"""Losing more than one member in this many is too much for one answer."""


@dataclass(frozen=True, slots=True)
class SetClaim:
    """What one endpoint said about one block."""

    members: Set[bytes]
    """Account ids."""
    block: int
    hash: bytes
    source: str
    """The endpoint."""


def too_few(before: Collection[bytes], after: Set[bytes]) -> bool:
    """Whether ``after`` lacks more than a third of ``before``."""
    return lost(before, after) * SHARE > len(before)


def lost(before: Collection[bytes], after: Set[bytes]) -> int:
    """How many of ``before`` are not in ``after``."""
    return sum(one not in after for one in before)


class Caution:
    """Remembers the one claim that waits for confirmation."""

    def __init__(self) -> None:
        self._doubted: SetClaim | None = None

    def judge(self, in_force: Set[bytes], claim: SetClaim) -> str | None:
        """Why the claim is not accepted, in one sentence; None to put it in the place of ``in_force``."""
        if not claim.members:
            return f"{claim.source} names no validator at block {claim.block}: an empty set is never accepted"
        if not too_few(in_force, claim.members) or self._agrees(claim):
            self._doubted = None
            return None
        if not self._repeats(claim):
            self._doubted = claim
        missing = f"{lost(in_force, claim.members)} of {len(in_force)} validators are missing"
        return f"{missing} at block {claim.block} of {claim.source}: another block or endpoint must confirm it"

    def _agrees(self, claim: SetClaim) -> bool:
        """Whether the claim confirms the doubted one. The same block from the same endpoint is the same claim, not a
        second one."""
        before = self._doubted
        return before is not None and not self._repeats(claim) and not too_few(before.members, claim.members)

    def _repeats(self, claim: SetClaim) -> bool:
        before = self._doubted
        return before is not None and (claim.hash, claim.source) == (before.hash, before.source)
