"""What the tests of peer records share: signed records, and the handler that takes them."""

from __future__ import annotations

from typing import Any

from tests.unit.handlers_support import NETWORK, NOON, Someone, later, naming, verify
from zmesh.core.events import Broadcast
from zmesh.core.types import Endpoint, MessageType
from zmesh.handlers import (
    Description,
    Record,
    RecordPorts,
    Records,
    decode_record,
    encode_record,
)

ALICE, BOB, CAROL = Someone(1), Someone(2), Someone(3)
PUBLIC = Description("alice", (Endpoint("203.0.113.7", 9090), Endpoint("a.example", 9090)), 41001, 41002, ("train",))


def record(of: Someone, sequence: int = 1, described: Description = PUBLIC, network: bytes = NETWORK) -> Record:
    return encode_record(described, network, of.public, sequence, NOON.wall_ms, of.sign)


def records(of: Someone = BOB, own: Description | None = None, **options: Any) -> Records:
    return Records(RecordPorts(of, NETWORK, verify, naming(ALICE, BOB, CAROL)), own, **options)


def having_asked(handler: Records) -> Records:
    """It looks at answers from ``NOON`` on."""
    handler.wake(later(-1.0))
    handler.wake(NOON)
    return handler


def announce(of: Someone, what: Record) -> Any:
    return of.says(MessageType.PEER_ANNOUNCE, {"record": what.encoded})


def announcements(commands: Any) -> list[Record]:
    return [
        decode_record(command.payload["record"])
        for command in commands
        if isinstance(command, Broadcast) and command.kind is MessageType.PEER_ANNOUNCE
    ]


def questions(commands: Any) -> list[Broadcast]:
    return [
        command for command in commands if isinstance(command, Broadcast) and command.kind is MessageType.PEER_DISCOVERY
    ]
