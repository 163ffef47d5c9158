"""The benchmarks, each through its command line in its smallest size: what they report, and never how fast it was.

``discovery`` and ``membership`` are not run: they need a real chain, which is node and npm and half a minute for each.
What they stand on is tested in ``tests/chain``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import NAMES
from tests.integration.command_line import environment

SMALLEST = {
    "one_hop": ["--messages", "4"],
    "flood": ["--messages", "1"],
    "propagation": ["--nodes", "2", "--messages", "2", "--hops", "4"],
    "footprint": ["--links", "4", "--settle", "0.1", "--quiet", "0", "--seconds", "0.5", "--imports", "1"],
    "simulate": ["--nodes", "10"],
}
ON_A_CHAIN = {"discovery", "membership"}
WITH_FLOOR = {
    "one_hop": ["50 msg/s, p50", "50 msg/s, p99", "back to back, p50", "back to back, p99"],
    "flood": ["received on one core", "the same, beside a busy core", "with 2 verify threads on both cores"],
    "propagation": ["last of 2, p50", "last of 2, p99"],
    "footprint": [
        "memory per linked peer",
        "idle CPU with 4 links",
        "import zmesh",
        "from zmesh import MeshNetworkClient",
    ],
    "simulate": [
        f"10 {kind}, k=5: {what}" for kind in ("clean", "faulty") for what in ("copies", "p50", "p99", "last")
    ],
}
"""The figures that are held against a floor of the same run."""
SECONDS = 120
"""Above what the slowest of them takes on a busy machine."""
PNG = b"\x89PNG\r\n\x1a\n"


async def run(module: str, *arguments: str, folder: Path, **settings: str) -> tuple[int | None, str, str]:
    """Run one in a folder of its own: exit status, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env=environment(**settings),
    )
    try:
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()
    return process.returncode, out.decode(), err.decode()


def check_figure(figure: dict[str, Any]) -> None:
    """A figure says everything about itself, and its ratio is what it says."""
    names = ["name", "value", "unit", "floor", "ratio", "reference", "target", "met"]
    assert list(figure) == names
    assert isinstance(figure["value"], float | int)
    assert (figure["target"] is None) == (figure["met"] is None), figure
    if figure["floor"] is None or figure["floor"] <= 0:  # four links may be fewer bytes than the memory's noise
        assert figure["ratio"] is None, figure
    else:
        assert figure["ratio"] == figure["value"] / figure["floor"], figure


def test_every_benchmark_is_run_here_or_on_a_chain() -> None:
    assert set(SMALLEST) | ON_A_CHAIN == set(NAMES)


@pytest.mark.parametrize("name", SMALLEST)
async def test_a_benchmark_reports_figures_with_floors(name: str, tmp_path: Path) -> None:
    if name == "flood" and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("a flood needs two cores, and this machine gives one")
    status, out, err = await run(f"benchmarks.{name}", *SMALLEST[name], "--json", folder=tmp_path)
    assert status == 0, err
    report = json.loads(out)
    assert list(report) == ["benchmark", "about", "date", "machine", "versions", "settings", "figures", "notes"]
    assert report["benchmark"] == name
    assert list(report["machine"]) == ["cpu", "cores", "system", "python"]
    assert list(report["versions"]) == ["zmesh", "core", "pyzmq", "pynacl", "msgpack", "libzmq"]
    for figure in report["figures"]:
        check_figure(figure)
    assert [figure["name"] for figure in report["figures"] if figure["floor"] is not None] == WITH_FLOOR[name]
    assert [figure for figure in report["figures"] if figure["target"] is not None]


async def test_a_simulation_is_plotted_by_default_and_never_faster_than_its_floor(tmp_path: Path) -> None:
    """Its time is virtual, so this is no timing: the seed decides the figures."""
    status, out, err = await run("benchmarks.simulate", "--nodes", "20", "--json", folder=tmp_path)
    assert (status, err) == (0, "plotted in build/simulate.png\n")
    assert (tmp_path / "build/simulate.png").read_bytes().startswith(PNG)
    report = json.loads(out)
    held = [figure for figure in report["figures"] if figure["floor"] is not None]
    assert len(held) == 8
    assert [figure["name"] for figure in held if figure["ratio"] < 1 - 1e-9] == []
    assert [figure["floor"] for figure in held if figure["name"].endswith("copies")] == [1.0, 1.0]
    assert [figure["met"] for figure in report["figures"] if figure["name"].endswith("missed")] == [True, True]
    assert "no reference: 20 clean, k=5; 20 faulty, k=5" in report["notes"]


async def test_a_simulation_prints_ratios_and_is_plotted_where_it_is_told(tmp_path: Path) -> None:
    plot = tmp_path / "elsewhere" / "spread.png"
    status, out, err = await run("benchmarks.simulate", "--nodes", "10", "--plot", str(plot), folder=tmp_path)
    assert (status, err) == (0, f"plotted in {plot}\n")
    assert plot.read_bytes().startswith(PNG)
    assert not (tmp_path / "build").exists()
    rows = [line for line in out.splitlines() if line.startswith("10 ")]
    assert len([line for line in rows if line.endswith("x")]) == 8
    assert str(tmp_path) not in out


async def test_a_plot_that_cannot_be_kept_is_refused_before_anything_is_simulated(tmp_path: Path) -> None:
    status, out, err = await run("benchmarks.simulate", "--plot", str(tmp_path), folder=tmp_path)
    assert (status, out) == (1, "")
    assert err == f"benchmarks.simulate: cannot plot in {tmp_path}: Is a directory; give --plot another file\n"


async def test_what_cannot_be_measured_is_named_and_the_others_are_run(tmp_path: Path) -> None:
    """A machine without node has no chain to measure."""
    status, out, err = await run("benchmarks", "membership", "discovery", "--json", folder=tmp_path, PATH=str(tmp_path))
    assert (status, json.loads(out)) == (1, [])
    first, second, last = err.splitlines()
    assert first.startswith("benchmarks.membership: ")
    assert second.startswith("benchmarks.discovery: skipped, because ")
    assert last == "not measured: membership, discovery"


async def test_an_unknown_benchmark_is_refused_with_the_names_of_all(tmp_path: Path) -> None:
    status, out, err = await run("benchmarks", "one_hop", "two_hops", folder=tmp_path)
    assert (status, out) == (2, "")
    assert err.endswith(f"error: argument NAME: 'two_hops' is none of {', '.join(NAMES)}\n")
