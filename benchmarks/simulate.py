"""How messages spread through 100, 1,000 and 10,000 simulated nodes: clean, and with 20 % loss and 30 % silent relays.

Real engines and frames under virtual time (``zmesh.transports.simulator``): links of 10 to 50 ms, 0.5 ms to check a
signature. The times are virtual, so they do not depend on the machine, and a seed replays them exactly. Signatures are
replaced by a keyed hash, for nobody cheats here; each case runs in a process of its own.

The reference is an earlier simulation of the same policy (push, then repair by IHAVE and IWANT) with the same links:
one run for each case, written down in ``REFERENCE``. The ratios say whether the real engine does what that promised.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from benchmarks.harness import BenchmarkError, Figure, Line, Report, crew, main, table
from zmesh.core.bounds import Bounds
from zmesh.core.types import MessageType
from zmesh.transports.faults import Loss, Silent
from zmesh.transports.simulated import Settings
from zmesh.transports.simulator import Simulation

LOSS: Final = 0.2
SILENT: Final = 0.3
SETTLED: Final = 5.0
"""Virtual seconds after which all links are live; only then does anything go wrong, or is anything said."""
BETWEEN: Final = 2.0
"""Virtual seconds between messages, which spread one at a time."""
AFTERWARDS: Final = 20.0
"""Virtual seconds in which repair may find what is missing: four rounds of digests."""
PAYLOAD: Final = {"data": bytes(256)}
PATIENCE: Final = 3600.0
"""Seconds that one case may take."""
MAX_MINUTES: Final = 15.0
MAX_GIB: Final = 12.0


class Spread(NamedTuple):
    """Copies per delivery, and milliseconds until half, 99 % and all of the nodes had a message."""

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
        """For people."""
        return f"{self.nodes:,} {'faulty' if self.faulty else 'clean'}, k={self.fanout}"


REFERENCE: Final = {
    (100, False, 5): Spread(2.7, 29, 50, 50),
    (1_000, False, 5): Spread(5.3, 116, 177, 411),
    (10_000, False, 5): Spread(5.25, 153, 214, 527),
    (1_000, True, 5): Spread(3.7, 174, 427, 1387),
    (10_000, True, 8): Spread(5.7, 166, 251, 845),
}
"""By nodes, faults and fanout."""


@dataclass(frozen=True)
class Outcome:
    """What one case gave. Milliseconds of virtual time."""

    case: Case
    spread: Spread
    arrived: float
    """Copies that arrived for each delivery; ``spread.copies`` counts those that left."""
    expected: int
    missed: int
    repeats: int
    offences: int
    latencies: Sequence[float]
    """Every thousandth of all deliveries, ascending: the curve of the plot."""
    events: int
    minutes: float
    """Of CPU."""
    gib: float
    digest: str

    @property
    def reference(self) -> Spread | None:
        """The same case in ``REFERENCE``."""
        return REFERENCE.get((self.case.nodes, self.case.faulty, self.case.fanout))


async def run(line: Line, case: Case) -> None:
    """The work of one process."""
    gc.disable()  # nothing in here is cyclic garbage, and looking for it among millions of objects takes longer
    started = time.process_time()
    faults = [Loss(LOSS, start=SETTLED), Silent(share=SILENT, start=SETTLED)] if case.faulty else []
    settings = Settings(crypto="hash", bounds=Bounds(fanout=case.fanout))
    sim = Simulation(case.seed, case.nodes, faults, settings)
    if not sim.settle(limit=SETTLED):
        raise BenchmarkError(f"{case.name}: not all links were live after {SETTLED:g} virtual seconds")
    sim.run(SETTLED)
    for number in range(case.messages):
        sim.broadcast(number * case.nodes // case.messages, MessageType.GOSSIP, PAYLOAD)
        sim.run_for(BETWEEN)
    sim.run_for(AFTERWARDS)
    report = sim.report()
    latencies = sorted(1000 * at for message in sim.published.values() for at in message.first.values())
    line.tell(
        Outcome(
            case,
            Spread(report.pushed_per_delivery, 1000 * report.p50, 1000 * report.p99, 1000 * report.last),
            report.arrived_per_delivery,
            report.expected,
            len(report.missed),
            report.repeats,
            len(sim.offences),
            latencies[:: max(1, len(latencies) // 1000)],
            sim.events,
            (time.process_time() - started) / 60,
            resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2,
            sim.digest(),
        )
    )


# ---------------------------------------------------------------- what is printed


@dataclass(frozen=True, slots=True)
class SimulationReport(Report):
    """The usual report, printed as one line for each case with its reference in brackets."""

    outcomes: Sequence[Outcome] = field(default=(), kw_only=True)

    def __str__(self) -> str:
        heads = ("nodes", "copies", "p50 ms", "p99 ms", "last ms", "delivered", "CPU min", "GiB")
        lines = table([heads, *(_row(outcome) for outcome in self.outcomes)])
        return "\n".join([f"{self.name}: {self.about}", "", *lines, "", *(f"  {note}" for note in self.notes)])


def _row(outcome: Outcome) -> tuple[str, ...]:
    reference = outcome.reference or [None] * 4
    cells = [
        f"{value:,.{digits}f}" + (f" ({known:,g})" if known is not None else "")
        for value, known, digits in zip(outcome.spread, reference, (2, 0, 0, 0), strict=True)
    ]
    made = f"{outcome.expected - outcome.missed:,}/{outcome.expected:,}"
    return (outcome.case.name, *cells, made, f"{outcome.minutes:.1f}", f"{outcome.gib:.2f}")


def figures(outcome: Outcome) -> list[Figure]:
    """The numbers of one case; the floor of each is the reference."""
    name, reference = outcome.case.name, outcome.reference
    found = [
        Figure(f"{name}: {what}", value, unit, floor=getattr(reference, what) if reference else None)
        for what, value, unit in zip(Spread._fields, outcome.spread, ("", "ms", "ms", "ms"), strict=True)
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
    try:
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise BenchmarkError("--plot needs matplotlib: install it, or leave the option out") from None
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
    canvas.savefig(path, dpi=120)


def measure(options: argparse.Namespace) -> Report:
    """Run every case, each in a process of its own."""
    outcomes: list[Outcome] = []
    for nodes in options.nodes:
        for faulty in (False, True):
            fanout = 8 if faulty and nodes >= 10_000 else 5  # as the reference had it
            messages = max(3, min(20, 20_000 // nodes))
            case = Case(nodes, faulty, fanout, messages, options.seed)
            with crew(run, [(case,)]) as (worker,):
                outcomes.append(worker.hear(PATIENCE))
    if options.plot:
        plot(outcomes, options.plot)
    return SimulationReport(
        "simulate",
        "gossip under virtual time, with 20 % loss and 30 % silent relays where it says faulty",
        [figure for outcome in outcomes for figure in figures(outcome)],
        {"seed": options.seed, "messages": [outcome.case.messages for outcome in outcomes]},
        [
            "copies: that left a sender, for each delivery; in brackets the reference simulation",
            "last: until the last node had it, the median over the messages",
            f"seed {options.seed}; digests {', '.join(outcome.digest[:12] for outcome in outcomes)}",
        ],
        outcomes=outcomes,
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
    arguments.add_argument("--plot", type=Path, help="draw the spread into this PNG file; needs matplotlib")
    sys.exit(main(arguments, measure))
