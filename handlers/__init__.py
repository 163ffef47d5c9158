"""Built-in protocol behaviour: pure state machines that implement the port in ``zmesh.core.handler``.

Rules
 1. A handler decides nothing about links, repair or delivery: the engine does, and calls ``validate`` first.
 2. The speaker is the ``sender`` that the engine verified; votes, rounds and limits are keyed by its account.
 3. Every handler works alone: a node may run any subset. ``default_handlers`` is the usual set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from zmesh.core.types import Member
from zmesh.handlers.heartbeat import Heartbeat
from zmesh.handlers.offers import Judge, Offer, RecordOutcome, RecordPorts
from zmesh.handlers.record import Description, Record, decode_record, encode_record, is_local, verify_record
from zmesh.handlers.records import Records
from zmesh.handlers.rounds import Delta, Round, Rounds, RoundState
from zmesh.handlers.votes import Equivocation, Proposal, Signed, Tally, Votes

__all__ = [
    "Delta",
    "Description",
    "Equivocation",
    "Handlers",
    "Heartbeat",
    "Judge",
    "Offer",
    "Proposal",
    "Record",
    "RecordOutcome",
    "RecordPorts",
    "Records",
    "Round",
    "RoundState",
    "Rounds",
    "Signed",
    "Tally",
    "Votes",
    "decode_record",
    "default_handlers",
    "encode_record",
    "is_local",
    "verify_record",
]


class Handlers(NamedTuple):
    """The usual set. A tuple of ``Handler``, so it can be passed to the engine as it is."""

    heartbeat: Heartbeat
    records: Records
    rounds: Rounds
    votes: Votes


def default_handlers(
    status: Callable[[], Mapping[str, Any]],
    ports: RecordPorts,
    *,
    account: Callable[[], str],
    members: Callable[[], Iterable[Member]],
    heartbeat_interval: float = 60.0,
    phase: float = 0.5,
) -> Handlers:
    """One of each; what this node announces about itself is for ``records.describe`` to say.

    Args:
        status: the payload of the next heartbeat, see ``Heartbeat``.
        ports: what peer records need from their node, see ``RecordPorts``.
        account: returns this node's account, see ``Rounds``.
        members: returns all current members, see ``Votes``.
        heartbeat_interval: seconds.
        phase: 0 to below 1, drawn once per node: spreads out nodes that started together.

    Raises ``ConfigError`` if the interval or phase is out of range.
    """
    return Handlers(
        Heartbeat(status, heartbeat_interval, phase),
        Records(ports, phase=phase),
        Rounds(account),
        Votes(members),
    )
