"""Votes: one account, one vote, whatever arrives and in whatever order.

Rules
 1. The voter is the account that the signature chains to. A payload cannot name another, and a second mesh key of an
    account gets no second vote.
 2. Two different choices of one account on one proposal are an equivocation and void its vote: neither the first nor
    the last counts, since nodes hear them in different orders and must agree. It stays void for as long as both are
    remembered.
 3. The second, contradicting vote gets RELAY, so that nodes that heard only one of them learn of both. Once the proof
    is complete, further votes of that account on that proposal, signed in the same ten minutes, are IGNORED: every node
    relays the first two that it hears, so every node ends up with two. Both messages are kept as evidence, ``body`` and
    ``signature``.
 4. A repeated vote is relayed but not delivered: some node may have missed the first one, and the author's own rate
    limit pays for it.
 5. A vote that arrives before its proposal counts. Several accounts may claim a proposal; the tally names them all. Ids
    that must not be squatted should be derived from the content, for example as its hash.
 6. Everything remembered is charged to the account that signed it, and pushes out only that account's own entries, so
    no account can vote others out of memory. What is forgotten follows from signed times (see ``ledger``). An account
    that votes on more than ``VOTES_PER_ACCOUNT`` proposals in ten minutes has flooded them, and none of its votes
    counts until these are forgotten: nodes could not agree on which of them came first.
 7. Neither a vote nor a proposal may have an expiry: its author could make it expire between the clocks of two nodes,
    and one would forever count what the other never accepted.
 8. Who may vote, and with what stake, is decided when votes are counted, not when they arrive: registries differ for a
    moment, and messages hit that moment at one node and not at another. Guests have no vote; the vote of a member that
    left counts again if it returns.
 9. Only gossip counts. A direct message is for the application: no other node hears of it.
10. What this node pledged (``pledges``) keeps it from contradicting itself, and counts nowhere.
11. Choices are compared and counted as text: a string as it is, True and 1 as JSON writes them ("true", "1").

Payloads (any further key is allowed)
    CONSENSUS_PROPOSE  proposal_id
    CONSENSUS_VOTE     proposal_id, choice
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from zmesh.core.envelope import Envelope
from zmesh.core.events import Command
from zmesh.core.now import Now
from zmesh.core.types import Member, MessageType, PeerKey, Verdict
from zmesh.handlers.ledger import Ledger, W
from zmesh.handlers.pledges import Pledge, Pledges
from zmesh.handlers.schema import Check, Schema, flaw, objection_to, size_objection, terms_of, text, whole

MAX_ID: Final = 256
"""Bytes of a proposal_id in UTF-8: a hash in any notation, or a readable name."""
MAX_CHOICE: Final = 128
"""Bytes of a choice in UTF-8: a word, or a hash."""
MAX_VOTE: Final = 1024
"""Bytes of a vote's body, which is kept as evidence, once per voter. About 200 of them are the header."""
VOTES_PER_ACCOUNT: Final = 256
"""Proposals that one account may vote on in ten minutes, one in 2.3 s: more is a flood. As many votes are remembered of
it beyond these ten minutes and the ten before, so at most 512, in 1.2 MiB if all of them are contradicted."""
PROPOSALS_PER_ACCOUNT: Final = 256
"""The same for proposals; for each only the account, the time and a digest are kept."""

_choice_text = text(MAX_CHOICE)
_choice_whole = whole(-(2**63))


def _is_choice(value: object) -> bool:
    return type(value) is bool or _choice_whole(value) or _choice_text(value)


_choice = Check(_is_choice, f"true, false, {_choice_whole.wants}, or {_choice_text.wants}")
PROPOSE: Final[Schema] = {"proposal_id": text(MAX_ID)}
VOTE: Final[Schema] = {"proposal_id": text(MAX_ID), "choice": _choice}


@dataclass(frozen=True, slots=True)
class Signed:
    """A message as evidence: anyone can verify ``signature`` by ``key`` over ``body`` (PROTOCOL.md, "Signing")."""

    key: PeerKey
    """32 bytes: the author's Ed25519 public key."""
    body: bytes
    """The envelope's body as it travelled, at most 1,024 bytes."""
    signature: bytes
    """64 bytes."""


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Proof that one account voted twice, for different choices."""

    account: str
    """The account whose vote is void."""
    proposal_id: str
    """What it voted on."""
    first: Signed
    """The vote that was signed first."""
    second: Signed
    """A vote for another choice."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """An account's claim to a proposal_id."""

    account: str
    """The account that signed it."""
    message_id: bytes
    """32 bytes: BLAKE2b-256 of what was signed."""
    timestamp_ms: int
    """Unix milliseconds, as signed by its author."""
    terms: bytes
    """32 bytes, BLAKE2b-256 of the payload."""
    contradicted: bool = False
    """The same account proposed something else under the same id."""

    @property
    def word(self) -> str:
        """What the ledger compares."""
        return self.terms.hex()


@dataclass(frozen=True, slots=True)
class Tally:
    """The state of a proposal at this node. Nodes that heard the same messages and have the same members agree, in
    whatever order either arrived."""

    proposal_id: str
    """What was voted on."""
    counts: Mapping[str, int]
    """Voters for each choice."""
    stake: Mapping[str, int]
    """Their current stake, in the chain's smallest unit."""
    voters: tuple[str, ...]
    """Accounts whose vote counts, in ascending order: current validators only."""
    equivocators: tuple[str, ...]
    """Accounts whose vote is void, in ascending order."""
    proposers: tuple[str, ...]
    """Accounts that proposed it, in ascending order: none yet, one, or several that contest the id."""


@dataclass(frozen=True, slots=True)
class _Vote:
    word: str
    """The choice."""
    timestamp_ms: int
    signed: Signed


class Votes:
    """``mesh.handlers.votes``: counts the votes of the mesh.

    Args:
        members: returns the current members, this node included, each account once; called only by ``tally``.
    """

    kinds: frozenset[MessageType] = frozenset({MessageType.CONSENSUS_PROPOSE, MessageType.CONSENSUS_VOTE})

    def __init__(self, members: Callable[[], Iterable[Member]]) -> None:
        self._members = members
        self._votes: Ledger[_Vote] = Ledger(VOTES_PER_ACCOUNT)
        self._proposals: Ledger[Proposal] = Ledger(PROPOSALS_PER_ACCOUNT)
        self.pledges = Pledges()
        """What this node has on disk of what it said, if anything. They do not count: only what was heard does."""
        self.deadline: float | None = None

    def tally(self, proposal_id: str) -> Tally:
        """The current count among the current members; empty for a proposal that was never mentioned."""
        counts: dict[str, int] = {}
        stake: dict[str, int] = {}
        votes = self._votes.of(proposal_id)
        void = tuple(account for account, said in votes.items() if _contradiction(said))
        valid = {account: said[0] for account, said in votes.items() if not _contradiction(said)}
        now = {member.account: member for member in self._members() if member.is_validator}
        voters = [now[account] for account in valid if account in now and not self._votes.has_flooded(account)]
        for voter in voters:
            choice = valid[voter.account].word
            counts[choice] = counts.get(choice, 0) + 1
            stake[choice] = stake.get(choice, 0) + voter.stake
        return Tally(
            proposal_id,
            dict(sorted(counts.items())),
            dict(sorted(stake.items())),
            tuple(voter.account for voter in voters),
            void,
            tuple(self._proposals.of(proposal_id)),
        )

    def equivocations(self, proposal_id: str) -> tuple[Equivocation, ...]:
        """The evidence against each of ``tally(proposal_id).equivocators``, in the same order."""
        return tuple(
            Equivocation(account, proposal_id, *(vote.signed for vote in pair))
            for account, votes in self._votes.of(proposal_id).items()
            if (pair := _contradiction(votes))
        )

    def proposals(self, proposal_id: str) -> tuple[Proposal, ...]:
        """Who proposed it, in account order; of contradicting proposals, the one signed first."""
        return tuple(
            replace(said[0], contradicted=bool(_contradiction(said)))
            for said in self._proposals.of(proposal_id).values()
        )

    @property
    def open(self) -> tuple[str, ...]:
        """All remembered proposal ids: those voted on, in order of their first mention, then those only proposed."""
        return tuple(dict.fromkeys((*self._votes, *self._proposals)))

    # ------------------------------------------------------------ the handler port

    def validate(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Verdict:
        """REJECT what has an expiry or does not fit the schema; RELAY repetitions and the first contradiction."""
        is_oversize = envelope.kind is MessageType.CONSENSUS_VOTE and len(envelope.body) > MAX_VOTE
        if envelope.expiry_ms is not None or is_oversize or flaw(payload, _schema(envelope), {}) is not None:
            return Verdict.REJECT
        if envelope.recipient is not None:
            return Verdict.ACCEPT
        ledger = self._votes if envelope.kind is MessageType.CONSENSUS_VOTE else self._proposals
        return ledger.judge(sender.account, payload["proposal_id"], envelope.timestamp_ms)

    def objection(self, envelope: Envelope, payload: Mapping[str, Any]) -> str:
        """Names the expiry, the size of a vote, or the flawed field; empty if it is sound."""
        if envelope.expiry_ms is not None:
            return "it must have no expiry, or some peers would count it and others receive it too late"
        size = len(envelope.body)
        if envelope.kind is MessageType.CONSENSUS_VOTE and size > MAX_VOTE:
            return size_objection(size, MAX_VOTE)
        return objection_to(payload, _schema(envelope), {})

    def harm(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any]) -> str:
        """A contradiction of what its account said, or a flood, as far as this node heard or pledged itself."""
        if envelope.recipient is not None:
            return ""
        mine = self.pledge(envelope, sender, payload)
        account, proposal_id = mine.account, mine.proposal_id
        is_vote = mine.kind is MessageType.CONSENSUS_VOTE
        ledger: Ledger[Any] = self._votes if is_vote else self._proposals
        if ledger.would_flood(account, proposal_id, mine.timestamp_ms, self.pledges.spoken_of(mine)):
            most = _most(mine.kind)
            return f"its account would speak of more than {most} proposals in ten minutes, and then none of that counts"
        words = [*(said.word for said in ledger.by(account, proposal_id)), *self.pledges.words(mine)]
        other = next((word for word in words if word != mine.word), None)
        if other is None:
            return ""
        if is_vote:
            return f"its account has already voted {other!r} on {proposal_id!r}, and two choices void its vote"
        return (
            f"its account has already proposed {proposal_id!r}, with other bytes: everybody would see a contradiction"
        )

    def pledge(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any]) -> Pledge:
        """What its author undertakes with a sound message of its own."""
        kind = envelope.kind
        assert kind is not None
        word = _as_text(payload["choice"]) if kind is MessageType.CONSENSUS_VOTE else terms_of(envelope).hex()
        proposal_id, time = payload["proposal_id"], envelope.timestamp_ms
        return Pledge(kind, envelope.network, sender.account, envelope.author, proposal_id, word, time)

    def pledges_with(self, pledge: Pledge) -> Pledges:
        """``pledges`` and this one, which is not among them before somebody puts it there."""
        return self.pledges.plus(pledge, _most(pledge.kind))

    def received(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Sequence[Command]:
        """Count it, or void it; a direct message counts nowhere."""
        if envelope.recipient is not None:
            return ()
        account, proposal_id, time = sender.account, payload["proposal_id"], envelope.timestamp_ms
        if envelope.kind is MessageType.CONSENSUS_VOTE:
            signed = Signed(envelope.author, envelope.body, envelope.signature)
            self._votes.note(account, proposal_id, _Vote(_as_text(payload["choice"]), time, signed))
        else:
            self._proposals.note(account, proposal_id, Proposal(account, envelope.id, time, terms_of(envelope)))
        return ()

    def wake(self, now: Now) -> Sequence[Command]:
        """Never called: there is no deadline."""
        return ()


def _most(kind: MessageType) -> int:
    return VOTES_PER_ACCOUNT if kind is MessageType.CONSENSUS_VOTE else PROPOSALS_PER_ACCOUNT


def _schema(envelope: Envelope) -> Schema:
    return VOTE if envelope.kind is MessageType.CONSENSUS_VOTE else PROPOSE


def _contradiction(said: tuple[W, ...]) -> tuple[W, ...]:
    """The first two that contradict each other, or an empty tuple."""
    return next(((said[0], other) for other in said if other.word != said[0].word), ())


def _as_text(choice: str | int | bool) -> str:
    if isinstance(choice, bool):
        return "true" if choice else "false"
    return str(choice)
