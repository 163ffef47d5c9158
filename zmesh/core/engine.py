"""The one door of the protocol: every event comes in here, and every action goes out.

``Engine.handle(event, now) -> list[Action]``, and ``handle_all`` for events that arrive together, are synchronous,
deterministic (given a random generator) and total: no bytes from the network make them raise. Local misuse (a payload
that cannot travel) raises at the caller. They return what somebody waits for, such as a message to send or to deliver;
``finish`` does the rest once that is carried out.

Files: ``intake`` has the checks that a frame passes, in order. ``peers`` knows who belongs, ``links`` manages the
connections, ``seen`` remembers messages, ``gossip`` and ``direct`` are the two ways to send, ``wants`` asks for what is
missing, ``behaviours`` runs the handlers. They share one ``context``; this file creates them and carries out the
application's commands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from zmesh.core import wire
from zmesh.core.actions import Action, Admit, Composed, Published, Resolved, WakeAt
from zmesh.core.behaviours import Behaviours
from zmesh.core.bounds import MAX_DIRECT_TIMEOUT, MAX_TTL, Bounds
from zmesh.core.context import Context
from zmesh.core.direct import Outbox
from zmesh.core.envelope import Composer, Envelope
from zmesh.core.errors import PayloadError, PayloadTooLargeError
from zmesh.core.events import (
    AddPeer,
    Broadcast,
    Command,
    Compose,
    Event,
    FrameReceived,
    HandlersChanged,
    JoinNetwork,
    LinkClosed,
    LinkOpened,
    Located,
    Receipt,
    Rehearse,
    RemovePeer,
    RosterChanged,
    SendDirect,
    SendRefused,
    Start,
    Stop,
    Verified,
    Wake,
)
from zmesh.core.gossip import Gossip
from zmesh.core.handler import Handler
from zmesh.core.intake import Intake
from zmesh.core.links import Links
from zmesh.core.now import Now
from zmesh.core.peers import Rng
from zmesh.core.seen import SeenStore
from zmesh.core.timers import NEVER
from zmesh.core.types import MessageType, PeerKey, SendResult, VerifySignature
from zmesh.core.wants import Wants

LATE = 0.5
"""Seconds behind its own timers at which a node counts as late: a busy event loop is tens of milliseconds behind."""


class Engine:
    """One node's protocol state. ``intake.py`` documents what ``handle`` does with a frame.

    ``composer`` signs as this node. ``rng``: the source of every random choice, so that a seed replays a run.
    ``verify`` is for few signatures at a time; without it the engine asks for each by a ``Verify`` action.
    ``peer_id``: the name of this node where no registry lists it; by default its key in hex.
    """

    def __init__(
        self,
        composer: Composer,
        rng: Rng,
        *,
        peer_id: str | None = None,
        bounds: Bounds | None = None,
        handlers: Sequence[Handler] = (),
        verify: VerifySignature | None = None,
    ) -> None:
        context = Context(composer, peer_id, bounds or Bounds(), rng, verify)
        self._context = context
        self._out = context.out
        self._gossip = Gossip(context)
        self._wants = Wants(context)
        self._links = Links(context, self._gossip, self._wants, self._link_live)
        self._outbox = Outbox(context, self._links.ensure)
        self._behaviours = Behaviours(context, handlers, self._obey)
        self._intake = Intake(context, self._gossip, self._wants, self._links, self._outbox, self._behaviours)
        self._timers = context.timers
        self._wake_at = NEVER
        self.me = composer.public
        self.bounds = context.bounds
        self.peers = context.peers
        self.links = context.links
        self.drops = context.drops
        """Frames that ended without a delivery, by reason."""
        self.faults = context.faults
        """Offences charged, by fault."""
        self.sent: dict[MessageType, int] = dict.fromkeys(MessageType, 0)
        """Own messages that were gossiped, or sent to one peer; repetitions do not count."""
        self.late_wakes = 0
        """Wake-ups that came more than ``LATE`` seconds after they were due."""
        self._dispatch: dict[type, Callable[[Any, Now], None]] = {
            FrameReceived: self._intake.frame,
            Verified: self._intake.verified,
            Receipt: self._intake.receipt,
            SendRefused: self._refused,
            LinkOpened: self._links.opened,
            LinkClosed: self._links.closed,
            Wake: self._wake,
            Broadcast: self._broadcast,
            Rehearse: self._rehearse,
            SendDirect: self._send_direct,
            Located: self._located,
            Compose: self._compose,
            RosterChanged: self._roster_changed,
            JoinNetwork: self._join_network,
            AddPeer: self._add_peer,
            RemovePeer: self._remove_peer,
            HandlersChanged: self._handlers_changed,
            Start: self._start,
            Stop: self._stop,
        }

    @property
    def network(self) -> bytes:
        """32 bytes: the mesh that this node speaks in now."""
        return self._context.composer.network

    @property
    def live(self) -> tuple[PeerKey, ...]:
        """Links that carry messages, ascending by key."""
        return self._context.live

    @property
    def seen(self) -> SeenStore:
        """Every message accepted or sent so far, for two minutes. Asking finishes the last event."""
        self._context.finish()
        return self._context.seen

    @property
    def clear_at(self) -> float:
        """When others will accept the next gossip of this node's account, if their bounds are the same: in monotonic
        seconds, and in the past if it may be sent now."""
        return self._context.rates.clear_at

    @property
    def wanted(self) -> int:
        """Messages that others offered and that have not arrived yet."""
        return len(self._wants)

    @property
    def is_outlived(self) -> bool:
        """Whether a process that started later than this one signs with the same key."""
        return self._context.outlived

    @property
    def direct_pending(self) -> int:
        """Own direct messages that are not acknowledged yet."""
        return len(self._outbox)

    def handle(self, event: Event, now: Now) -> list[Action]:
        """Process one event; returns the actions to carry out, in order. ``finish`` is to follow.

        Raises ``PayloadError`` for a ``Compose``, ``Broadcast``, ``Rehearse`` or ``SendDirect`` that cannot travel, and
        nothing else.
        """
        self._context.finish()
        self._dispatch[type(event)](event, now)
        return self._actions(now)

    def handle_all(self, events: Iterable[Event], now: Now, *, ask: bool = False) -> list[Action]:
        """The same for events that arrived together, in order; none of them may be of a kind that raises.

        An exception is therefore a bug of ours, or of a port that the application supplied. It is reported as
        ``Failed``, and affects neither the other events nor the timer. ``ask``: request each verification by an action,
        even if the engine could verify itself.
        """
        context, dispatch, banned = self._context, self._dispatch, self._context.banned
        self._intake.asks = ask
        for event in events:
            context.finish()
            try:
                dispatch[type(event)](event, now)
            except Exception as error:  # noqa: BLE001 - see above
                context.failed(type(event).__name__, error)
            if banned:  # before any more of their frames are processed
                self._links.cut_banned(now)
        self._intake.asks = False
        return self._actions(now)

    def finish(self, now: Now) -> list[Action]:
        """Do what nobody waits for, such as remembering what was sent, and return the actions that it leads to.

        Call it once the actions of the event are carried out: then messages leave, or reach their handler, earlier. An
        event that comes before does it first, so the order of all actions and what is known do not depend on it.
        """
        self._context.finish()
        return self._actions(now)

    def _actions(self, now: Now) -> list[Action]:
        if self._context.banned:
            self._links.cut_banned(now)
        if self._timers.next < self._wake_at:
            self._wake_at = self._timers.next
            self._out.append(WakeAt(self._wake_at))
        actions = self._out[:]
        self._out.clear()
        return actions

    # ------------------------------------------------------------ commands

    def _compose(self, event: Compose, now: Now) -> None:
        self._out.append(Composed(self._build(event, now)))

    def _build(self, event: Compose | Broadcast | SendDirect, now: Now) -> Envelope:
        """Build and sign what the application asked for. Raises ``PayloadError``."""
        payload = wire.encode_payload(event.payload)
        recipient = None if isinstance(event, Broadcast) else event.recipient
        ttl = 0
        if not isinstance(event, SendDirect) and recipient is None:
            ttl = self._gossip.ttl if event.ttl is None else event.ttl
            if not 1 <= ttl <= MAX_TTL:
                raise PayloadError(f"ttl must be 1 to {MAX_TTL} hops, or None to let the mesh decide, not {ttl}")
        return self._context.composer.compose(wire.KIND_CODES[event.kind], payload, now, ttl=ttl, recipient=recipient)

    def _broadcast(self, event: Broadcast, now: Now) -> None:
        envelope, payload = self._checked(event, now)
        links = self._gossip.targets(envelope)
        self._out.append(Published(envelope, links))
        self._gossip.push_own(envelope, links)
        self._context.rest.append(partial(self._published, event.kind, envelope, payload, links, now))

    def _published(
        self, kind: MessageType, envelope: Envelope, payload: Mapping[str, Any], links: tuple[PeerKey, ...], now: Now
    ) -> None:
        """The rest of a broadcast."""
        self._gossip.keep_own(envelope, links, now)
        self.sent[kind] += 1
        self._context.rates.sent(envelope, now)
        self._behaviours.received(envelope, self.peers.myself, payload, now)

    def _rehearse(self, event: Rehearse, now: Now) -> None:
        self._out.append(Composed(self._checked(event.broadcast, now)[0]))

    def _checked(self, event: Broadcast, now: Now) -> tuple[Envelope, Mapping[str, Any]]:
        """The message, and its payload as others read it. Raises ``PayloadError``."""
        envelope = self._build(event, now)
        return envelope, self._behaviours.check_own(envelope, event.payload, now)

    def _send_direct(self, event: SendDirect, now: Now) -> None:
        timeout = min(max(event.timeout, 0.0), MAX_DIRECT_TIMEOUT)
        if event.recipient not in self.peers:
            self._out.append(Resolved(event.token, b"", SendResult.UNREACHABLE))
        elif self._outbox.full():
            self._out.append(Resolved(event.token, b"", SendResult.BACKPRESSURE))
        else:
            try:
                envelope = self._build(event, now)
            except PayloadTooLargeError:
                self._out.append(Resolved(event.token, b"", SendResult.TOO_LARGE))
                return
            self._behaviours.check_own(envelope, event.payload, now)
            self._outbox.send(envelope, event.recipient, event.token, timeout, now)
            self.sent[event.kind] += 1

    def _link_live(self, key: PeerKey, now: Now) -> None:
        self._outbox.link_live(key, now)

    def _obey(self, command: Command, now: Now) -> None:
        """Carry out what a handler asked for."""
        self._dispatch[type(command)](command, now)

    # ------------------------------------------------------------ life of the node

    def _start(self, event: Start, now: Now) -> None:
        self._context.started_ms = now.wall_ms
        self.peers.reputation.restore(event.scores, now.mono)
        self._behaviours.wake_due(now)
        self._links.start(now)

    def _stop(self, event: Stop, now: Now) -> None:
        self._outbox.stop()
        self._links.stop()

    def _wake(self, event: Wake, now: Now) -> None:
        self._wake_at = NEVER
        if now.mono - self._timers.next > LATE:
            self._context.late_at = now.mono
            self.late_wakes += 1
        self._behaviours.wake_due(now)
        self._timers.run(now)

    def _roster_changed(self, event: RosterChanged, now: Now) -> None:
        was_out = self.me not in self.peers.roster.keys
        self.peers.roster = event.roster
        self._membership_changed(now)
        if was_out and self.me in event.roster.keys:
            self._links.readmitted(now)

    def _join_network(self, event: JoinNetwork, now: Now) -> None:
        self._context.composer.network = event.network
        self.seen.clear()

    def _add_peer(self, event: AddPeer, now: Now) -> None:
        if event.member.key == self.me:
            self.peers.card = event.member
        else:
            self.peers.manual[event.member.key] = event.member
            self._membership_changed(now)

    def _remove_peer(self, event: RemovePeer, now: Now) -> None:
        if event.key == self.me:
            self.peers.card = None
        elif self.peers.manual.pop(event.key, None) is not None:
            self._membership_changed(now)

    def _membership_changed(self, now: Now) -> None:
        keys = self.peers.roster.keys
        # If nothing is added, the roster's own set: 10,000 simulated nodes share it, which saves half a MiB each.
        self._out.append(Admit(keys.union(self.peers.manual) if self.peers.manual else keys))
        self.peers.prune()
        self.seen.retain(self.peers)
        self._intake.retain({member.account for member in self.peers})
        self._outbox.forget()
        self._gossip.resize(len(self.peers) + 1)
        self._links.choose(now)

    def _located(self, event: Located, now: Now) -> None:
        if self.peers.locate(event.key, event.endpoints):
            self._links.located(event.key, now)

    def _handlers_changed(self, event: HandlersChanged, now: Now) -> None:
        self._behaviours.wake_due(now)

    def _refused(self, event: SendRefused, now: Now) -> None:
        if event.ref is None:
            if (link := self.links.get(event.link)) is not None:
                self._wants.unsent(link, now)
            return
        entry = self.seen.get(event.ref[: wire.SHORT_ID])
        if entry is not None:
            self._gossip.refused(entry, event.link, now)
        else:
            self._outbox.refused(event.ref)
