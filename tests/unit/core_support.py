"""What the tests of the core share: people with real keys, and a bench that holds one engine and plays its world.

Rules
 1. The bench decides nothing: it verifies with real Ed25519, keeps the one timer, and writes down every action.
 2. Time stands still until a test says ``advance``; both clocks then move together.
 3. ``actions`` is everything since it was last cleared by ``fresh``; a test asserts on all of it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from zmesh.core import wire
from zmesh.core.actions import Action, Deliver, Dropped, Offence, Send, Verify, WakeAt
from zmesh.core.bounds import Bounds
from zmesh.core.engine import Engine
from zmesh.core.envelope import Composer, Envelope
from zmesh.core.events import Event, FrameReceived, LinkOpened, Receipt, RosterChanged, Start, Verified, Wake
from zmesh.core.handler import Handler
from zmesh.core.now import Now
from zmesh.core.types import (
    AckStatus,
    DropReason,
    Endpoint,
    Fault,
    Frames,
    Member,
    MessageType,
    PeerKey,
    Roster,
    VerifySignature,
)

NETWORK = wire.network_id("core tests")
NOON = Now(1000.0, 1_700_000_000.0)
EPOCH = 1_699_999_000
FLOOD_WAIT = Bounds().flood_wait
"""When everybody but the engine under test started."""

A = TypeVar("A")


def later(seconds: float) -> Now:
    """Both clocks, that many seconds after ``NOON``."""
    return Now(NOON.mono + seconds, NOON.wall + seconds)


class Person:
    """A mesh key made from a small number, and everything that can be signed with it."""

    def __init__(self, number: int, *, stake: int = 1, account: str | None = None) -> None:
        self._signing = SigningKey(bytes([number]) * 32)
        self.public: PeerKey = bytes(self._signing.verify_key)
        self.member = Member(
            self.public,
            account or f"account-{number}",
            f"peer-{number}",
            (Endpoint(f"192.0.2.{number}", 9090),),
            stake,
        )
        self._sequence = 0

    def sign(self, data: bytes) -> bytes:
        return bytes(self._signing.sign(data).signature)

    def body(self, **fields: Any) -> wire.Body:
        """A valid gossip body of kind GOSSIP at ``NOON``, but for ``fields``; every call takes a new sequence."""
        self._sequence += 1
        usual: dict[str, Any] = {
            "version": wire.VERSION,
            "network": NETWORK,
            "kind": wire.KIND_CODES[MessageType.GOSSIP],
            "author": self.public,
            "epoch": EPOCH,
            "sequence": self._sequence,
            "timestamp_ms": NOON.wall_ms,
            "ttl": 5,
            "expiry_ms": None,
            "recipient": None,
            "correlation": None,
            "payload": wire.encode_payload({"n": self._sequence}),
        }
        if "content" in fields:
            fields["payload"] = wire.encode_payload(fields.pop("content"))
        return wire.Body(**(usual | fields))

    def says(self, **fields: Any) -> Envelope:
        """A signed message; ``content`` is its payload, any other name a field of the body."""
        body = self.body(**fields)
        encoded = wire.encode_body(body)
        identifier = wire.message_id(encoded)
        return Envelope(identifier, encoded, self.sign(wire.signing_input(identifier)), body)

    def tells(self, to: PeerKey, **fields: Any) -> Envelope:
        """A signed direct message."""
        return self.says(**({"recipient": to, "ttl": 0} | fields))

    def hello(self, to: PeerKey, **fields: Any) -> Envelope:
        return self.tells(to, **({"kind": wire.HELLO_CODE, "content": {"versions": [1]}} | fields))

    def ack(self, to: PeerKey, of: Envelope, status: int = AckStatus.QUEUED, **more: Any) -> Envelope:
        content = {"status": int(status)} | more
        return self.tells(to, kind=wire.ACK_CODE, correlation=of.id, content=content)


ME = Person(1)
"""The engine under test."""


def people(count: int, first: int = 2) -> list[Person]:
    """Others."""
    return [Person(number) for number in range(first, first + count)]


def verify(action: Verify) -> bool:
    try:
        VerifyKey(action.key).verify(action.data, action.signature)
    except (BadSignatureError, ValueError):
        return False
    return True


class Bench:
    """One engine among ``others``. ``inline`` False leaves every ``Verify`` in ``unverified`` for the test to answer.

    With ``verify`` the engine checks signatures itself. ``lazy``: it has to finish only before time passes.
    ``queues`` decides for each direct message whether the application's queue takes it.
    """

    def __init__(
        self,
        others: Sequence[Person] = (),
        *,
        bounds: Bounds | None = None,
        handlers: Sequence[Handler] = (),
        inline: bool = True,
        verify: VerifySignature | None = None,
        lazy: bool = False,
        seed: int = 0,
        start: bool = True,
    ) -> None:
        self.now = NOON
        composer = Composer(ME, NETWORK, int(NOON.wall))
        self.engine = Engine(composer, random.Random(seed), bounds=bounds, handlers=handlers, verify=verify)
        self.inline = inline
        self.lazy = lazy
        self.queues: Callable[[Deliver], bool] = lambda message: True
        self.actions: list[Action] = []
        self.unverified: list[Verify] = []
        self.wake_at: float | None = None
        self.others = list(others)
        if start:
            self.handle(Start())
        if others:
            self.roster(others)

    # ------------------------------------------------------------ events

    def handle(self, event: Event) -> list[Action]:
        """One event and all that follows from it at the same time; gives what the engine did."""
        begin = len(self.actions)
        events = [event]
        while events:
            events += self._carry_out(self.engine.handle(events.pop(0), self.now))
            if not self.lazy:
                events += self._carry_out(self.engine.finish(self.now))
        return self.actions[begin:]

    def _carry_out(self, actions: list[Action]) -> list[Event]:
        """The events that the actions lead to."""
        events: list[Event] = []
        for action in actions:
            self.actions.append(action)
            if isinstance(action, WakeAt):
                self.wake_at = action.mono
            elif isinstance(action, Verify):
                if self.inline:
                    events.append(Verified(action.message_id, verify(action)))
                else:
                    self.unverified.append(action)
            elif isinstance(action, Deliver):
                queued = self.queues(action)
                if action.receipt or not queued:
                    events.append(Receipt(action.envelope.id, action.envelope.author, queued))
        return events

    def roster(self, others: Sequence[Person]) -> None:
        self.handle(RosterChanged(Roster.of([ME.member, *(person.member for person in others)])))

    def receive(self, link: Person, frames: Frames) -> list[Action]:
        return self.handle(FrameReceived(link.public, frames))

    def hear(self, link: Person, message: Envelope, ttl: int | None = None, hops: int = 0) -> list[Action]:
        """A message arrives over the link; by default as fresh from its author."""
        return self.receive(link, message.frames(message.ttl if ttl is None else ttl, hops))

    def control(self, link: Person, kind: int, body: bytes = b"") -> list[Action]:
        return self.receive(link, wire.control(kind, body))

    def greet(self, person: Person, inbound: bool = False) -> list[Action]:
        """A connection opens, and their HELLO comes: the link is live."""
        begin = len(self.actions)
        self.handle(LinkOpened(person.public, inbound=inbound))
        self.hear(person, person.hello(ME.public, timestamp_ms=self.now.wall_ms))
        return self.actions[begin:]

    def connect(self, *persons: Person) -> None:
        """Live links with these, our own dials answered, and everything so far forgotten."""
        for person in persons:
            self.greet(person)
            assert person.public in self.live
        self.fresh()

    def verified(self, ok: bool | None = None) -> list[Action]:
        """Answer the oldest open ``Verify``: truthfully, or as told."""
        action = self.unverified.pop(0)
        return self.handle(Verified(action.message_id, verify(action) if ok is None else ok))

    def advance(self, seconds: float) -> list[Action]:
        """Let time pass, waking the engine exactly when it asked for it."""
        begin, end = len(self.actions), self.now.mono + seconds
        assert self._carry_out(self.engine.finish(self.now)) == []
        while self.wake_at is not None and self.wake_at <= end:
            self._move(max(self.wake_at, self.now.mono))
            self.wake_at = None
            self.handle(Wake())
        self._move(end)
        return self.actions[begin:]

    def wake_late(self, seconds: float) -> None:
        """Let the next wake-up come that long after it was due."""
        assert self.wake_at is not None
        self._move(self.wake_at + seconds)
        self.wake_at = None
        self.handle(Wake())

    def _move(self, mono: float) -> None:
        self.now = Now(mono, self.now.wall + (mono - self.now.mono))

    # ------------------------------------------------------------ what became of it

    def fresh(self) -> None:
        self.actions.clear()

    @property
    def live(self) -> tuple[PeerKey, ...]:
        return tuple(sorted(key for key, link in self.engine.links.items() if link.is_live))

    def of(self, kind: type[A]) -> list[A]:
        """The actions of one class, in order."""
        return [action for action in self.actions if isinstance(action, kind)]

    def drops(self) -> list[DropReason]:
        return [drop.reason for drop in self.of(Dropped)]

    def offences(self) -> list[tuple[PeerKey, Fault]]:
        return [(offence.culprit, offence.fault) for offence in self.of(Offence)]

    def sends(self, kind: int | None = None) -> list[tuple[PeerKey, Frames]]:
        """Whom what was sent, one entry for each link; of one frame type, if that is given."""
        return [
            (key, send.frames)
            for send in self.of(Send)
            for key in send.links
            if kind is None or send.frames[0][0] == kind
        ]

    def envelopes(self, code: int) -> list[tuple[PeerKey, Envelope]]:
        """Envelopes of one kind that were sent."""
        return [
            (key, envelope) for key, frames in self.sends(wire.ENVELOPE) if (envelope := opened(frames)).code == code
        ]

    def acks(self) -> list[tuple[PeerKey, bytes | None, Mapping[str, Any]]]:
        """(to whom, of which message, what it says) of every ACK sent."""
        return [(key, ack.correlation, wire.decode_payload(ack.payload)) for key, ack in self.envelopes(wire.ACK_CODE)]

    def ids(self, kind: int) -> list[tuple[PeerKey, list[bytes]]]:
        """Short ids in the IHAVEs or IWANTs sent."""
        return [(key, wire.decode_ids(frames[1])) for key, frames in self.sends(kind)]


def opened(frames: Frames) -> Envelope:
    """The envelope in these frames."""
    return Envelope(wire.message_id(frames[1]), frames[1], frames[2], wire.decode_body(frames[1]))


def short(envelope: Envelope) -> bytes:
    return envelope.id[: wire.SHORT_ID]
