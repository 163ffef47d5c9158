"""BelizeChain: ``Staking.Validators`` is a map of validators with their stake and scores."""

from __future__ import annotations

from collections.abc import Iterable

from zmesh.registry.chains.port import Chain, Found, account_id, field, score, stake

SCORES = ("compliance_score", "quality_score", "timeliness_score", "honesty_score")


class BelizeReader:
    """A validator's reputation starts at the lowest of its scores: none of them makes up for another."""

    name = "belize"
    needs = "Staking.Validators with stake and scores"

    def suits(self, chain: Chain) -> bool:
        """Other chains have preferences (commission) in a map of that name."""
        return {"stake", *SCORES} <= chain.fields("Staking", "Validators")

    def read(self, chain: Chain) -> Iterable[Found]:
        """Each entry of the map."""
        for account, value in chain.entries("Staking", "Validators"):
            least = min(score(field(value, name)) for name in SCORES)
            yield Found(account_id(account), stake(field(value, "stake")), reputation=least)
