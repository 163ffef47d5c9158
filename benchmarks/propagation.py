"""Measures the time until the last of ten processes has a message, in a full mesh with everything enabled.

Ten processes, ten messages a second, each from a random node. Time runs from the author's call to the handler of the
last of the nine others, on the machine's one monotonic clock. The yardstick is one hop between two processes, measured
in the same run before the ten start and after they end.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.harness import BenchmarkError, Figure, Line, Report, Worker, crew, main, median, percentile
from benchmarks.nodes import PAYLOAD, introduce, joined, metric, payload
from benchmarks.one_hop import RATE as HOP_RATE
from benchmarks.one_hop import measure_hops
from zmesh import MeshMessage, MessageType

RATE = 10
"""Messages per second of all nodes together."""
WARM_UP = 20
"""Messages that are not counted."""
HOPS = 150
"""Messages per measurement of one hop."""
SETTLE = 3.0
"""Seconds after the last message in which repair brings what the push missed."""
TARGET = 5.0
SEED = 1
"""Seed for the choice of authors."""


BEGIN, END = "begin", "end"
DUPLICATES = 'zmesh_frames_dropped_total{reason="duplicate"}'


@dataclass
class Log:
    """What one node saw."""

    taken: dict[int, float] = field(default_factory=dict)
    """Message number -> seconds it took."""
    arrivals: int = 0
    """Messages handed to the handler."""
    duplicates: int = 0
    """Further copies that arrived."""


async def node(line: Line, name: str) -> None:
    """Broadcast each number received from the parent; log what arrives between ``BEGIN`` and ``END``."""
    log = Log()

    def take(message: MeshMessage) -> None:
        log.arrivals += 1
        log.taken[message.payload["n"]] = time.monotonic() - message.payload["sent"]

    async with joined(line, name) as mesh:
        mesh.register_handler(MessageType.GOSSIP, take)
        before = 0
        while (told := await line.hear()) != END:
            if told == BEGIN:
                log = Log()
                before = metric(mesh, DUPLICATES)
                line.tell(BEGIN)
            else:
                values = payload(told)
                values["sent"] = time.monotonic()
                await mesh.broadcast(MessageType.GOSSIP, values)
        log.duplicates = metric(mesh, DUPLICATES) - before
        line.tell(log)
        await line.hear()


def _announce(workers: Sequence[Worker], count: int, rng: random.Random) -> dict[int, int]:
    """Let random workers broadcast ``count`` numbers at ``RATE``; returns number -> author."""
    authors = {}
    start = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, start + number / RATE - time.monotonic()))
        authors[number] = rng.randrange(len(workers))
        workers[authors[number]].tell(number)
    time.sleep(SETTLE)
    return authors


def propagate(nodes: int, count: int) -> tuple[dict[int, int], list[Log]]:
    """The author of each message, and what each node saw."""
    rng = random.Random(SEED)
    with crew(node, [(f"node{at:02}",) for at in range(nodes)]) as workers:
        introduce(workers)
        _announce(workers, WARM_UP, rng)
        for worker in workers:
            worker.tell(BEGIN)
        for worker in workers:
            worker.hear()  # otherwise the first message could come before its log
        authors = _announce(workers, count, rng)
        for worker in workers:
            worker.tell(END)
        logs = [worker.hear() for worker in workers]
        for worker in workers:
            worker.tell("stop")
    return authors, logs


def last_of_all(authors: dict[int, int], logs: list[Log]) -> list[float]:
    """Seconds until the last node had each message. Raises ``BenchmarkError`` if one lacks it or had it twice."""
    for at, log in enumerate(logs):
        lacking = {number for number, author in authors.items() if author != at} - log.taken.keys()
        if lacking or log.arrivals != len(log.taken):
            raise BenchmarkError(f"node {at} lacks {len(lacking)} messages, {log.arrivals - len(log.taken)} came twice")
    return [max(log.taken[number] for log in logs if number in log.taken) for number in authors]


def measure(options: argparse.Namespace) -> Report:
    """Measure one hop, then the full mesh, then one hop again."""
    hop = measure_hops(options.hops, 0)[0].zmesh
    authors, logs = propagate(options.nodes, options.messages)
    hop += measure_hops(options.hops, 0)[0].zmesh
    last = [seconds * 1e3 for seconds in last_of_all(authors, logs)]
    single = [seconds * 1e3 for seconds in hop]
    deliveries = sum(log.arrivals for log in logs)
    copies = 1 + sum(log.duplicates for log in logs) / deliveries
    return Report(
        "propagation",
        f"until the last of {options.nodes} processes has a message, full mesh, {PAYLOAD} B, {RATE} msg/s",
        [
            Figure(f"last of {options.nodes}, p50", median(last), "ms", median(single), ratio_at_most=TARGET),
            Figure(f"last of {options.nodes}, p99", percentile(last, 0.99), "ms", percentile(single, 0.99)),
            Figure("any node, p50", median([t * 1e3 for log in logs for t in log.taken.values()]), "ms"),
            Figure("messages at every node", 1.0, "", at_least=1.0),
            Figure("copies per delivery", copies, ""),
        ],
        {"nodes": options.nodes, "messages": options.messages, "hops": options.hops},
        [
            f"floor: one hop of zmesh at {HOP_RATE} msg/s between two processes, before and after, same run",
            f"{deliveries} deliveries of {deliveries}, each exactly once; {os.cpu_count()} cores carry all processes",
        ],
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="benchmarks.propagation", description=__doc__.partition("\n")[0])
    arguments.add_argument("--messages", type=int, default=300, help="to broadcast, 10 a second (300: about 50 s)")
    arguments.add_argument("--nodes", type=int, default=10, help="processes (10)")
    arguments.add_argument("--hops", type=int, default=HOPS, help=f"messages of one measurement of one hop ({HOPS})")
    sys.exit(main(arguments, measure))
