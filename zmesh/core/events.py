"""What goes into the engine.

Rules
 1. ``Engine.handle``, and ``handle_all`` for several, is the only way in; each class below is one kind of event.
 2. Events are plain values, all treated as immutable. They are slotted and unfrozen (a frozen dataclass costs five
    times as much to build). Those built per frame spell out their ``__init__``: mypyc compiles that, but not the one
    that a dataclass generates.
 3. Three families: what the transport saw, what an interpreter finished, what the application commands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zmesh.core.types import Endpoint, Frames, Member, MessageId, MessageType, PeerKey, Roster

# ---------------------------------------------------------------- seen by the transport


@dataclass(slots=True, init=False)
class FrameReceived:
    """One message arrived; ``link`` is the authenticated identity of the far end, never a claim inside it."""

    link: PeerKey
    frames: Frames

    def __init__(self, link: PeerKey, frames: Frames) -> None:
        self.link = link
        self.frames = frames


@dataclass(slots=True)
class LinkOpened:
    """An encrypted, authenticated connection with ``link`` is up, and frames can be sent over it.

    ``inbound``: the far end opened it; otherwise it answers our dial. A link may have one of each.
    """

    link: PeerKey
    inbound: bool = False


@dataclass(slots=True)
class LinkClosed:
    """The connection in that direction is gone, or our dial failed; ``why`` is human-readable."""

    link: PeerKey
    why: str
    inbound: bool = False


# ---------------------------------------------------------------- finished by the interpreter


@dataclass(slots=True, init=False)
class Verified:
    """The answer to ``Verify``."""

    message_id: MessageId
    ok: bool

    def __init__(self, message_id: MessageId, ok: bool) -> None:
        self.message_id = message_id
        self.ok = ok


@dataclass(slots=True)
class SendRefused:
    """The transport refused a ``Send``: its queue to ``link`` is full."""

    link: PeerKey
    ref: MessageId | None


@dataclass(slots=True)
class Receipt:
    """The answer to ``Deliver``: whether the application's queue took the message. A refusal comes even unasked.

    ``author``: the message's, whom ``Dropped`` names if it was refused.
    """

    message_id: MessageId
    author: PeerKey
    queued: bool


@dataclass(slots=True)
class Wake:
    """The time that the last ``WakeAt`` asked for has come."""


# ---------------------------------------------------------------- commanded by the application


@dataclass(slots=True)
class Compose:
    """Build and sign a message without sending it; answered by ``Composed``."""

    kind: MessageType
    payload: Mapping[str, Any]
    ttl: int | None = None
    recipient: PeerKey | None = None


@dataclass(slots=True)
class Broadcast:
    """Sign a message and gossip it to the whole mesh; answered by ``Published``.

    ``ttl`` in hops, 1 to 255; None lets the size of the mesh decide.
    """

    kind: MessageType
    payload: Mapping[str, Any]
    ttl: int | None = None


@dataclass(slots=True)
class Rehearse:
    """Everything that this broadcast needs short of sending it; answered by ``Composed``, or refused as it would be."""

    broadcast: Broadcast


@dataclass(slots=True)
class SendDirect:
    """Sign a message and send it to one peer until it acknowledges; answered by ``Resolved`` with ``token``.

    ``timeout`` in seconds, at most 110: a later retry could arrive as stale.
    """

    recipient: PeerKey
    kind: MessageType
    payload: Mapping[str, Any]
    timeout: float = 10.0
    token: int = 0


@dataclass(slots=True)
class RosterChanged:
    """The registry supplied a new set: any peer neither in it nor added by hand is cut at once."""

    roster: Roster


@dataclass(slots=True)
class JoinNetwork:
    """The chain's genesis became known, and with it which mesh this is: messages of the mesh that had only a name are
    forgotten. ``network``: 32 bytes, see ``wire.network_id``."""

    network: bytes


@dataclass(slots=True)
class AddPeer:
    """The operator vouches for this peer by hand or, if the key is this node's own, says what account it speaks for."""

    member: Member


@dataclass(slots=True)
class RemovePeer:
    """The operator takes that back."""

    key: PeerKey


@dataclass(slots=True)
class Located:
    """A record signed by the member's own key states where it is now; an address never makes a member."""

    key: PeerKey
    endpoints: tuple[Endpoint, ...]


@dataclass(slots=True)
class HandlersChanged:
    """The application told a handler something: it may have to act sooner than it planned."""


@dataclass(slots=True)
class Start:
    """Time begins: the first event an engine sees. ``scores``: the ``Reputation.snapshot`` of an earlier run."""

    scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(slots=True)
class Stop:
    """Say LEAVE to every link; the interpreter closes afterwards."""


Command = Broadcast | SendDirect
"""What a handler may ask for."""

Event = (
    FrameReceived
    | LinkOpened
    | LinkClosed
    | Verified
    | SendRefused
    | Receipt
    | Wake
    | Compose
    | Broadcast
    | Rehearse
    | SendDirect
    | RosterChanged
    | JoinNetwork
    | AddPeer
    | RemovePeer
    | Located
    | HandlersChanged
    | Start
    | Stop
)
