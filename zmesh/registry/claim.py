"""An account's claim that a mesh key speaks for it: the highest delegation of the account that was seen to hold."""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from zmesh.delegation import Delegation


class Claim(NamedTuple):
    """The highest delegation of an account that was seen to hold."""

    delegation: Delegation
    image: bytes
    """32 bytes, the CURVE image of the key."""

    @property
    def rank(self) -> tuple[int, bytes]:
        """Of several claims to one image, the one with the highest rank counts."""
        return self.delegation.statement.sequence, self.delegation.statement.account

    def holds_at(self, wall: float) -> bool:
        """Whether it has begun, and not ended, at ``wall`` Unix seconds."""
        return self.delegation.statement.not_before <= wall < self.delegation.statement.not_after + 1

    def turn_after(self, wall: float) -> float:
        """Unix seconds when it begins or ends next, infinity if never; the clock may have been set back since it was
        seen to hold."""
        statement = self.delegation.statement
        ahead = (float(at) for at in (statement.not_before, statement.not_after + 1) if at > wall)
        return next(ahead, inf)

    def precedes(self, other: Delegation) -> bool:
        """Whether it supersedes ``other``, which is of the same account."""
        ours, theirs = self.delegation.statement, other.statement
        return (ours.sequence, theirs.text) > (theirs.sequence, ours.text)
