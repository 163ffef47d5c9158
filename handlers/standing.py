"""Whether a key may take part, and if not, why."""

from __future__ import annotations

from enum import StrEnum, unique
from typing import Self


@unique
class Standing(StrEnum):
    """The verdict on the key of a record. Each reason is a counter; PROTOCOL.md ("Delegations") explains them."""

    why: str
    """What the log, the metrics and a node that is refused say of it: one clause about the key, the record's delegation
    and the delegation's account."""

    def __new__(cls, value: str, why: str) -> Self:
        """One name and its clause."""
        made = str.__new__(cls, value)
        made._value_ = value
        made.why = why
        return made

    ADMITTED = "admitted", "the key may take part"
    UNKNOWN_KEY = "unknown_key", "the registry does not name the key, and its record has no delegation"
    MALFORMED = "malformed", "the delegation is malformed, or the key is not a usable Ed25519 key"
    OTHER_CHAIN = "other_chain", "the delegation is for another chain"
    OTHER_NETWORK = "other_network", "the delegation is for a mesh of another name"
    UNKNOWN_ACCOUNT = "unknown_account", "as of the last finalized block, the registry does not name the account"
    NOT_YET = "not_yet", "the delegation has yet to begin, or a clock is wrong"
    EXPIRED = "expired", "the delegation has ended, or a clock is wrong"
    SUPERSEDED = "superseded", "the account has signed a newer delegation"
    NOT_HELD = "not_held", "the key did not sign that it speaks for the account, or the delegation is another key's"
    FORGED = "forged", "the account did not sign the delegation"
    KEY_TAKEN = "key_taken", "the key speaks for another account"
    COLLIDES = "collides", "the key's negative is a member, and the two share one CURVE key"
    FULL = "full", "the mesh is open and has as many guests as it takes"
    BUSY = "busy", "too many new delegations of the account, or forged ones of any, came to check this one now"

    __hash__ = str.__hash__

    @property
    def is_false(self) -> bool:
        """True if it holds at every node: a peer that passes on such a record did not check it, and is to blame."""
        return self in (Standing.FORGED, Standing.NOT_HELD, Standing.MALFORMED)
