"""How refusals of keys are logged, and told to the operator of a node that is refused.

Rules
 1. Why is the clause of the ``Standing`` everywhere. What the node that is refused can do about it is in ``REMEDIES``.
 2. A refusal is logged once for each key and reason. Keys cost a stranger nothing, so memory of them is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from zmesh.core.errors import WireError
from zmesh.core.now import Now
from zmesh.core.sentence import shown
from zmesh.core.types import PeerKey
from zmesh.delegation import Statement, decode_delegation
from zmesh.handlers.record import Record
from zmesh.handlers.standing import Standing
from zmesh.log import get_logger
from zmesh.registry.port import Account

MAX_TOLD: Final = 1024
"""Refusals remembered as logged; any more are only counted."""
TOLD_FOR: Final = 3600.0
"""Seconds after which refusals are logged again."""

REMEDIES: Final[Mapping[Standing, str]] = {
    Standing.UNKNOWN_KEY: (
        "list it there or, where the registry names accounts, have one sign for it (`zmesh key delegate`, "
        "MESH_DELEGATION)"
    ),
    Standing.OTHER_CHAIN: "have the account sign one for this chain",
    Standing.UNKNOWN_ACCOUNT: "register it there, or have one that is sign for the key (`zmesh key delegate`)",
    Standing.NOT_YET: "wait, or correct the clock",
    Standing.EXPIRED: "have the account sign a new one (`zmesh key delegate`), or correct the clock",
    Standing.SUPERSEDED: "set MESH_DELEGATION to that one",
    Standing.KEY_TAKEN: "each account needs a key of its own",
}
"""What the operator of a refused node can do, by what keeps it out; ``why`` comes before it."""

_log = get_logger(__name__)


class Refusals:
    """Logs refusals, following rule 2."""

    def __init__(self) -> None:
        self._told: set[tuple[PeerKey, Standing]] = set()
        self._since = float("-inf")

    def tell(self, record: Record, standing: Standing, accounts: Mapping[bytes, Account], now: Now) -> None:
        """Log a refusal if it is due. ``accounts``: those that the registry names, by account id."""
        if now.mono - self._since >= TOLD_FOR:
            self._told.clear()
            self._since = now.mono
        if (record.key, standing) in self._told or len(self._told) >= MAX_TOLD:
            return
        self._told.add((record.key, standing))
        account, statement = None, statement_of(record)
        if statement is not None:
            known = accounts.get(statement.account)
            account = known.address if known is not None else f"0x{statement.account.hex()}"
        _log.warning(
            "membership_refused",
            key=record.key.hex(),
            peer_id=shown(record.peer_id),
            account=account,
            reason=standing.value,
            why=explained(standing, statement, now.wall),
        )


def statement_of(record: Record) -> Statement | None:
    """The statement in a record's delegation, if it carries one: a guest of an open mesh may do without."""
    try:
        return None if record.delegation is None else decode_delegation(record.delegation).statement
    except WireError:
        return None


def explained(standing: Standing, statement: Statement | None, wall: float) -> str:
    """Its clause, with the account or the time that it is about."""
    if statement is None:
        return standing.why
    about = {
        Standing.UNKNOWN_ACCOUNT: f" 0x{statement.account.hex()}",
        Standing.NOT_YET: f" by {abs(wall - statement.not_before):.0f} s",
        Standing.EXPIRED: f" by {abs(wall - statement.not_after):.0f} s",
    }
    return standing.why + about.get(standing, "")


def own_trouble(own: Record, standing: Standing, wall: float) -> str:
    """Why others refuse this node, and what would help, for its operator."""
    why, remedy = explained(standing, statement_of(own), wall), REMEDIES.get(standing)
    return why if remedy is None else f"{why}: {remedy}"
