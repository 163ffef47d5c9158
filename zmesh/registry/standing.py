"""How refusals of keys are logged, and told to the operator of a node that is refused.

Rules
 1. Every ``Standing`` but ADMITTED has one sentence for the log.
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

MAX_GUESTS: Final = 1000
"""Members that an open mesh admits without an account: keys cost nothing, and each one costs memory and links."""
MAX_TOLD: Final = 1024
"""Refusals remembered as logged; any more are only counted."""
TOLD_FOR: Final = 3600.0
"""Seconds after which refusals are logged again."""

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
        account, why = None, _WHY[standing]
        statement = statement_of(record)
        if statement is not None:
            known = accounts.get(statement.account)
            account = known.address if known is not None else f"0x{statement.account.hex()}"
            edge = {Standing.NOT_YET: statement.not_before, Standing.EXPIRED: statement.not_after}.get(standing, 0)
            why = why.format(seconds=abs(now.wall - edge))
        _log.warning(
            "membership_refused",
            key=record.key.hex(),
            peer_id=shown(record.peer_id),
            account=account,
            reason=standing.value,
            why=why,
        )


def statement_of(record: Record) -> Statement | None:
    """The statement in a record's delegation, if it carries one: a guest of an open mesh may do without."""
    try:
        return None if record.delegation is None else decode_delegation(record.delegation).statement
    except WireError:
        return None


def own_trouble(own: Record, standing: Standing, wall: float) -> str:
    """Why others refuse this node, and what would help, in one sentence for its operator."""
    statement = statement_of(own)
    edge, account = 0, ""
    if statement is not None:
        edge = {Standing.NOT_YET: statement.not_before, Standing.EXPIRED: statement.not_after}.get(standing, 0)
        account = f"0x{statement.account.hex()}"
    why = _OWN.get(standing, f"this node's delegation is refused: {standing.value}")
    return why.format(seconds=abs(wall - edge), account=account)


_OWN: Final[Mapping[Standing, str]] = {
    Standing.UNKNOWN_KEY: (
        "the registry does not name this node's key: list it there or, where the registry names accounts, have one "
        "sign for it (`zmesh key delegate`, MESH_DELEGATION)"
    ),
    Standing.OTHER_CHAIN: (
        "this node's delegation is for a different chain than its registry: have its account sign a new one"
    ),
    Standing.UNKNOWN_ACCOUNT: "the registry does not name {account}, the account of this node's delegation",
    Standing.NOT_YET: "this node's delegation begins in {seconds:.0f} s: wait, or correct this machine's clock",
    Standing.EXPIRED: (
        "this node's delegation ended {seconds:.0f} s ago: have its account sign a new one (`zmesh key delegate`), "
        "or correct this machine's clock"
    ),
    Standing.SUPERSEDED: "the account of this node's delegation has signed a later one: set MESH_DELEGATION to it",
    Standing.KEY_TAKEN: "this node's key now speaks for another account: each account needs a key of its own",
}

_WHY: Final[Mapping[Standing, str]] = {
    Standing.UNKNOWN_KEY: "the registry does not name this key, and its record carries no delegation",
    Standing.MALFORMED: "the delegation that its record carries is malformed",
    Standing.OTHER_CHAIN: "its delegation is for a different chain than this node's",
    Standing.OTHER_NETWORK: "its delegation is for a mesh with a different name",
    Standing.UNKNOWN_ACCOUNT: "the registry does not name its account, as of the last finalized block",
    Standing.NOT_YET: "its delegation begins in {seconds:.0f} s: if not, one of the two clocks is wrong",
    Standing.EXPIRED: "its delegation ended {seconds:.0f} s ago: if not, one of the two clocks is wrong",
    Standing.SUPERSEDED: "its account has signed another delegation with a higher sequence",
    Standing.NOT_HELD: "the key did not sign that it speaks for the account, or the delegation is another key's",
    Standing.FORGED: "the account did not sign the delegation",
    Standing.KEY_TAKEN: "the key speaks for another account",
    Standing.COLLIDES: "the negative of this key is a member, and both have the same CURVE key",
    Standing.FULL: f"this mesh is open and already has {MAX_GUESTS} guests",
    Standing.BUSY: "its account presents too many new delegations, or somebody too many forged ones, to check it now",
}
