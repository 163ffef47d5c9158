"""The vocabulary of the protocol: plain values shared by every layer.

Rules
 1. Values only: nothing here reads a clock, draws a random number or touches IO.
 2. A key is always the 32 raw bytes of an Ed25519 public key (RFC 8032). A link is named by the key that
    the transport authenticated at its far end, so a link is a ``PeerKey`` too.
 3. Outcomes are enums; an enum member is its own explanation in a log or a counter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum, unique
from typing import NamedTuple

PeerKey = bytes
"""32 bytes, an Ed25519 public key: who wrote, or who is at the far end of a link."""

MessageId = bytes
"""32 bytes, BLAKE2b-256 of the body, always computed by the receiver."""

VerifySignature = Callable[[PeerKey, bytes, bytes], bool]
"""``(key, data, signature)``: True if that is the key's Ed25519 signature over data. Never raises."""

Frames = tuple[bytes, ...]
"""One transport message: at most ``wire.MAX_FRAMES`` byte strings."""


class Endpoint(NamedTuple):
    """A place to dial."""

    host: str
    """A DNS name, or an IP literal without brackets."""
    port: int
    """1 to 65535."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@unique
class MessageType(StrEnum):
    """What a message is about. The string is the public name; ``wire.KIND_CODES`` has the number on the wire."""

    PEER_DISCOVERY = "peer_discovery"
    PEER_ANNOUNCE = "peer_announce"
    FL_ROUND_START = "fl_round_start"
    FL_ROUND_UPDATE = "fl_round_update"
    MODEL_DELTA_OFFER = "model_delta_offer"
    MODEL_DELTA_REQUEST = "model_delta_request"
    MODEL_DELTA_TRANSFER = "model_delta_transfer"
    HEARTBEAT = "heartbeat"
    GOSSIP = "gossip"
    CONSENSUS_PROPOSE = "consensus_propose"
    CONSENSUS_VOTE = "consensus_vote"

    # An Enum's own hash, of its name, runs in Python; this one is looked up several times for every message.
    __hash__ = str.__hash__


@unique
class Verdict(Enum):
    """What the validator of a message type says about a verified message."""

    ACCEPT = "accept"
    """Relay it and hand it to the application."""
    RELAY = "relay"
    """Relay it, since others need it, but the application has no use for it (evidence of equivocation)."""
    IGNORE = "ignore"
    """Neither relay nor deliver; nobody is to blame (a record older than the one already held)."""
    REJECT = "reject"
    """Neither relay nor deliver; the author signed something the protocol forbids and is to blame."""


@unique
class SendResult(Enum):
    """How a direct send ended. Only DELIVERED is true, so ``if await mesh.send_model_delta(...)`` reads well."""

    DELIVERED = "delivered"
    """The recipient verified it and queued it in memory for its handler (queued, not yet processed)."""
    REJECTED = "rejected"
    """The recipient answered that it will not accept it: not admitted, malformed payload, clock too far off."""
    TIMEOUT = "timeout"
    """It was sent, but no acknowledgement came before the deadline: it may or may not have been delivered."""
    UNREACHABLE = "unreachable"
    """No peer of that name is known, or no connection to it came up before the deadline: it was never sent."""
    BACKPRESSURE = "backpressure"
    """Too much is in flight, here or at the recipient: try again later."""
    AMBIGUOUS = "ambiguous"
    """Two peers claim that name: use the account or the public key instead."""
    TOO_LARGE = "too_large"
    """The payload exceeds ``bounds.MAX_PAYLOAD``: send a reference to it instead."""

    def __bool__(self) -> bool:
        return self is SendResult.DELIVERED


@unique
class AckStatus(IntEnum):
    """The answer inside an ACK; the number is the one on the wire (PROTOCOL.md, "Direct messages")."""

    QUEUED = 0
    REJECTED = 1
    BUSY = 2
    STALE = 3
    FUTURE = 4


@unique
class DropReason(StrEnum):
    """Why a frame ended without a delivery. Every dropped frame has exactly one, and each is a counter.

    ``intake.py`` has the order of the checks, PROTOCOL.md (7.1) what each means and who is to blame.
    """

    OVERSIZE = "oversize"
    RATE = "rate"
    NOT_ADMITTED = "not_admitted"
    MALFORMED = "malformed"
    UNKNOWN_VERSION = "unknown_version"
    UNKNOWN_FRAME = "unknown_frame"
    WRONG_NETWORK = "wrong_network"
    DUPLICATE = "duplicate"
    OWN_ECHO = "own_echo"
    UNKNOWN_AUTHOR = "unknown_author"
    WRONG_RECIPIENT = "wrong_recipient"
    NOT_FROM_AUTHOR = "not_from_author"
    STALE = "stale"
    FUTURE = "future"
    EXPIRED = "expired"
    BEFORE_START = "before_start"
    OLD_EPOCH = "old_epoch"
    BELOW_LOW_WATER = "below_low_water"
    TTL_INFLATED = "ttl_inflated"
    AUTHOR_RATE = "author_rate"
    VERIFY_BACKLOG = "verify_backlog"
    BAD_SIGNATURE = "bad_signature"
    UNKNOWN_KIND = "unknown_kind"
    BAD_PAYLOAD = "bad_payload"
    IGNORED = "ignored"
    REJECTED = "rejected"
    RELAYED_ONLY = "relayed_only"
    LOW_REPUTATION = "low_reputation"
    APPLICATION_BUSY = "application_busy"
    UNASKED_ACK = "unasked_ack"
    UNSOLICITED_WANT = "unsolicited_want"
    WANT_BUDGET = "want_budget"
    OFFER_OVERFLOW = "offer_overflow"

    __hash__ = str.__hash__  # as for ``MessageType``


@unique
class Fault(StrEnum):
    """What a peer can be blamed for. ``reputation.COST`` has the points that each one costs."""

    MALFORMED = "malformed"
    """The link sent bytes that no honest peer sends."""
    TTL_INFLATED = "ttl_inflated"
    """The link raised the hops left above what the author signed."""
    RELAYED_FORGERY = "relayed_forgery"
    """The link passed on a signature that it should have verified."""
    BROKEN_OFFER = "broken_offer"
    """The link offered a message by IHAVE, did not send it for 3 s and kept talking, or did so three times in a row."""
    MISROUTED_DIRECT = "misrouted_direct"
    """The link sent a direct message that another peer wrote, or that is not for us."""
    INVALID_MESSAGE = "invalid_message"
    """The author signed what the validator of that message type rejects."""


class Member(NamedTuple):
    """One that may take part: an account, and the one mesh key that speaks for it."""

    key: PeerKey
    """32 bytes: its Ed25519 mesh key."""
    account: str
    """The account that votes, limits and reputation belong to: SS58, or the key in hex where there is no chain."""
    peer_id: str
    """A self-chosen name. If several members claim it, it means none of them."""
    endpoints: tuple[Endpoint, ...] = ()
    """Front doors, best first, at most 8."""
    stake: int = 0
    """In the chain's smallest unit."""
    is_validator: bool = True
    """False for one that may connect but whose votes do not count."""
    reputation: float = 100.0
    """0 to 100: where its score starts, and what it heals back to."""
    capabilities: tuple[str, ...] = ()
    """What it says it can do, in words such as ``train``."""


_MEMBER_TYPES = {"key": bytes, "account": str, "peer_id": str, "endpoints": tuple, "stake": int}
"""The types that every part relies on, whichever registry a member came from."""


@dataclass(frozen=True, slots=True, eq=False)
class Roster:
    """An immutable set of members as a registry last gave it; shared freely, even between simulated nodes.

    Raises ``ValueError`` if two members share a key or an account, or if a field has the wrong type. Names are
    self-chosen, so a clash of names is no reason to refuse a member.
    """

    members: tuple[Member, ...] = ()
    """In the order given by the registry."""
    by_key: Mapping[PeerKey, Member] = field(init=False, repr=False)
    """The same members."""
    ring: tuple[PeerKey, ...] = field(init=False, repr=False)
    """All keys in ascending order: the positions that neighbours are chosen by."""
    keys: frozenset[PeerKey] = field(init=False, repr=False)
    """All keys."""

    def __post_init__(self) -> None:
        for name, kind in _MEMBER_TYPES.items():
            for member in self.members:
                if not isinstance(value := getattr(member, name), kind):
                    raise ValueError(f"{name} of a member must be of type {kind.__name__}, not {value!r}")
        for name in ("key", "account"):
            seen: set[object] = set()
            for member in self.members:
                value = getattr(member, name)
                if value in seen:
                    shown = value.hex() if isinstance(value, bytes) else value
                    raise ValueError(f"two members share the {name} {shown}: each must be unique")
                seen.add(value)
        object.__setattr__(self, "by_key", {member.key: member for member in self.members})
        object.__setattr__(self, "keys", frozenset(self.by_key))
        object.__setattr__(self, "ring", tuple(sorted(member.key for member in self.members)))

    @classmethod
    def of(cls, members: Iterable[Member]) -> Roster:
        """A roster of these members, in their given order."""
        return cls(tuple(members))

    def __len__(self) -> int:
        return len(self.members)


EMPTY_ROSTER = Roster()
"""Of no members: what is in force before a registry named any."""
