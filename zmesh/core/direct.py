"""Messages to one peer: repeated until acknowledged, handed over once.

Sender::

    SendDirect -> [link live?] -> sent -> ACK queued        -> DELIVERED
                      |            |  `-> ACK rejected      -> REJECTED   (also: their clock says stale or future)
                      |            `----> ACK busy, silence -> again after a growing wait, same id
                      `-> dial, wait                           ... until the deadline: BACKPRESSURE if they were busy or
                                                               our queue was full, TIMEOUT if it left, else UNREACHABLE

Recipient::

    verified -> application's queue took it? -- yes -> ACK queued, kept for ``RETENTION``, sent again on repetition
                                             `- no  -> ACK busy, nothing kept: the repetition is a new chance

Rules
 1. No ACK says queued or rejected before the signature is verified, and none says queued before the queue has it.
 2. An ACK counts only if it names the message and was signed by the intended recipient.
 3. A repetition carries the same id, so the recipient hands it over once. If the recipient restarts in between, it
    may be handed over again: what was queued in memory was lost with the process.
 4. Timers hold only the id: a message that is settled early must not keep its 64 KiB until the deadline.
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
        """Acknowledgements accepted for verification: an honest recipient sends at most one per attempt."""
        self.again_at = deadline
        self.departed = 0
        """How often the transport accepted it."""
        self.busy = False
        """Whether the last thing learnt is that a queue is full, theirs or ours."""
        self.skew_ms: int | None = None

    def verdict(self) -> SendResult:
        """The result if the deadline comes now."""
        if self.busy:
            return SendResult.BACKPRESSURE
        return SendResult.TIMEOUT if self.departed else SendResult.UNREACHABLE

    def wait(self, bounds: Bounds, chance: float) -> float:
        """Seconds until the next repetition; ``chance`` in [0, 1) spreads it."""
        doubled = bounds.direct_first_retry * 2.0 ** min(self.attempts - 1, 16)
        return min(bounds.direct_max_retry, doubled) * (0.75 + chance / 2)


class Outbox:
    """All direct messages under way. ``ensure`` requests a link and returns whether it is already live."""

    __slots__ = ("_context", "_ensure", "_pending")

    def __init__(self, context: Context, ensure: Callable[[PeerKey, Now], bool]) -> None:
        self._context = context
        self._ensure = ensure
        self._pending: dict[MessageId, Outgoing] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def full(self) -> bool:
        """Whether as many messages are under way as the bounds allow."""
        return len(self._pending) >= self._context.bounds.direct_pending

    def send(self, envelope: Envelope, recipient: PeerKey, token: int, timeout: float, now: Now) -> None:
        """Start sending; ``timeout`` in seconds."""
        outgoing = Outgoing(envelope, recipient, token, now.mono + timeout)
        self._pending[envelope.id] = outgoing
        self._context.timers.note(outgoing.deadline, self._over, envelope.id)
        if self._ensure(recipient, now):
            self._attempt(outgoing, now)

    def link_live(self, key: PeerKey, now: Now) -> None:
        """Messages flow to this peer again: send what was waiting."""
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
        """The transport refused it: our own queue to that peer is full, or just went away."""
        outgoing = self._pending.get(identifier)
        if outgoing is not None:
            outgoing.departed -= 1
            outgoing.busy = True

    def expects(self, ack: Envelope) -> bool:
        """Whether this answers a message under way, is from its recipient, and is the first answer to that attempt."""
        outgoing = None if ack.correlation is None else self._pending.get(ack.correlation)
        if outgoing is None or outgoing.recipient != ack.author or outgoing.answers >= outgoing.attempts:
            return False
        outgoing.answers += 1
        return True

    def acknowledged(self, ack: Envelope, status: AckStatus, skew_ms: int | None) -> None:
        """Settle or update a message by its verified ACK."""
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
        """Give up on recipients that no longer belong."""
        for outgoing in [held for held in self._pending.values() if held.recipient not in self._context.peers]:
            self._resolve(outgoing, SendResult.UNREACHABLE)

    def stop(self) -> None:
        """The node is stopping: every caller gets its answer now."""
        for outgoing in list(self._pending.values()):
            self._resolve(outgoing, outgoing.verdict())

    def _resolve(self, outgoing: Outgoing, result: SendResult) -> None:
        identifier = outgoing.envelope.id
        del self._pending[identifier]
        self._context.out.append(Resolved(outgoing.token, identifier, result, outgoing.skew_ms))


class Inbox:
    """Acknowledgements already given, so that a repetition is answered and not handed over again."""

    __slots__ = ("_acks", "_held", "_limit", "_reserved", "awaiting")

    def __init__(self, bounds: Bounds) -> None:
        self._limit = bounds.direct_acks
        self._reserved = bounds.direct_acks_reserved
        self._acks: dict[MessageId, tuple[float, PeerKey, Frames]] = {}
        self._held: Counter[PeerKey] = Counter()
        self.awaiting: dict[MessageId, Envelope] = {}
        """Messages handed to the application whose ``Receipt`` is outstanding."""

    def answer(self, identifier: MessageId, link: PeerKey) -> Frames | None:
        """The ACK that was given for this message if ``link`` is its author; None if not, or if there was none."""
        held = self._acks.get(identifier)
        return held[2] if held is not None and held[1] == link else None

    def has(self, identifier: MessageId) -> bool:
        """Whether this message was taken already, or is being handed over."""
        return identifier in self._acks or identifier in self.awaiting

    def room(self, author: PeerKey, now: Now) -> bool:
        """Whether one more message of this author can be remembered.

        Only then may it be taken: what is forgotten early could be handed over twice. The first half of the places is
        first come, first served; no author gets more than an even share of the second, so that a few leave room for
        the rest.
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
        """Remember the final ACK of a message."""
        if identifier not in self._acks:
            self._held[author] += 1
        self._acks[identifier] = (now.mono, author, frames)

    def _release(self, author: PeerKey) -> None:
        self._held[author] -= 1
        if not self._held[author]:
            del self._held[author]


def ack_payload(status: AckStatus, skew_ms: int | None) -> Mapping[str, Any]:
    """The payload of an ACK; ``skew_ms``, with STALE and FUTURE only, is the sender's clock minus ours."""
    return {"status": int(status)} if skew_ms is None else {"status": int(status), "skew_ms": skew_ms}


def read_ack(payload: Mapping[str, Any]) -> tuple[AckStatus, int | None] | None:
    """Status and skew of an ACK; None if this version does not understand it."""
    status, skew = payload.get("status"), payload.get("skew_ms")
    if type(status) is not int or status not in AckStatus.__members__.values():
        return None
    return AckStatus(status), skew if type(skew) is int else None
