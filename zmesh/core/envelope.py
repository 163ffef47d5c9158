"""One signed message: how it is built, and when its contents can be trusted.

Rules
 1. ``Envelope`` is the parsed form of body and signature. Until ``Verified`` reports success, nothing in it is proven
    to be the author's word; only the engine handles envelopes before that.
 2. The id is always computed from the bytes at hand.
 3. ``Composer`` is the only place that signs, and the only owner of the sequence counter.
"""

from __future__ import annotations

from typing import Protocol

from zmesh.core import bounds, wire
from zmesh.core.now import Now
from zmesh.core.types import MessageId, MessageType, PeerKey


class Signer(Protocol):
    """The node's own identity, as far as the core may see it."""

    @property
    def public(self) -> bytes:
        """32 bytes, the Ed25519 public key."""
        ...

    def sign(self, data: bytes) -> bytes:
        """64 bytes, the Ed25519 signature (RFC 8032) over ``data``."""
        ...


class Envelope:
    """A message as its author made it. Treated as immutable; slotted and unfrozen because one is built per frame."""

    __slots__ = (
        "author",
        "body",
        "code",
        "correlation",
        "epoch",
        "expiry_ms",
        "id",
        "kind",
        "network",
        "payload",
        "recipient",
        "sequence",
        "short",
        "signature",
        "timestamp_ms",
        "ttl",
    )

    id: MessageId
    short: bytes
    """The first 16 bytes of the id, which IHAVE, IWANT and the seen-store use."""
    kind: MessageType | None
    """None for link kinds (HELLO, ACK) and for kinds that this version does not know; see ``code``."""

    def __init__(self, identifier: MessageId, body: bytes, signature: bytes, fields: wire.Body) -> None:
        self.id = identifier
        self.short = identifier[: wire.SHORT_ID]
        self.body = body
        self.signature = signature
        (
            _,
            self.network,
            self.code,
            self.author,
            self.epoch,
            self.sequence,
            self.timestamp_ms,
            self.ttl,
            self.expiry_ms,
            self.recipient,
            self.correlation,
            self.payload,
        ) = fields
        self.kind = wire.KINDS.get(self.code)

    @property
    def slot(self) -> int:
        """The second of signed time it belongs to, see ``seen.py``."""
        return self.timestamp_ms // bounds.DIGEST_SLOT_MS

    def frames(self, ttl: int, hops: int) -> tuple[bytes, bytes, bytes]:
        """What goes on the wire, with the author's bytes untouched."""
        return (wire.envelope_head(ttl, hops), self.body, self.signature)

    def __repr__(self) -> str:
        kind = self.kind.value if self.kind else f"kind {self.code}"
        return f"<Envelope {kind} {self.id.hex()[:12]} by {self.author.hex()[:12]}>"


class Composer:
    """Builds and signs this node's messages: one epoch for its life, sequences from 1 on. A rehearsal leaves a gap.

    ``network``: 32 bytes, see ``wire.network_id``. ``epoch``: Unix seconds of this start, never used before.
    """

    __slots__ = ("_sequence", "_signer", "epoch", "network")

    def __init__(self, signer: Signer, network: bytes, epoch: int) -> None:
        self._signer = signer
        self.network = network
        """The mesh that this node sends to and accepts from; changes at most once, when the node learns its chain."""
        self._sequence = 0
        self.epoch = epoch

    @property
    def public(self) -> PeerKey:
        """The author of everything composed here."""
        return self._signer.public

    def compose(
        self,
        code: int,
        payload: bytes,
        now: Now,
        *,
        ttl: int = 0,
        recipient: PeerKey | None = None,
        correlation: MessageId | None = None,
    ) -> Envelope:
        """A signed envelope stamped with ``now``; ``ttl`` in hops, 0 if it must not be relayed."""
        self._sequence += 1
        fields = wire.Body(
            wire.VERSION,
            self.network,
            code,
            self._signer.public,
            self.epoch,
            self._sequence,
            now.wall_ms,
            ttl,
            None,
            recipient,
            correlation,
            payload,
        )
        body = wire.encode_body(fields)
        identifier = wire.message_id(body)
        return Envelope(identifier, body, self._signer.sign(wire.signing_input(identifier)), fields)
