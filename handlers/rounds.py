"""Federated-learning rounds: who announced which, what state it is in, and who offered or delivered what.

Rules
 1. A round is (its coordinator's account, its round_id), never the id alone. Ids are predictable ("round_002"): if the
    first account to use an id owned it, an account that announces tomorrow's ids today would silence the rounds of all
    others. So a second FL_ROUND_START with an id in use, by another author, is ACCEPTED as another round; applications
    tell the two apart by their sender, and deltas go straight to one of them.
 2. The coordinator is the signer. A payload cannot name another.
 3. Only the coordinator may update: an FL_ROUND_UPDATE concerns its own author's round. If the author has no round with
    that id and another account has, it is IGNORED. If no account has, it is accepted: this node may have joined after
    the start.
 4. A state only moves forward, announced -> running -> closed. A late update is relayed, not delivered.
 5. Two different starts by one coordinator under one id contradict each other. The first stays; the second is relayed
    once, so that all nodes mark the round ``contradicted``. It costs no reputation: a coordinator that restarts and
    announces again with a new deadline is clumsy, not hostile.
 6. A start whose deadline has passed is relayed and recorded, but not delivered: the application can do nothing for it.
    If it were IGNORED, a deadline that falls between the clocks of two nodes would hide from one of them what the start
    contradicts. An expiry would do the same, so neither a start nor an update may have one.
 7. Only ``round_id`` is required. min_stake and the deadlines of deltas are recorded, not enforced: the application
    decides whether to accept a late or a small delta.

Payloads (any further key is allowed)
    FL_ROUND_START        round_id, dataset_name, target_participants, deadline (Unix seconds),
                          deadline_seconds, min_stake, reward_pool, model_hash
    FL_ROUND_UPDATE       round_id, state
    MODEL_DELTA_OFFER     round_id, model_cid, quality_score (0 to 100)
    MODEL_DELTA_TRANSFER  the same
    MODEL_DELTA_REQUEST   round_id, model_cid, action; all optional
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Any, Final

from zmesh.core.envelope import Envelope
from zmesh.core.events import Command
from zmesh.core.now import Now
from zmesh.core.types import Member, MessageType, PeerKey, Verdict
from zmesh.handlers.schema import Schema, flaw, number, objection_to, terms_of, text, whole

MAX_ID: Final = 256
"""Bytes of a round_id, dataset name, hash or CID in UTF-8: the longest CIDs in use have about a hundred."""
MAX_AMOUNT: Final = 2.0**63
"""Stakes, rewards and Unix seconds: whatever fits the wire's integers."""
ROUNDS_PER_COORDINATOR: Final = 32
"""Rounds remembered per coordinator, its oldest go first: no account pushes out the rounds of others."""
MAX_ROUNDS: Final = 8192
"""Rounds remembered in all, under 16 MiB; beyond that, the account with the most loses a finished one or its oldest."""
MAX_PARTICIPANTS: Final = 4096
"""Accounts remembered per own round and kind of message, about 2 MiB."""

_name = text(MAX_ID)
_amount = number(0, MAX_AMOUNT)
_score = number(0, 100)

ROUND_ID: Final[Schema] = {"round_id": _name}
START: Final[Schema] = {
    "dataset_name": text(MAX_ID, 0),
    "target_participants": whole(),
    "deadline": _amount,
    "deadline_seconds": _amount,
    "min_stake": _amount,
    "reward_pool": _amount,
    "model_hash": text(MAX_ID, 0),
}
UPDATE: Final[Schema] = {"state": text(32)}
DELTA: Final[Schema] = {"model_cid": text(MAX_ID, 0), "quality_score": _score}
REQUEST: Final[Schema] = {"round_id": _name, "model_cid": text(MAX_ID, 0), "action": text(MAX_ID, 0)}

_SCHEMAS: Final[Mapping[MessageType, tuple[Schema, Schema]]] = {
    MessageType.FL_ROUND_START: (ROUND_ID, START),
    MessageType.FL_ROUND_UPDATE: (ROUND_ID, UPDATE),
    MessageType.MODEL_DELTA_OFFER: (ROUND_ID, DELTA),
    MessageType.MODEL_DELTA_TRANSFER: (ROUND_ID, DELTA),
    MessageType.MODEL_DELTA_REQUEST: ({}, REQUEST),
}
"""The required and the optional fields of each type; see ``schema.flaw``."""
_FOR_ALL: Final = frozenset({MessageType.FL_ROUND_START, MessageType.FL_ROUND_UPDATE})
"""Messages that all nodes must treat alike."""


@unique
class RoundState(IntEnum):
    """The state of a round; payloads use its name in lower case. A state unknown to this version is left out of the
    order and changes nothing, so that a later version may add one."""

    ANNOUNCED = 0
    RUNNING = 1
    CLOSED = 2


_STATES: Final = {state.name.lower(): state for state in RoundState}


@dataclass(frozen=True, slots=True)
class Delta:
    """What one participant last offered or delivered."""

    account: str
    """The account that signed it."""
    key: PeerKey
    """32 bytes: the mesh key that the account spoke with."""
    model_cid: str | None
    """At most 256 bytes; None if the message did not say."""
    quality_score: float | None
    """0 to 100; None if the message did not say."""
    timestamp_ms: int
    """Unix milliseconds, as signed by its author."""
    late: bool
    """Signed after the round's deadline."""
    staked: bool
    """True if its author's stake reached the round's min_stake."""


@dataclass(slots=True)
class Round:
    """One coordinator's round, as far as this node knows it."""

    coordinator: str
    """The account that signed it."""
    round_id: str
    """1 to 256 bytes; another coordinator may use the same one."""
    key: PeerKey
    """32 bytes: the mesh key that announced it, which is where deltas go."""
    announced_ms: int
    """Unix milliseconds of the start, or of the first update heard if the start was missed."""
    deadline: float | None = None
    """Unix seconds; None if the start was missed or named none."""
    min_stake: float = 0
    """The stake that the coordinator asks of a participant, in the chain's smallest unit."""
    target_participants: int | None = None
    """How many the coordinator wants; None as for ``deadline``."""
    state: RoundState = RoundState.ANNOUNCED
    """The latest that its coordinator gave."""
    contradicted: bool = False
    """Its coordinator signed two different starts."""
    terms: bytes | None = None
    """32 bytes, BLAKE2b-256 of the start's payload; None if the start was missed."""
    offered: dict[str, Delta] = field(default_factory=dict)
    """The last MODEL_DELTA_OFFER of each account, at most 4,096; filled at the coordinator only."""
    delivered: dict[str, Delta] = field(default_factory=dict)
    """The last MODEL_DELTA_TRANSFER of each account, likewise."""

    def is_over(self, now: Now) -> bool:
        """Closed, or past its deadline."""
        return self.state is RoundState.CLOSED or (self.deadline is not None and self.deadline < now.wall)


class Rounds:
    """``mesh.handlers.rounds``: tracks the rounds of the mesh, at most 32 of each coordinator and 8,192 in all.

    Args:
        account: returns this node's own account, which the registry may know only while the node runs. Deltas for the
            rounds of this account are recorded in ``offered`` and ``delivered``.
    """

    kinds: frozenset[MessageType] = frozenset(_SCHEMAS)

    def __init__(self, account: Callable[[], str]) -> None:
        self._account = account
        self._rounds: dict[tuple[str, str], Round] = {}
        self._by_coordinator: dict[str, list[str]] = {}
        self._by_id: dict[str, list[str]] = {}
        self.deadline: float | None = None

    def round(self, coordinator: str, round_id: str) -> Round | None:
        """The round of that account, or None if it is not remembered."""
        return self._rounds.get((coordinator, round_id))

    def named(self, round_id: str) -> tuple[Round, ...]:
        """All rounds with that id, ordered by their coordinators' accounts: more than one if the id was reused."""
        return tuple(self._rounds[account, round_id] for account in sorted(self._by_id.get(round_id, ())))

    def __iter__(self) -> Iterator[Round]:
        """All remembered rounds, oldest first."""
        return iter(self._rounds.values())

    def __len__(self) -> int:
        return len(self._rounds)

    # ------------------------------------------------------------ the handler port

    def validate(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Verdict:
        """REJECT a bad schema or a forbidden expiry; RELAY what is over; IGNORE what its author has no right to say."""
        kind = envelope.kind
        assert kind is not None
        if _is_expiring(envelope, kind) or flaw(payload, *_SCHEMAS[kind]) is not None:
            return Verdict.REJECT
        if kind is MessageType.FL_ROUND_START:
            return self._judge_start(envelope, sender, payload, now)
        if kind is MessageType.FL_ROUND_UPDATE:
            return self._judge_update(sender, payload)
        return Verdict.ACCEPT

    def objection(self, envelope: Envelope, payload: Mapping[str, Any]) -> str:
        """Names the expiry or the flawed field; empty if it is sound."""
        kind = envelope.kind
        assert kind is not None
        if _is_expiring(envelope, kind):
            return "it must have no expiry, or some peers would take it and others receive it too late"
        return objection_to(payload, *_SCHEMAS[kind])

    def harm(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any]) -> str:
        """Never any."""
        return ""

    def received(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Sequence[Command]:
        """Record it; rounds never send anything on their own."""
        if envelope.kind is MessageType.FL_ROUND_START:
            self._start(envelope, sender, payload, now)
        elif envelope.kind is MessageType.FL_ROUND_UPDATE:
            self._update(envelope, sender, payload, now)
        elif envelope.kind is MessageType.MODEL_DELTA_OFFER:
            self._note(envelope, sender, payload, delivered=False)
        elif envelope.kind is MessageType.MODEL_DELTA_TRANSFER:
            self._note(envelope, sender, payload, delivered=True)
        return ()

    def wake(self, now: Now) -> Sequence[Command]:
        """Never called: there is no deadline."""
        return ()

    # ------------------------------------------------------------ within

    def _judge_start(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Verdict:
        known = self.round(sender.account, payload["round_id"])
        if known is None or known.terms is None:
            deadline = payload.get("deadline")
            return Verdict.RELAY if deadline is not None and deadline < now.wall else Verdict.ACCEPT
        if known.terms == terms_of(envelope):
            # A repeated announcement: others may have missed the first one, the application here has not.
            return Verdict.RELAY
        return Verdict.IGNORE if known.contradicted else Verdict.RELAY

    def _judge_update(self, sender: Member, payload: Mapping[str, Any]) -> Verdict:
        round_id = payload["round_id"]
        known = self.round(sender.account, round_id)
        if known is None:
            return Verdict.IGNORE if round_id in self._by_id else Verdict.ACCEPT
        state = _STATES.get(payload.get("state", ""))
        return Verdict.RELAY if state is not None and state < known.state else Verdict.ACCEPT

    def _start(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> None:
        terms = terms_of(envelope)
        known = self.round(sender.account, payload["round_id"])
        if known is not None and known.terms is not None:
            known.contradicted = known.contradicted or known.terms != terms
            return
        if known is None:
            known = self._remember(envelope, sender, payload["round_id"], now)
        known.terms = terms
        known.announced_ms = envelope.timestamp_ms
        known.deadline = payload.get("deadline")
        known.min_stake = payload.get("min_stake") or 0
        known.target_participants = payload.get("target_participants")

    def _update(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> None:
        known = self.round(sender.account, payload["round_id"])
        if known is None:
            known = self._remember(envelope, sender, payload["round_id"], now)
        known.state = max(known.state, _STATES.get(payload.get("state", ""), known.state))

    def _note(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], *, delivered: bool) -> None:
        known = self.round(self._account(), payload["round_id"])
        if known is None:
            return
        notes = known.delivered if delivered else known.offered
        if sender.account not in notes and len(notes) >= MAX_PARTICIPANTS:
            return
        notes[sender.account] = Delta(
            sender.account,
            envelope.author,
            payload.get("model_cid"),
            payload.get("quality_score"),
            envelope.timestamp_ms,
            late=known.deadline is not None and envelope.timestamp_ms > known.deadline * 1000,
            staked=sender.stake >= known.min_stake,
        )

    def _remember(self, envelope: Envelope, sender: Member, round_id: str, now: Now) -> Round:
        self._make_room(sender.account, now)
        made = Round(sender.account, round_id, envelope.author, envelope.timestamp_ms)
        self._rounds[sender.account, round_id] = made
        self._by_coordinator.setdefault(sender.account, []).append(round_id)
        self._by_id.setdefault(round_id, []).append(sender.account)
        return made

    def _make_room(self, coordinator: str, now: Now) -> None:
        """Make room for one more round of that account."""
        held = self._by_coordinator
        own = held.get(coordinator, [])
        if len(own) >= ROUNDS_PER_COORDINATOR:
            self._forget((coordinator, own[0]))
        elif len(self._rounds) >= MAX_ROUNDS:
            # The new round counts, too: an account's second round never displaces another account's only one.
            most = max(held, key=lambda account: len(held[account]) + (account == coordinator))
            over = (round_id for round_id in held[most] if self._rounds[most, round_id].is_over(now))
            self._forget((most, next(over, held[most][0])))

    def _forget(self, key: tuple[str, str]) -> None:
        del self._rounds[key]
        coordinator, round_id = key
        for index, name, value in (
            (self._by_coordinator, coordinator, round_id),
            (self._by_id, round_id, coordinator),
        ):
            index[name].remove(value)
            if not index[name]:
                del index[name]


def _is_expiring(envelope: Envelope, kind: MessageType) -> bool:
    """True if it has an expiry although all nodes must treat it alike."""
    return envelope.expiry_ms is not None and kind in _FOR_ALL
