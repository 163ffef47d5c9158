"""What the tests of the handlers share: identities, verified envelopes, and a driver of the handler port."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from zmesh.core import wire
from zmesh.core.envelope import Composer, Envelope
from zmesh.core.events import Command
from zmesh.core.handler import Handler
from zmesh.core.now import Now
from zmesh.core.types import Member, MessageType, PeerKey, Roster, Verdict
from zmesh.handlers import Judge
from zmesh.registry.membership import Membership
from zmesh.registry.port import ValidatorSet

NETWORK = wire.network_id("handlers")
NOON = Now(1000.0, 1_700_000_000.0)


def later(seconds: float) -> Now:
    """Both clocks, that many seconds after ``NOON``."""
    return Now(NOON.mono + seconds, NOON.wall + seconds)


class Someone:
    """A mesh key with a Composer, and the member it belongs to."""

    def __init__(self, number: int, account: str | None = None, stake: int = 1) -> None:
        self._key = SigningKey(bytes([number]) * 32)
        self.public = bytes(self._key.verify_key)
        self.member = Member(self.public, account or f"account-{number}", f"peer-{number}", stake=stake)
        self._composer = Composer(self, NETWORK, 1)

    def sign(self, data: bytes) -> bytes:
        return bytes(self._key.sign(data).signature)

    def says(
        self,
        kind: MessageType,
        payload: Mapping[str, Any],
        now: Now = NOON,
        to: PeerKey | None = None,
    ) -> Said:
        envelope = self._composer.compose(
            wire.KIND_CODES[kind], wire.encode_payload(payload), now, ttl=0 if to else 5, recipient=to
        )
        return Said(envelope, self.member, wire.decode_payload(envelope.payload))


@dataclass(frozen=True)
class Said:
    """A verified message, as the engine hands it to a handler."""

    envelope: Envelope
    sender: Member
    payload: Mapping[str, Any]
    commands: list[Command] = field(default_factory=list, compare=False)


def verify(key: PeerKey, data: bytes, signature: bytes) -> bool:
    """Ed25519 by libsodium."""
    try:
        VerifyKey(key).verify(data, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def naming(*members: Someone) -> Judge:
    """Judges records as a node does whose registry names these by their keys."""
    membership = Membership("handlers")
    membership.registered(ValidatorSet(Roster.of(each.member for each in members)))
    return lambda record: membership.judge(record, NOON)


def judge(handler: Handler, said: Said, now: Now = NOON) -> Verdict:
    """Only ``validate``."""
    return handler.validate(said.envelope, said.sender, said.payload, now)


def take(handler: Handler, said: Said, now: Now = NOON) -> Verdict:
    """What the engine does: validate, then received for what is accepted or relayed."""
    verdict = judge(handler, said, now)
    if verdict in {Verdict.ACCEPT, Verdict.RELAY}:
        said.commands.extend(handler.received(said.envelope, said.sender, said.payload, now))
    return verdict


def run(handler: Handler, until: float) -> list[tuple[float, Sequence[Command]]]:
    """Wake the handler whenever it asks for it, up to ``until`` seconds after NOON; what it commanded, and
    when."""
    commanded = []
    at = 0.0
    while handler.deadline is not None and max(at, handler.deadline - NOON.mono) <= until:
        at = max(at, handler.deadline - NOON.mono)
        commands = handler.wake(later(at))
        if commands:
            commanded.append((at, commands))
    return commanded
