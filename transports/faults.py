"""What can go wrong between simulated nodes, as values that compose.

Rules
 1. A fault is an immutable value. ``arm`` binds it to one run and returns a ``Carry``: a function from the copies of
    one message in flight to the copies that remain. What senders do (``Silent``, ``Byzantine``, ``Replay``) comes
    before what the network does; within each family, faults apply in the order given.
 2. Every fault draws from its own generator, seeded by the run's seed and its position in the list: appending a fault
    changes no draw of the others.
 3. Every fault takes ``nodes``, the senders that it acts on (numbers from 0; None: all), and ``start`` and ``end`` in
    virtual seconds: it acts on what is sent in ``[start, end)``.
 4. What senders do is counted per node, once for each message withheld, rewritten or sent again: a test with a liar
    that never lied proves nothing.

>>> rough = [Loss(0.2), Duplicate(0.05), Reorder(0.1, window=0.5), Corrupt(0.01)]
>>> split = [Partition([range(0, 50), range(50, 100)], start=10.0, end=40.0)]
>>> hostile = [Silent(0.3), Byzantine(inflate_ttl, nodes=[7]), Replay(nodes=[8])]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import ClassVar, Final

from zmesh.core import wire
from zmesh.core.types import Frames

Parcel = tuple[float, Frames]
"""One copy in flight: seconds until it arrives, and the frames that arrive."""
Carry = Callable[[float, int, int, list[Parcel]], list[Parcel]]
"""``(time, sender, receiver, copies) -> copies``: none is a loss, several are duplicates."""
Rewrite = Callable[[int, int, Frames], Iterable[Frames]]
"""``(sender, receiver, frames) -> the messages sent instead``, in that order."""

FOREVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Arena:
    """What a fault may know about the run that it is armed for."""

    nodes: int
    rng: Random
    """This fault's own generator."""
    tampered: Counter[int] = field(default_factory=Counter)
    """How many messages each node withheld, rewrote or sent again in this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(ABC):
    """Something that happens to messages on the wire."""

    nodes: Collection[int] | None = None
    """The senders that it acts on; None: all."""
    start: float = 0.0
    """Virtual seconds from which it acts."""
    end: float = FOREVER
    """Virtual seconds from which it acts no more."""
    by_sender: ClassVar[bool] = False
    """True if the sender does it, False if the network does."""

    @abstractmethod
    def carry(self, arena: Arena) -> Carry:
        """The effect of this fault while it acts."""

    def arm(self, arena: Arena) -> Carry:
        """``carry``, limited to ``nodes`` and to the time from ``start`` to ``end``."""
        carry, start, end = self.carry(arena), self.start, self.end
        nodes = None if self.nodes is None else frozenset(self.nodes)
        if nodes is None and start <= 0 and end == FOREVER:
            return carry

        def limited(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            acts = start <= time < end and (nodes is None or sender in nodes)
            return carry(time, sender, receiver, parcels) if acts else parcels

        return limited


def _check_share(rate: float) -> None:
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"a rate must be a share from 0 to 1, not {rate}")


@dataclass(frozen=True, slots=True)
class Loss(Fault):
    """A share ``rate`` of messages never arrives."""

    rate: float

    def carry(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        _check_share(self.rate)
        rate, draw = self.rate, arena.rng.random

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            return [parcel for parcel in parcels if draw() >= rate]

        return carry


@dataclass(frozen=True, slots=True)
class Delay(Fault):
    """Every message takes ``seconds`` longer; the order within a link stays."""

    seconds: float

    def carry(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        seconds = self.seconds

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            return [(delay + seconds, frames) for delay, frames in parcels]

        return carry


@dataclass(frozen=True, slots=True)
class Reorder(Fault):
    """A share ``rate`` of messages is held back by up to ``window`` seconds, so that others overtake them."""

    rate: float
    window: float = 0.2

    def carry(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        _check_share(self.rate)
        rate, window, draw = self.rate, self.window, arena.rng.random

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            return [(delay + window * draw() if draw() < rate else delay, frames) for delay, frames in parcels]

        return carry


@dataclass(frozen=True, slots=True)
class Duplicate(Fault):
    """A share ``rate`` of messages arrives twice, the second copy up to ``window`` seconds later."""

    rate: float
    window: float = 0.05

    def carry(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        _check_share(self.rate)
        rate, window, draw = self.rate, self.window, arena.rng.random

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            return parcels + [(delay + window * draw(), frames) for delay, frames in parcels if draw() < rate]

        return carry


@dataclass(frozen=True, slots=True)
class Corrupt(Fault):
    """In a share ``rate`` of messages one bit is flipped, anywhere in any frame."""

    rate: float

    def carry(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        _check_share(self.rate)
        rate, rng = self.rate, arena.rng

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            return [
                (delay, flip_a_bit(frames, rng)) if rng.random() < rate else (delay, frames)
                for delay, frames in parcels
            ]

        return carry


@dataclass(frozen=True, slots=True)
class Partition(Fault):
    """Nothing passes between the groups; a node in no group talks to all. Connections stay up but fall silent."""

    groups: Sequence[Collection[int]]

    def carry(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        side = {node: number for number, group in enumerate(self.groups) for node in group}

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            here, there = side.get(sender), side.get(receiver)
            return parcels if here is None or there is None or here == there else []

        return carry


@dataclass(frozen=True, slots=True)
class Silent(Fault):
    """Nodes that receive and never help: they relay nothing, offer nothing and serve nothing.

    They still greet, ask, acknowledge and push their own messages, so no peer cuts them. They are a ``share`` of all
    nodes, drawn from the seed, or exactly those in ``nodes`` (with a share of 1).
    """

    share: float = 1.0
    by_sender: ClassVar[bool] = True

    def carry(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        _check_share(self.share)
        candidates = sorted(range(arena.nodes) if self.nodes is None else self.nodes)
        silent = frozenset(arena.rng.sample(candidates, round(self.share * len(candidates))))
        tampered = arena.tampered

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            if sender not in silent:
                return parcels
            left = [parcel for parcel in parcels if not _helps(parcel[1])]
            tampered[sender] += len(parcels) - len(left)
            return left

        return carry


@dataclass(frozen=True, slots=True)
class Byzantine(Fault):
    """Every message goes through ``rewrite`` first, which may send nothing, something else, or more.

    A rewrite sees what an honest engine would have sent. It cannot sign for others.
    """

    rewrite: Rewrite
    by_sender: ClassVar[bool] = True

    def carry(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        rewrite, tampered = self.rewrite, arena.tampered

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            leaving: list[Parcel] = []
            for delay, frames in parcels:
                rewritten = [*rewrite(sender, receiver, frames)]
                if rewritten != [frames]:
                    tampered[sender] += 1
                leaving += [(delay, sent) for sent in rewritten]
            return leaving

        return carry


@dataclass(frozen=True, slots=True)
class Replay(Fault):
    """Everything is sent ``times`` times, and every new message resends a link's last ``memory`` messages."""

    times: int = 2
    memory: int = 8
    by_sender: ClassVar[bool] = True

    def carry(self, arena: Arena) -> Carry:
        """See ``Fault``."""
        kept: dict[tuple[int, int], deque[Frames]] = {}
        tampered = arena.tampered

        def carry(time: float, sender: int, receiver: int, parcels: list[Parcel]) -> list[Parcel]:
            mine = kept.setdefault((sender, receiver), deque(maxlen=self.memory))
            delay = parcels[0][0] if parcels else 0.0
            replayed = [(delay, frames) for frames in mine]
            mine.extend(frames for _, frames in parcels if frames[0][0] == wire.ENVELOPE)
            leaving = parcels * self.times + replayed
            tampered[sender] += len(leaving) - len(parcels)
            return leaving

        return carry


# ---------------------------------------------------------------- what happens to nodes


@dataclass(frozen=True, slots=True)
class Crash:
    """Node ``node`` dies at ``at`` and loses its memory; at ``back`` it restarts in a later epoch."""

    node: int
    at: float
    back: float = FOREVER


@dataclass(frozen=True, slots=True)
class Skew:
    """The wall clocks of ``nodes`` are always ``seconds`` ahead (negative: behind)."""

    nodes: Collection[int]
    seconds: float


Trouble = Fault | Crash | Skew
"""Anything that can go wrong in a simulation."""


# ---------------------------------------------------------------- ready-made rewrites for Byzantine


def zero_ttl(sender: int, receiver: int, frames: Frames) -> Iterable[Frames]:
    """Relay messages with no hops left, so that the push ends here."""
    return [(wire.envelope_head(0, frames[0][2]), *frames[1:])] if _is_relayed(frames) else [frames]


def inflate_ttl(sender: int, receiver: int, frames: Frames) -> Iterable[Frames]:
    """Relay messages with more hops than their author allowed."""
    return [(wire.envelope_head(255, frames[0][2]), *frames[1:])] if _is_relayed(frames) else [frames]


def forge_signature(sender: int, receiver: int, frames: Frames) -> Iterable[Frames]:
    """Send a copy with a junk signature ahead of every relayed message."""
    if not _is_relayed(frames):
        return [frames]
    head, body, signature = frames
    return [(head, body, bytes(byte ^ 0xFF for byte in signature)), frames]


def impersonate(sender: int, receiver: int, frames: Frames) -> Iterable[Frames]:
    """Ahead of every relayed message, send a body that its author never wrote, under the signature of the true one."""
    if not _is_relayed(frames):
        return [frames]
    head, body, signature = frames
    fields = wire.decode_body(body)
    lie = wire.encode_body(fields._replace(sequence=fields.sequence + 1))
    return [(head, lie, signature), frames]


def flip_a_bit(frames: Frames, rng: Random) -> Frames:
    """The same message with one bit flipped; every bit is equally likely."""
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
    """True if it is another author's message: a message that its own author pushes has done no hop."""
    return frames[0][0] == wire.ENVELOPE and frames[0][2] > 0


def _helps(frames: Frames) -> bool:
    return frames[0][0] == wire.IHAVE or _is_relayed(frames)
