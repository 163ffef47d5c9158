"""Peer records: every node announces where it can be reached, and asks others for what it missed.

Rules
 1. Only a key that belongs (``judge``) may have a record: an address can never admit a key. The registry is asked
    before any signature is checked, because it is what a stranger cannot forge.
 2. The highest sequence of a key wins. Two records of one key with one sequence prove that it equivocated: both are
    kept as evidence, the first contradiction is relayed so that all nodes learn of it, and all continue with the one
    whose bytes sort first, so that they agree whichever came first.
 3. A gossiped PEER_ANNOUNCE carries its author's own record, or introduces a newcomer whose record came to its author
    by HTTP. A record is signed, so it is worth the same no matter which peer brings it; a peer that brings a false one
    is to blame.
 4. A gossiped PEER_DISCOVERY is a question: it lists what the asker has. A few peers, picked by the message's own id,
    send what the asker lacks directly. So a seed that withholds records hides nothing. Answers that were not asked for
    are ignored.
 5. A record with which an account changes its key reaches every node: a node that learns of it other than by gossip
    introduces it, and so do a few of those that learn of it by gossip.

Payloads
    PEER_ANNOUNCE   {"record": bytes}, the author's own or that of the newcomer it introduces
    PEER_DISCOVERY  {"known": [[key, sequence], ...], "after": key, "until": key} asks about the keys above
                    ``after`` up to and with ``until`` (both optional); {"records": [bytes, ...], "more":
                    bool} answers
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import msgpack

from zmesh.core.envelope import Envelope
from zmesh.core.errors import WireError
from zmesh.core.events import Broadcast, Command
from zmesh.core.now import Now
from zmesh.core.types import Endpoint, Member, MessageType, PeerKey, Verdict
from zmesh.core.wire import KEY_SIZE, MAX_UINT, UNPACK_ERRORS, malformed
from zmesh.handlers.answers import MAX_ANSWER, Answers
from zmesh.handlers.introductions import Introductions, Repeaters
from zmesh.handlers.offers import UNJUDGED, VERDICTS, Offer, RecordOutcome, RecordPorts
from zmesh.handlers.questions import MAX_KNOWN, Questions
from zmesh.handlers.record import (
    MAX_RECORD,
    Description,
    Record,
    decode_record,
    encode_record,
    verify_record,
)
from zmesh.handlers.schema import Check, blob, flaw, items, objection_to, whole
from zmesh.handlers.standing import Standing

ANNOUNCE_EVERY: Final = 600.0
"""Seconds between announcements of an unchanged record: for peers that joined without asking."""
MAX_RECORDS: Final = 16_384
"""Records kept, at most 64 MiB: more than any mesh of validators needs, since members that left keep theirs."""
MAX_PROOFS: Final = 1024
"""Equivocations kept as evidence, at most 8 MiB."""
MAX_EXPORT: Final = 8 * 1024 * 1024
"""Bytes of records that are written to disk: 20,000 of the typical 400 bytes."""

_key = blob(KEY_SIZE, KEY_SIZE)
_sequence = whole()


def _is_known(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and _key(value[0]) and _sequence(value[1])


_known = Check(_is_known, f"a key of {_key.wants} and its sequence, {_sequence.wants}")

ANNOUNCE_SCHEMA: Final = {"record": blob(MAX_RECORD, 1)}
DISCOVERY_SCHEMA: Final = {
    "known": items(_known, MAX_KNOWN),
    "after": _key,
    "until": _key,
    "records": items(blob(MAX_RECORD, 1), MAX_ANSWER),
}


class Records:
    """``mesh.handlers.records``: announces this node's record and keeps the newest record of every other key.

    Args:
        ports: what it needs from its node.
        own: what to announce; with None it only listens, until ``describe`` is called.
        phase: 0 to below 1, spreads the announcements of nodes that started together.
    """

    kinds: frozenset[MessageType] = frozenset({MessageType.PEER_ANNOUNCE, MessageType.PEER_DISCOVERY})

    def __init__(self, ports: RecordPorts, own: Description | None = None, *, phase: float = 0.5) -> None:
        self._ports = ports
        self._network = ports.network
        self._own = own
        self._spread = 0.9 + 0.2 * phase
        self._records: dict[PeerKey, Record] = {}
        self._proofs: dict[tuple[PeerKey, int], tuple[Record, Record]] = {}
        self._answers = Answers(ports.signer.public)
        self._repeaters = Repeaters(ports.signer)
        self._unsigned = own is not None
        self._announce_at = 0.0
        self._judged: dict[bytes, tuple[Record, Offer]] = {}
        """The record in the last announcement, and the verdict on it, by the message's id: judging costs signatures."""
        self._questions = Questions(self._spread)
        self._introductions = Introductions()
        self.counters: Counter[str] = Counter()

    @property
    def records(self) -> Mapping[PeerKey, Record]:
        """The newest record of each key, verified; a read-only view."""
        return MappingProxyType(self._records)

    @property
    def proofs(self) -> Sequence[tuple[Record, Record]]:
        """Pairs of records that one key signed with one sequence."""
        return tuple(self._proofs.values())

    @property
    def own(self) -> Record | None:
        """This node's record as last announced."""
        return self._records.get(self._ports.signer.public)

    @property
    def deadline(self) -> float:
        """When ``wake`` is due; at once if the own record has to be signed."""
        if self._unsigned:
            return 0.0
        due = min(self._questions.deadline, self._introductions.deadline)
        return due if self.own is None else min(due, self._announce_at)

    def describe(self, own: Description) -> None:
        """Change what is announced; a new record leaves with the next wake, which is due at once."""
        if own != self._own:
            self._own = own
            self._unsigned = True

    def move(self, endpoints: tuple[Endpoint, ...]) -> None:
        """Announce the same description with other endpoints."""
        if self._own is not None:
            self.describe(replace(self._own, endpoints=endpoints))

    # ------------------------------------------------------------ the handler port

    def validate(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Verdict:
        """REJECT what its author got wrong; IGNORE what is old or refused only here."""
        if envelope.kind is MessageType.PEER_DISCOVERY:
            # Answers go only to the asker: a gossiped one would make every node verify hundreds of signatures.
            gossiped_answer = envelope.recipient is None and payload.get("records") is not None
            wrong = gossiped_answer or flaw(payload, {}, DISCOVERY_SCHEMA) is not None
            return Verdict.REJECT if wrong else Verdict.ACCEPT
        if flaw(payload, ANNOUNCE_SCHEMA, {}) is not None:
            return Verdict.REJECT
        try:
            record = decode_record(payload["record"])
        except WireError:
            return Verdict.REJECT
        limits, introduces = self._introductions, record.key != envelope.author
        if introduces and not limits.allows(sender.account, record.key, now.mono):
            self.counters["introduction_limited"] += 1
            return Verdict.IGNORE
        if self._is_limited(record, now):
            self.counters["news_limited"] += 1
            return Verdict.IGNORE
        offer = self._weigh(record)
        self._judged = {envelope.id: (record, offer)}
        verdict = Verdict.REJECT if offer.is_false else VERDICTS[offer.outcome]
        if verdict in (Verdict.IGNORE, Verdict.REJECT):
            self.counters[offer.name] += 1
        return verdict

    def objection(self, envelope: Envelope, payload: Mapping[str, Any]) -> str:
        """Names the flawed field; if all fit the schema, it holds an untrue record or a gossiped answer."""
        if envelope.kind is MessageType.PEER_DISCOVERY:
            answer = "its field 'records' is an answer and must be sent only to the peer that asked"
            return objection_to(payload, {}, DISCOVERY_SCHEMA) or answer
        return objection_to(payload, ANNOUNCE_SCHEMA, {}) or "its field 'record' must be a true record of its key"

    def harm(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any]) -> str:
        """Never any."""
        return ""

    def received(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Sequence[Command]:
        """Keep what came, and answer a question if this node is among those that should."""
        if envelope.author == self._ports.signer.public:
            return ()
        if envelope.kind is MessageType.PEER_ANNOUNCE:
            record, offer = self._judged.pop(envelope.id)
            if record.key != envelope.author:
                self._introductions.charge(sender.account, now.mono)
            self._hear(record, offer, now, self._repeaters.picks(envelope.id, len(self._records)))
            return ()
        if payload.get("records") is not None:
            self._hear_answer(envelope, sender, payload, now)
        if payload.get("known") is None:
            return ()
        return self._answers.to(envelope, sender, payload, self._records, now)

    def wake(self, now: Now) -> Sequence[Command]:
        """Announce the own record, introduce newcomers and ask, each when due."""
        commands: list[Command] = []
        if self._unsigned:
            self._sign(now)
            self._announce_at = now.mono
        own = self.own
        if own is not None and self._announce_at <= now.mono:
            self._announce_at = now.mono + ANNOUNCE_EVERY * self._spread
            commands.append(Broadcast(MessageType.PEER_ANNOUNCE, {"record": own.encoded}))
        for record in self._introductions.due(now.mono):
            self.counters["introduced"] += 1
            commands.append(Broadcast(MessageType.PEER_ANNOUNCE, {"record": record.encoded}))
        if (question := self._questions.due(self._records, now)) is not None:
            commands.append(question)
        return commands

    # ------------------------------------------------------------ for the node

    def offer(self, encoded: bytes) -> Offer:
        """Consider a record, wherever it came from."""
        try:
            record = decode_record(encoded)
        except WireError:
            self.counters[RecordOutcome.MALFORMED.value] += 1
            return Offer(RecordOutcome.MALFORMED)
        return self._take(record, self._weigh(record))

    def post(self, encoded: bytes) -> Offer:
        """``offer`` for a record that came by HTTP: the next wake, due at once, introduces a newcomer to the mesh."""
        offer = self.offer(encoded)
        if offer.outcome is RecordOutcome.NEW:
            self._introduce(decode_record(encoded))
        return offer

    def ask_soon(self, now: Now) -> None:
        """Ask the mesh once, within a second: a peer now belongs whose record may have been refused before."""
        self._questions.soon(now)

    def retain(self, keys: Container[PeerKey]) -> None:
        """Forget the records of keys that no longer belong; evidence stays."""
        own = self._ports.signer.public
        for key in [key for key in self._records if key not in keys and key != own]:
            del self._records[key]
            self._introductions.forget(key)

    def join(self, network: bytes) -> None:
        """Move to another mesh: start afresh there, with the own record signed for it."""
        if network == self._network:
            return
        self._network = network
        self._records.clear()
        self._proofs.clear()
        self._introductions = Introductions()
        self._questions = Questions(self._spread)
        self._unsigned = self._own is not None

    def export(self) -> bytes:
        """The current records, to be saved on disk: the own one first, at most 8 MiB."""
        own = self._ports.signer.public
        size, kept = 0, []
        for record in sorted(self._records.values(), key=lambda record: record.key != own):
            size += len(record.encoded) + 3
            if size > MAX_EXPORT:
                break
            kept.append(record.encoded)
        packed: bytes = msgpack.packb(kept, use_bin_type=True)
        return packed

    def restore(self, exported: bytes) -> None:
        """Offer what ``export`` returned, once the registry is known.

        Nothing is trusted for coming from disk. Raises ``WireError`` (MALFORMED) if it is not an export.
        """
        try:
            kept = msgpack.unpackb(exported)
        except UNPACK_ERRORS as error:
            raise malformed(f"the saved records are not msgpack: {type(error).__name__}") from None
        if not items(blob(MAX_RECORD, 1), MAX_RECORDS)(kept):
            raise malformed(f"the saved records must be a list of at most {MAX_RECORDS}")
        for encoded in kept:
            self.offer(encoded)

    # ------------------------------------------------------------ within

    def _hear_answer(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> None:
        """Learn from an answer that was asked for."""
        if not self._questions.is_answer(sender.account, now):
            self.counters["answer_unasked"] += 1
            return
        # Only news about others counts: with news about itself, an answerer could make us ask for ever.
        news = self._learn(payload["records"], now) - {envelope.author}
        if news and payload.get("more") is True:
            self._questions.follow_up(now)

    def _introduce(self, record: Record) -> None:
        if record.key != self._ports.signer.public and not self._introductions.add(record):
            self.counters["introduction_dropped"] += 1

    def _learn(self, offered: Iterable[bytes], now: Now) -> set[PeerKey]:
        """Consider several records; returns the keys of which there was news.

        An honest peer passes on one record per key, and has verified it. The first record that breaks this ends the
        list, since each costs a verification.
        """
        learnt: set[PeerKey] = set()
        for encoded in offered:
            try:
                record = decode_record(encoded)
            except WireError:
                self.counters[RecordOutcome.MALFORMED.value] += 1
                break
            if self._is_limited(record, now):
                self.counters["news_limited"] += 1
                continue
            offer = self._weigh(record)
            if self._hear(record, offer, now):
                if record.key in learnt:
                    break
                learnt.add(record.key)
            elif offer.is_false:
                break
        return learnt

    def _hear(self, record: Record, offer: Offer, now: Now, passes_on: bool = True) -> bool:
        """``_take`` what came through the mesh; returns whether it was news, for which its key is charged."""
        self._take(record, offer, passes_on)
        is_news = offer.outcome in (RecordOutcome.NEW, RecordOutcome.EQUIVOCATION)
        if is_news:
            self._introductions.charge_news(record.key, now.mono)
        return is_news

    def _take(self, record: Record, offer: Offer, passes_on: bool = True) -> Offer:
        """Keep it if it counts; with ``passes_on``, introduce an account's change of key: others may not know it."""
        if offer.outcome is RecordOutcome.NEW:
            self._keep(record, passes_on)
        elif offer.outcome is RecordOutcome.EQUIVOCATION:
            self._convict(record, passes_on)
        self.counters[offer.name] += 1
        return offer

    def _is_limited(self, record: Record, now: Now) -> bool:
        """True if its key has used up its limit for news, which costs the same whichever way it comes.

        The first contradiction is heard at any time: it is also how an owner answers a thief of its key.
        """
        outcome = self._expected(record)
        is_new = outcome is RecordOutcome.NEW
        is_news = is_new or (outcome is RecordOutcome.EQUIVOCATION and self._is_convicted(record))
        return is_news and not self._introductions.allows_news(record.key, now.mono)

    def _weigh(self, record: Record) -> Offer:
        """What ``offer`` would make of it, without keeping it; cheap checks come first."""
        outcome = self._expected(record)
        if outcome in UNJUDGED or record.key == self._ports.signer.public:
            return self._verified(record, outcome)
        standing = self._ports.judge(record)
        refused = standing is not Standing.ADMITTED
        return Offer(RecordOutcome.REFUSED, standing) if refused else self._verified(record, outcome)

    def _verified(self, record: Record, outcome: RecordOutcome) -> Offer:
        if outcome in (RecordOutcome.NEW, RecordOutcome.EQUIVOCATION) and not verify_record(record, self._ports.verify):
            outcome = RecordOutcome.BAD_SIGNATURE
        return Offer(outcome)

    def _expected(self, record: Record) -> RecordOutcome:
        """The outcome if its key belongs and its signature holds; this verifies nothing."""
        if record.network != self._network:
            return RecordOutcome.OTHER_NETWORK
        current = self._records.get(record.key)
        if current is not None:
            if record.encoded == current.encoded:
                return RecordOutcome.KNOWN
            if record.sequence < current.sequence:
                return RecordOutcome.OLDER
            # One proof is enough; after that, only a record that changes something is worth verifying and relaying.
            is_equal = record.sequence == current.sequence
            if is_equal and self._is_convicted(record) and record.encoded > current.encoded:
                return RecordOutcome.OLDER
        elif len(self._records) >= MAX_RECORDS:
            return RecordOutcome.FULL
        if record.has_local_endpoint and record.key != self._ports.signer.public and not self.takes_local:
            return RecordOutcome.LOCAL_ADDRESS
        if current is not None and record.sequence == current.sequence:
            return RecordOutcome.EQUIVOCATION
        return RecordOutcome.NEW

    def _keep(self, record: Record, passes_on: bool) -> None:
        self._records[record.key] = record
        # Our own key, but not signed by this life: an earlier one had a faster clock. Outbid it.
        if record.key == self._ports.signer.public and self._own is not None:
            self._unsigned = True
        if self._ports.accepted(record) and passes_on:
            self._introduce(record)

    @property
    def takes_local(self) -> bool:
        """True if local addresses of others are accepted: if all own addresses are, as in a mesh on one machine."""
        own = self.own
        return own is not None and own.is_all_local

    def _is_convicted(self, record: Record) -> bool:
        """True if there is already proof that its key signed two records with this sequence."""
        return (record.key, record.sequence) in self._proofs

    def _convict(self, record: Record, passes_on: bool) -> None:
        current = self._records[record.key]
        if not self._is_convicted(record):
            if len(self._proofs) >= MAX_PROOFS:
                del self._proofs[next(iter(self._proofs))]
            self._proofs[record.key, record.sequence] = (current, record)
        if record.encoded < current.encoded:
            self._keep(record, passes_on)

    def _sign(self, now: Now) -> None:
        assert self._own is not None
        self._unsigned = False
        own = self.own
        # The clock is the floor of the sequence, so it stays ahead of what a lost disk forgot.
        # Nothing is above the highest sequence: a thief of our key that signed it is contradicted by an equal one.
        sequence = min(MAX_UINT, max(now.wall_ms, own.sequence + 1 if own else 0))
        signer = self._ports.signer
        own = encode_record(self._own, self._network, signer.public, sequence, now.wall_ms, signer.sign)
        self._records[own.key] = own
