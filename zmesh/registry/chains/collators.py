"""Parachains: the invulnerable collators, and the candidates for the next session."""

from __future__ import annotations

from collections.abc import Iterable

from zmesh.registry.chains.port import Chain, Found, account_id, account_ids, field, stake

_CANDIDATES = ("CandidateList", "Candidates")


class CollatorReader:
    """``CollatorSelection``: a candidate's deposit is its stake, and it counts once its session has begun."""

    name = "collators"
    needs = "CollatorSelection.Invulnerables"

    def suits(self, chain: Chain) -> bool:
        """Every chain with ``pallet-collator-selection`` suits."""
        return chain.offers("CollatorSelection", "Invulnerables")

    def read(self, chain: Chain) -> Iterable[Found]:
        """The invulnerables, then the candidates."""
        invulnerable = account_ids(chain.value("CollatorSelection", "Invulnerables"))
        present = account_ids(chain.value("Session", "Validators")) if chain.offers("Session", "Validators") else []
        yield from (Found(account) for account in invulnerable)
        item = next((name for name in _CANDIDATES if chain.offers("CollatorSelection", name)), None)
        for candidate in chain.value("CollatorSelection", item) if item else ():
            account = account_id(field(candidate, "who"))
            yield Found(account, stake(field(candidate, "deposit")), account in present)
