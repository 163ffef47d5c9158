"""What a simulated run is made of and what it reports: settings, seats, lives, deliveries, and the summary.

Rules
 1. Plain values and their summary; everything that happens over time is in ``simulator.py``.
 2. A seat is a place at the table (a number, a key, an account); a life is one process that occupies it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from math import ceil
from typing import Any, Final, Literal, NamedTuple

from zmesh.core.bounds import Bounds
from zmesh.core.engine import Engine
from zmesh.core.envelope import Signer
from zmesh.core.handler import Handler
from zmesh.core.types import Endpoint, Fault, Member, MessageId, MessageType, PeerKey
from zmesh.core.wire import digest32
from zmesh.handlers import Description, Handlers, RecordPorts, Rounds, Votes, default_handlers
from zmesh.handlers.standing import Standing

Latency = Callable[[int, int, float], float]
"""``(sender, receiver, chance) -> seconds one way``; ``chance`` in [0, 1) is drawn once per pair of nodes."""

MAX_VERDICTS: Final = 65_536
"""Verification results that are cached: every node verifies a message, but the result is computed once."""


def uniform(low: float = 0.010, high: float = 0.050) -> Latency:
    """Every pair of nodes is between ``low`` and ``high`` seconds apart."""
    return lambda sender, receiver, chance: low + (high - low) * chance


def regions(sizes: Sequence[int], within: float = 0.005, between: float = 0.080) -> Latency:
    """Nodes in clusters of these sizes, in order of their numbers; chance adds up to 50 %."""
    region = [number for number, size in enumerate(sizes) for _ in range(size)]

    def latency(sender: int, receiver: int, chance: float) -> float:
        return (within if region[sender] == region[receiver] else between) * (1 + chance / 2)

    return latency


def line(nodes: int) -> tuple[tuple[int, int], ...]:
    """The edges of a row of nodes, each linked to the next."""
    return tuple((node, node + 1) for node in range(nodes - 1))


class Seat(NamedTuple):
    """What a node keeps across its lives."""

    number: int
    member: Member
    signer: Signer
    verify: Callable[[PeerKey, bytes, bytes], bool]
    """``(key, data, signature)``; for handlers that verify signatures themselves."""
    network: bytes
    members: Callable[[], Iterable[Member]]
    """Everybody at the table."""


def quiet_handlers(seat: Seat) -> Sequence[Handler]:
    """Rounds and votes, which send nothing unprompted."""
    return (Rounds(lambda: seat.member.account), Votes(seat.members))


def all_handlers(seat: Seat) -> Handlers:
    """The handlers of a real node. Heartbeats and records of N nodes cause about N * N deliveries a minute."""
    ports = RecordPorts(seat.signer, seat.network, seat.verify, judge=lambda record: Standing.ADMITTED)
    # The golden ratio spreads any number of phases evenly.
    phase = seat.number * 0.618034 % 1
    made = default_handlers(dict, ports, account=lambda: seat.member.account, members=seat.members, phase=phase)
    made.records.describe(Description(seat.member.peer_id, seat.member.endpoints))
    return made


EVEN: Final = uniform()
USUAL: Final = Bounds()


@dataclass(frozen=True, slots=True)
class SimulationSettings:
    """What stays fixed for a whole run."""

    latency: Latency = EVEN
    """Seconds between nodes."""
    verify_seconds: float = 0.0005
    """Virtual seconds that a node needs to verify one signature."""
    bounds: Bounds = USUAL
    """The bounds of every engine."""
    edges: Collection[tuple[int, int]] | None = None
    """Which nodes can reach each other; None: all."""
    stake: Callable[[int], int] = lambda number: 1
    """The stake of each node."""
    crypto: Literal["ed25519", "hash"] = "ed25519"
    """``hash`` replaces signatures with a keyed hash that any node could forge: for large runs with honest signers."""
    start_within: float = 1.0
    """Seconds over which the starts of the nodes are spread."""
    handlers: Callable[[Seat], Sequence[Handler]] = quiet_handlers
    """Makes the handlers of each life: ``quiet_handlers``, ``all_handlers``, or your own."""


class Life:
    """One process of a node, from its start to its crash."""

    __slots__ = ("admitted", "alive", "busy_until", "engine", "epoch", "handlers", "routes", "seat", "skew", "wake_at")

    def __init__(self, seat: Seat, engine: Engine, handlers: tuple[Handler, ...], epoch: int, skew: float) -> None:
        self.seat = seat
        """Its number, key and account, which outlive it."""
        self.engine = engine
        """The real one."""
        self.handlers = handlers
        """What the settings made for this life."""
        self.epoch = epoch
        self.skew = skew
        """Seconds by which its wall clock is ahead."""
        self.alive = True
        self.routes: dict[int, int] = {}
        """Connections: the other node's number -> the directions that are up (``OUT``, ``INBOUND``)."""
        self.admitted: frozenset[PeerKey] = frozenset()
        self.busy_until = 0.0
        """Virtual second until which it is busy verifying."""
        self.wake_at = float("inf")


class Delivery(NamedTuple):
    """One message handed to one application."""

    time: float
    """Virtual seconds since the start."""
    node: int
    """The node that got it."""
    author: int
    """The node that signed it."""
    kind: MessageType
    """What it is about."""
    message_id: MessageId
    """32 bytes."""
    payload: Mapping[str, Any]
    """As decoded; all applications share it."""
    direct: bool
    """True for a direct message, False for gossip."""


class Offence(NamedTuple):
    """One node blamed another."""

    time: float
    """Virtual seconds since the start."""
    node: int
    """The node that charged it."""
    culprit: int
    """The node that was charged."""
    fault: Fault
    """For what."""
    reputation: float
    """The culprit's remaining reputation at that node."""


class Publication:
    """A gossiped message, and what became of it."""

    __slots__ = ("arrived", "asked", "at", "author", "first", "kind", "message_id", "pushed", "repeats")

    def __init__(self, message_id: MessageId, kind: MessageType, author: int, at: float) -> None:
        self.message_id = message_id
        self.kind = kind
        self.author = author
        self.at = at
        self.asked = False
        """True if ``Simulation.broadcast`` sent it, and not a handler."""
        self.pushed = 0
        """Copies that left, by push or by request."""
        self.arrived = 0
        """Those of the copies that arrived."""
        self.first: dict[int, float] = {}
        """Node -> seconds from publication to delivery to its application."""
        self.repeats = 0
        """Further deliveries to a node that already had it: none, except after a crash of that node."""

    def delivered_to(self, node: int, time: float) -> None:
        """Record a delivery."""
        if node in self.first:
            self.repeats += 1
        else:
            self.first[node] = time - self.at


@dataclass(frozen=True, slots=True)
class Report:
    """How some messages spread. Seconds; ``p50`` and ``p99`` are over all deliveries of all messages."""

    messages: int
    """How many were sent."""
    expected: int
    """Expected deliveries: every message to every node that runs now, except its author."""
    delivered: int
    """Those of the expected deliveries that happened."""
    missed: tuple[tuple[str, int], ...]
    """(message id in hex, node) of each missing delivery."""
    repeats: int
    """Repeated deliveries of one message to one node."""
    pushed_per_delivery: float
    """Copies sent per delivery: the bandwidth paid; 1.0 would be a perfect tree."""
    arrived_per_delivery: float
    """Copies that arrived per delivery."""
    p50: float
    """The time within which half of the deliveries happened."""
    p99: float
    """The same for 99 % of them."""
    last: float
    """The time until the last node had a message, as the median over all messages."""
    worst: float
    """The longest time of any delivery."""


def summarise(publications: Sequence[Publication], running: Sequence[int]) -> Report:
    """Report on these messages, each of which should have reached every node in ``running`` except its author."""
    latencies = sorted(seconds for sent in publications for seconds in sent.first.values())
    missed = tuple(
        (sent.message_id.hex(), node)
        for sent in publications
        for node in running
        if node != sent.author and node not in sent.first
    )
    made = max(1, len(latencies))
    lasts = sorted(max(sent.first.values()) for sent in publications if sent.first)
    return Report(
        messages=len(publications),
        expected=sum(1 for sent in publications for node in running if node != sent.author),
        delivered=len(latencies),
        missed=missed,
        repeats=sum(sent.repeats for sent in publications),
        pushed_per_delivery=sum(sent.pushed for sent in publications) / made,
        arrived_per_delivery=sum(sent.arrived for sent in publications) / made,
        p50=_rank(latencies, 0.50),
        p99=_rank(latencies, 0.99),
        last=_rank(lasts, 0.50),
        worst=latencies[-1] if latencies else float("nan"),
    )


def _rank(ascending: Sequence[float], share: float) -> float:
    """The nearest-rank percentile; NaN for no values."""
    return ascending[max(0, ceil(share * len(ascending)) - 1)] if ascending else float("nan")


# ---------------------------------------------------------------- keys


class Keys:
    """Seats whose keys are derived from the seed, and verification with a cache."""

    def __init__(self, seed: int, settings: SimulationSettings) -> None:
        self._seed = seed
        self._settings = settings
        self._known: dict[tuple[bytes, bytes, bytes], bool] = {}
        self._check = _check_hash if settings.crypto == "hash" else _check_ed25519

    def seat(self, number: int, network: bytes, members: Callable[[], Iterable[Member]]) -> Seat:
        """The seat with that number."""
        secret = digest32(f"{self._seed}/key/{number}".encode())
        signer: Signer = _HashSigner(secret) if self._settings.crypto == "hash" else _Ed25519Signer(secret)
        member = Member(
            signer.public,
            account=f"account-{number}",
            peer_id=f"node-{number}",
            endpoints=(Endpoint(f"node-{number}.sim", 9090),),
            stake=self._settings.stake(number),
        )
        return Seat(number, member, signer, self.verify, network, members)

    def verify(self, key: PeerKey, data: bytes, signature: bytes) -> bool:
        """True if ``key`` signed ``data``."""
        question = (key, data, signature)
        answer = self._known.get(question)
        if answer is None:
            if len(self._known) >= MAX_VERDICTS:
                self._known.clear()
            answer = self._known[question] = self._check(key, data, signature)
        return answer


class _Ed25519Signer:
    def __init__(self, secret: bytes) -> None:
        from nacl.signing import SigningKey

        self._key = SigningKey(secret)
        self.public = bytes(self._key.verify_key)

    def sign(self, data: bytes) -> bytes:
        return bytes(self._key.sign(data).signature)


def _check_ed25519(key: PeerKey, data: bytes, signature: bytes) -> bool:
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    try:
        VerifyKey(key).verify(data, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


class _HashSigner:
    def __init__(self, secret: bytes) -> None:
        self.public = secret

    def sign(self, data: bytes) -> bytes:
        return blake2b(data, digest_size=64, key=self.public).digest()


def _check_hash(key: PeerKey, data: bytes, signature: bytes) -> bool:
    return blake2b(data, digest_size=64, key=key).digest() == signature
