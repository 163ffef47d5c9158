"""Keeps this node connected: chooses neighbours, dials, greets, watches liveness, and lets go.

Rules
 1. The two directions (our dial, their connection) open and close independently. A link is open while either of
    them is; ours is redialled, with backoff, as long as the peer is wanted and ours is down.
 2. Before their HELLO comes, we send only HELLO and answers. Theirs, signed by the link's key and naming us, proves
    that the far end is the Ed25519 identity and not just a holder of the same X25519 image, and that both directions
    work.
 3. A HELLO that is not an answer is answered. Its clock is noted, not judged: a clock that is off is reported to the
    operator, and the link stays.
 4. Digests every few seconds double as the sign of life: a link that is silent for ``SILENCE`` of them is closed.
 5. A HELLO from a peer that we wait to redial is the best news there is: we dial at once.
 6. A connection of ours that lasted ``redial_max`` makes up for the failures before it. One that opens only to end
    again does not: handshakes are expensive, and a member could make us repeat them endlessly. Refusals from the time
    before we belonged count for nothing once we do.
"""

from __future__ import annotations

from collections.abc import Callable

from zmesh.core import wire
from zmesh.core.actions import Dial, Hangup, LinkDown, LinkLive, Notice, Send
from zmesh.core.bounds import AHEAD
from zmesh.core.context import Context
from zmesh.core.envelope import Envelope
from zmesh.core.events import LinkClosed, LinkOpened
from zmesh.core.gossip import Gossip
from zmesh.core.link import Link, LinkState
from zmesh.core.now import Now
from zmesh.core.timers import NEVER
from zmesh.core.types import DropReason, Member, PeerKey
from zmesh.core.wants import Wants

SILENCE = 4
"""Digest intervals without any frame after which a link is considered dead."""
HELLO_AGAIN = 1.0
"""Seconds until a HELLO is repeated: the connection may have been replaced under it."""
HELLO_GAP = 0.05
"""Minimum seconds between HELLOs of one link that we process: each costs a verification and a signature."""
HURRY = 5.0
"""Minimum seconds between dials out of turn: a peer states its own address, and could make us all flood another's."""
BANNED = "its reputation is too low"
"""Why a link to a peer below ``drop_below`` is down. It is banned until its reputation has healed that far."""
AFTER_LEAVE = 3
"""Failures that a LEAVE counts for: a peer that said goodbye is not expected back within a second or two."""


class Links:
    """All links of this node. ``on_live`` is called with the key of each link that becomes live."""

    __slots__ = ("_context", "_gossip", "_on_live", "_wants")

    def __init__(self, context: Context, gossip: Gossip, wants: Wants, on_live: Callable[[PeerKey, Now], None]) -> None:
        self._context = context
        self._gossip = gossip
        self._wants = wants
        self._on_live = on_live

    # ------------------------------------------------------------ choosing

    def choose(self, now: Now) -> None:
        """Membership changed: drop links to peers that no longer belong, and dial the neighbours that we want."""
        context = self._context
        for key in [key for key in context.links if key not in context.peers]:
            self._remove(context.links[key], "no longer a member", now)
        wanted = context.peers.neighbours(context.links, context.rng)
        for key in wanted:
            link = context.links.get(key)
            is_news = link is None or not link.wanted
            if link is None:
                link = context.links[key] = Link(key, context.bounds)
            link.wanted = True
            link.idle_at = None
            if not link.outbound:
                if is_news:
                    self._dial_at(link, now.mono)
                else:  # it may have another address now
                    self._hurry(link, now)
        for key in context.links.keys() - set(wanted):
            link = context.links[key]
            if link.wanted:  # crowded out by a mesh that outgrew ``max_links``: it may go when it is idle
                link.wanted = False
                link.idle_at = now.mono + context.bounds.direct_idle

    def readmitted(self, now: Now) -> None:
        """This node belongs again: reset every backoff, as some peers learn of it after us and refuse us until then."""
        for link in self._context.links.values():
            link.failures = 0
            if link.wanted and not link.outbound:
                self._dial_at(link, now.mono)

    def ensure(self, key: PeerKey, now: Now) -> bool:
        """Whether this member is reachable now. If not, a link to it is made and kept for as long as it is of use."""
        context = self._context
        link = context.links.get(key)
        if link is None:
            link = context.links[key] = Link(key, context.bounds)
        if not link.wanted:
            link.idle_at = now.mono + context.bounds.direct_idle
        if link.is_live:
            return True
        if link.state is LinkState.AWAY:
            if link.redial_at == NEVER:
                self._dial_at(link, now.mono)
            else:  # the pause before the next dial may outlast the message
                self._hurry(link, now)
        return False

    # ------------------------------------------------------------ dialling

    def _dial_at(self, link: Link, at: float) -> None:
        if at < link.redial_at:
            link.redial_at = at
            self._context.timers.note(at, self._dial, link)

    def _dial(self, link: Link, now: Now) -> None:
        context = self._context
        if now.mono < link.redial_at or context.links.get(link.key) is not link:
            return
        link.redial_at = NEVER
        if link.outbound or link.dialling or not (link.wanted or link.idle_at is not None):
            return
        member = context.peers.get(link.key)
        if member is None:
            return
        if self._is_banned(member, now):
            link.why = BANNED
            self._dial_at(link, now.mono + context.bounds.redial_max)
            return
        endpoints = context.peers.endpoints(member)
        if not endpoints:
            link.why = "no address is known"
            self._dial_at(link, now.mono + context.bounds.redial_max)
            return
        link.dialling = True
        context.out.append(Dial(link.key, endpoints))

    def located(self, key: PeerKey, now: Now) -> None:
        """A new address of this member was learnt: try it now, unless we are connected."""
        link = self._context.links.get(key)
        if link is not None and link.wanted and not link.outbound:
            self._hurry(link, now, or_soon=True)

    def _hurry(self, link: Link, now: Now, *, or_soon: bool = False) -> None:
        """Dial at once instead of when it is due, unless that was done within ``HURRY`` seconds; or, as soon as they
        are over."""
        member = self._context.peers.get(link.key)
        if member is None or not self._context.peers.endpoints(member):
            return  # an address, once it is known, is a reason of its own
        at = max(now.mono, link.hurried_at + HURRY)
        if at < link.redial_at and (or_soon or at == now.mono):
            link.hurried_at = at
            self._dial_at(link, at)

    # ------------------------------------------------------------ opening

    def opened(self, event: LinkOpened, now: Now) -> None:
        """A connection is up: greet."""
        context = self._context
        link = context.links.get(event.link)
        member = context.peers.get(event.link)
        if member is not None and self._is_banned(member, now):
            # It dialled us again after it was cut; we do not dial it before its score has healed.
            context.out.append(Hangup(event.link, BANNED))
            if link is not None:
                self._down(link, BANNED, now)
            return
        if link is None:
            if event.link not in context.peers:
                self.refuse(event.link)
                return
            if len(context.links) >= context.bounds.max_links:
                context.out.append(Hangup(event.link, "no room for more links"))
                context.out.append(Notice("link_refused", {"peer": event.link.hex(), "why": "max_peers reached"}))
                return
            link = context.links[event.link] = Link(event.link, context.bounds)
        is_first = not link.is_open
        if event.inbound:
            link.inbound = True
        else:
            link.outbound = True
            link.outbound_at = now.mono
            link.dialling = False
        link.heard_at = now.mono
        if is_first:
            link.opened_at = now.mono
            link.why = "connected, no HELLO yet"
            self._greet(link, None, now)
            context.timers.note(now.mono + HELLO_AGAIN, self._hello_due, link)

    def _greet(self, link: Link, answering: bytes | None, now: Now) -> None:
        payload = wire.encode_payload({"versions": [wire.VERSION]})
        hello = self._context.composer.compose(wire.HELLO_CODE, payload, now, recipient=link.key, correlation=answering)
        if answering is None:
            link.hello_id = hello.id
            link.hello_at = now.mono
            link.awaits_answer = True
        self._context.out.append(Send((link.key,), hello.frames(0, 0), None, False))

    def _hello_due(self, link: Link, now: Now) -> None:
        if link.state is not LinkState.OPEN or now.mono < link.hello_at + HELLO_AGAIN:
            return
        if now.mono - link.opened_at >= self._context.bounds.hello_timeout:
            self._context.out.append(Hangup(link.key, "no HELLO"))
            self._down(link, "it did not answer our HELLO", now)
        else:
            self._greet(link, None, now)
            self._context.timers.note(now.mono + HELLO_AGAIN, self._hello_due, link)

    def expects(self, link: Link, hello: Envelope, now: Now) -> bool:
        """Whether this HELLO is worth a verification. The first answer to ours is; others only now and then."""
        if link.awaits_answer and self._answers(link, hello, now):
            link.awaits_answer = False
            return True
        if now.mono - link.greeted_at >= HELLO_GAP:
            link.greeted_at = now.mono  # not after verifying: of many that come at once, one is verified
            return True
        self._context.drop(DropReason.RATE, link.key, hello.id)
        return False

    def _answers(self, link: Link, hello: Envelope, now: Now) -> bool:
        """Whether it answers our last HELLO, and in time: a late answer could feign any round trip."""
        if hello.correlation is None or hello.correlation != link.hello_id:
            return False
        return now.mono - link.hello_at <= self._context.bounds.hello_timeout

    def hello(self, link: Link, hello: Envelope, now: Now) -> None:
        """Their HELLO, verified: the link is live."""
        context = self._context
        link.skew = hello.timestamp_ms / 1000 - now.wall
        if abs(link.skew) > AHEAD:
            context.out.append(Notice("clock_skew", {"peer": link.key.hex(), "ahead_seconds": round(link.skew, 3)}))
        if self._answers(link, hello, now):
            link.rtt = now.mono - link.hello_at
            link.hello_id = None
        elif hello.correlation is None:
            # Unsolicited: a new connection, perhaps of a new process, which knows nothing of what was agreed before. An
            # answer that comes too late is not answered again, or two slow ends would greet each other forever.
            self._wants.lost(link, now)
            self._greet(link, hello.id, now)
        if not link.is_live:
            link.is_live = True
            link.why = ""
            self._refresh_live()
            context.out.append(LinkLive(link.key))
            self._on_live(link.key, now)
        self._gossip.greeted(link.key, now)
        if link.wanted and not link.outbound:
            self._hurry(link, now)

    # ------------------------------------------------------------ closing

    def closed(self, event: LinkClosed, now: Now) -> None:
        """One direction is gone, or a dial failed."""
        link = self._context.links.get(event.link)
        if link is None:
            return
        if event.inbound:
            link.inbound = False
        else:
            self._outbound_ended(link, now)
        if link.is_open:
            if not event.inbound and link.wanted:
                self._dial_at(link, now.mono + link.backoff(self._context.bounds, self._context.rng.random()))
        else:
            self._down(link, event.why, now)

    def _outbound_ended(self, link: Link, now: Now) -> None:
        """Our connection ended, whichever side ended it, or our dial failed: rule 6."""
        if link.outbound and now.mono - link.outbound_at >= self._context.bounds.redial_max:
            link.failures = 0
        link.failures += 1
        link.outbound = link.dialling = False

    def left(self, link: Link, now: Now) -> None:
        """Their LEAVE: no fault, and no hurry to redial."""
        if link.outbound or link.dialling:
            self._outbound_ended(link, now)
        link.failures = max(link.failures, AFTER_LEAVE)
        self._context.out.append(Hangup(link.key, "it left"))
        self._down(link, "it left", now)

    def refuse(self, key: PeerKey) -> None:
        """A peer that does not belong got through to us: cut it."""
        self._context.out.append(Hangup(key, "not admitted"))

    def cut_banned(self, now: Now) -> None:
        """Cut the links of peers that were just banned; they are redialled once their reputation has healed."""
        banned = self._context.banned
        while banned:
            link = self._context.links.get(banned.pop())
            if link is not None and link.state is not LinkState.AWAY:
                self._context.out.append(Hangup(link.key, BANNED))
                self._down(link, BANNED, now)

    def _is_banned(self, member: Member, now: Now) -> bool:
        return self._context.peers.reputation.score(member, now.mono) < self._context.bounds.drop_below

    def _down(self, link: Link, why: str, now: Now) -> None:
        """No direction is left: forget the connection, keep the neighbour."""
        context = self._context
        was_live, link.is_live = link.is_live, False
        if link.outbound or link.dialling:
            self._outbound_ended(link, now)
        link.inbound = False
        link.hello_id = None
        link.why = why
        self._wants.lost(link, now)
        if was_live:
            self._refresh_live()
            context.out.append(LinkDown(link.key, why))
        if link.wanted or (link.idle_at is not None and link.idle_at > now.mono):
            self._dial_at(link, now.mono + link.backoff(context.bounds, context.rng.random()))
        elif context.links.get(link.key) is link:
            del context.links[link.key]

    def _remove(self, link: Link, why: str, now: Now) -> None:
        link.wanted = False
        link.idle_at = None
        self._context.out.append(Hangup(link.key, why))
        self._down(link, why, now)

    def _refresh_live(self) -> None:
        links = self._context.links
        self._context.live = tuple(sorted(key for key in links if links[key].is_live))

    # ------------------------------------------------------------ the passing of time

    def start(self, now: Now) -> None:
        """Start ticking, at a random phase so that nodes started together do not tick together."""
        phase = self._context.rng.random() * self._context.bounds.digest_interval
        self._context.timers.note(now.mono + phase, self._tick)

    def _tick(self, _: None, now: Now) -> None:
        context, bounds = self._context, self._context.bounds
        context.timers.note(now.mono + bounds.digest_interval, self._tick)
        context.seen.expire(now.wall)
        for link in list(context.links.values()):
            if link.idle_at is not None and link.idle_at <= now.mono and not link.wanted:
                self._remove(link, "idle", now)
            elif link.is_open and now.mono - link.heard_at > SILENCE * bounds.digest_interval:
                context.out.append(Hangup(link.key, "silent"))
                self._down(link, "it fell silent", now)
        self._gossip.send_digest(context.live, now)

    def stop(self) -> None:
        """Say goodbye."""
        if self._context.live:
            self._context.out.append(Send(self._context.live, wire.control(wire.LEAVE), None, False))
