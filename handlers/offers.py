"""What becomes of an offered peer record, and what the code that offers or judges records needs to know.

Rules
 1. Every outcome has a name, which is also its counter: that of ``RecordOutcome``, or of the ``Standing`` for which the
    key does not belong.
 2. A record that is false for every node is the fault of the peer that passed it on; one that only this node refuses,
    and only today, is no one's fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import Final, NamedTuple

from zmesh.core.envelope import Signer
from zmesh.core.types import Verdict, VerifySignature
from zmesh.handlers.record import Record
from zmesh.handlers.standing import Standing


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
    """Its key does not belong, for the reason that ``judge`` gives; counted under that reason's name."""
    OTHER_NETWORK = "other_network"
    LOCAL_ADDRESS = "local_address"
    """It points at loopback or link-local addresses, which this node does not accept from others."""
    BAD_SIGNATURE = "bad_signature"
    MALFORMED = "malformed"
    FULL = "full"


class Offer(NamedTuple):
    """The outcome for a record."""

    outcome: RecordOutcome
    standing: Standing = Standing.ADMITTED
    """Of its key: the reason, if the outcome is REFUSED."""

    @property
    def name(self) -> str:
        """The outcome's, or that of the reason why its key does not belong."""
        return self.standing.value if self.outcome is RecordOutcome.REFUSED else self.outcome.value

    @property
    def is_false(self) -> bool:
        """True if every node refuses it: whoever passes it on is to blame."""
        return self.outcome is RecordOutcome.BAD_SIGNATURE or self.standing.is_false


Judge = Callable[[Record], Standing]
"""The standing of this record's key. Asks the registry first, and checks the signatures of the delegation but not that
of the record. Not pure: it counts, logs, charges limits and remembers a delegation that holds, but nothing else of the
record."""


def _nobody(_record: Record) -> bool:
    """The default for a node whose members do not depend on records."""
    return False


@dataclass(frozen=True, slots=True)
class RecordPorts:
    """What the handler needs from its node."""

    signer: Signer
    network: bytes
    """32 bytes, the network id of the mesh."""
    verify: VerifySignature
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
