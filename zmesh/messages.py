"""The values that an application sees: messages, peers, rounds.

Rules
 1. A ``MeshMessage`` comes only from a verified envelope, or from ``from_dict``, which verifies nothing and says so.
 2. ``sender_id`` is derived from the author's key by the registry, never read out of the message.
 3. ``to_dict`` turns messages and rounds into plain values, and ``from_dict`` turns them back. JSON can represent these
    values, except for bytes in a payload, which stay bytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from zmesh.core.bounds import MAX_TTL
from zmesh.core.envelope import Envelope
from zmesh.core.errors import ConfigError
from zmesh.core.types import Endpoint, Member, MessageType
from zmesh.handlers.rounds import ROUND_ID, START
from zmesh.handlers.schema import objection_to
from zmesh.identity import parse_public_key, unhex
from zmesh.multiaddr import parse_endpoint, to_multiaddr
from zmesh.registry.port import Account

ALIVE_SECONDS = 300.0
"""Seconds since its last signed frame for which a peer counts as alive, unless caller or settings say otherwise."""


class MeshMessage(NamedTuple):
    """One signed message. A tuple, since it cannot be changed and one is made for every message sent or received."""

    message_id: str
    """64 hex digits: BLAKE2b-256 of what was signed."""
    message_type: MessageType
    sender_id: str
    """The author's peer_id, which the registry gives for the key that signed."""
    timestamp: float
    """Unix seconds, as the author signed it."""
    payload: Mapping[str, Any]
    """What the type requires, and whatever the author added. All handlers share it, and must only read it."""
    signature: str
    """128 hex digits: Ed25519 over the id, see PROTOCOL.md."""
    ttl: int
    """Hops that the author allowed; 0 for a direct message."""
    sender_key: str = ""
    """64 hex digits: the author's Ed25519 public key."""
    account_id: str = ""
    """The account that the author speaks for: votes and reputation belong to it."""
    recipient: str | None = None
    """64 hex digits: the recipient of a direct message; None for gossip."""

    @classmethod
    def of(cls, envelope: Envelope, sender: Member, payload: Mapping[str, Any]) -> MeshMessage:
        """The application's view of a verified envelope, by the member that signed it.

        Raises ``ValueError`` for an envelope between the two ends of a link (HELLO, ACK), which no application sees.
        """
        if envelope.kind is None:
            raise ValueError(f"kind {envelope.code} is not an application message")
        return cls(
            envelope.id.hex(),
            envelope.kind,
            sender.peer_id,
            envelope.timestamp_ms / 1000,
            payload,
            envelope.signature.hex(),
            envelope.ttl,
            envelope.author.hex(),
            sender.account,
            None if envelope.recipient is None else envelope.recipient.hex(),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values; ``message_type`` as its string. Bytes inside the payload stay bytes."""
        return {**self._asdict(), "message_type": self.message_type.value, "payload": dict(self.payload)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> MeshMessage:
        """The inverse of ``to_dict``. It checks shapes, not the signature: trust it as far as you trust its source.

        Raises ``ValueError`` naming the field that is missing or wrong.
        """
        known: dict[str, Any] = {name: data[name] for name in cls._fields if name in data}
        try:
            known["message_type"] = MessageType(data["message_type"])
            message = cls(**known)
        except KeyError as missing:
            raise ValueError(f"a message needs the field {missing}") from None
        except TypeError as error:
            raise ValueError(f"a message lacks a field: {error}") from None
        for name, size in (("message_id", 64), ("signature", 128)):
            text = getattr(message, name)
            if not isinstance(text, str) or len(text) != size or unhex(text, size // 2) is None:
                raise ValueError(f"{name} must be {size} hex digits")
        if not isinstance(message.payload, Mapping):
            raise ValueError("payload must be a mapping")
        if type(message.ttl) is not int or not 0 <= message.ttl <= MAX_TTL:
            raise ValueError(f"ttl must be a whole number from 0 to {MAX_TTL}")
        if not isinstance(message.timestamp, int | float):
            raise ValueError("timestamp must be Unix seconds")
        return message


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """One peer, as known when it was asked for. Assign one to ``mesh.peers[peer_id]`` to vouch for a peer by hand.

    It is a snapshot and cannot be changed: ``dataclasses.replace`` makes another one.
    """

    peer_id: str
    """The name that it chose; its account while no record of it has arrived."""
    account_id: str = ""
    """Its account in SS58; if empty, the public key stands in."""
    multiaddr: str = ""
    """``/ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT`` of its front door; empty if not known (it may still dial this node)."""
    public_key: str = ""
    """64 hex digits: its Ed25519 mesh key."""
    stake_amount: int = 0
    """In the chain's smallest unit."""
    last_seen: float = field(default=0.0)
    """Unix seconds of its last signed frame; 0 for never."""
    is_validator: bool = True
    """False for a member that may connect but whose votes do not count."""
    reputation: float = 100.0
    """0 to 100; below 50, handlers do not see its messages."""
    capabilities: tuple[str, ...] = ()
    """What it says it can do, in words such as ``train``."""
    is_linked: bool = False
    """Whether messages flow directly between it and this node now."""
    alive_for: float = field(default=ALIVE_SECONDS, repr=False, compare=False)
    """Seconds of silence after which it counts as dead: the ``peer_timeout`` of the node that was asked."""

    def is_alive(self, timeout: float | None = None) -> bool:
        """Whether it was heard from within ``timeout`` seconds, by default ``alive_for``."""
        return time.time() - self.last_seen < (self.alive_for if timeout is None else timeout)

    def member(self, where: str) -> Member:
        """The engine's view of the peer. Raises ``ConfigError`` with a sentence that starts with ``where``."""
        if not self.peer_id:
            raise ConfigError(f"{where}: peer_id must not be empty")
        try:
            key = parse_public_key(self.public_key)
            endpoints = (parse_endpoint(self.multiaddr),) if self.multiaddr else ()
        except ConfigError as error:
            raise ConfigError(f"{where}: {error}") from None
        if type(self.stake_amount) is not int or self.stake_amount < 0:
            raise ConfigError(f"{where}: stake_amount must be a whole number of the smallest unit, 0 or more")
        if type(self.account_id) is not str:
            raise ConfigError(f"{where}: account_id must be a string, empty if there is none, not {self.account_id!r}")
        if type(self.reputation) not in (int, float) or not 0 <= self.reputation <= 100:
            raise ConfigError(f"{where}: reputation must be a number from 0 to 100, not {self.reputation!r}")
        capabilities: object = self.capabilities
        if not isinstance(capabilities, tuple | list) or not all(isinstance(one, str) for one in capabilities):
            raise ConfigError(f"{where}: capabilities must be a tuple of strings, not {capabilities!r}")
        return Member(
            key=key,
            account=self.account_id or key.hex(),
            peer_id=self.peer_id,
            endpoints=endpoints,
            stake=self.stake_amount,
            is_validator=self.is_validator,
            reputation=self.reputation,
            capabilities=tuple(self.capabilities),
        )

    @classmethod
    def of(
        cls,
        member: Member,
        endpoints: tuple[Endpoint, ...],
        *,
        last_seen: float,
        reputation: float,
        is_linked: bool,
        alive_for: float,
    ) -> PeerInfo:
        """What is known about a member now."""
        return cls(
            peer_id=member.peer_id,
            account_id=member.account,
            multiaddr=to_multiaddr(endpoints[0]) if endpoints else "",
            public_key=member.key.hex(),
            stake_amount=member.stake,
            last_seen=last_seen,
            is_validator=member.is_validator,
            reputation=reputation,
            capabilities=member.capabilities,
            is_linked=is_linked,
            alive_for=alive_for,
        )

    @classmethod
    def unmet(cls, account: Account) -> PeerInfo:
        """What the registry says about an account whose mesh key is not known yet."""
        return cls(
            peer_id=account.address,
            account_id=account.address,
            multiaddr=to_multiaddr(account.endpoints[0]) if account.endpoints else "",
            stake_amount=account.stake,
            is_validator=account.is_validator,
            reputation=account.reputation,
        )


@dataclass(frozen=True, slots=True)
class FLRoundAnnouncement:
    """The payload of an FL_ROUND_START.

    Every field but ``round_id`` may be left out on the wire: its default then stands for "not said".
    """

    round_id: str
    """1 to 256 bytes in UTF-8. Another coordinator may use the same id for a round of its own."""
    dataset_name: str = ""
    """At most 256 bytes in UTF-8."""
    target_participants: int | None = None
    """How many participants the coordinator wants."""
    deadline: float | None = None
    """Unix seconds: the moment itself, so that a late reader need not know when it was sent."""
    deadline_seconds: float | None = None
    """Seconds from the announcement, as the coordinator gave it."""
    reward_pool: float = 0
    """The rewards of all participants together, in the chain's smallest unit."""
    min_stake: float = 0
    """The stake that a participant needs, in the chain's smallest unit; recorded, not enforced."""
    model_hash: str = ""
    """The hash or CID of the model to start from, at most 256 bytes in UTF-8."""

    def to_dict(self) -> dict[str, Any]:
        """The payload, without what is None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, payload: Mapping[str, Any]) -> FLRoundAnnouncement:
        """From the payload of a message; further keys are ignored.

        Raises ``ValueError`` naming the field that is missing or wrong, which no message from the mesh has.
        """
        if objection := objection_to(payload, ROUND_ID, START):
            raise ValueError(f"not an FL round announcement: {objection}")
        return cls(**{name: payload[name] for name in cls.__slots__ if payload.get(name) is not None})
