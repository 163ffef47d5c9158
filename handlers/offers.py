"""What becomes of a peer record that is offered, and what whoever offers it, and judges it, has to know.

Rules
 1. Every outcome has a name, which is its counter: that of ``Taken``, or the reason why the key does not belong.
 2. A record that is false for everybody is the fault of whoever passed it on; one that this node alone does not take,
    today, is nobody's.
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
class Taken(StrEnum):
    """What became of a record that was offered; each is also a counter."""

    NEW = "new"
    """It is the newest of its key now."""
    KNOWN = "known"
    OLDER = "older"
    EQUIVOCATION = "equivocation"
    """It contradicts another one with the same sequence: the proof is kept."""
    REFUSED = "refused"
    """Its key does not belong, for the reason that ``judge`` gave; counted under that reason's name."""
    OTHER_NETWORK = "other_network"
    LOCAL_ADDRESS = "local_address"
    """It points at loopback or link-local addresses, which this node does not take from others."""
    BAD_SIGNATURE = "bad_signature"
    MALFORMED = "malformed"
    FULL = "full"


class Offer(NamedTuple):
    """What became of a record, and the name of that: of ``taken``, or of the reason why its key does not belong."""

    taken: Taken
    name: str


Judge = Callable[[Record], str | None]
"""Why the key of this record may not take part, as the name of a reason, or None if it may. Asks the registry first,
checks the signatures of a delegation, not that of the record, and has no side effects."""

FALSE: Final = frozenset({"forged", "not_held", "malformed"})
"""Reasons that are the same for everybody: whoever passes on such a record did not check it, and is to blame."""


def _nobody(_record: Record) -> bool:
    """For a node whose members do not depend on records."""
    return False


@dataclass(frozen=True, slots=True)
class RecordPorts:
    """What the handler needs of its node."""

    signer: Signer
    network: bytes
    """32 bytes, the mesh's id."""
    verify: Verify
    judge: Judge
    """Does its key belong? Only members may have a record."""
    took: Callable[[Record], bool] = _nobody
    """Told of each record that became the newest of its key; the own one comes from another life. Does its account
    speak with another key now than before? Then nobody may miss this record."""


UNJUDGED: Final = frozenset({Taken.OTHER_NETWORK, Taken.KNOWN, Taken.OLDER})
"""What is plain without asking who belongs."""

VERDICTS: Final[Mapping[Taken, Verdict]] = {
    Taken.NEW: Verdict.ACCEPT,
    Taken.KNOWN: Verdict.ACCEPT,  # announced again for those who joined since
    Taken.OLDER: Verdict.IGNORE,  # its author lost its disk, or somebody kept an old one back
    Taken.EQUIVOCATION: Verdict.RELAY,
    Taken.REFUSED: Verdict.IGNORE,  # registries differ for a while
    Taken.OTHER_NETWORK: Verdict.REJECT,
    Taken.LOCAL_ADDRESS: Verdict.IGNORE,  # whether to take these is each node's own setting
    Taken.BAD_SIGNATURE: Verdict.REJECT,  # whoever brings a record must have checked it
    Taken.MALFORMED: Verdict.REJECT,
    Taken.FULL: Verdict.IGNORE,
}
