"""How many singly signed messages a second one node takes from another, with nothing lost.

Two processes, each pinned to a core of its own. The sender broadcasts as fast as back-pressure lets it; the receiver
checks every signature, and that every message came exactly once. The rate counts from the receiver's first message
to its last. The floor is PyNaCl's verify rate in the receiver's own process, on the same core, before and after, with
the sender at rest. Cores that share what they are made of (caches, or one physical core behind two virtual ones) slow
each other down, so the rate is also shown against the same floor while the sender's core signs as fast as it can.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from dataclasses import dataclass

from benchmarks.floor import sign_rate, verify_rate
from benchmarks.harness import BenchmarkError, Figure, Line, Report, crew, main
from benchmarks.nodes import NO_LIMIT, PAYLOAD, UNLIMITED, introduce, joined, payload
from zmesh import MeshMessage, MessageType

SETTLE = 60.0
"""Seconds from the last message's departure until all must have arrived: repair included."""
FLOOR_SECONDS = 0.5
"""Seconds of one measurement of the floor."""
ONE_CORE = 0.6
HANDLER_QUEUE = 1_000_000


@dataclass(frozen=True)
class Flood:
    """What the receiver saw of one flood."""

    received: int
    unique: int
    seconds: float
    verify: float
    """Signatures a second that PyNaCl verifies alone."""
    beside: float
    """The same, while the sender's core is busy."""

    @property
    def rate(self) -> float:
        """Messages a second."""
        return (self.received - 1) / self.seconds


async def sender(line: Line, core: int, count: int) -> None:
    """Broadcast ``count`` messages as fast as they are taken."""
    os.sched_setaffinity(0, {core})
    async with joined(line, "sender", **UNLIMITED) as mesh:
        for number in range(count):
            await mesh.broadcast(MessageType.GOSSIP, payload(number, time.monotonic()))
        line.tell("sent")
        while await line.hear() == "sign":
            line.tell("signing")
            sign_rate(2 * FLOOR_SECONDS)


async def receiver(line: Line, cores: set[int], count: int, threads: int) -> None:
    """Take what comes, count it, and measure the floor before and after."""
    os.sched_setaffinity(0, cores)
    floors = [verify_rate(FLOOR_SECONDS)]
    numbers: list[int] = []
    moments: list[float] = []
    complete = asyncio.Event()

    def take(message: MeshMessage) -> None:
        moments.append(time.monotonic())
        numbers.append(message.payload["n"])
        if len(numbers) == count:
            complete.set()

    settings = {**UNLIMITED, "handler_queue": HANDLER_QUEUE, "verify_threads": threads}
    async with joined(line, "receiver", **settings) as mesh:
        mesh.register_handler(MessageType.GOSSIP, take)
        line.tell("ready")
        await line.hear()
        async with asyncio.timeout(SETTLE):
            await complete.wait()
        await asyncio.sleep(0.5)  # what came twice would show now
    floors.append(verify_rate(FLOOR_SECONDS))
    line.tell("received")
    await line.hear()
    beside = verify_rate(FLOOR_SECONDS)
    line.tell(Flood(len(numbers), len(set(numbers)), moments[-1] - moments[0], sum(floors) / len(floors), beside))


async def node(line: Line, role: str, cores: set[int], count: int, threads: int) -> None:
    """The work of each process."""
    if role == "sender":
        await sender(line, min(cores), count)
    else:
        await receiver(line, cores, count, threads)


def flood(count: int, send_on: int, receive_on: set[int], threads: int) -> Flood:
    """One flood. Raises ``BenchmarkError`` unless every message came exactly once."""
    roles = [("sender", {send_on}, count, 0), ("receiver", receive_on, count, threads)]
    with crew(node, roles) as (source, sink):
        introduce((source, sink))
        sink.hear()
        sink.tell("go")
        source.hear(60 + count / 500)
        sink.hear(SETTLE + 10)
        source.tell("sign")
        source.hear()
        sink.tell("measure")
        seen: Flood = sink.hear()
        source.tell("stop")
    if not seen.received == seen.unique == count:
        raise BenchmarkError(f"of {count} messages {seen.received} came, {seen.unique} different ones")
    return seen


def measure(options: argparse.Namespace) -> Report:
    """Run it on one core, and with a pool on all."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("a flood needs two cores: one for the sender, one for the receiver")
    one = flood(options.messages, cores[0], {cores[1]}, 0)
    pool = flood(options.messages, cores[0], set(cores), options.threads)
    return Report(
        "flood",
        f"A to B, {PAYLOAD} B, each signed by itself, nothing lost, everything exactly once",
        [
            Figure("received on one core", one.rate, "msg/s", one.verify, at_least=ONE_CORE),
            Figure("the same, beside a busy core", one.rate, "msg/s", one.beside),
            Figure(f"with {options.threads} verify threads on both cores", pool.rate, "msg/s", pool.verify),
        ],
        {
            "messages": options.messages,
            "author_rate, author_burst, link_rate, link_burst": f"{NO_LIMIT:g}",
            "handler_queue": HANDLER_QUEUE,
        },
        [
            "floor: PyNaCl's verify rate on one core, in the receiver before and after, with the sender at rest",
            "beside a busy core: the same floor while the sender's core signs, as it does during the flood",
            "two verify threads share the sender's core, which sending keeps busy",
        ],
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="benchmarks.flood", description=__doc__.partition("\n")[0])
    arguments.add_argument("--messages", type=int, default=20_000, help="to send in each of the two floods (20000)")
    arguments.add_argument("--threads", type=int, default=2, help="verify threads of the pool (2)")
    sys.exit(main(arguments, measure))
