"""The stakes of accounts, from whichever of its maps a chain's ``Staking`` pallet offers.

Rules
 1. Newest layout first: the era's exposure in pages (``ErasStakersOverview``), then in one piece (``ErasStakers``),
    then, for accounts in neither, what their ledger holds.
 2. Stake informs and never decides who belongs: an account without one has 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from zmesh.registry.chains.port import Chain, account_id, field, stake

_EXPOSURES = ("ErasStakersOverview", "ErasStakers")


def stakes_of(chain: Chain, accounts: Sequence[bytes]) -> dict[bytes, int]:
    """Account -> stake, in the chain's smallest unit; those without any are left out. Raises ``ChainError``."""
    found: dict[bytes, int] = {}
    era = _era(chain)
    for item in _EXPOSURES:
        missing = [account for account in accounts if account not in found]
        if missing and era is not None and chain.offers("Staking", item):
            exposures = chain.values("Staking", item, missing, era)
            found |= {account: stake(field(value, "total")) for account, value in exposures.items()}
    missing = [account for account in accounts if account not in found]
    if missing and chain.offers("Staking", "Bonded") and chain.offers("Staking", "Ledger"):
        found |= _bonded(chain, missing)
    return found


def _era(chain: Chain) -> int | None:
    """The era whose exposures count now."""
    if chain.offers("Staking", "ActiveEra"):
        active = chain.value("Staking", "ActiveEra")
        if active is not None:
            return int(field(active, "index"))
    if chain.offers("Staking", "CurrentEra"):
        current = chain.value("Staking", "CurrentEra")
        return None if current is None else int(current)
    return None


def _bonded(chain: Chain, stashes: Sequence[bytes]) -> dict[bytes, int]:
    """What the controllers' ledgers hold for their stashes."""
    controllers = {stash: account_id(value) for stash, value in chain.values("Staking", "Bonded", stashes).items()}
    ledgers = chain.values("Staking", "Ledger", sorted(set(controllers.values())))
    held = {stash: ledgers[controller] for stash, controller in controllers.items() if controller in ledgers}
    return {stash: stake(field(ledger, "active")) for stash, ledger in held.items()}
