"""Simulates gossip among 100, 1,000 and 10,000 nodes: clean, and with 20 % loss and 30 % silent relays.

Real engines and frames in virtual time (``zmesh.transports.simulator``): links of 10 to 50 ms, 0.5 ms to verify a
signature. The times are virtual, so they do not depend on the machine, and a seed replays them exactly. A keyed hash
replaces signatures, since no node cheats here; each case runs in its own process.

The floor of the latencies is an ideal flood over the same links: nothing is lost, every node relays everything to all
neighbours, and every message takes the shortest path, with the same delays and verification times. The floor of the
copies is one per delivery. ``REFERENCE`` is another simulation, not of this code.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.harness import BenchmarkError, Figure, Line, Report, crew, main, median, percentile
from zmesh.core.bounds import Bounds
from zmesh.core.types import MessageType
from zmesh.transports.faults import Loss, Silent
from zmesh.transports.simulator import Simulation, SimulationSettings

LOSS: Final = 0.2
SILENT: Final = 0.3
SETTLED: Final = 5.0
"""Virtual seconds after which all links are live; faults and messages begin only then."""
BETWEEN: Final = 2.0
"""Virtual seconds between messages, which spread one after the other."""
AFTERWARDS: Final = 20.0
"""Virtual seconds for repair to find what is missing: four rounds of digests."""
PAYLOAD: Final = {"data": bytes(256)}
PATIENCE: Final = 3600.0
"""Seconds that one case may take."""
PLOT: Final = Path("build/simulate.png")
"""Where the plot goes, relative to the current folder."""
MAX_MINUTES: Final = 15.0
MAX_GIB: Final = 12.0


class Spread(NamedTuple):
    """Copies per delivery, and milliseconds until 50 %, 99 % and all of the nodes had a message."""

    copies: float
    p50: float
    p99: float
    last: float


class Case(NamedTuple):
    """One run."""

    nodes: int
    faulty: bool
    fanout: int
    messages: int
    seed: int

    @property
    def name(self) -> str:
        """A human-readable name."""
        return f"{self.nodes:,} {'faulty' if self.faulty else 'clean'}, k={self.fanout}"


REFERENCE: Final = {
    (100, False, 5): Spread(2.7, 29, 50, 50),
    (1_000, False, 5): Spread(5.3, 116, 177, 411),
    (10_000, False, 5): Spread(5.25, 153, 214, 527),
    (1_000, True, 5): Spread(3.7, 174, 427, 1387),
    (10_000, True, 8): Spread(5.7, 166, 251, 845),
}
"""By nodes, faults and fanout: one run each of a prototype simulation of the same policy (push, then repair by IHAVE
and IWANT), with links of 10 to 50 ms and 0.5 ms of processing. There is no run for 100 nodes with faults."""


@dataclass(frozen=True)
class Outcome:
    """The result of one case, in milliseconds of virtual time."""

    case: Case
    spread: Spread
    floor: Spread
    arrived: float
    """Copies that arrived per delivery; ``spread.copies`` counts those that left."""
    expected: int
    missed: int
    repeats: int
    offences: int
    latencies: Sequence[float]
    """About a thousand evenly spaced ranks of all latencies, ascending: the curve of the plot."""
    minutes: float
    """Minutes of CPU time."""
    gib: float
    digest: str

    @property
    def reference(self) -> Spread | None:
        """The same case in ``REFERENCE``."""
        return REFERENCE.get((self.case.nodes, self.case.faulty, self.case.fanout))


async def run(line: Line, case: Case) -> None:
    """The work of one process."""
    gc.disable()  # there is no cyclic garbage here, and looking for it among millions of objects is slow
    started = time.process_time()
    faults = [Loss(LOSS, start=SETTLED), Silent(share=SILENT, start=SETTLED)] if case.faulty else []
    settings = SimulationSettings(crypto="hash", bounds=Bounds(fanout=case.fanout))
    sim = Simulation(case.seed, case.nodes, faults, settings)
    if not sim.settle(limit=SETTLED):
        raise BenchmarkError(f"{case.name}: not all links were live after {SETTLED:g} virtual seconds")
    sim.run(SETTLED)
    ideal: list[list[float]] = []
    sought = 0.0
    for number in range(case.messages):
        author = number * case.nodes // case.messages
        sim.broadcast(author, MessageType.GOSSIP, PAYLOAD)
        before = time.process_time()
        ideal.append(ideal_flood(sim, author))
        sought += time.process_time() - before
        sim.run_for(BETWEEN)
    sim.run_for(AFTERWARDS)
    minutes = (time.process_time() - started - sought) / 60
    report = sim.report()
    latencies = sorted(1000 * at for message in sim.published.values() for at in message.first.values())
    line.tell(
        Outcome(
            case,
            Spread(report.pushed_per_delivery, 1000 * report.p50, 1000 * report.p99, 1000 * report.last),
            floor_of(ideal),
            report.arrived_per_delivery,
            report.expected,
            len(report.missed),
            report.repeats,
            len(sim.offences),
            latencies[:: max(1, len(latencies) // 1000)],
            minutes,
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2,
            sim.digest(),
        )
    )


def ideal_flood(sim: Simulation, author: int) -> list[float]:
    """Seconds until each other node could have a message over the links live now (Dijkstra), ascending."""
    number = {life.seat.member.key: life.seat.number for life in sim.nodes}
    check = sim.settings.verify_seconds
    reached: dict[int, float] = {}
    heap = [(0.0, author)]
    while heap:
        at, node = heappop(heap)
        if node in reached:
            continue
        reached[node] = at
        for key, link in sim.nodes[node].engine.links.items():
            if link.is_live and (neighbour := number[key]) not in reached:
                heappush(heap, (at + sim.latency(node, neighbour) + check, neighbour))
    del reached[author]
    return list(reached.values())


def floor_of(ideal: Sequence[Sequence[float]]) -> Spread:
    """The spread of ideal floods, one flood per message."""
    everything = [1000 * at for flood in ideal for at in flood]
    last = median([1000 * flood[-1] for flood in ideal])
    return Spread(1.0, median(everything), percentile(everything, 0.99), last)


# ---------------------------------------------------------------- what is printed


def figures(outcome: Outcome) -> list[Figure]:
    """The numbers of one case."""
    name, reference = outcome.case.name, outcome.reference
    found = [
        Figure(f"{name}: {what}", value, unit, floor, getattr(reference, what, None))
        for what, value, unit, floor in zip(
            Spread._fields, outcome.spread, ("", "ms", "ms", "ms"), outcome.floor, strict=True
        )
    ]
    return [
        *found,
        Figure(f"{name}: copies that arrived", outcome.arrived, ""),
        Figure(f"{name}: missed", outcome.missed, "deliveries", at_most=0),
        Figure(f"{name}: repeated", outcome.repeats, "deliveries", at_most=0),
        Figure(f"{name}: offences", outcome.offences, ""),
        Figure(f"{name}: CPU", outcome.minutes, "min", at_most=MAX_MINUTES),
        Figure(f"{name}: memory", outcome.gib, "GiB", at_most=MAX_GIB),
    ]


def plot(outcomes: Sequence[Outcome], path: Path) -> None:
    """Draw the share of nodes that have a message against the time since it was published."""
    from matplotlib.figure import Figure as Canvas

    axes = (canvas := Canvas(figsize=(8, 5), layout="constrained")).subplots()
    for outcome in outcomes:
        count = len(outcome.latencies)
        shares = [100 * (rank + 1) / count for rank in range(count)]
        style = "--" if outcome.case.faulty else "-"
        axes.plot(outcome.latencies, shares, style, label=f"{outcome.case.name}, {outcome.spread.copies:.1f} copies")
    axes.set(
        xscale="log",
        xlabel="milliseconds since publication",
        ylabel="nodes that have it, %",
        title=f"zmesh gossip, simulated: faulty is {LOSS:.0%} loss and {SILENT:.0%} silent relays",
    )
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    canvas.savefig(path, format="png", dpi=120)
    print(f"plotted in {path}", file=sys.stderr)


def prepare(path: Path) -> None:
    """Check before the first case that a plot can be drawn and saved. Raises ``BenchmarkError`` if not."""
    if find_spec("matplotlib") is None:
        raise BenchmarkError("the plot needs matplotlib, which `make env` installs")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("ab").close()
    except OSError as error:
        raise BenchmarkError(f"cannot plot in {path}: {error.strerror}; give --plot another file") from None


def measure(options: argparse.Namespace) -> Report:
    """Run every case, each in its own process."""
    prepare(options.plot)
    outcomes: list[Outcome] = []
    for nodes in options.nodes:
        for faulty in (False, True):
            fanout = 8 if faulty and nodes >= 10_000 else 5  # as the reference had it
            messages = max(3, min(20, 20_000 // nodes))
            case = Case(nodes, faulty, fanout, messages, options.seed)
            with crew(run, [(case,)]) as (worker,):
                outcomes.append(worker.hear(PATIENCE))
    plot(outcomes, options.plot)
    lacking = [outcome.case.name for outcome in outcomes if outcome.reference is None]
    return Report(
        "simulate",
        "gossip under virtual time, with 20 % loss and 30 % silent relays where it says faulty",
        [figure for outcome in outcomes for figure in figures(outcome)],
        {"seed": options.seed, "messages": [outcome.case.messages for outcome in outcomes]},
        [
            "copies: that left a sender, for each delivery; p50, p99: over all deliveries; milliseconds are virtual",
            "last: until the last node had it, the median over the messages",
            "floor: one copy for each delivery, and an ideal flood over the same links: shortest ways, nothing lost",
            "reference: a prototype simulation of the same policy, 10 to 50 ms a link and 0.5 ms of processing",
            *([f"no reference: {'; '.join(lacking)}"] if lacking else []),
            f"digests {', '.join(outcome.digest[:12] for outcome in outcomes)}",
        ],
    )


def _nodes(text: str) -> int:
    nodes = int(text)
    if not 2 <= nodes <= 100_000:
        raise argparse.ArgumentTypeError(f"{nodes} nodes: from 2 to 100,000 make sense")
    return nodes


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="benchmarks.simulate", description=__doc__.partition("\n")[0])
    arguments.add_argument("--nodes", type=_nodes, nargs="+", default=[100, 1_000, 10_000], help="100 1000 10000")
    arguments.add_argument("--seed", type=int, default=1, help="decides every random choice (1)")
    arguments.add_argument("--plot", type=Path, default=PLOT, help=f"draw the spread into this PNG file ({PLOT})")
    sys.exit(main(arguments, measure))
