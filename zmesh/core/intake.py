"""What a frame goes through: the checks, in order, and their outcomes.

A gossip frame passes these, in this order; each failure is one ``DropReason``:

 1. the link's rate                    RATE, nobody's fault: an honest relay does not choose what authors send
 2. the link is still admitted         NOT_ADMITTED, and it is hung up
 3. shape and bounds                   MALFORMED or OVERSIZE, the link's fault; UNKNOWN_FRAME, UNKNOWN_VERSION, nobody's
 4. not seen before                    DUPLICATE: note that the link has it. Microseconds, and no signature is checked
 5. network, author, time, ttl, epoch  WRONG_NETWORK, UNKNOWN_AUTHOR, STALE, FUTURE, EXPIRED, BEFORE_START, OLD_EPOCH,
                                       BELOW_LOW_WATER: nobody's fault; TTL_INFLATED: the link's; AUTHOR_RATE
 6. the signature                      BAD_SIGNATURE, the link's fault: it should have verified
 7. only now is it charged to its author's rate and, before any other event, marked seen. If it were marked earlier, a
    message could be suppressed by sending it first with a junk signature: the id does not cover the signature
 8. the validator of its type          BAD_PAYLOAD, REJECTED, the author's fault; IGNORED
 9. relay, offer, deliver              LOW_REPUTATION, UNKNOWN_KIND, RELAYED_ONLY: relayed but not delivered

Signatures are verified on the spot, unless the shell wants to spread them over threads: then admission and *seen* are
checked again when the answer comes, and the age too if that took long.
Direct messages, HELLO and ACK differ, mostly in steps 4 and 5; see ``_check_direct``, ``_hello`` and PROTOCOL.md (7).

Every gossip or direct message ends as a delivery or as one drop, plus a fault if a peer is to blame.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from zmesh.core import wire
from zmesh.core.actions import Deliver, Send, Verify
from zmesh.core.behaviours import Behaviours
from zmesh.core.bounds import AHEAD, AHEAD_MS, PAST_MS, RETENTION
from zmesh.core.context import Context
from zmesh.core.direct import Inbox, Outbox, ack_payload, read_ack
from zmesh.core.envelope import Envelope
from zmesh.core.errors import WireError
from zmesh.core.events import FrameReceived, Receipt, Verified
from zmesh.core.gossip import Gossip
from zmesh.core.limits import TokenBucket
from zmesh.core.link import Link
from zmesh.core.links import Links
from zmesh.core.now import Now
from zmesh.core.types import AckStatus, DropReason, Fault, Member, MessageId, PeerKey, Verdict
from zmesh.core.wants import Wants

RECHECK = 0.1
"""Seconds of verification after which the age of a message is checked again."""
CONTROL_UNIT = 32
"""Bytes of a control frame that count as one more frame of the link's rate: two ids, as much work as a duplicate."""


class _Copy:
    """A message on its way through the checks: the envelope, and how this copy of it arrived."""

    __slots__ = ("accept", "bucket", "checked_at", "envelope", "hops", "link", "parked", "pulled", "ttl", "units")

    def __init__(self, envelope: Envelope, link: PeerKey, ttl: int, hops: int) -> None:
        self.envelope = envelope
        self.link = link
        self.ttl = ttl
        self.hops = hops
        self.pulled = False
        self.checked_at = 0.0
        """When it was last found to be timely, in monotonic seconds."""
        self.bucket: TokenBucket | None = None
        """Its author's rate limit, charged once the signature is verified; None for this node's own messages."""
        self.units = 1.0
        """How much of that it takes."""
        self.accept: Callable[[_Copy, Now], None]
        self.parked: tuple[_Copy, ...] = ()


class Intake:
    """Checks frames from links, and passes what is good to gossip, direct messages, links and handlers."""

    __slots__ = (
        "_behaviours",
        "_composer",
        "_context",
        "_epochs",
        "_gossip",
        "_inbox",
        "_links",
        "_me",
        "_out",
        "_outbox",
        "_peers",
        "_rates",
        "_seen",
        "_verify_now",
        "_verifying",
        "_wants",
        "asks",
    )

    def __init__(
        self, context: Context, gossip: Gossip, wants: Wants, links: Links, outbox: Outbox, behaviours: Behaviours
    ) -> None:
        self._context = context
        self._composer = context.composer
        self._me = context.composer.public
        self._out = context.out
        self._peers = context.peers
        self._seen = context.seen
        self._gossip = gossip
        self._wants = wants
        self._links = links
        self._outbox = outbox
        self._behaviours = behaviours
        self._verify_now = context.verify
        self.asks = False
        """Whether the shell is to verify, and so is asked by actions."""
        self._inbox = Inbox(context.bounds)
        self._verifying: dict[MessageId, _Copy] = {}
        """Copies whose signature is out for verification: one at a time for each message."""
        self._rates = context.rates
        self._epochs: dict[PeerKey, tuple[int, float]] = {}
        """Per author: its newest epoch, and the monotonic time since when older ones run out."""

    def retain(self, accounts: Collection[str]) -> None:
        """Membership changed: drop the state of accounts and authors that no longer belong."""
        self._rates.retain(accounts)
        for author in [author for author in self._epochs if author not in self._peers]:
            del self._epochs[author]

    # ------------------------------------------------------------ frames in

    def frame(self, event: FrameReceived, now: Now) -> None:
        """One message came over a link."""
        key, frames = event.link, event.frames
        link = self._context.links.get(key)
        if link is None:  # a peer that no longer belongs lost its link with its membership
            self._context.drop(DropReason.NOT_ADMITTED, key)
            self._links.refuse(key)
            return
        link.heard_at = now.mono
        if not link.bucket.take(now.mono):
            self._context.drop(DropReason.RATE, key)
            return
        try:
            kind = wire.frame_type(frames)
            if kind != wire.ENVELOPE:
                self._control(link, kind, frames[1], now)
                return
            copy = self._copy(link, frames, now)
        except WireError as error:
            self._context.drop(error.reason, key)
            if error.reason in (DropReason.MALFORMED, DropReason.OVERSIZE):
                self._context.blame(key, Fault.MALFORMED, now)
            return
        if copy is not None:
            self._check(copy, link, now)

    def _control(self, link: Link, kind: int, data: bytes, now: Now) -> None:
        if not link.bucket.take(now.mono, len(data) / CONTROL_UNIT):
            self._context.drop(DropReason.RATE, link.key)
        elif kind == wire.IHAVE:
            self._wants.offered(link, wire.decode_ids(data), now)
        elif kind == wire.IWANT:
            self._gossip.wanted(link, wire.decode_ids(data), now)
        elif kind == wire.DIGEST:
            self._gossip.compared(link, wire.decode_digest(data), now)
        elif kind == wire.LIST:
            self._gossip.listing(link, wire.decode_slots(data), now)
        else:
            self._links.left(link, now)

    def _copy(self, link: Link, frames: Sequence[bytes], now: Now) -> _Copy | None:
        """Steps 3 and 4: the message, or None if it was seen before. Raises ``WireError``."""
        head, body, signature = frames
        ttl, hops = head[1], head[2]
        identifier = wire.message_id(body)
        seen = self._seen.get(identifier[: wire.SHORT_ID])
        if seen is not None:  # step 4; it was decoded when it first came, so it need not be decoded again
            self._context.drop(DropReason.DUPLICATE, link.key, identifier)
            seen.held_by(link.key)
            if seen.relayed_ttl == 0 and ttl <= seen.ttl:
                self._gossip.relay(seen, ttl, hops, now)
            return None
        return _Copy(Envelope(identifier, body, signature, wire.decode_body(body)), link.key, ttl, hops)

    def _check(self, copy: _Copy, link: Link, now: Now) -> None:
        envelope, identifier = copy.envelope, copy.envelope.id
        if envelope.network != self._composer.network:
            self._context.drop(DropReason.WRONG_NETWORK, link.key, identifier)
        elif envelope.recipient is None:
            self._check_gossip(copy, now)
        elif envelope.recipient != self._me:
            self._context.drop(DropReason.WRONG_RECIPIENT, link.key, identifier)
            self._context.blame(link.key, Fault.MISROUTED_DIRECT, now)
        elif envelope.author != link.key:
            self._context.drop(DropReason.NOT_FROM_AUTHOR, link.key, identifier)
            self._context.blame(link.key, Fault.MISROUTED_DIRECT, now)
        elif envelope.code == wire.HELLO_CODE:
            if self._links.expects(link, envelope, now):
                self._verify(copy, self._hello, now)
        elif envelope.code == wire.ACK_CODE:
            if self._outbox.expects(envelope):
                self._verify(copy, self._ack, now)
            else:
                self._context.drop(DropReason.UNASKED_ACK, link.key, identifier)
        else:
            self._check_direct(copy, now)

    # ------------------------------------------------------------ steps 5 to 9, gossip

    def _check_gossip(self, copy: _Copy, now: Now) -> None:
        envelope = copy.envelope
        copy.pulled = self._wants.answers(envelope.short, copy.link, now)
        author = self._peers.author(envelope.author)
        if copy.ttl > envelope.ttl:
            self._context.drop(DropReason.TTL_INFLATED, copy.link, envelope.id)
            self._context.blame(copy.link, Fault.TTL_INFLATED, now)
        elif author is None:
            self._pass_over(copy, DropReason.UNKNOWN_AUTHOR, now)
        elif (reason := self._untimely(envelope, now, pulled=copy.pulled)) is not None:
            self._pass_over(copy, reason, now)
        elif author.key != self._me and not self._affords(
            copy, self._rates.gossip(author), self._rates.weight(envelope), now
        ):
            self._pass_over(copy, DropReason.AUTHOR_RATE, now)
        else:
            copy.checked_at = now.mono
            self._verify(copy, self._accept_gossip, now)

    def _pass_over(self, copy: _Copy, reason: DropReason, now: Now) -> None:
        """No copy would be accepted now, so no link is asked for one: links that offered it kept their word."""
        self._context.drop(reason, copy.link, copy.envelope.id)
        if reason is not DropReason.BEFORE_START:  # that one is accepted from a link that was asked for it
            self._wants.arrived(copy.envelope.short, now)

    def _untimely(self, envelope: Envelope, now: Now, *, pulled: bool) -> DropReason | None:
        """Why it is too old, too new, or from an earlier life of its author; None if it is timely."""
        stamp, wall_ms = envelope.timestamp_ms, now.wall_ms
        if stamp < wall_ms - PAST_MS:
            return DropReason.STALE
        if stamp > wall_ms + AHEAD_MS or envelope.epoch > now.wall + AHEAD:
            return DropReason.FUTURE
        if envelope.expiry_ms is not None and envelope.expiry_ms < wall_ms:
            return DropReason.EXPIRED
        if not pulled and stamp < self._context.started_ms - AHEAD_MS:
            return DropReason.BEFORE_START
        newest, since = self._epochs.get(envelope.author, (0, 0.0))
        if envelope.epoch < newest and now.mono > since + RETENTION:
            return DropReason.OLD_EPOCH
        if self._seen.below_low_water(envelope):
            return DropReason.BELOW_LOW_WATER
        return None

    def _accept_gossip(self, copy: _Copy, now: Now) -> None:
        """Steps 7 to 9: the signature is good."""
        envelope, link = copy.envelope, copy.link
        author = self._peers.author(envelope.author)
        if author is None:
            self._pass_over(copy, DropReason.UNKNOWN_AUTHOR, now)
            return
        if now.mono - copy.checked_at > RECHECK:
            reason = self._untimely(envelope, now, pulled=copy.pulled)
            if reason is not None:
                self._pass_over(copy, reason, now)
                return
        if self._seen.get(envelope.short) is not None:
            self._context.drop(DropReason.DUPLICATE, link, envelope.id)
            return
        if copy.bucket is not None and not copy.bucket.take(now.mono, copy.units):
            self._pass_over(copy, DropReason.AUTHOR_RATE, now)
            return
        self._note_life(envelope, now)
        verdict, payload = self._judge(copy, author, now)
        carried = verdict in (Verdict.ACCEPT, Verdict.RELAY)
        if carried and self._gossip.is_flooded(envelope.body):
            self._context.rest.append(partial(self._keep, copy, carried, now))
        else:
            self._keep(copy, carried, now)  # other nodes wait until this one passes it on
        if not carried or payload is None:
            return  # without a payload it is of an unknown kind, which is already counted
        if author.key == self._me:
            # Ours, from before a restart, brought back by repair: no news to the application, but a vote that we cast
            # then is still our vote.
            self._context.drop(DropReason.OWN_ECHO, link, envelope.id)
            self._context.outlived |= envelope.epoch > self._context.composer.epoch
            self._behaviours.received(envelope, author, payload, now)
        else:
            self._take(copy, author, payload, verdict, now)

    def _keep(self, copy: _Copy, carried: bool, now: Now) -> None:
        """Steps 7 and 9: it is seen from now on, and relayed and offered if the mesh may carry it."""
        entry = self._seen.add(copy.envelope, copy.link, keep=carried)
        self._wants.arrived(copy.envelope.short, now)
        if carried:
            self._gossip.carry(entry, copy.ttl, copy.hops, now)

    def _judge(self, copy: _Copy, author: Member, now: Now) -> tuple[Verdict, Mapping[str, Any] | None]:
        """Step 8: whether the mesh may carry it, and its payload; None for an unknown kind or a bad payload."""
        envelope = copy.envelope
        if envelope.kind is None:
            self._context.drop(DropReason.UNKNOWN_KIND, copy.link, envelope.id)
            return Verdict.RELAY, None
        try:
            payload = wire.decode_payload(envelope.payload)
        except WireError:
            self._context.drop(DropReason.BAD_PAYLOAD, copy.link, envelope.id)
            self._context.blame(envelope.author, Fault.INVALID_MESSAGE, now)
            return Verdict.REJECT, None
        verdict = self._behaviours.validate(envelope, author, payload, now)
        if verdict is Verdict.REJECT:
            self._context.drop(DropReason.REJECTED, copy.link, envelope.id)
            self._context.blame(envelope.author, Fault.INVALID_MESSAGE, now)
        elif verdict is Verdict.IGNORE:
            self._context.drop(DropReason.IGNORED, copy.link, envelope.id)
        return verdict, payload

    def _take(self, copy: _Copy, author: Member, payload: Mapping[str, Any], verdict: Verdict, now: Now) -> None:
        """Step 9, locally: the application, and the built-in handler.

        The handler sees gossip by ignored authors too: reputation differs between nodes, and a tally must not.
        """
        envelope = copy.envelope
        direct = envelope.recipient is not None
        if self._peers.is_ignored(author, now.mono):
            self._context.drop(DropReason.LOW_REPUTATION, copy.link, envelope.id)
            if direct:
                self._acknowledge(envelope, AckStatus.REJECTED, now)
                return
        elif verdict is Verdict.ACCEPT:
            if direct:
                self._inbox.awaiting[envelope.id] = envelope
            self._out.append(Deliver(envelope, author, payload, direct))
        else:
            self._context.drop(DropReason.RELAYED_ONLY, copy.link, envelope.id)
            if direct:
                self._acknowledge(envelope, AckStatus.REJECTED, now)
        self._behaviours.received(envelope, author, payload, now)

    # ------------------------------------------------------------ steps 4 to 9, direct

    def _check_direct(self, copy: _Copy, now: Now) -> None:
        envelope = copy.envelope
        member = self._peers.get(envelope.author)
        if self._inbox.has(envelope.id):  # step 4: a repetition is answered as it was before
            self._context.drop(DropReason.DUPLICATE, copy.link, envelope.id)
            answer = self._inbox.answer(envelope.id, copy.link)
            if answer is not None:
                self._out.append(Send((copy.link,), answer, None, False))
            return
        # Only its author can send it, so no other peer can replay what an earlier life of this node may have taken.
        reason = self._untimely(envelope, now, pulled=True)
        if member is None:
            self._context.drop(DropReason.UNKNOWN_AUTHOR, copy.link, envelope.id)
        elif reason is not None:
            self._context.drop(reason, copy.link, envelope.id)
            status = AckStatus.FUTURE if reason is DropReason.FUTURE else AckStatus.STALE
            self._turn_away(copy, status, now, skew_ms=envelope.timestamp_ms - now.wall_ms)
        elif not (self._affords(copy, self._rates.direct(member), 1.0, now) and self._inbox.room(member.key, now)):
            self._context.drop(DropReason.AUTHOR_RATE, copy.link, envelope.id)
            self._turn_away(copy, AckStatus.BUSY, now)
        else:
            self._verify(copy, self._accept_direct, now)

    def _turn_away(self, copy: _Copy, status: AckStatus, now: Now, *, skew_ms: int | None = None) -> None:
        """Answer a message before verifying it: the link proves its author. Rate-limited, as each answer is signed."""
        if self._context.links[copy.link].refusals.take(now.mono):
            self._acknowledge(copy.envelope, status, now, skew_ms=skew_ms)

    def _accept_direct(self, copy: _Copy, now: Now) -> None:
        envelope = copy.envelope
        member = self._peers.get(envelope.author)
        if member is None:
            self._context.drop(DropReason.UNKNOWN_AUTHOR, copy.link, envelope.id)
            return
        if self._inbox.has(envelope.id):
            self._context.drop(DropReason.DUPLICATE, copy.link, envelope.id)
            return
        self._note_life(envelope, now)
        if copy.bucket is not None and not copy.bucket.take(now.mono, copy.units):
            self._context.drop(DropReason.AUTHOR_RATE, copy.link, envelope.id)
            self._acknowledge(envelope, AckStatus.BUSY, now)
            return
        verdict, payload = self._judge(copy, member, now)
        if payload is not None and verdict in (Verdict.ACCEPT, Verdict.RELAY):
            self._take(copy, member, payload, verdict, now)
        else:
            self._acknowledge(envelope, AckStatus.REJECTED, now)

    def receipt(self, event: Receipt, now: Now) -> None:
        """The application took a direct message, or refused any message: the author of a direct one is answered now."""
        envelope = self._inbox.awaiting.pop(event.message_id, None)
        if not event.queued:
            self._context.drop(DropReason.APPLICATION_BUSY, event.author, event.message_id)
        if envelope is None:
            return
        self._acknowledge(envelope, AckStatus.QUEUED if event.queued else AckStatus.BUSY, now)

    def _acknowledge(self, envelope: Envelope, status: AckStatus, now: Now, *, skew_ms: int | None = None) -> None:
        payload = wire.encode_payload(ack_payload(status, skew_ms))
        ack = self._composer.compose(wire.ACK_CODE, payload, now, recipient=envelope.author, correlation=envelope.id)
        frames = ack.frames(0, 0)
        if status in (AckStatus.QUEUED, AckStatus.REJECTED):  # final: repeated unchanged, judged once
            self._inbox.keep(envelope.id, envelope.author, frames, now)
        self._out.append(Send((envelope.author,), frames, None, False))

    def _ack(self, copy: _Copy, now: Now) -> None:
        self._note_life(copy.envelope, now)
        try:
            answer = read_ack(wire.decode_payload(copy.envelope.payload))
        except WireError:
            answer = None
        if answer is None:
            self._context.drop(DropReason.BAD_PAYLOAD, copy.link, copy.envelope.id)
            return
        self._outbox.acknowledged(copy.envelope, *answer)

    def _hello(self, copy: _Copy, now: Now) -> None:
        link = self._context.links.get(copy.link)
        if link is None or not link.is_open:
            # Its connection ended while the signature was out: nothing can flow over it any more.
            self._context.drop(DropReason.NOT_ADMITTED, copy.link, copy.envelope.id)
            return
        self._note_life(copy.envelope, now)
        self._links.hello(link, copy.envelope, now)

    # ------------------------------------------------------------ step 6

    def _verify(self, copy: _Copy, accept: Callable[[_Copy, Now], None], now: Now) -> None:
        """Verify the signature, or ask for it: for one copy of a message at a time."""
        envelope = copy.envelope
        identifier = envelope.id
        copy.accept = accept
        first = self._verifying.get(identifier)
        if first is not None:
            parked = first.parked
            if len(parked) < self._context.bounds.parked and all(copy.link != other.link for other in (first, *parked)):
                first.parked = (*parked, copy)
            else:
                self._context.drop(DropReason.DUPLICATE, copy.link, identifier)
            return
        if self._verify_now is not None and not self.asks:
            ok = self._verify_now(envelope.author, wire.signing_input(identifier), envelope.signature)
            self._settle(copy, ok, now)
        elif len(self._verifying) >= self._context.bounds.verifying:
            self._pass_over(copy, DropReason.VERIFY_BACKLOG, now)
        else:
            self._verifying[identifier] = copy
            self._out.append(Verify(identifier, envelope.author, wire.signing_input(identifier), envelope.signature))

    def verified(self, event: Verified, now: Now) -> None:
        """The shell verified a signature."""
        copy = self._verifying.pop(event.message_id, None)
        if copy is not None:
            self._settle(copy, event.ok, now)

    def _settle(self, copy: _Copy, ok: bool, now: Now) -> None:
        """A signature is good or bad: settle this copy, then settle or verify those that waited for it."""
        envelope, parked = copy.envelope, copy.parked
        at_home = envelope.network == self._composer.network
        if ok and at_home and copy.link in self._peers:
            copy.accept(copy, now)
            if parked:
                self._context.finish()
                entry = self._seen.get(envelope.short)
                for other in parked:
                    self._context.drop(DropReason.DUPLICATE, other.link, envelope.id)
                    if entry is not None:
                        entry.held_by(other.link)
            return
        same: list[_Copy] = []
        if ok:
            reason = DropReason.NOT_ADMITTED if at_home else DropReason.WRONG_NETWORK
            self._context.drop(reason, copy.link, envelope.id)
        else:
            same = [other for other in parked if other.envelope.signature == envelope.signature]
            for forged in (copy, *same):
                self._context.drop(DropReason.BAD_SIGNATURE, forged.link, envelope.id)
                self._context.blame(forged.link, Fault.RELAYED_FORGERY, now)
        waiting = [other for other in parked if other not in same]
        if waiting:  # one at a time: verified on the spot, a second would be accepted before the first is remembered
            first, *others = waiting
            first.parked = tuple(others)
            self._verify(first, first.accept, now)

    # ------------------------------------------------------------ helpers that several steps need

    def _note_life(self, envelope: Envelope, now: Now) -> None:
        self._peers.heard(envelope.author, now.mono)
        newest = self._epochs.get(envelope.author)
        if envelope.recipient is not None:
            return  # a node whose key lives on elsewhere must learn of it, and only gossip also reaches its author
        if newest is None or envelope.epoch > newest[0]:
            self._epochs[envelope.author] = (envelope.epoch, now.mono)

    def _affords(self, copy: _Copy, bucket: TokenBucket, units: float, now: Now) -> bool:
        """Whether its author's rate has room for it. Nothing is taken until the signature is verified (step 7)."""
        copy.bucket = bucket
        copy.units = units
        return bucket.has(now.mono, units)
