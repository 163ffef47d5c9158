"""Messages to one peer: repeated until acknowledged, handed over once.

Sender::

    SendDirect -> [link live?] -> sent -> ACK queued        -> DELIVERED
                      |            |  `-> ACK rejected      -> REJECTED   (also: their clock says stale or future)
                      |            `----> ACK busy, silence -> again after a growing wait, same id
                      `-> dial, wait                           ... until the deadline: BACKPRESSURE if they were busy or
                                                               our queue was full, TIMEOUT if it left, else UNREACHABLE

Recipient::

    verified -> application's queue took it? -- yes -> ACK queued, kept for ``RETENTION`` sent again on repetition
                                             `- no  -> ACK busy, nothing kept: the repetition is a new chance

Rules
 1. No ACK before the signature is verified, and none that says queued before the queue has it.
 2. An ACK counts only if it was signed by the recipient that was meant and names the message.
 3. A repetition carries the same id, so the recipient hands it over once. After a restart of the recipient in
    between it may be handed over again: what was queued in memory was lost with it.
 4. The timer gets the id alone: what was settled at once must not keep its 64 KiB until the deadline.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from zmesh.core.actions import Resolved, Send
from zmesh.core.bounds import RETENTION, Bounds
from zmesh.core.context import Context
from zmesh.core.envelope import Envelope
from zmesh.core.now import Now
from zmesh.core.types import AckStatus, Frames, MessageId, PeerKey, SendResult


class Outgoing:
    """One direct message under way."""

    __slots__ = (
        "again_at",
        "answers",
        "attempts",
        "busy",
        "deadline",
        "departed",
        "envelope",
        "recipient",
        "skew_ms",
        "token",
    )

    def __init__(self, envelope: Envelope, recipient: PeerKey, token: int, deadline: float) -> None:
        self.envelope = envelope
        self.recipient = recipient
        self.token = token
        self.deadline = deadline
        self.attempts = 0
        self.answers = 0
        """Acknowledgements taken for verification: one for each attempt is all that an honest recipient sends."""
        self.again_at = deadline
        self.departed = 0
        """How often the transport took it."""
        self.busy = False
        """Was the last thing heard of it that a queue is full, theirs or ours?"""
        self.skew_ms: int | None = None

    def verdict(self) -> SendResult:
        """How it ends when the deadline comes."""
        if self.busy:
            return SendResult.BACKPRESSURE
        return SendResult.TIMEOUT if self.departed else SendResult.UNREACHABLE

    def wait(self, bounds: Bounds, chance: float) -> float:
        """Seconds until the next repetition; ``chance`` in [0, 1) spreads it."""
        doubled = bounds.direct_first_retry * 2.0 ** min(self.attempts - 1, 16)
        return min(bounds.direct_max_retry, doubled) * (0.75 + chance / 2)


class Outbox:
    """All direct messages under way. ``ensure`` makes a link, and says whether it is live already."""

    __slots__ = ("_context", "_ensure", "_pending")

    def __init__(self, context: Context, ensure: Callable[[PeerKey, Now], bool]) -> None:
        self._context = context
        self._ensure = ensure
        self._pending: dict[MessageId, Outgoing] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def full(self) -> bool:
        """Is as much under way as may be?"""
        return len(self._pending) >= self._context.bounds.direct_pending

    def send(self, envelope: Envelope, recipient: PeerKey, token: int, timeout: float, now: Now) -> None:
        """Begin; ``timeout`` in seconds."""
        outgoing = Outgoing(envelope, recipient, token, now.mono + timeout)
        self._pending[envelope.id] = outgoing
        self._context.timers.note(outgoing.deadline, self._over, envelope.id)
        if self._ensure(recipient, now):
            self._attempt(outgoing, now)

    def link_live(self, key: PeerKey, now: Now) -> None:
        """Messages flow to this peer again: send what waited."""
        for outgoing in [held for held in self._pending.values() if held.recipient == key]:
            self._attempt(outgoing, now)

    def _attempt(self, outgoing: Outgoing, now: Now) -> None:
        context = self._context
        outgoing.attempts += 1
        outgoing.departed += 1
        outgoing.busy = False
        frames = outgoing.envelope.frames(0, 0)
        context.out.append(Send((outgoing.recipient,), frames, outgoing.envelope.id, False))
        wait = outgoing.wait(context.bounds, context.rng.random())
        outgoing.again_at = now.mono + wait
        if outgoing.again_at < outgoing.deadline:
            context.timers.note(outgoing.again_at, self._again, outgoing.envelope.id)

    def _again(self, identifier: MessageId, now: Now) -> None:
        outgoing = self._pending.get(identifier)
        if outgoing is None or now.mono < outgoing.again_at:
            return
        if self._ensure(outgoing.recipient, now):
            self._attempt(outgoing, now)

    def _over(self, identifier: MessageId, now: Now) -> None:
        outgoing = self._pending.get(identifier)
        if outgoing is not None:
            self._resolve(outgoing, outgoing.verdict())

    def refused(self, identifier: MessageId) -> None:
        """The transport did not take it: our own queue to that peer is full, or just went."""
        outgoing = self._pending.get(identifier)
        if outgoing is not None:
            outgoing.departed -= 1
            outgoing.busy = True

    def expects(self, ack: Envelope) -> bool:
        """Is this an answer to something under way, from the one it went to, and the first to that attempt?"""
        outgoing = None if ack.correlation is None else self._pending.get(ack.correlation)
        if outgoing is None or outgoing.recipient != ack.author or outgoing.answers >= outgoing.attempts:
            return False
        outgoing.answers += 1
        return True

    def acknowledged(self, ack: Envelope, status: AckStatus, skew_ms: int | None) -> None:
        """A verified ACK."""
        outgoing = None if ack.correlation is None else self._pending.get(ack.correlation)
        if outgoing is None:
            return
        if status is AckStatus.QUEUED:
            self._resolve(outgoing, SendResult.DELIVERED)
        elif status is AckStatus.BUSY:
            outgoing.busy = True
        else:
            outgoing.skew_ms = skew_ms
            self._resolve(outgoing, SendResult.REJECTED)

    def forget(self) -> None:
        """Give up on those who no longer belong."""
        for outgoing in [held for held in self._pending.values() if held.recipient not in self._context.peers]:
            self._resolve(outgoing, SendResult.UNREACHABLE)

    def stop(self) -> None:
        """The node ends: every caller gets its answer now."""
        for outgoing in list(self._pending.values()):
            self._resolve(outgoing, outgoing.verdict())

    def _resolve(self, outgoing: Outgoing, result: SendResult) -> None:
        identifier = outgoing.envelope.id
        del self._pending[identifier]
        self._context.out.append(Resolved(outgoing.token, identifier, result, outgoing.skew_ms))


class Inbox:
    """Acknowledgements given, so that a repetition is answered and not handed over again."""

    __slots__ = ("_acks", "_held", "_limit", "_reserved", "awaiting")

    def __init__(self, bounds: Bounds) -> None:
        self._limit = bounds.direct_acks
        self._reserved = bounds.direct_acks_reserved
        self._acks: dict[MessageId, tuple[float, PeerKey, Frames]] = {}
        self._held: Counter[PeerKey] = Counter()
        self.awaiting: dict[MessageId, Envelope] = {}
        """Handed to the application, its ``Receipt`` not yet in."""

    def answer(self, identifier: MessageId, link: PeerKey) -> Frames | None:
        """The ACK that the author of this message was given; None for others, or if there was none."""
        held = self._acks.get(identifier)
        return held[2] if held is not None and held[1] == link else None

    def has(self, identifier: MessageId) -> bool:
        """Was this message taken already, or is it being taken?"""
        return identifier in self._acks or identifier in self.awaiting

    def room(self, author: PeerKey, now: Now) -> bool:
        """Can one more of this author be remembered?

        Only then may it be taken: what is forgotten early could be handed over twice. Half of the places are for
        whoever comes; of the other half nobody has more than an even share, so that a few leave room for the rest.
        """
        acks = self._acks
        while acks:
            oldest = next(iter(acks))
            if now.mono - acks[oldest][0] < RETENTION:
                break
            self._release(acks.pop(oldest)[1])
        taken, mine = len(acks) + len(self.awaiting), self._held[author]
        if taken < self._limit // 2 or mine < self._reserved:
            return True
        return taken < self._limit and mine < self._limit // (2 * max(1, len(self._held)))

    def keep(self, identifier: MessageId, author: PeerKey, frames: Frames, now: Now) -> None:
        """Remember the last word on a message."""
        if identifier not in self._acks:
            self._held[author] += 1
        self._acks[identifier] = (now.mono, author, frames)

    def _release(self, author: PeerKey) -> None:
        self._held[author] -= 1
        if not self._held[author]:
            del self._held[author]


def ack_payload(status: AckStatus, skew_ms: int | None) -> Mapping[str, Any]:
    """What an ACK says; ``skew_ms`` is the sender's clock minus ours, with STALE and FUTURE only."""
    return {"status": int(status)} if skew_ms is None else {"status": int(status), "skew_ms": skew_ms}


def read_ack(payload: Mapping[str, Any]) -> tuple[AckStatus, int | None] | None:
    """Status and skew of an ACK; None if it is not one that this version understands."""
    status, skew = payload.get("status"), payload.get("skew_ms")
    if type(status) is not int or status not in AckStatus.__members__.values():
        return None
    return AckStatus(status), skew if type(skew) is int else None
