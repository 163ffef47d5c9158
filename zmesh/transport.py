"""The port that a transport implements: authenticated links between keys, carrying frames.

What a transport promises
 1. ``FrameReceived.link`` is the far end's identity as the handshake proved it. Nothing inside the frames, no
    routing id and no topic is ever used in its place.
 2. At most once, in order per lane: a message that ``send`` took may be lost with its connection, and is never
    duplicated, cut or changed. Order between the lanes is not promised.
 3. ``send`` never blocks and never drops silently: False means that its queue is full or gone, and nothing was sent. A
    slow far end affects only itself and delays no other. A full lane affects only itself, too: no message takes another
    lane because of it.
 4. Only admitted keys get through the handshake. A key that stops being admitted is cut at once, in both directions.
 5. One dial, one answer: ``LinkOpened(inbound=False)`` when frames can be sent, or ``LinkClosed(inbound=False)`` with a
    reason; the latter too when that connection is lost later. A transport does not redial on its own: its user decides,
    with fresh addresses. If nobody answers as that key at ``Routes.direct``, ``spare`` is tried first; a peer that
    refuses us has answered.
 6. A far end's own connection to us is reported in the same way with ``inbound=True`` (opened: before its first
    frame; closed: as soon as the transport can know). ``send`` uses ours if it is up, else theirs. ``hangup`` closes
    both silently.
 7. Everything that is refused below the engine is counted under a name in ``counters``.
 8. Events reach the sink in batches of at most ``MAX_BATCH``, on the event loop's thread, never from inside a call
    to the transport.
 9. It holds ``MAX_LINKS`` neighbours at once, if the machine has the file handles for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from zmesh.core.events import FrameReceived, LinkClosed, LinkOpened
from zmesh.core.types import Endpoint, Frames, PeerKey

MAX_BATCH = 32
"""Messages read from one socket before others get their turn: fair, and enough to amortise a wake-up."""
MAX_LINKS = 1000
"""Neighbours of one node at most: far more than any needs, since a larger mesh is not fully linked."""

TransportEvent = FrameReceived | LinkOpened | LinkClosed
Sink = Callable[[Sequence[TransportEvent]], None]


@dataclass(frozen=True, slots=True)
class Routes:
    """Where one peer's sockets are, already resolved: hosts are IP literals, so that nothing below waits for DNS.

    ``gossip`` is None if the publisher cannot be reached: gossip then rides on the direct lane.
    """

    direct: Endpoint
    gossip: Endpoint | None = None
    spare: Endpoint | None = None
    """Where else the same node can be dialled, all lanes in one, if nothing answers at ``direct``."""


class Transport(Protocol):
    """Carries frames between this node and admitted keys."""

    @property
    def counters(self) -> Mapping[str, int]:
        """How often each named refusal or event happened since the start."""
        ...

    async def start(self, sink: Sink) -> Routes:
        """Bind and start reading; returns the bound endpoints.

        Raises ``ConfigError`` if an address cannot be bound.
        """
        ...

    async def stop(self, deadline: float) -> None:
        """Send what is queued and close, within ``deadline`` seconds. Safe to call twice."""
        ...

    def admit(self, keys: frozenset[PeerKey]) -> None:
        """Exactly these keys may connect from now on; connections of others are cut.

        Two keys with one X25519 image cannot both be admitted: the one admitted first stays, the other is
        refused and counted as ``image_collision``.
        """
        ...

    def dial(self, key: PeerKey, routes: Routes) -> None:
        """Connect to ``key`` there, replacing an earlier dial to it."""
        ...

    def hangup(self, key: PeerKey) -> None:
        """Close every connection with ``key``, ours and its own."""
        ...

    def send(self, key: PeerKey, frames: Frames, *, gossip: bool) -> bool:
        """Queue one message to ``key``; False when nothing was queued.

        ``gossip`` takes the publisher where the far end subscribed, full or not; else the direct lane.
        """
        ...
