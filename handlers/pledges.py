"""What this node undertook to say of proposals, which it therefore never contradicts: its slashing protection.

Theory
    A pledge is on disk before its vote or proposal leaves (``zmesh/pledging.py``). So after any crash the pledges cover
    whatever left this node. One whose message never left allows that very message, and forbids what contradicts it.

Rules
 1. A pledge belongs to one account in one mesh. A node that no registry lists speaks as its key alone, while others may
    know its account, or learn it a minute later and then take what was said before: what was said alone binds every
    account, and what any account said binds whoever speaks alone. The key does not tell: an account's new key often
    starts before its registry names it.
 2. Pledges are forgotten as others forget messages (``ledger``), but after twice as many: those whose message never
    left must not push out one that others still count.
 3. ``Pledges`` is a value. Adding to it makes another one, and one that could not be written is not adopted.
 4. What was saved is checked as if an enemy had written it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from zmesh.core.sentence import shown
from zmesh.core.types import MessageType, PeerKey
from zmesh.handlers.ledger import PERIOD_MS, newest_forgotten
from zmesh.handlers.schema import Check, Schema, objection_to, text, whole

MAX_SPEAKERS: Final = 16
"""Accounts times meshes times kinds of message, each with at most twice what an account may speak of in ten minutes;
beyond that, the one that was silent for longest goes. A node has one account in one mesh, and others until it is told
which."""
MAX_TEXT: Final = 16 * 1024 * 1024
"""Bytes of a text that was saved: whatever fits into the file."""
KINDS: Final = {kind.value: kind for kind in (MessageType.CONSENSUS_PROPOSE, MessageType.CONSENSUS_VOTE)}

Speaker = tuple[MessageType, bytes, str]


def _is_hex(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


_hex, _text = Check(_is_hex, "64 hex digits"), text(MAX_TEXT)
_SAVED: Final[Schema] = {
    "kind": Check(lambda value: isinstance(value, str) and value in KINDS, " or ".join(KINDS)),
    "network": _hex,
    "account": _text,
    "key": _hex,
    "proposal_id": _text,
    "word": _text,
    "timestamp_ms": whole(),
}


@dataclass(frozen=True, slots=True)
class Pledge:
    """What one message says, and for whom."""

    kind: MessageType
    network: bytes
    """32 bytes: the mesh."""
    account: str
    key: PeerKey
    """The mesh key that signs it."""
    proposal_id: str
    word: str
    """What the ledger compares: a choice, or what tells proposals apart."""
    timestamp_ms: int

    @property
    def period(self) -> int:
        """The ten minutes of signed time that it belongs to."""
        return self.timestamp_ms // PERIOD_MS

    @property
    def speaker(self) -> Speaker:
        """Whom the mesh charges for it."""
        return self.kind, self.network, self.account

    @property
    def slot(self) -> tuple[Speaker, str, int]:
        """An account has one word on a proposal in a period."""
        return self.speaker, self.proposal_id, self.period

    def binds(self, other: Pledge) -> bool:
        """Whether others may take both for words of one account, see rule 1."""
        if (self.kind, self.network) != (other.kind, other.network):
            return False
        is_alone = self.account == self.key.hex() or other.account == other.key.hex()
        return self.account == other.account or is_alone


class Pledges:
    """All that is remembered."""

    def __init__(self, held: Iterable[Pledge] = ()) -> None:
        self._held = {pledge.slot: pledge for pledge in held}

    def __iter__(self) -> Iterator[Pledge]:
        return iter(self._held.values())

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, pledge: Pledge) -> bool:
        """Whether the same was pledged, in the same period."""
        held = self._held.get(pledge.slot)
        return held is not None and held.word == pledge.word

    def words(self, pledge: Pledge) -> list[str]:
        """What binds this one's account on its proposal."""
        return [held.word for held in self if held.proposal_id == pledge.proposal_id and held.binds(pledge)]

    def spoken_of(self, pledge: Pledge) -> set[str]:
        """The proposals that this one's account is pledged to speak of in its period."""
        return {held.proposal_id for held in self if held.period == pledge.period and held.binds(pledge)}

    def plus(self, pledge: Pledge, most: int) -> Pledges:
        """With this one, and without what it makes forgotten: itself, if the clock was set far back. ``most``: what an
        account may speak of in a period."""
        held = [*self, pledge]
        last = newest_forgotten(Counter(each.period for each in held if each.speaker == pledge.speaker), 2 * most)
        by_age = sorted(held, key=lambda each: (each.speaker == pledge.speaker, each.timestamp_ms), reverse=True)
        kept = list(dict.fromkeys(each.speaker for each in by_age))[:MAX_SPEAKERS]
        return Pledges(
            each for each in held if each.speaker in kept and (each.speaker != pledge.speaker or each.period > last)
        )

    # ------------------------------------------------------------ on disk

    def export(self) -> list[dict[str, Any]]:
        """Plain values, for ``restored``."""
        return [
            {
                "kind": pledge.kind.value,
                "network": pledge.network.hex(),
                "account": pledge.account,
                "key": pledge.key.hex(),
                "proposal_id": pledge.proposal_id,
                "word": pledge.word,
                "timestamp_ms": pledge.timestamp_ms,
            }
            for pledge in self
        ]

    @classmethod
    def restored(cls, saved: object) -> Pledges:
        """What ``export`` returned. Raises ``ValueError`` with a clause if it cannot have come from there."""
        if not isinstance(saved, list):
            raise ValueError("its pledges are no list")
        found = cls(_pledge(number, each) for number, each in enumerate(saved, 1))
        if len(found) < len(saved):
            raise ValueError("it says two things of one proposal")
        if len({pledge.speaker for pledge in found}) > MAX_SPEAKERS:
            raise ValueError(f"it is about more than {MAX_SPEAKERS} speakers")
        return found


def _pledge(number: int, saved: object) -> Pledge:
    if not isinstance(saved, dict):
        raise ValueError(f"its pledge {number} is {shown(saved)} and must be an object")
    objection = objection_to(saved, _SAVED, {})
    if objection:
        raise ValueError(f"of its pledge {number}, {objection}")
    return Pledge(
        KINDS[saved["kind"]],
        bytes.fromhex(saved["network"]),
        saved["account"],
        bytes.fromhex(saved["key"]),
        saved["proposal_id"],
        saved["word"],
        saved["timestamp_ms"],
    )
