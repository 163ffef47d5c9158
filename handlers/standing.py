"""Whether a key may take part, and if not, why."""

from __future__ import annotations

from enum import StrEnum, unique


@unique
class Standing(StrEnum):
    """The verdict on the key of a record. Each reason is a counter; PROTOCOL.md ("Delegations") explains them."""

    ADMITTED = "admitted"
    UNKNOWN_KEY = "unknown_key"
    """The registry does not name it, and its record carries no delegation."""
    MALFORMED = "malformed"
    """What the record carries is not a delegation, or the key is not a usable Ed25519 key."""
    OTHER_CHAIN = "other_chain"
    OTHER_NETWORK = "other_network"
    UNKNOWN_ACCOUNT = "unknown_account"
    """The registry does not name the account."""
    NOT_YET = "not_yet"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"
    """The account signed another delegation with a higher sequence."""
    NOT_HELD = "not_held"
    """The key did not sign that it speaks for the account, or the delegation is for another key."""
    FORGED = "forged"
    """The account did not sign it."""
    KEY_TAKEN = "key_taken"
    """The key speaks for another account."""
    COLLIDES = "collides"
    """The key's negative is a member, and the two share one CURVE key."""
    FULL = "full"
    """The mesh is open, and already has as many guests as it takes."""
    BUSY = "busy"
    """Too many new delegations of its account, or forged ones of any account, came to check it now: it may come
    again."""

    __hash__ = str.__hash__

    @property
    def is_false(self) -> bool:
        """True if it holds at every node: a peer that passes on such a record did not check it, and is to blame."""
        return self in (Standing.FORGED, Standing.NOT_HELD, Standing.MALFORMED)
