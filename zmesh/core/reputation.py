"""Who misbehaved, how much it costs, and how it heals.

Rules
 1. A score belongs to an account, so that neither reconnecting nor a new mesh key resets it.
 2. Scores run from 0 to 100. They start where the registry puts them (100 where it says nothing) and heal back
    to that in a straight line, 100 points in ``bounds.heal`` seconds.
 3. Only a fault that the culprit alone can commit costs anything; what an honest node could not know costs nothing.
 4. Ignoring never silences more than a third of the known stake: Byzantine agreement needs to hear two thirds,
    and a mass of low scores is likelier to be our own error than theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from zmesh.core.types import Fault, Member

COST: Final[Mapping[Fault, float]] = {
    Fault.MALFORMED: 20.0,
    Fault.TTL_INFLATED: 20.0,
    Fault.RELAYED_FORGERY: 20.0,
    Fault.MISROUTED_DIRECT: 20.0,
    Fault.BROKEN_OFFER: 2.0,
    Fault.INVALID_MESSAGE: 10.0,
}
"""Points out of 100. What no honest peer can do costs 20, so the third time the culprit is ignored and the fifth time
it is cut. A broken offer may be a lost packet and costs little; an invalid message may be one bug of one release."""

MAX_SCORE: Final = 100.0


class Reputation:
    """Scores by account. Times are monotonic seconds; remembers only accounts that are below where they started."""

    __slots__ = ("_heal", "_scores")

    def __init__(self, heal: float) -> None:
        self._heal = heal
        self._scores: dict[str, tuple[float, float]] = {}

    def score(self, member: Member, now: float) -> float:
        """The current score of the member's account, 0 to 100."""
        held = self._scores.get(member.account)
        if held is None:
            return member.reputation
        score, since = held
        healed = score + (now - since) * MAX_SCORE / self._heal
        if healed >= member.reputation:
            del self._scores[member.account]
            return member.reputation
        return healed

    def charge(self, member: Member, fault: Fault, now: float) -> float:
        """Deduct the fault's cost; returns the score that is left."""
        left = max(0.0, self.score(member, now) - COST[fault])
        self._scores[member.account] = (left, now)
        return left

    def ignored(self, members: Iterable[Member], below: float, now: float) -> frozenset[str]:
        """The accounts whose messages handlers should not see: the worst first, as they fit into a third of all stake.

        If no member has stake, all weigh the same.
        """
        if not self._scores:
            return frozenset()
        crowd = list(members)
        weighs_same = not any(member.stake for member in crowd)
        total = sum(1 if weighs_same else member.stake for member in crowd)
        low = sorted((self.score(member, now), member.account, member.stake) for member in crowd)
        silenced: set[str] = set()
        weight = 0
        for score, account, stake in low:
            if score >= below:
                break
            its_own = 1 if weighs_same else stake
            if (weight + its_own) * 3 <= total:  # else it is heard, but does not shield those after it
                weight += its_own
                silenced.add(account)
        return frozenset(silenced)

    def snapshot(self, now: float) -> dict[str, tuple[float, float]]:
        """Account -> (score, seconds since it was set): what to persist."""
        return {account: (score, now - since) for account, (score, since) in sorted(self._scores.items())}

    def restore(self, saved: Mapping[str, tuple[float, float]], now: float) -> None:
        """Restore what ``snapshot`` returned; the time that passed in between heals."""
        for account, (score, age) in saved.items():
            self._scores[account] = (min(MAX_SCORE, max(0.0, score)), now - max(0.0, age))
