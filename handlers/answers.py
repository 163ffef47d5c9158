"""Answers to peers that ask for records they lack: whether this node answers, and with what.

Rules
 1. A few peers answer a gossiped question, picked by the message's own id: no one chooses who answers.
 2. One question per account and second is looked at: each costs its answerer far more than its asker, answered or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from zmesh.core.envelope import Envelope
from zmesh.core.events import Command, SendDirect
from zmesh.core.limits import Limits
from zmesh.core.now import Now
from zmesh.core.types import Member, MessageType, PeerKey
from zmesh.core.wire import KEY_SIZE
from zmesh.handlers.record import Record

ANSWERS: Final = 4
"""Peers that answer one question, on average: one that lies or is gone does not matter, a hundred would be a storm."""
ANSWER_EVERY: Final = 1.0
"""Seconds between two questions of one account that are looked at; others are ignored."""
ANSWER_BYTES: Final = 48 * 1024
"""Bytes of records in one answer, below ``bounds.MAX_PAYLOAD``; the next question brings the rest."""
MAX_ANSWER: Final = 256
"""Records in one answer: none is shorter than 192 bytes."""


class Answers:
    """The answers of the node with the key ``me``."""

    def __init__(self, me: PeerKey) -> None:
        self._me = me
        self._asked = Limits(1 / ANSWER_EVERY, 1)

    def to(
        self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], held: Mapping[PeerKey, Record], now: Now
    ) -> Sequence[Command]:
        """The answer to this question from the records that are ``held``, or nothing if none is due."""
        lot = self._lot(envelope)
        if envelope.recipient is None and lot % max(1, len(held)) >= ANSWERS:
            return ()
        if not self._asked.take(sender.account, now.mono):
            return ()
        lacking = _lacking(envelope.author, payload, held)
        if not lacking:
            return ()
        # Each answerer begins at a different record, so that together they bring more than one answer can hold.
        start = lot % len(lacking)
        answer: list[bytes] = []
        size = 0
        for record in lacking[start:] + lacking[:start]:
            size += len(record.encoded) + 3
            if size > ANSWER_BYTES or len(answer) == MAX_ANSWER:
                break
            answer.append(record.encoded)
        content = {"records": answer, "more": len(answer) < len(lacking)}
        return (SendDirect(envelope.author, MessageType.PEER_DISCOVERY, content),)

    def _lot(self, envelope: Envelope) -> int:
        """A number derived from the message's id and this node's key: each node draws its own."""
        lot = blake2b(envelope.id + self._me, digest_size=8).digest()
        return int.from_bytes(lot)


def _lacking(asker: PeerKey, question: Mapping[str, Any], held: Mapping[PeerKey, Record]) -> list[Record]:
    """The records that the asker lacks in the range it asks about, in key order.

    They include its own record if an earlier life of it signed one with a higher sequence: it has to outbid that.
    """
    has = dict(question["known"])
    after = question.get("after") or b""
    until = question.get("until") or b"\xff" * KEY_SIZE
    return [
        held[key]
        for key in sorted(held)
        if after < key <= until and (key != asker or key in has) and has.get(key, -1) < held[key].sequence
    ]
