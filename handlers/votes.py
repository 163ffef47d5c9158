"""Votes: one account, one vote, whatever arrives in whatever order.

Rules
 1. The voter is the account that the signature chains to. A payload cannot name another, and a second mesh
    key of one account votes no second time.
 2. Two different choices of one account on one proposal are an equivocation, and its vote is void: not the
    first one counts and not the last, for nodes hear them in different orders and must agree. Void is
    forever.
 3. The second, contradicting vote is relayed (RELAY), so that who heard only one of them learns of both. Once
    the proof is at hand, further votes of that account on that proposal are IGNORED: every node passes on the
    first two that it hears, so every node ends up with two. Both messages are kept as evidence, ``body`` and
    ``signature``.
 4. A vote that repeats itself is relayed and not delivered: somebody may have missed the first one, and the
    author's own rate limit pays for it.
 5. A vote may arrive before its proposal, and counts. A proposal may be claimed by several accounts; the
    tally names them all. Ids that must not be squatted are made of the content, its hash for instance.
 6. Everything remembered is charged to the account that signed it, and pushes out that account's own oldest
    only, so nobody can vote others out of memory. What is void goes last. An account that votes on more than
    ``VOTES_PER_ACCOUNT`` proposals before one is decided gives up its oldest votes, and with them rule 2 for
    those: whoever decides something by votes decides it before that many others are open.
 7. Neither a vote nor a proposal has an expiry: its author could let it end between the clocks of two nodes, and one
    would count for ever what the other never took.
 8. Who votes, and with what stake, is asked when votes are counted, and not when they come: registries differ for a
    moment, and messages meet that moment at one node and not at another. Guests have no vote; the vote of somebody
    who left counts again if it comes back.
 9. Choices are compared and counted as text: a string as it is, True and 1 as JSON writes them ("true", "1").

Payloads (any further key is allowed)
    CONSENSUS_PROPOSE  proposal_id
    CONSENSUS_VOTE     proposal_id, choice
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

from zmesh.core.envelope import Envelope
from zmesh.core.events import Command
from zmesh.core.now import Now
from zmesh.core.types import Member, MessageType, PeerKey, Verdict
from zmesh.handlers.schema import Schema, field_objection, flaw, size_objection, text, whole

MAX_ID: Final = 256
"""Bytes of a proposal_id in UTF-8: a hash in any notation, or a readable name."""
MAX_CHOICE: Final = 128
"""Bytes of a choice in UTF-8: a word, or a hash."""
MAX_VOTE: Final = 1024
"""Bytes of a vote's body: it is kept as evidence, once for each voter. About 200 of them are the header."""
VOTES_PER_ACCOUNT: Final = 256
"""Votes remembered of one account, at most 1 MiB with all of them void: far more proposals than are open at a
time."""
PROPOSALS_PER_ACCOUNT: Final = 64
"""Proposals remembered of one account; of each only who, when and a digest."""

_choice_text = text(MAX_CHOICE)
_choice_whole = whole(-(2**63))


def _choice(value: object) -> bool:
    return type(value) is bool or _choice_whole(value) or _choice_text(value)


PROPOSE: Final[Schema] = {"proposal_id": text(MAX_ID)}
VOTE: Final[Schema] = {"proposal_id": text(MAX_ID), "choice": _choice}


@dataclass(frozen=True, slots=True)
class Signed:
    """A message as evidence: anybody can check ``signature`` of ``key`` over ``body`` (PROTOCOL.md,
    "Signing")."""

    key: PeerKey
    body: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Proof that one account voted twice."""

    account: str
    proposal_id: str
    first: Signed
    second: Signed


@dataclass(frozen=True, slots=True)
class Proposal:
    """Somebody's claim to a proposal_id."""

    account: str
    message_id: bytes
    """32 bytes."""
    timestamp_ms: int
    terms: bytes
    """32 bytes, BLAKE2b-256 of the payload."""
    contradicted: bool = False
    """The same account proposed something else under the same id."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How a proposal stands at this node. Nodes that heard the same messages and have the same members agree, in
    whatever order either came."""

    proposal_id: str
    counts: Mapping[str, int]
    """Voters for each choice."""
    stake: Mapping[str, int]
    """Their stake, in the chain's smallest unit and as of now."""
    voters: tuple[str, ...]
    """Accounts whose vote counts, in ascending order: validators of now."""
    equivocators: tuple[str, ...]
    """Accounts whose vote is void, in ascending order."""
    proposers: tuple[str, ...]
    """Accounts that proposed it, in ascending order: none yet, one, or several that contest the id."""


@dataclass(slots=True)
class _Vote:
    choice: str
    sender: Member
    first: Signed
    second: Signed | None = None


@dataclass(slots=True)
class _Ballot:
    """All that concerns one proposal_id."""

    votes: dict[str, _Vote] = field(default_factory=dict)
    proposals: dict[str, Proposal] = field(default_factory=dict)


class Votes:
    """Counts the votes of the mesh.

    Args:
        members: gives who belongs now, this node included, each account once; asked by ``tally`` alone. None where
            nobody can say: then each voter is taken as it was when it voted.
    """

    kinds: frozenset[MessageType] = frozenset({MessageType.CONSENSUS_PROPOSE, MessageType.CONSENSUS_VOTE})

    def __init__(self, members: Callable[[], Iterable[Member]] | None = None) -> None:
        self._members = members
        self._ballots: dict[str, _Ballot] = {}
        # What each account is charged for, oldest first: dicts as ordered sets of proposal ids.
        self._voted: dict[str, dict[str, None]] = {}
        self._proposed: dict[str, dict[str, None]] = {}
        self.deadline: float | None = None

    def tally(self, proposal_id: str) -> Tally:
        """The count as of now, by the members of now; empty for a proposal that nobody mentioned."""
        ballot = self._ballots.get(proposal_id) or _Ballot()
        counts: dict[str, int] = {}
        stake: dict[str, int] = {}
        valid = sorted(account for account, vote in ballot.votes.items() if vote.second is None)
        voters = self._voters(ballot.votes[account].sender for account in valid)
        for voter in voters:
            choice = ballot.votes[voter.account].choice
            counts[choice] = counts.get(choice, 0) + 1
            stake[choice] = stake.get(choice, 0) + voter.stake
        void = sorted(account for account, vote in ballot.votes.items() if vote.second is not None)
        return Tally(
            proposal_id,
            dict(sorted(counts.items())),
            dict(sorted(stake.items())),
            tuple(voter.account for voter in voters),
            tuple(void),
            tuple(sorted(ballot.proposals)),
        )

    def equivocations(self, proposal_id: str) -> tuple[Equivocation, ...]:
        """The evidence against each of ``tally(proposal_id).equivocators``, in their order."""
        ballot = self._ballots.get(proposal_id) or _Ballot()
        return tuple(
            Equivocation(account, proposal_id, vote.first, vote.second)
            for account, vote in sorted(ballot.votes.items(), key=lambda item: item[0])
            if vote.second is not None
        )

    def proposals(self, proposal_id: str) -> tuple[Proposal, ...]:
        """Who proposed it, in the order of their accounts."""
        ballot = self._ballots.get(proposal_id) or _Ballot()
        return tuple(ballot.proposals[account] for account in sorted(ballot.proposals))

    @property
    def open(self) -> tuple[str, ...]:
        """All proposal ids that are remembered, in the order in which they were first mentioned."""
        return tuple(self._ballots)

    # ------------------------------------------------------------ the handler port

    def validate(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Verdict:
        """REJECT what has an expiry or does not fit the schema; RELAY repetitions and the first contradiction."""
        if self.objection(envelope, payload):
            return Verdict.REJECT
        if envelope.kind is MessageType.CONSENSUS_PROPOSE:
            return self._judge_proposal(envelope, sender, payload)
        ballot = self._ballots.get(payload["proposal_id"])
        vote = ballot.votes.get(sender.account) if ballot else None
        if vote is None:
            return Verdict.ACCEPT
        return Verdict.RELAY if vote.second is None else Verdict.IGNORE

    def objection(self, envelope: Envelope, payload: Mapping[str, Any]) -> str:
        """The expiry, the size of a vote, or the field; empty if it is sound."""
        if envelope.expiry_ms is not None:
            return "it has an expiry, so that some would count it and others come too late"
        size = len(envelope.body)
        is_vote = envelope.kind is MessageType.CONSENSUS_VOTE
        if is_vote and size > MAX_VOTE:
            return size_objection(size, MAX_VOTE)
        wrong = flaw(payload, VOTE if is_vote else PROPOSE, {})
        return "" if wrong is None else field_objection(wrong)

    def received(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Sequence[Command]:
        """Count it, or void it."""
        proposal_id = payload["proposal_id"]
        ballot = self._ballots.setdefault(proposal_id, _Ballot())
        if envelope.kind is MessageType.CONSENSUS_PROPOSE:
            self._propose(ballot, envelope, sender, proposal_id)
        else:
            self._vote(ballot, envelope, sender, payload)
        return ()

    def wake(self, now: Now) -> Sequence[Command]:
        """Never asked for."""
        return ()

    # ------------------------------------------------------------ within

    def _voters(self, senders: Iterable[Member]) -> list[Member]:
        """Those of them who may vote now, as they are now."""
        if self._members is None:
            return [sender for sender in senders if sender.is_validator]
        now = {member.account: member for member in self._members() if member.is_validator}
        return [now[sender.account] for sender in senders if sender.account in now]

    def _judge_proposal(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any]) -> Verdict:
        ballot = self._ballots.get(payload["proposal_id"])
        known = ballot.proposals.get(sender.account) if ballot else None
        if known is None:
            return Verdict.ACCEPT
        if known.contradicted and known.terms != _digest(envelope):
            return Verdict.IGNORE
        return Verdict.RELAY

    def _propose(self, ballot: _Ballot, envelope: Envelope, sender: Member, proposal_id: str) -> None:
        account, terms = sender.account, _digest(envelope)
        known = ballot.proposals.get(account)
        if known is None:
            ballot.proposals[account] = Proposal(account, envelope.id, envelope.timestamp_ms, terms)
            mine = self._proposed.setdefault(account, {})
            mine[proposal_id] = None
            if len(mine) > PROPOSALS_PER_ACCOUNT:
                self._forget_proposal(account, next(iter(mine)))
        elif known.terms != terms and not known.contradicted:
            ballot.proposals[account] = Proposal(
                account, known.message_id, known.timestamp_ms, known.terms, contradicted=True
            )

    def _vote(self, ballot: _Ballot, envelope: Envelope, sender: Member, payload: Mapping[str, Any]) -> None:
        account, choice = sender.account, _as_text(payload["choice"])
        signed = Signed(envelope.author, envelope.body, envelope.signature)
        vote = ballot.votes.get(account)
        if vote is not None:
            if vote.choice != choice and vote.second is None:
                vote.second = signed
            return
        ballot.votes[account] = _Vote(choice, sender, signed)
        mine = self._voted.setdefault(account, {})
        mine[payload["proposal_id"]] = None
        if len(mine) > VOTES_PER_ACCOUNT:
            fair = (name for name in mine if self._ballots[name].votes[account].second is None)
            self._forget_vote(account, next(fair, None) or next(iter(mine)))

    def _forget_vote(self, account: str, proposal_id: str) -> None:
        del self._voted[account][proposal_id]
        del self._ballots[proposal_id].votes[account]
        self._sweep(proposal_id)

    def _forget_proposal(self, account: str, proposal_id: str) -> None:
        del self._proposed[account][proposal_id]
        del self._ballots[proposal_id].proposals[account]
        self._sweep(proposal_id)

    def _sweep(self, proposal_id: str) -> None:
        ballot = self._ballots[proposal_id]
        if not ballot.votes and not ballot.proposals:
            del self._ballots[proposal_id]


def _as_text(choice: str | int | bool) -> str:
    if isinstance(choice, bool):
        return "true" if choice else "false"
    return str(choice)


def _digest(envelope: Envelope) -> bytes:
    return blake2b(envelope.payload, digest_size=32).digest()
