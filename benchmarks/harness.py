"""What all benchmarks share: worker processes, percentiles, and a report that names its machine.

Rules
 1. A figure that can have a floor has one, measured in the same run. Its target bounds either the ratio to that floor
    or the value itself.
 2. Everything that is measured runs in a fresh process of its own; every wait for it is bounded.
 3. A report states the settings, the machine and the versions, but nothing about where its files are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PATIENCE = 60.0
"""Seconds that an answer may take, unless the caller says otherwise."""
FAREWELL = 10.0
"""Seconds in which a process must end on its own when its work is done."""
PACKAGES = ("pyzmq", "pynacl", "msgpack")
"""The libraries whose speed is part of every measurement."""


class BenchmarkError(Exception):
    """A measurement that failed, or whose result would be wrong."""


# ---------------------------------------------------------------- processes


class Line:
    """A worker's end of the pipe to its parent. Used on the worker's event loop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def tell(self, value: Any) -> None:
        """Send a value to the parent."""
        self._connection.send(value)

    async def hear(self) -> Any:
        """The next value from the parent. Raises ``EOFError`` if the parent is gone."""
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._connection.fileno(), readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(self._connection.fileno())
        return self._connection.recv()


Work = Callable[..., Awaitable[None]]
"""What a worker does: a module's coroutine function, called with its ``Line`` and picklable arguments."""


class _Failure:
    """What a worker sends when its work raised."""

    def __init__(self, text: str) -> None:
        self.text = text


class Worker:
    """A worker process, seen from its parent."""

    def __init__(self, work: Work, arguments: Sequence[Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, work, tuple(arguments)), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process.pid is not None  # started in the constructor
        return self._process.pid

    def tell(self, value: Any) -> None:
        """Send a value to the worker."""
        self._connection.send(value)

    def hear(self, patience: float = PATIENCE) -> Any:
        """The worker's next value. Raises ``BenchmarkError`` if it failed, ended or stayed silent."""
        if not self._connection.poll(patience):
            raise BenchmarkError(f"a worker said nothing for {patience:g} s")
        try:
            value = self._connection.recv()
        except EOFError:
            raise BenchmarkError("a worker ended without an answer") from None
        if isinstance(value, _Failure):
            raise BenchmarkError(f"a worker failed:\n{value.text}")
        return value

    def close(self) -> None:
        """Hang up, and kill the process if it does not end on its own."""
        self._connection.close()
        self._process.join(FAREWELL)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def crew(work: Work, arguments: Sequence[Sequence[Any]]) -> Iterator[list[Worker]]:
    """One worker per tuple of ``arguments``; all have ended when the block is left."""
    workers: list[Worker] = []
    try:
        for one in arguments:
            workers.append(Worker(work, one))  # noqa: PERF401  # those started are closed if the next one fails
        yield workers
    finally:
        for worker in workers:
            worker.close()


def _run(connection: Connection, work: Work, arguments: Sequence[Any]) -> None:
    try:
        asyncio.run(_work(Line(connection), work, arguments))
    except EOFError:
        pass  # the parent hung up: there is no one left to work for
    except BaseException:
        connection.send(_Failure(traceback.format_exc()))
        raise


async def _work(line: Line, work: Work, arguments: Sequence[Any]) -> None:
    await work(line, *arguments)


# ---------------------------------------------------------------- figures


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of ``values`` that at least ``share`` (0 to 1) of them do not exceed."""
    if not values:
        raise BenchmarkError("nothing was measured")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def median(values: Sequence[float]) -> float:
    """The middle value; the lower one of two."""
    return percentile(values, 0.5)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number, and what it is compared with.

    ``floor`` has the same unit and comes from the same run. ``reference`` was measured elsewhere: it is shown, and
    decides nothing. A target bounds the value itself, or its ratio to the floor.
    """

    name: str
    value: float
    unit: str
    floor: float | None = None
    reference: float | None = None
    at_most: float | None = None
    at_least: float | None = None
    ratio_at_most: float | None = None
    ratio_at_least: float | None = None

    def __post_init__(self) -> None:
        if self.ratio is None and (self.ratio_at_most is not None or self.ratio_at_least is not None):
            raise BenchmarkError(f"{self.name}: its target is a ratio, and its floor is {self.floor}")

    @property
    def ratio(self) -> float | None:
        """``value / floor``; None without a floor above 0."""
        return self.value / self.floor if self.floor is not None and self.floor > 0 else None

    @property
    def target(self) -> str:
        """The target in words; empty if there is none."""
        bounds = [
            ("<=", self.at_most, f" {self.unit}"),
            (">=", self.at_least, f" {self.unit}"),
            ("<=", self.ratio_at_most, "x"),
            (">=", self.ratio_at_least, "x"),
        ]
        return ", ".join(f"{sign} {bound:g}{unit}".rstrip() for sign, bound, unit in bounds if bound is not None)

    @property
    def is_met(self) -> bool | None:
        """True if the target is met; None if there is no target."""
        most = [(self.value, self.at_most), (self.ratio, self.ratio_at_most)]
        least = [(self.value, self.at_least), (self.ratio, self.ratio_at_least)]
        reached = [found <= bound for found, bound in most if found is not None and bound is not None]
        reached += [found >= bound for found, bound in least if found is not None and bound is not None]
        return all(reached) if reached else None


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one benchmark. ``settings``: what it set; ``notes``: what a reader must know to read it right."""

    name: str
    about: str
    figures: Sequence[Figure]
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "benchmark": self.name,
            "about": self.about,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(),
            "versions": versions(),
            "settings": dict(self.settings),
            "figures": [
                {
                    "name": figure.name,
                    "value": figure.value,
                    "unit": figure.unit,
                    "floor": figure.floor,
                    "ratio": figure.ratio,
                    "reference": figure.reference,
                    "target": figure.target or None,
                    "met": figure.is_met,
                }
                for figure in self.figures
            ],
            "notes": list(self.notes),
        }

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = [("", "measured", "floor", "ratio", "reference", "target", "")]
        for figure in self.figures:
            floor = "" if figure.floor is None else shown(figure.floor, figure.unit)
            ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}x"
            reference = "" if figure.reference is None else shown(figure.reference, figure.unit)
            met = {None: "", True: "met", False: "MISSED"}[figure.is_met]
            rows.append((figure.name, shown(figure.value, figure.unit), floor, ratio, reference, figure.target, met))
        if all(figure.reference is None for figure in self.figures):
            rows = [(*row[:4], *row[5:]) for row in rows]
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        where = ", ".join(str(value) for value in machine().values())
        which = ", ".join(f"{name} {number}" for name, number in versions().items())
        lines = [f"{self.name}: {self.about}", "", *table(rows), ""]
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  set: {settings}"] if settings else []
        return "\n".join([*lines, f"  {datetime.now(UTC):%Y-%m-%d}, {where}; {which}"])


def shown(value: float, unit: str) -> str:
    """A human-readable number: three significant digits, counts in full, with thousands separators."""
    digits = (
        0 if isinstance(value, int) or abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    )
    return f"{value:,.{digits}f} {unit}".strip()


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns as wide as needed: the first aligned left, the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        lines.append("  ".join(cells).rstrip())
    return lines


def machine() -> dict[str, Any]:
    """The machine that this runs on."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def versions() -> dict[str, str]:
    """The versions of zmesh and of the libraries under it."""
    import zmq

    import zmesh
    from zmesh.core import build

    return {
        "zmesh": zmesh.__version__,
        "core": build(),
        **{name: version(name) for name in PACKAGES},
        "libzmq": zmq.zmq_version(),
    }


# ---------------------------------------------------------------- the command line


def main(parser: argparse.ArgumentParser, measure: Callable[[argparse.Namespace], Report]) -> int:
    """Parse the arguments, measure once and print. The exit status is 1 if nothing could be measured.

    A missed target is a finding, not a failure: a noisy machine must not turn a build red.
    """
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    options = parser.parse_args()
    started = time.monotonic()
    try:
        report = measure(options)
    except BenchmarkError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        print(f"{report}\n  took {time.monotonic() - started:.0f} s")
    return 0
