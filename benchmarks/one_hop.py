"""Measures how long one message takes from the author's call to the recipient's handler, over one hop.

Two processes. Each has a mesh node and, in the same event loop, the bare lane of ``floor.py``. Messages of both kinds
take turns, so that disturbances of the machine affect both alike. Latency is one-way: the sender writes
``time.monotonic()`` into the message before it is signed, and the recipient reads the same clock (Linux has one for all
processes) when its handler is called.

``paced``: 50 messages a second of each kind, half a period apart, everything cold. ``back to back``: each message
leaves when the one before it was received, first in one direction, then in the other.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import zmq

from benchmarks.floor import BareLane
from benchmarks.harness import BenchmarkError, Figure, Line, Report, crew, main, percentile
from benchmarks.nodes import PAYLOAD, introduce, joined, payload
from zmesh import MeshMessage, MeshNetworkClient, MessageType

RATE = 50
"""Messages a second when paced."""
SLICE = 20
"""Messages of one kind before the other kind has its turn, back to back."""
WARM_UP = 40
"""Messages of each kind that are not counted: imports, connections and caches."""
ANSWER = 10.0
"""Seconds that one message may take before the run is abandoned."""
TARGET = 1.5
KINDS = ("zmesh", "floor")

_STAMP = struct.Struct("=dB")


@dataclass
class Latencies:
    """Seconds that each received message took, by kind."""

    zmesh: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)

    def of(self, kind: str) -> list[float]:
        """The latencies of one kind."""
        return self.zmesh if kind == "zmesh" else self.floor

    def extend(self, other: Latencies) -> None:
        """Add those of ``other``."""
        self.zmesh += other.zmesh
        self.floor += other.floor


class Side:
    """One of the two processes: sends both kinds, times what it receives, and answers on request."""

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.mesh: MeshNetworkClient
        self.lane = BareLane(self._bare)
        self.arrived: dict[str, Callable[[], None]] = dict.fromkeys(KINDS, lambda: None)
        self._sent = 0

    async def send(self, kind: str, *, wants_answer: bool) -> None:
        """Send one message now."""
        self._sent += 1
        if kind == "floor":
            self.lane.send(_STAMP.pack(time.monotonic(), wants_answer).ljust(PAYLOAD, b"\0"))
        else:
            values = payload(self._sent * 2 + wants_answer)
            values["sent"] = time.monotonic()
            await self.mesh.broadcast(MessageType.GOSSIP, values)

    def on_message(self, message: MeshMessage) -> None:
        """The mesh's handler: a plain function, which is called at once."""
        self.latencies.zmesh.append(time.monotonic() - message.payload["sent"])
        if message.payload["n"] % 2:
            self._answer = asyncio.ensure_future(self.send("zmesh", wants_answer=False))
        self.arrived["zmesh"]()

    def _bare(self, body: bytes) -> None:
        now = time.monotonic()
        sent, wants_answer = _STAMP.unpack_from(body)
        self.latencies.floor.append(now - sent)
        if wants_answer:
            self.lane.send(_STAMP.pack(time.monotonic(), 0).ljust(PAYLOAD, b"\0"))
        self.arrived["floor"]()

    async def round_trip(self, kind: str) -> None:
        """One message there and one back."""
        back = asyncio.get_running_loop().create_future()
        self.arrived[kind] = lambda: back.set_result(None)
        await self.send(kind, wants_answer=True)
        async with asyncio.timeout(ANSWER):
            await back
        self.arrived[kind] = lambda: None


async def side(line: Line, name: str, paced: int, trips: int) -> None:
    """The work of both processes. ``near`` sends; ``far`` answers until it is told to stop."""
    one = Side()
    async with joined(line, name) as one.mesh:
        one.mesh.register_handler(MessageType.GOSSIP, one.on_message)
        await _meet(line, name, one.lane)
        if name == "near":
            for kind in KINDS * WARM_UP:
                await one.round_trip(kind)
            line.tell("warm")
            await line.hear()
            one.latencies = Latencies()
            await _paced(one, paced)
            line.tell("paced")
            await line.hear()
            for done in range(0, trips, SLICE):
                for kind in KINDS:
                    for _ in range(min(SLICE, trips - done)):
                        await one.round_trip(kind)
            line.tell(one.latencies)
        else:
            while await line.hear() != "stop":
                line.tell(one.latencies)
                one.latencies = Latencies()
    one.lane.close()


async def _meet(line: Line, name: str, lane: BareLane) -> None:
    """Set up the bare lane: far binds, near connects."""
    if name == "far":
        server = zmq.curve_keypair()
        line.tell((lane.bind(server), server[0], lane.public))
        lane.start(await line.hear())
    else:
        port, server_key, theirs = await line.hear()
        lane.connect(port, server_key)
        line.tell(lane.public)
        lane.start(theirs)


async def _paced(one: Side, count: int) -> None:
    start = time.monotonic()
    for at in range(2 * count):
        await asyncio.sleep(max(0.0, start + at / (2 * RATE) - time.monotonic()))
        await one.send(KINDS[at % 2], wants_answer=False)
    await asyncio.sleep(0.5)  # the last one arrives


def measure_hops(paced: int, trips: int) -> tuple[Latencies, Latencies]:
    """Latencies of ``paced`` messages of each kind, and of twice ``trips`` messages of each kind back to back."""
    with crew(side, [("near", paced, trips), ("far", paced, trips)]) as (near, far):
        introduce((near, far))
        near.tell(far.hear())
        far.tell(near.hear())
        near.hear()
        far.tell("forget")
        far.hear()
        near.tell("go")
        near.hear(paced / RATE + 60)
        far.tell("paced")
        slow = far.hear()
        near.tell("go")
        fast = near.hear(trips * 0.1 + 60)
        far.tell("done")
        fast.extend(far.hear())
        far.tell("stop")
    for kind in KINDS:
        if len(slow.of(kind)) != paced or len(fast.of(kind)) != 2 * trips:
            raise BenchmarkError(f"{kind}: {len(slow.of(kind))} of {paced} and {len(fast.of(kind))} of {2 * trips}")
    return slow, fast


def measure(options: argparse.Namespace) -> Report:
    """Run the benchmark."""
    slow, fast = measure_hops(options.messages, options.messages)
    figures = []
    for name, found in ((f"{RATE} msg/s", slow), ("back to back", fast)):
        for share, target in ((0.5, TARGET), (0.99, None)):
            value, floor = (percentile(found.of(kind), share) * 1e3 for kind in KINDS)
            figures.append(Figure(f"{name}, p{share * 100:.0f}", value, "ms", floor, ratio_at_most=target))
    return Report(
        "one_hop",
        f"from the author's call to the recipient's handler, {PAYLOAD} B, signed + CURVE + verified, two processes",
        figures,
        {"messages": options.messages},
        [
            "floor: bare pyzmq CURVE drain, one PyNaCl sign, one verify; in turns with zmesh, in the same processes",
            "latencies are one-way, by the one monotonic clock of the machine",
        ],
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="benchmarks.one_hop", description=__doc__.partition("\n")[0])
    arguments.add_argument("--messages", type=int, default=500, help="of each kind and pace (500: about 15 s)")
    sys.exit(main(arguments, measure))
