"""What comes out of the engine.

Rules
 1. Actions are values. An interpreter (``node.py`` with sockets, ``simulator.py`` in virtual time) carries
    them out in order and reports back with events.
 2. An interpreter decides nothing about the protocol: anything two interpreters could do differently belongs in here.
 3. Classes on the path of every frame are slotted and unfrozen, built as in ``events.py``, and treated as immutable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zmesh.core.envelope import Envelope
from zmesh.core.types import DropReason, Endpoint, Fault, Frames, Member, MessageId, PeerKey, SendResult

# ---------------------------------------------------------------- for the transport


@dataclass(slots=True, init=False)
class Send:
    """Send all of ``frames``, in order, to each of ``links``, sharing one buffer.

    Answer with one ``SendRefused(link, ref)`` for each link whose queue refuses it.
    ``gossip`` selects the lane: the publisher if the link has subscribed, else the direct one. A full lane refuses;
    there is no fallback to the other.
    """

    links: tuple[PeerKey, ...]
    frames: Frames
    ref: MessageId | None
    gossip: bool

    def __init__(self, links: tuple[PeerKey, ...], frames: Frames, ref: MessageId | None, gossip: bool) -> None:
        self.links = links
        self.frames = frames
        self.ref = ref
        self.gossip = gossip


@dataclass(slots=True)
class Dial:
    """Connect to ``key`` at one of ``endpoints`` (front doors, best first).

    Answer with ``LinkOpened`` or ``LinkClosed``; the engine decides whether to retry.
    """

    key: PeerKey
    endpoints: tuple[Endpoint, ...]


@dataclass(slots=True)
class Hangup:
    """Close all connections with ``key``, inbound ones too, and end any dial to it. Not answered by ``LinkClosed``."""

    key: PeerKey
    why: str


@dataclass(slots=True)
class Admit:
    """From now on exactly these keys may connect; connections of any other key are cut."""

    keys: frozenset[PeerKey]


# ---------------------------------------------------------------- for the interpreter


@dataclass(slots=True, init=False)
class Verify:
    """Check an Ed25519 signature over ``data``; answer with ``Verified(message_id, ok)``, inline or from a pool."""

    message_id: MessageId
    key: PeerKey
    data: bytes
    signature: bytes

    def __init__(self, message_id: MessageId, key: PeerKey, data: bytes, signature: bytes) -> None:
        self.message_id = message_id
        self.key = key
        self.data = data
        self.signature = signature


@dataclass(slots=True)
class WakeAt:
    """Send ``Wake`` when the monotonic clock reaches ``mono``; replaces the previous request."""

    mono: float


# ---------------------------------------------------------------- for the application


@dataclass(slots=True, init=False)
class Deliver:
    """Hand a verified message to the application's handlers, with its decoded ``payload``.

    If ``receipt``, answer with ``Receipt``: the sender's acknowledgement waits for it. If not, answer only if there was
    no room, so that the drop is counted.
    """

    envelope: Envelope
    sender: Member
    payload: Mapping[str, Any]
    receipt: bool

    def __init__(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], receipt: bool) -> None:
        self.envelope = envelope
        self.sender = sender
        self.payload = payload
        self.receipt = receipt


@dataclass(slots=True)
class Composed:
    """The answer to ``Compose`` and ``Rehearse``."""

    envelope: Envelope


@dataclass(slots=True)
class Published:
    """The answer to ``Broadcast``: signed, and about to be pushed to ``links``."""

    envelope: Envelope
    links: tuple[PeerKey, ...]


@dataclass(slots=True)
class Resolved:
    """The answer to ``SendDirect``.

    ``skew_ms``: our clock minus the recipient's, as the recipient measured it, if a clock is why it refused.
    """

    token: int
    message_id: MessageId
    result: SendResult
    skew_ms: int | None = None


# ---------------------------------------------------------------- for the operator


@dataclass(slots=True, init=False)
class Dropped:
    """A frame was dropped. ``link`` sent it; ``message_id`` is None if the drop came before its id was known.

    The application no longer knows which link a message came over: for ``APPLICATION_BUSY``, ``link`` is its author.
    """

    reason: DropReason
    link: PeerKey
    message_id: MessageId | None

    def __init__(self, reason: DropReason, link: PeerKey, message_id: MessageId | None) -> None:
        self.reason = reason
        self.link = link
        self.message_id = message_id


@dataclass(slots=True)
class Offence:
    """A peer committed a fault; ``reputation`` is what is left of its score, 0 to 100."""

    culprit: PeerKey
    fault: Fault
    reputation: float


@dataclass(slots=True)
class LinkLive:
    """HELLO was exchanged with ``key``: messages flow."""

    key: PeerKey


@dataclass(slots=True)
class LinkDown:
    """Messages no longer flow to ``key``."""

    key: PeerKey
    why: str


@dataclass(slots=True)
class Notice:
    """Something an operator should read: an event name and its fields, ready for a structured log."""

    event: str
    fields: Mapping[str, Any]


@dataclass(slots=True)
class Failed:
    """A part of this node raised where nothing should, while doing ``what``. The rest of the step goes on."""

    what: str
    error: Any
    """The exception. Not annotated as one: mypyc would look for that name in this module when it builds the class."""


Action = (
    Send
    | Dial
    | Hangup
    | Admit
    | Verify
    | WakeAt
    | Deliver
    | Composed
    | Published
    | Resolved
    | Dropped
    | Offence
    | LinkLive
    | LinkDown
    | Notice
    | Failed
)
