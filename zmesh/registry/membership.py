"""Who may take part: combines what the registry says, what accounts signed for mesh keys, and what the operator allows.

Rules
 1. The roster is a function of the registry's set, of the delegations that were seen to hold, and of the time: the
    order in which records came changes nothing. So all nodes that saw the same agree. "Seen" is what was seen since the
    start; of the time before, only the highest sequences are known.
 2. An account's highest sequence counts, and ends all its others for ever, even once it has expired itself. Of two
    delegations with one sequence, the one whose text sorts first counts; both are logged as evidence.
 3. One key speaks for one account: of several accounts that it agreed to speak for, the one with the highest sequence.
    A key and its negative share one CURVE image and count as one key. Keys that the registry itself names take
    precedence.
 4. A delegation proves itself, whoever brings it and in whatever record: ``judge`` remembers one that holds, and no
    other. Its key becomes a member once its own record, which gives its name, was accepted (``accepted``).
 5. Removal and expiry take effect with the next roster; ``deadline`` says when that is due, in wall seconds, as in
    delegations.
 6. The cheap checks come first: nothing is verified for an account that the registry does not name, unless the registry
    or the operator names the key itself. Such a key needs no delegation. One that is false for every node is refused
    all the same, since nodes that do not name the key (yet, or any more) blame whoever passes it on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from math import inf
from typing import Any, Final, Literal, NamedTuple

from zmesh.core.errors import ConfigError, WireError
from zmesh.core.limits import Limits, TokenBucket
from zmesh.core.now import Now
from zmesh.core.types import EMPTY_ROSTER, Member, PeerKey, Roster
from zmesh.core.wire import digest32
from zmesh.delegation import Delegation, Scheme, Statement, decode_delegation
from zmesh.handlers.record import Record, is_local
from zmesh.handlers.standing import Standing
from zmesh.identity import curve_image
from zmesh.log import get_logger
from zmesh.registry.claim import Claim
from zmesh.registry.port import Account, ValidatorSet
from zmesh.registry.refusals import Refusals, statement_of

AdmissionMode = Literal["registry", "open"]
"""``open`` admits any key that has a record of its own, as a guest without stake or vote: for demos and tests."""

MAX_GUESTS: Final = 1000
"""Members that an open mesh admits without an account: keys cost nothing, and each one costs memory and links."""
MAX_NAMES: Final = 16_384
"""Keys whose names are remembered, about 8 MiB: as many as records are kept of."""
MAX_FORMER: Final = 16_384
"""Accounts that left and whose delegation is remembered, about 24 MiB; beyond that, only the sequence is."""
MAX_SEQUENCES: Final = 100_000
"""Accounts whose highest sequence is remembered, about 10 MiB: as many as a registry may name."""
MAX_CONVICTED: Final = 256
"""Contradictions remembered as logged: an account may sign a new one whenever it likes."""
SLOW_BURST: Final = 20
"""ECDSA signatures, forged or of unknown accounts, checked in one burst: each costs 10 ms, and its maker nothing."""
SLOW_RATE: Final = 2.0
"""The same per second after that: at most 2 % of a core."""
RENEWAL_BURST: Final = 64
"""New delegations of one account that are checked in one burst: it signs one a month."""
RENEWAL_RATE: Final = 0.1
"""The same per second after that: each may cost 10 ms, a roster, and a connection with every other node."""
MAX_SIGNED: Final = 16_384
"""Signatures of accounts remembered as good, about 2 MiB: presenting an old one again costs a hash."""

_log = get_logger(__name__)


class _Said(NamedTuple):
    """What the newest record of a key says."""

    sequence: int
    peer_id: str
    capabilities: tuple[str, ...]


class Membership:
    """Combines what the registry, the accounts and the operator say into the engine's roster. No IO but its log."""

    def __init__(
        self, network: str, admission: AdmissionMode = "registry", takes_local: Callable[[], bool] = lambda: False
    ) -> None:
        """``network``: the mesh's name. ``takes_local``: whether accounts may have local addresses, as in a mesh on one
        machine."""
        self._takes_local = takes_local
        self._network = network
        self._open = admission == "open"
        self._found = ValidatorSet()
        self._static_images: dict[bytes, PeerKey] = {}
        # The highest delegation of each account that was seen to hold, and which accounts claim which image.
        self._claims: dict[bytes, Claim] = {}
        self._images: dict[bytes, set[bytes]] = {}
        # Accounts that changed their key and whose new key has no accepted record yet.
        self._changed: dict[bytes, Statement] = {}
        # Sequences of claims that are not in memory, for example after a restart; another chain starts afresh.
        self._sequences: dict[bytes, int] = {}
        self._sequences_of = b""
        self._said: dict[PeerKey, _Said] = {}
        self._guests: dict[PeerKey, bytes] = {}
        self._guest_images: dict[bytes, PeerKey] = {}
        self._roster = EMPTY_ROSTER
        self._stale = False
        self._made_at = -inf
        self._due = inf
        self._contested: frozenset[str] = frozenset()
        # Accounts and sequences whose contradiction is proven and logged.
        self._convicted: dict[tuple[bytes, int], None] = {}
        self._refusals = Refusals()
        self._forgeries = TokenBucket(SLOW_RATE, SLOW_BURST)
        self._renewals = Limits(RENEWAL_RATE, RENEWAL_BURST)
        self._signed: dict[bytes, None] = {}
        self.counters: Counter[str] = Counter()

    # ------------------------------------------------------------ what comes in

    def registered(self, found: ValidatorSet) -> None:
        """A new set from the registry: keys and accounts that are not in it are out at once."""
        before, self._found = self._found, found
        if found.genesis != before.genesis:
            self._forget_chain(found.genesis)
        if found.roster is not before.roster:
            self._static_images = {curve_image(member.key): member.key for member in found.roster.members}
        self._forget_former()
        self._stale = True

    def judge(self, record: Record, now: Now, *, by_hand: bool = False) -> Standing:
        """Whether the key of this record may take part. The record's own signature is not checked.

        A delegation that is seen to hold is remembered (rule 4); ``is_stale`` is true from then on. ``by_hand``: the
        operator vouches for the key, which then needs no other word.
        """
        standing = self._as_named(record, now) if by_hand else self._standing(record, now)
        self.counters[standing.value] += 1
        if standing is not Standing.ADMITTED:
            self._refusals.tell(record, standing, self._found.accounts, now)
        return standing

    def standing_of(self, record: Record, now: Now) -> Standing:
        """``judge`` for this node's own record: neither counted nor logged."""
        return self._standing(record, now)

    def accepted(self, record: Record, now: Now) -> bool:
        """The newest record of its key was accepted and verified: if the key may take part, it is a member by that
        name.

        True for the first record with which an account speaks through another key than before: if only half of the mesh
        heard of it, both keys could vote.
        """
        if self._standing(record, now) is not Standing.ADMITTED:
            return False
        self._say(record, now)
        said = statement_of(record) if self._changed else None
        if said is None or self._changed.get(said.account) != said:
            return False
        del self._changed[said.account]
        return True

    def _say(self, record: Record, now: Now) -> None:
        before = self._said.get(record.key)
        said = _Said(record.sequence, record.peer_id, record.capabilities)
        if before is not None and before.sequence > said.sequence:
            return
        self._said[record.key] = said
        if self._open and record.key not in self._guests and len(self._guests) < MAX_GUESTS:
            image = curve_image(record.key)
            self._guests[record.key] = image
            self._guest_images.setdefault(image, record.key)
            self._stale = True
        if before is None or before[1:] != said[1:]:
            self._stale = True
        if len(self._said) > MAX_NAMES:
            members = self.roster_at(now).by_key
            del self._said[next((key for key in self._said if key not in members), next(iter(self._said)))]

    # ------------------------------------------------------------ what comes out

    @property
    def is_stale(self) -> bool:
        """Whether something came since ``roster_at`` was called that may change the roster."""
        return self._stale

    @property
    def deadline(self) -> float | None:
        """Unix seconds when to call ``roster_at`` next: 0 is at once, None never. Reading it costs nothing."""
        if self._stale:
            return 0.0
        return None if self._due == inf else self._due

    def roster_at(self, now: Now) -> Roster:
        """Who takes part now; a new object whenever that changed. A new one is linear in its size to make."""
        # A clock that was set back may re-admit a delegation that seemed to be over.
        if self._stale or self._due <= now.wall or now.wall < self._made_at:
            self._rebuild(now.wall)
        return self._roster

    def export(self) -> dict[str, Any]:
        """What must outlive a restart, or superseded delegations would count again; plain values for JSON."""
        present = {account: claim.rank[0] for account, claim in self._claims.items()}
        former = {account: number for account, number in self._sequences.items() if account not in present}
        sequences = dict(islice((present | former).items(), MAX_SEQUENCES))  # else the file would outgrow what is read
        return {
            "genesis": self._sequences_of.hex(),
            "sequences": {account.hex(): sequence for account, sequence in sequences.items()},
        }

    def restore(self, exported: Mapping[str, Any]) -> None:
        """Load what ``export`` made, before the registry's first set. Raises ``ConfigError`` for anything else."""
        try:
            genesis = bytes.fromhex(exported["genesis"])
            sequences = {bytes.fromhex(account): int(number) for account, number in exported["sequences"].items()}
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ConfigError(f"the saved sequences of delegations cannot be read: {type(error).__name__}") from None
        if self._found.genesis in (b"", genesis):  # another chain's sequences count for nothing here
            self._sequences_of = genesis
            self._sequences = dict(list(sequences.items())[:MAX_SEQUENCES])

    # ------------------------------------------------------------ judging

    def _standing(self, record: Record, now: Now) -> Standing:
        if record.key in self._found.roster.by_key:
            return self._as_named(record, now)
        standing = self._by_delegation(record, now)
        # In an open mesh a key needs no account, and a bad delegation makes it no worse than none.
        is_guest = self._open and standing is not Standing.ADMITTED
        return self._as_guest(record, now.wall) if is_guest else standing

    def _as_named(self, record: Record, now: Now) -> Standing:
        """Rule 6, for a key that is named itself."""
        if record.delegation is None:
            return Standing.ADMITTED
        standing = self._by_delegation(record, now)
        if standing not in (Standing.ADMITTED, *_SIGNED_WRONG):
            # Its text means nothing here, and may mean something elsewhere, so the signatures are checked, too.
            standing = self._by_signatures(decode_delegation(record.delegation), now.mono)
        return standing if standing in _SIGNED_WRONG else Standing.ADMITTED

    def _by_delegation(self, record: Record, now: Now) -> Standing:
        if record.delegation is None:
            return Standing.UNKNOWN_KEY
        try:
            delegation = decode_delegation(record.delegation)
        except WireError:
            return Standing.MALFORMED
        if delegation.statement.key != record.key:
            return Standing.NOT_HELD
        standing = self._by_statement(delegation, now)
        known = self._claims.get(delegation.statement.account)
        # Compared byte for byte: a known text with junk signatures must not be passed on as if it had held.
        if standing is Standing.ADMITTED and (known is None or known.delegation.encoded != delegation.encoded):
            standing = self._by_signatures(delegation, now.mono)
            if standing is Standing.ADMITTED:
                self._remember(delegation)
        return self._against_others(delegation, now.wall) if standing is Standing.ADMITTED else standing

    def _by_statement(self, delegation: Delegation, now: Now) -> Standing:
        """The verdict on its text alone."""
        said = delegation.statement
        if said.genesis != self._found.genesis:
            return Standing.OTHER_CHAIN
        if said.network != self._network:
            return Standing.OTHER_NETWORK
        if said.account not in self._found.accounts:
            return Standing.UNKNOWN_ACCOUNT
        if now.wall < said.not_before:
            return Standing.NOT_YET
        if now.wall >= said.not_after + 1:
            return Standing.EXPIRED
        known = self._claims.get(said.account)
        if known is None:
            superseded = said.sequence < self._sequences.get(said.account, 0)
        else:
            superseded = known.precedes(delegation) and known.delegation.statement.key != said.key
            if superseded and said.sequence == known.rank[0]:
                self._convict(known.delegation, delegation, now.mono)
        return Standing.SUPERSEDED if superseded else Standing.ADMITTED

    def _by_signatures(self, delegation: Delegation, mono: float) -> Standing:
        """The verdict on both signatures, if there is time to check them."""
        said = delegation.statement
        if not delegation.held_by_key():
            return Standing.NOT_HELD
        try:
            curve_image(said.key)
        except ConfigError:  # a point of mixed order can sign, and no peer can connect with it
            return Standing.MALFORMED
        if not delegation.is_of_account():
            return Standing.FORGED
        # Only the account itself can make something new of its own: a thief of its mesh key cannot use up its share.
        # The mark covers all that verification depends on: a good signature under another scheme's label is a bad one.
        how = bytes([delegation.scheme, delegation.wrapped]) + delegation.public
        mark = digest32(said.text + how + delegation.account_signature)
        if mark in self._signed:
            return Standing.ADMITTED
        slow = delegation.scheme is Scheme.ECDSA
        if not self._renewals.has(said.account, mono) or (slow and not self._forgeries.has(mono)):
            return Standing.BUSY
        is_signed = delegation.signed_by_account()
        if slow and not (is_signed and said.account in self._found.accounts):  # unnamed accounts cost nothing
            self._forgeries.take(mono)
        if not is_signed:
            return Standing.FORGED
        self._renewals.take(said.account, mono)
        if len(self._signed) >= MAX_SIGNED:
            del self._signed[next(iter(self._signed))]
        self._signed[mark] = None
        return Standing.ADMITTED

    def _remember(self, delegation: Delegation) -> None:
        account = delegation.statement.account
        known = self._claims.get(account)
        if known is not None:
            if known.rank[0] == delegation.statement.sequence and known.delegation.statement != delegation.statement:
                self._note_proof(known.delegation, delegation)
            if not known.precedes(delegation):
                if account in self._changed or known.delegation.statement.key != delegation.statement.key:
                    self._changed[account] = delegation.statement
                self._images[known.image].discard(account)
                if not self._images[known.image]:
                    del self._images[known.image]
            else:
                return
        claim = Claim(delegation, curve_image(delegation.statement.key))
        self._claims[account] = claim
        self._images.setdefault(claim.image, set()).add(account)
        self._stale = True

    def _against_others(self, delegation: Delegation, wall: float) -> Standing:
        """The verdict on who else claims the key that the account speaks through."""
        said = delegation.statement
        claim = self._claims[said.account]
        if not self._is_live(claim, wall):
            return Standing.SUPERSEDED  # by one for the same key that has expired since
        image = claim.image
        if image in self._static_images:
            return Standing.COLLIDES
        speaker = self._speaker(image, wall)
        if speaker is None or speaker.delegation.statement.account == said.account:
            return Standing.ADMITTED
        return Standing.KEY_TAKEN if speaker.delegation.statement.key == said.key else Standing.COLLIDES

    def _speaker(self, image: bytes, wall: float) -> Claim | None:
        """The highest live claim to this image."""
        claims = [self._claims[account] for account in self._images.get(image, ())]
        return max((one for one in claims if self._is_live(one, wall)), key=lambda claim: claim.rank, default=None)

    def _is_live(self, claim: Claim, wall: float) -> bool:
        return claim.delegation.statement.account in self._found.accounts and claim.holds_at(wall)

    def _as_guest(self, record: Record, wall: float) -> Standing:
        try:
            image = curve_image(record.key)
        except ConfigError:
            return Standing.MALFORMED
        speaker = self._speaker(image, wall)
        rivals = [key for key in (self._static_images.get(image), self._guest_images.get(image)) if key is not None]
        if speaker is not None:
            rivals.append(speaker.delegation.statement.key)
        if any(key != record.key for key in rivals):
            return Standing.COLLIDES
        full = len(self._guests) >= MAX_GUESTS and record.key not in self._guests
        return Standing.FULL if full else Standing.ADMITTED

    # ------------------------------------------------------------ within

    def _rebuild(self, wall: float) -> None:
        self._stale = False
        self._made_at = wall
        taken = set(self._static_images)
        accounts = {member.account for member in self._found.roster.members}
        chosen: list[Member] = []
        live = (claim for claim in self._claims.values() if self._is_live(claim, wall))
        for claim in sorted(live, key=lambda claim: claim.rank, reverse=True):
            statement = claim.delegation.statement
            account = self._found.accounts[statement.account]
            if claim.image not in taken and account.address not in accounts:
                taken.add(claim.image)
                accounts.add(account.address)
                chosen += self._member(statement.key, account)
        for key, image in self._guests.items():
            if image not in taken and key.hex() not in accounts:
                taken.add(image)
                accounts.add(key.hex())
                chosen += self._member(key, Account(key, key.hex(), is_validator=False))
        # Sorted by key: nothing in the order tells who came first.
        chosen.sort()
        members = [*self._found.roster.members, *(self._renamed(member, accounts) for member in chosen)]
        self._note_names(members)
        self._due = min((claim.turn_after(wall) for claim in self._claims.values()), default=inf)
        if tuple(members) != self._roster.members:
            self._roster = Roster(tuple(members))

    def _member(self, key: PeerKey, account: Account) -> list[Member]:
        """One member, or none while its record has not arrived."""
        said = self._said.get(key)
        if said is None:
            return []
        return [
            Member(
                key,
                account.address,
                said.peer_id,
                # Each account writes its own addresses into the chain, and could make every node knock at services on
                # its own machine.
                tuple(place for place in account.endpoints if not is_local(place.host) or self._takes_local()),
                account.stake,
                account.is_validator,
                account.reputation,
                said.capabilities,
            )
        ]

    @staticmethod
    def _renamed(member: Member, accounts: set[str]) -> Member:
        """A name that is another member's account, or could be a key, would catch what is meant for that one."""
        name = member.peer_id
        misleads = name != member.account and (name in accounts or _KEY.fullmatch(name) is not None)
        return member._replace(peer_id=member.account) if misleads else member

    def _note_names(self, members: Sequence[Member]) -> None:
        names = Counter(member.peer_id for member in members)
        contested = frozenset(name for name, claimed in names.items() if claimed > 1)
        for name in sorted(contested - self._contested):
            self.counters["name_contested"] += 1
            _log.warning("membership_name_contested", peer_id=name, members=names[name])
        self._contested = contested

    def _forget_chain(self, genesis: bytes) -> None:
        """Forget the sequences and accounts of another chain."""
        self._claims.clear()
        self._images.clear()
        self._changed.clear()
        self._convicted.clear()
        if genesis != self._sequences_of:
            self._sequences.clear()
        self._sequences_of = genesis

    def _forget_former(self) -> None:
        """For accounts that left long ago the sequence is enough; they have to present their delegation again."""
        former = [account for account in self._claims if account not in self._found.accounts]
        for account in former[: max(0, len(former) - MAX_FORMER)]:
            claim = self._claims.pop(account)
            self._images[claim.image].discard(account)
            self._sequences[account] = claim.rank[0]
            self._changed.pop(account, None)
        while len(self._sequences) > MAX_SEQUENCES:
            del self._sequences[next(iter(self._sequences))]

    def _convict(self, known: Delegation, other: Delegation, mono: float) -> None:
        """Two delegations with one sequence: check whether the second is genuine, too, once for each sequence of an
        account."""
        pair = (known.statement.account, known.statement.sequence)
        if pair not in self._convicted and self._by_signatures(other, mono) is Standing.ADMITTED:
            self._note_proof(known, other)

    def _note_proof(self, known: Delegation, other: Delegation) -> None:
        pair = (known.statement.account, known.statement.sequence)
        if pair not in self._convicted:
            if len(self._convicted) >= MAX_CONVICTED:
                del self._convicted[next(iter(self._convicted))]
            self._convicted[pair] = None
            self.counters["delegation_equivocation"] += 1
            account, sequence = pair
            _log.warning(
                "membership_contradiction", account=account, sequence=sequence, one=known.encoded, other=other.encoded
            )


_SIGNED_WRONG: Final = frozenset({Standing.MALFORMED, Standing.NOT_HELD, Standing.FORGED, Standing.BUSY})
"""Wrong at every node, or too much came to tell whether it is."""
_KEY: Final = re.compile(r"[0-9A-Fa-f]{64}")
