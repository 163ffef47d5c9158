"""Any chain with sessions: who validates now, and who will in the next one; stake where there is staking."""

from __future__ import annotations

from collections.abc import Iterable

from zmesh.registry.chains.port import Chain, Found, account_ids
from zmesh.registry.chains.stakes import stakes_of


class SessionReader:
    """``Session.Validators``, and ``Session.QueuedKeys`` for those about to become validators."""

    name = "session"
    needs = "Session.Validators"

    def suits(self, chain: Chain) -> bool:
        """Every chain with ``pallet-session`` suits."""
        return chain.offers("Session", "Validators")

    def read(self, chain: Chain) -> Iterable[Found]:
        """The present set, then those queued who are not in it."""
        present = account_ids(chain.value("Session", "Validators"))
        queued: list[bytes] = []
        if chain.offers("Session", "QueuedKeys"):
            queued = account_ids([account for account, _ in chain.value("Session", "QueuedKeys")])
        known = set(present)
        everybody = present + [account for account in queued if account not in known]
        stakes = stakes_of(chain, everybody)
        return [Found(account, stakes.get(account, 0), account in known) for account in everybody]
