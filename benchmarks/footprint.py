"""Measures what a node costs while it does nothing: memory per linked peer, idle CPU, import time, size on disk.

One node is measured, in a full mesh with half and then all of the others, which run in two other processes. Memory is
the slope of the resident set from no links to all, after a garbage collection; CPU is the time of all threads of the
process divided by the wall clock. The floor of both is a node of bare pyzmq sockets, of the same kinds and number, in
the same run and in processes started in the same way. The floor of an import is what it loads from elsewhere, imported
alone.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import zmesh
from benchmarks.floor import BareNode
from benchmarks.harness import BenchmarkError, Figure, Line, Report, crew, main, median
from benchmarks.nodes import JOINING, started

LINKS = 50
SETTLE = 6.0
"""Seconds between the last link and a measurement: by then HELLO, records, offers and a round of digests are over."""
QUIET = 35.0
"""Seconds from the last node's start until no node asks for records any more: ``questions.ASK_AFTER`` ends with 30.
Until then, fifty nodes that were started together ask all others, and that is starting, not idling."""
IMPORTS = 7
"""Fresh interpreters per import."""
MAX_LINK = 250.0
MAX_CPU = 2.0
MAX_IMPORT = 0.3
IMPORTED = {
    "import zmesh": "import typing",
    "from zmesh import MeshNetworkClient": "import asyncio, msgpack, nacl.bindings",
}
"""Each import, and what it needs from elsewhere. The client loads zmq later, when it starts."""
TIME_IMPORT = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
ZMESH, BARE = "zmesh", "bare"


class Plan(NamedTuple):
    """What happens to the measured node."""

    steps: Sequence[int]
    """Numbers of links at which memory is measured."""
    settle: float
    """Seconds between the last link and a measurement."""
    quiet: float
    """Seconds from the last measurement of memory until idling begins."""
    seconds: float
    """Seconds for which it is watched idling."""


@dataclass(frozen=True)
class Idle:
    """The figures of the measured node."""

    resident: list[float]
    """KB at each step."""
    cpu: float
    """Per cent of one core, with all links."""


class Peer(NamedTuple):
    """A node of either kind."""

    me: Any
    """What others need to know about it."""
    introduce: Callable[[Sequence[Any]], None]
    linked: Callable[[int, float], Awaitable[object]]
    """``(count, seconds)``: wait until it has ``count`` links."""


@asynccontextmanager
async def peer(kind: str, name: str) -> AsyncIterator[Peer]:
    """A zmesh node, or its floor."""
    if kind == ZMESH:
        async with started(name) as node:
            yield Peer(node.me, node.registry.introduce, node.mesh.wait_for_links)
    else:
        bare = BareNode()
        try:
            yield Peer(bare.address, bare.introduce, bare.linked)
        finally:
            bare.close()


async def measured(line: Line, kind: str, plan: Plan) -> None:
    """The work of the process with the measured node."""
    async with peer(kind, "measured") as one:
        line.tell([one.me])
        resident = []
        for count in plan.steps:
            one.introduce(await line.hear())
            await one.linked(count, JOINING)
            await asyncio.sleep(plan.settle)
            line.tell("settled")
            gc.collect()
            resident.append(_resident())
        await asyncio.sleep(plan.quiet)
        before = _cpu()
        await asyncio.sleep(plan.seconds)
        line.tell(Idle(resident, (_cpu() - before) / plan.seconds * 100))
        await line.hear()


async def others(line: Line, kind: str, name: str, count: int) -> None:
    """``count`` nodes in one process."""
    async with AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(peer(kind, f"{name}{at:02}")) for at in range(count)]
        line.tell([one.me for one in peers])
        while (known := await line.hear()) != "stop":
            for one in peers:
                one.introduce(known)


def _resident() -> float:
    """The resident set of this process, in KB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1000


def _cpu() -> float:
    """Seconds of CPU used by all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def idle(kind: str, plan: Plan) -> Idle:
    """Memory and CPU of a node with up to ``plan.steps[-1]`` links."""
    sizes = [later - earlier for earlier, later in pairwise(plan.steps)]
    groups = [(kind, f"other{at}", size) for at, size in enumerate(sizes)]
    with crew(measured, [(kind, plan)]) as (one,), crew(others, groups) as rest:
        known = one.hear()
        there = [worker.hear() for worker in rest]
        for step in range(len(plan.steps)):
            known += there[step - 1] if step else []
            one.tell(known)
            for worker in rest[:step]:
                # A bare node hears nothing of links among the others, which would need 5,000 sockets.
                worker.tell(known if kind == ZMESH else known[:1])
            one.hear(plan.settle + JOINING + 60)
        found: Idle = one.hear(plan.quiet + plan.seconds + 60)
        for worker in (one, *rest):
            worker.tell("stop")
    return found


def import_seconds(statement: str, times: int) -> float:
    """Median over fresh interpreters; an extra one before them writes the byte code, which every installation has.

    The byte code goes to a folder of its own, so this also works where the environment forbids writing it.
    """
    took = []
    command = [sys.executable, "-c", TIME_IMPORT.format(statement)]
    with TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for _ in range(times + 1):
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
            if done.returncode:
                raise BenchmarkError(f"{statement!r} failed:\n{done.stderr}")
            took.append(float(done.stdout))
    return median(took[1:])


def size_on_disk() -> int:
    """Bytes of zmesh's own Python files, as installed."""
    folder = Path(zmesh.__file__).parent
    paths = [Path(root, name) for root, _, names in os.walk(folder, followlinks=True) for name in names]
    return sum(path.stat().st_size for path in paths if path.suffix in (".py", ".typed"))


def measure(options: argparse.Namespace) -> Report:
    """Run the benchmark."""
    imports = []
    for statement, needed in IMPORTED.items():
        took, floor = (import_seconds(one, options.imports) for one in (statement, needed))
        imports.append(Figure(statement, took, "s", floor, at_most=MAX_IMPORT))
    plan = Plan((0, options.links // 2, options.links), options.settle, options.quiet, options.seconds)
    node, bare = idle(ZMESH, plan), idle(BARE, plan._replace(quiet=0.0))
    per_link, per_bare_link = ((one.resident[-1] - one.resident[0]) / options.links for one in (node, bare))
    sizes = zip(plan.steps, node.resident, bare.resident, strict=True)
    links = ", ".join(f"{at} links {mine / 1000:.1f} MB ({floor / 1000:.1f})" for at, mine, floor in sizes)
    return Report(
        "footprint",
        "what a node costs while it does nothing",
        [
            Figure("memory per linked peer", per_link, "KB", per_bare_link, at_most=MAX_LINK),
            Figure(f"idle CPU with {options.links} links", node.cpu, "%", bare.cpu, at_most=MAX_CPU),
            *imports,
            Figure("zmesh on disk, without byte code", size_on_disk() / 1000, "KB"),
        ],
        {name: getattr(options, name) for name in ("links", "settle", "quiet", "seconds", "imports")},
        [
            "floor of memory and CPU: bare CURVE sockets (ROUTER, XPUB; DEALER and SUB for each peer) in an event loop",
            "the floor of idle CPU is a loop asleep, next to nothing: its ratio says little, so the target is absolute",
            *(f"floor of {statement!r}: {needed!r}" for statement, needed in IMPORTED.items()),
            f"resident set, and that of the floor: {links}",
            f"CPU: all threads of the node over {options.seconds:g} s, in per cent of one core",
        ],
    )


def _links(text: str) -> int:
    links = int(text)
    if not 2 <= links <= 100:
        raise argparse.ArgumentTypeError(f"{links} links: from 2 to 100 make sense")
    return links


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(prog="benchmarks.footprint", description=__doc__.partition("\n")[0])
    arguments.add_argument("--links", type=_links, default=LINKS, help=f"of the measured node ({LINKS})")
    arguments.add_argument("--settle", type=float, default=SETTLE, help=f"seconds before memory is read ({SETTLE:g})")
    arguments.add_argument("--quiet", type=float, default=QUIET, help=f"seconds before it counts as idle ({QUIET:g})")
    arguments.add_argument("--seconds", type=float, default=30.0, help="to watch the idle node (30)")
    arguments.add_argument("--imports", type=int, default=IMPORTS, help=f"interpreters for each import ({IMPORTS})")
    sys.exit(main(arguments, measure))
