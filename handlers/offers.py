"""What becomes of an offered peer record, and what the code that offers or judges records needs to know.

Rules
 1. Every outcome has a name, which is also its counter: that of ``RecordOutcome``, or the reason why the key does not
    belong.
 2. A record that is false for every node is the fault of the peer that passed it on; one that only this node refuses,
    and only today, is no one's fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final, NamedTuple

from zmesh.core.envelope import Signer
from zmesh.core.types import Verdict
from zmesh.handlers.record import Record, Verify


@unique
class RecordOutcome(StrEnum):
    """What became of a record that was offered; each is also a counter."""

    NEW = "new"
    """It is now the newest of its key."""
    KNOWN = "known"
    OLDER = "older"
    EQUIVOCATION = "equivocation"
    """It contradicts another record with the same sequence: the proof is kept."""
    REFUSED = "refused"
    """Its key does not belong, for the reason returned by ``judge``; counted under that reason's name."""
    OTHER_NETWORK = "other_network"
    LOCAL_ADDRESS = "local_address"
    """It points at loopback or link-local addresses, which this node does not accept from others."""
    BAD_SIGNATURE = "bad_signature"
    MALFORMED = "malformed"
    FULL = "full"


class Offer(NamedTuple):
    """The outcome for a record, and its name: that of ``outcome``, or the reason why its key does not belong."""

    outcome: RecordOutcome
    name: str


Judge = Callable[[Record], str | None]
"""The name of the reason why the key of this record may not take part, or None if it may. Asks the registry first,
checks the signatures of the delegation but not that of the record, and has no side effects."""

FALSE: Final = frozenset({"forged", "not_held", "malformed"})
"""Reasons that hold at every node: a peer that passes on such a record did not check it, and is to blame."""


def _nobody(_record: Record) -> bool:
    """The default for a node whose members do not depend on records."""
    return False


@dataclass(frozen=True, slots=True)
class RecordPorts:
    """What the handler needs from its node."""

    signer: Signer
    network: bytes
    """32 bytes, the network id of the mesh."""
    verify: Verify
    judge: Judge
    """Tells whether its key belongs: only members may have a record."""
    accepted: Callable[[Record], bool] = _nobody
    """Called with each record that became the newest of its key; the own record among them comes from another life.
    Returns True if its account now speaks with another key than before: then no node may miss this record."""


UNJUDGED: Final = frozenset({RecordOutcome.OTHER_NETWORK, RecordOutcome.KNOWN, RecordOutcome.OLDER})
"""Outcomes that are clear without asking who belongs."""

VERDICTS: Final[Mapping[RecordOutcome, Verdict]] = {
    RecordOutcome.NEW: Verdict.ACCEPT,
    RecordOutcome.KNOWN: Verdict.ACCEPT,  # announced again for peers that joined since
    RecordOutcome.OLDER: Verdict.IGNORE,  # its author lost its disk, or a peer held an old one back
    RecordOutcome.EQUIVOCATION: Verdict.RELAY,
    RecordOutcome.REFUSED: Verdict.IGNORE,  # registries differ for a while
    RecordOutcome.OTHER_NETWORK: Verdict.REJECT,
    RecordOutcome.LOCAL_ADDRESS: Verdict.IGNORE,  # each node's own setting decides
    RecordOutcome.BAD_SIGNATURE: Verdict.REJECT,  # the peer that brings a record must have checked it
    RecordOutcome.MALFORMED: Verdict.REJECT,
    RecordOutcome.FULL: Verdict.IGNORE,
}
