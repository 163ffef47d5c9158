"""Measures how many individually signed messages per second one node accepts from another, with nothing lost.

Two processes, each pinned to its own core. The sender broadcasts as fast as back-pressure lets it; the receiver checks
every signature, and that every message arrives exactly once. The floor is PyNaCl's verify rate in the receiver's own
process, on the same core, with the sender at rest. Flood and floor take turns, because a shared machine changes its
speed within a second. Cores that share hardware (caches, or one physical core behind two virtual ones) slow each other
down, so the rate is also shown against the same floor while the sender's core signs as fast as it can.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from dataclasses import dataclass

from benchmarks.floor import sign_rate, verify_rate
from benchmarks.harness import BenchmarkError, Figure, Line, Report, Worker, crew, main
from benchmarks.nodes import NO_LIMIT, PAYLOAD, UNLIMITED, introduce, joined, payload
from zmesh import MeshMessage, MessageType

SLICE = 5_000
"""Messages between two measurements of the floor: a good second of work."""
FLOOR_SECONDS = 0.15
"""Seconds that one measurement of the floor takes."""
SETTLE = 60.0
"""Seconds in which a slice must have arrived, including repair."""
TWICE = 0.5
"""Seconds after the last slice in which duplicates would show."""
ONE_CORE = 0.6
HANDLER_QUEUE = 1_000_000


@dataclass(frozen=True)
class Flood:
    """The result of one flood, in messages or signatures per second."""

    rate: float
    verify: float
    """Signatures that PyNaCl verifies alone."""
    beside: float
    """The same, while the sender's core is busy."""


async def sender(line: Line, core: int) -> None:
    """Broadcast a slice, or keep the core busy, on command."""
    os.sched_setaffinity(0, {core})
    sent = 0
    async with joined(line, "sender", **UNLIMITED) as mesh:
        while (work := await line.hear()) != "stop":
            if work == "send":
                made = [payload(number) for number in range(sent, sent + SLICE)]
                for one in made:
                    await mesh.broadcast(MessageType.GOSSIP, one)
                sent += SLICE
            else:
                line.tell("begun")
                sign_rate(3 * FLOOR_SECONDS)
            line.tell("done")


async def receiver(line: Line, cores: set[int], threads: int) -> None:
    """Receive a slice and report its seconds, or measure the floor, on command; at the end, report what arrived."""
    os.sched_setaffinity(0, cores)
    numbers: list[int] = []
    moments: list[float] = []
    complete = asyncio.Event()

    def take(message: MeshMessage) -> None:
        moments.append(time.monotonic())
        numbers.append(message.payload["n"])
        if len(numbers) % SLICE == 0:
            complete.set()

    settings = {**UNLIMITED, "handler_queue": HANDLER_QUEUE, "verify_threads": threads}
    async with joined(line, "receiver", **settings) as mesh:
        mesh.register_handler(MessageType.GOSSIP, take)
        line.tell("ready")
        while (work := await line.hear()) != "stop":
            if work == "take":
                async with asyncio.timeout(SETTLE):
                    await complete.wait()
                complete.clear()
                line.tell(moments[-1] - moments[-SLICE])
            else:
                line.tell(verify_rate(FLOOR_SECONDS))
        await asyncio.sleep(TWICE)
    line.tell((len(numbers), len(set(numbers))))


async def node(line: Line, role: str, cores: set[int], threads: int) -> None:
    """The work of both processes, by role."""
    if role == "sender":
        await sender(line, min(cores))
    else:
        await receiver(line, cores, threads)


def flood(count: int, send_on: int, receive_on: set[int], threads: int) -> Flood:
    """Flood ``count`` messages, rounded up to whole slices. Raises ``BenchmarkError`` unless each arrives once."""
    seconds: list[float] = []
    alone: list[float] = []
    beside: list[float] = []
    slices = -(-count // SLICE)
    with crew(node, [("sender", {send_on}, 0), ("receiver", receive_on, threads)]) as (source, sink):
        introduce((source, sink))
        sink.hear()
        for _ in range(slices):
            sink.tell("take")
            source.tell("send")
            source.hear(SETTLE)
            seconds.append(sink.hear(SETTLE + 10))
            alone.append(_floor(sink))
            source.tell("sign")
            source.hear()
            beside.append(_floor(sink))
            source.hear()
        sink.tell("stop")
        received, unique = sink.hear()
        source.tell("stop")
    if not received == unique == slices * SLICE:
        raise BenchmarkError(f"of {slices * SLICE} messages {received} came, {unique} different ones")
    return Flood(slices * (SLICE - 1) / sum(seconds), sum(alone) / slices, sum(beside) / slices)


def _floor(sink: Worker) -> float:
    sink.tell("floor")
    rate: float = sink.hear()
    return rate


def measure(options: argparse.Namespace) -> Report:
    """Run the flood on one core, and with a pool of verify threads on all."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise BenchmarkError("a flood needs two cores: one for the sender, one for the receiver")
    one = flood(options.messages, cores[0], {cores[1]}, 0)
    pool = flood(options.messages, cores[0], set(cores), options.threads)
    return Report(
        "flood",
        f"A to B, {PAYLOAD} B, each signed by itself, nothing lost, everything exactly once",
        [
            Figure("received on one core", one.rate, "msg/s", one.verify, ratio_at_least=ONE_CORE),
            Figure("the same, beside a busy core", one.rate, "msg/s", one.beside),
            Figure(f"with {options.threads} verify threads on both cores", pool.rate, "msg/s", pool.verify),
        ],
        {
            "messages": options.messages,
            "author_rate, author_burst, link_rate, link_burst": f"{NO_LIMIT:g}",
            "handler_queue": HANDLER_QUEUE,
        },
        [
            "floor: PyNaCl's verify rate on one core, in the receiver and in turns with the flood, the sender at rest",
            "beside a busy core: the same floor while the sender's core signs, as it does during the flood",
            "two verify threads share the sender's core, which sending keeps busy",
        ],
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="benchmarks.flood", description=__doc__.partition("\n")[0])
    arguments.add_argument("--messages", type=int, default=40_000, help="to send in each of the two floods (40000)")
    arguments.add_argument("--threads", type=int, default=2, help="verify threads of the pool (2)")
    sys.exit(main(arguments, measure))
