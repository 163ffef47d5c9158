"""What can go wrong between simulated nodes, as values that compose.

Rules
 1. A fault is an immutable value. ``arm`` binds it to one run and gives a ``Carry``: a function from the copies of one
    message on their way to the copies that still are. Faults are applied in the order in which they are given.
 2. Every fault draws from its own generator, seeded by the run's seed and its place in the list: adding a fault at the
    end changes no draw of the others.
 3. Links start clean. ``start`` and ``end`` are virtual seconds: a fault acts on what is sent in ``[start, end)``.
 4. Nodes are named by their number, 0 to n-1. ``nodes`` says whose sending a fault acts on; None means everybody's.

>>> rough = [Loss(0.2), Duplicate(0.05), Reorder(0.1, window=0.5), Corrupt(0.01)]
>>> split = [Partition([range(0, 50), range(50, 100)], start=10.0, end=40.0)]
>>> hostile = [Silent(0.3), Byzantine([7], inflate_ttl)]
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol

from zmesh.core import wire
from zmesh.core.types import Frames

Parcel = tuple[float, Frames]
"""One copy on its way: seconds until it arrives, and what arrives."""
Carry = Callable[[float, int, int, list[Parcel]], list[Parcel]]
"""``(time, sender, receiver, copies) -> copies``: none is a loss, several are duplicates."""
Rewrite = Callable[[int, int, Frames], Iterable[Frames]]
"""``(sender, receiver, frames) -> messages that are sent instead``, in that order."""

FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Arena:
    """What a fault may know of the run that it is armed for."""

    nodes: int
    rng: Random
    """This fault's own generator."""


class Fault(Protocol):
    """A fault on the wire."""

    @property
    def start(self) -> float:
        """Virtual seconds from which it acts."""
        ...

    @property
    def end(self) -> float:
        """Virtual seconds from which it acts no more."""
        ...

    def arm(self, arena: Arena) -> Carry:
        """Bind it to one run."""
        ...


def _share(rate: float) -> None:
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"a rate of {rate}: it is a share of messages, from 0 to 1")


@dataclass(frozen=True, slots=True)
class Loss:
    """A share ``rate`` of messages never arrives."""

    rate: float
    nodes: Collection[int] | None = None
    start: float = 0.0
    end: float = FOREVER

    def __post_init__(self) -> None:
        _share(self.rate)

    def arm(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        rate, nodes, draw = self.rate, self.nodes, arena.rng.random

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            if nodes is not None and sender not in nodes:
                return parcels
            return [parcel for parcel in parcels if draw() >= rate]

        return carry


@dataclass(frozen=True, slots=True)
class Delay:
    """Every message takes ``seconds`` longer; its order within a link stays."""

    seconds: float
    nodes: Collection[int] | None = None
    start: float = 0.0
    end: float = FOREVER

    def arm(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        seconds, nodes = self.seconds, self.nodes

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            if nodes is not None and sender not in nodes:
                return parcels
            return [(delay + seconds, frames) for delay, frames in parcels]

        return carry


@dataclass(frozen=True, slots=True)
class Reorder:
    """A share ``rate`` of messages is held back by up to ``window`` seconds, and overtaken meanwhile."""

    rate: float
    window: float = 0.2
    nodes: Collection[int] | None = None
    start: float = 0.0
    end: float = FOREVER

    def __post_init__(self) -> None:
        _share(self.rate)

    def arm(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        rate, window, nodes, draw = self.rate, self.window, self.nodes, arena.rng.random

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            if nodes is not None and sender not in nodes:
                return parcels
            return [(delay + window * draw() if draw() < rate else delay, frames) for delay, frames in parcels]

        return carry


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A share ``rate`` of messages arrives twice, the second copy up to ``window`` seconds later."""

    rate: float
    window: float = 0.05
    nodes: Collection[int] | None = None
    start: float = 0.0
    end: float = FOREVER

    def __post_init__(self) -> None:
        _share(self.rate)

    def arm(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        rate, window, nodes, draw = self.rate, self.window, self.nodes, arena.rng.random

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            if nodes is not None and sender not in nodes:
                return parcels
            extra = [(delay + window * draw(), frames) for delay, frames in parcels if draw() < rate]
            return parcels + extra if extra else parcels

        return carry


@dataclass(frozen=True, slots=True)
class Corrupt:
    """In a share ``rate`` of messages one bit is flipped, anywhere in any frame."""

    rate: float
    nodes: Collection[int] | None = None
    start: float = 0.0
    end: float = FOREVER

    def __post_init__(self) -> None:
        _share(self.rate)

    def arm(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        rate, nodes, rng = self.rate, self.nodes, arena.rng

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            if nodes is not None and sender not in nodes:
                return parcels
            return [
                (delay, flip_a_bit(frames, rng)) if rng.random() < rate else (delay, frames)
                for delay, frames in parcels
            ]

        return carry


@dataclass(frozen=True, slots=True)
class Partition:
    """Nothing passes between the groups; nodes in no group talk to everybody. Connections stand, and fall silent."""

    groups: Sequence[Collection[int]]
    start: float = 0.0
    end: float = FOREVER

    def arm(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        side = {node: number for number, group in enumerate(self.groups) for node in group}

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            here, there = side.get(sender), side.get(receiver)
            return parcels if here is None or there is None or here == there else []

        return carry


@dataclass(frozen=True, slots=True)
class Silent:
    """Nodes that receive and never help: they pass nothing on, offer nothing and serve nothing.

    They still greet, ask, acknowledge and push what they write themselves, so nobody cuts them. ``which`` is a
    share of all nodes, drawn by the seed, or the nodes themselves.
    """

    which: float | Collection[int]
    start: float = 0.0
    end: float = FOREVER

    def chosen(self, arena: Arena) -> frozenset[int]:
        """The silent nodes of that run."""
        if isinstance(self.which, (int, float)):
            _share(self.which)
            return frozenset(arena.rng.sample(range(arena.nodes), round(self.which * arena.nodes)))
        return frozenset(self.which)

    def arm(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        nodes = self.chosen(arena)

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            if sender not in nodes:
                return parcels
            return [parcel for parcel in parcels if not _helps(parcel[1])]

        return carry


def _helps(frames: Frames) -> bool:
    """Does that message serve others? What its author itself pushes has done no hop."""
    head = frames[0]
    return head[0] == wire.IHAVE or (head[0] == wire.ENVELOPE and head[2] > 0)


@dataclass(frozen=True, slots=True)
class Byzantine:
    """Nodes whose every message goes through ``rewrite`` first: nothing, other things or more may leave instead.

    A rewrite sees what an honest engine would have sent, and may keep state. Signatures of others it cannot make.
    """

    nodes: Collection[int]
    rewrite: Rewrite
    start: float = 0.0
    end: float = FOREVER

    def arm(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        nodes, rewrite = frozenset(self.nodes), self.rewrite

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            if sender not in nodes:
                return parcels
            return [(delay, sent) for delay, frames in parcels for sent in rewrite(sender, receiver, frames)]

        return carry


# ---------------------------------------------------------------- things that happen to nodes


@dataclass(frozen=True, slots=True)
class Crash:
    """Node ``node`` dies at ``at`` and loses its memory; at ``back`` it starts anew with a later epoch."""

    node: int
    at: float
    back: float = FOREVER


@dataclass(frozen=True, slots=True)
class Skew:
    """The wall clock of ``nodes`` runs ``seconds`` ahead (negative: behind) all the time."""

    nodes: Collection[int]
    seconds: float


# ---------------------------------------------------------------- ready-made rewrites for Byzantine


def zero_ttl(sender: int, receiver: int, frames: Frames) -> Iterable[Frames]:
    """Pass messages on with no hops left, so that they end here."""
    return [_with_head(frames, ttl=0)]


def inflate_ttl(sender: int, receiver: int, frames: Frames) -> Iterable[Frames]:
    """Pass messages on with more hops than their author allowed."""
    return [_with_head(frames, ttl=255)]


def forge_signature(sender: int, receiver: int, frames: Frames) -> Iterable[Frames]:
    """Send a copy with a junk signature ahead of every message of somebody else."""
    if _is_relayed(frames):
        head, body, signature = frames
        return [(head, body, bytes(byte ^ 0xFF for byte in signature)), frames]
    return [frames]


def forge_author(sender: int, receiver: int, frames: Frames) -> Iterable[Frames]:
    """Claim that messages of others were written by whoever receives them, under their old signature."""
    if _is_relayed(frames):
        head, body, signature = frames
        fields = wire.decode_body(body)
        return [(head, wire.encode_body(fields._replace(author=bytes(reversed(fields.author)))), signature), frames]
    return [frames]


@dataclass(slots=True)
class Replay:
    """Send everything ``times`` times, and the last ``memory`` messages again with every new one."""

    times: int = 2
    memory: int = 8
    kept: list[Frames] = field(default_factory=list)

    def __call__(self, sender: int, receiver: int, frames: Frames) -> Iterable[Frames]:
        """See ``Rewrite``."""
        again = list(self.kept)
        if frames[0][0] == wire.ENVELOPE:
            self.kept = [*self.kept, frames][-self.memory :]
        return [frames] * self.times + again


def flip_a_bit(frames: Frames, rng: Random) -> Frames:
    """The same message with one bit changed, each equally likely."""
    bit = int(rng.random() * 8 * sum(map(len, frames)))
    damaged = list(frames)
    for number, frame in enumerate(frames):
        if bit < 8 * len(frame):
            changed = bytearray(frame)
            changed[bit // 8] ^= 1 << bit % 8
            damaged[number] = bytes(changed)
            break
        bit -= 8 * len(frame)
    return tuple(damaged)


def _is_relayed(frames: Frames) -> bool:
    return frames[0][0] == wire.ENVELOPE and frames[0][2] > 0


def _with_head(frames: Frames, ttl: int) -> Frames:
    if not _is_relayed(frames):
        return frames
    return (wire.envelope_head(ttl, frames[0][2]), *frames[1:])
