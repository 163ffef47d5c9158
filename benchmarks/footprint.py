"""What a node costs while it does nothing: memory per linked peer, idle CPU, import time, size on disk.

One node is measured, in a full mesh with 25 and then 50 others, which live in two other processes. Memory is the slope
of the resident set from 0 to 50 links, after a collection; CPU is the time of all threads of the process over the wall
clock.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import zmesh
from benchmarks.harness import BenchmarkError, Figure, Line, Report, crew, main, median
from benchmarks.nodes import JOINING, started
from zmesh.core.types import Member

STEPS = (0, 25, 50)
"""Links at which memory is measured."""
SETTLE = 6.0
"""Seconds between the last link and a measurement: HELLO, records, offers and a round of digests have passed."""
QUIET = 35.0
"""Seconds from the last node's start until nobody asks for records any more: ``questions.ASK_AFTER`` ends with 30.
Until then fifty nodes that were started together ask all others, and that is starting, not idling."""
IMPORTS = 7
"""Fresh interpreters for each import."""
MAX_LINK = 250.0
MAX_CPU = 2.0
MAX_IMPORT = 0.3
TIME_IMPORT = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"


@dataclass(frozen=True)
class Idle:
    """Of the measured node."""

    resident: list[float]
    """KB at each of ``STEPS``."""
    cpu: float
    """Per cent of one core, with the most links."""


async def measured(line: Line, seconds: float) -> None:
    """The node that is looked at."""
    async with started("measured") as node:
        line.tell([node.me])
        resident = []
        for count in STEPS:
            node.registry.introduce(await line.hear())
            await node.mesh.wait_for_links(count, JOINING)
            await asyncio.sleep(SETTLE)
            line.tell("settled")
            gc.collect()
            resident.append(_resident())
        await asyncio.sleep(QUIET)
        before = _cpu()
        await asyncio.sleep(seconds)
        line.tell(Idle(resident, (_cpu() - before) / seconds * 100))
        await line.hear()


async def others(line: Line, name: str, count: int) -> None:
    """``count`` nodes in one process."""
    async with AsyncExitStack() as stack:
        nodes = [await stack.enter_async_context(started(f"{name}{at:02}")) for at in range(count)]
        line.tell([node.me for node in nodes])
        while (known := await line.hear()) != "stop":
            for node in nodes:
                node.registry.introduce(known)


async def node(line: Line, name: str, amount: float) -> None:
    """The work of each process."""
    await (measured(line, amount) if name == "measured" else others(line, name, int(amount)))


def _resident() -> float:
    """KB of this process that lie in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1000


def _cpu() -> float:
    """Seconds that all threads of this process have computed."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def idle(seconds: float) -> Idle:
    """Memory and CPU of a node with up to ``STEPS[-1]`` links."""
    sizes = [later - earlier for earlier, later in pairwise(STEPS)]
    roles = [("measured", seconds), *((f"other{at}", size) for at, size in enumerate(sizes))]
    with crew(node, roles) as (one, *rest):
        known: list[Member] = one.hear()
        there = [worker.hear() for worker in rest]
        for step in range(len(STEPS)):
            known += there[step - 1] if step else []
            for worker in (one, *rest[:step]):
                worker.tell(known)
            one.hear(SETTLE + JOINING + 60)
        found: Idle = one.hear(seconds + QUIET + 60)
        for worker in (one, *rest):
            worker.tell("stop")
    return found


def import_seconds(statement: str) -> float:
    """Median over fresh interpreters; one more before them writes the byte code, which every installation has.

    Also where this environment forbids to write it: it goes to a folder of its own.
    """
    took = []
    command = [sys.executable, "-c", TIME_IMPORT.format(statement)]
    with TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(IMPORTS + 1):
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
            if done.returncode:
                raise BenchmarkError(f"{statement!r} failed:\n{done.stderr}")
            took.append(float(done.stdout))
    return median(took[1:])


def size_on_disk() -> int:
    """Bytes of zmesh's own Python files, as they are installed."""
    folder = Path(zmesh.__file__).parent
    paths = [Path(root, name) for root, _, names in os.walk(folder, followlinks=True) for name in names]
    return sum(path.stat().st_size for path in paths if path.suffix in (".py", ".typed"))


def measure(options: argparse.Namespace) -> Report:
    """Run it."""
    light = import_seconds("import zmesh")
    full = import_seconds("from zmesh import MeshNetworkClient")
    found = idle(options.seconds)
    first, last = STEPS[0], STEPS[-1]
    per_link = (found.resident[-1] - found.resident[0]) / (last - first)
    links = ", ".join(f"{at} links {size / 1000:.1f} MB" for at, size in zip(STEPS, found.resident, strict=True))
    return Report(
        "footprint",
        "what a node costs while it does nothing",
        [
            Figure("memory per linked peer", per_link, "KB", at_most=MAX_LINK),
            Figure(f"idle CPU with {last} links", found.cpu, "%", at_most=MAX_CPU),
            Figure("import zmesh", light, "s", at_most=MAX_IMPORT),
            Figure("from zmesh import MeshNetworkClient", full, "s", at_most=MAX_IMPORT),
            Figure("zmesh on disk, without byte code", size_on_disk() / 1000, "KB"),
        ],
        {"seconds": options.seconds, "quiet": QUIET},
        [
            f"resident set: {links}",
            f"CPU: all threads of the node over {options.seconds:g} s, in per cent of one core",
        ],
    )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="benchmarks.footprint", description=__doc__.partition("\n")[0])
    arguments.add_argument("--seconds", type=float, default=30.0, help="to watch the idle node (30)")
    sys.exit(main(arguments, measure))
