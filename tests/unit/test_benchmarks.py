"""What the benchmarks judge by: figures and their targets, the floor of a simulation, and what is handed on to each."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import __main__ as every
from benchmarks.harness import BenchmarkError, Figure, Report
from benchmarks.simulate import REFERENCE, Case, Outcome, Spread, figures, floor_of, ideal_flood
from zmesh.transports.simulator import Simulation, SimulationSettings, line


@pytest.mark.parametrize(
    "target, words, met",
    [
        ({}, "", None),
        ({"at_most": 30}, "<= 30 ms", True),
        ({"at_most": 29.9}, "<= 29.9 ms", False),
        ({"at_least": 30}, ">= 30 ms", True),
        ({"at_least": 30.1}, ">= 30.1 ms", False),
        ({"ratio_at_most": 3}, "<= 3x", True),
        ({"ratio_at_most": 2.9}, "<= 2.9x", False),
        ({"ratio_at_least": 3}, ">= 3x", True),
        ({"ratio_at_least": 3.1}, ">= 3.1x", False),
        ({"at_most": 30, "ratio_at_most": 2}, "<= 30 ms, <= 2x", False),
    ],
)
def test_a_target_bounds_the_value_or_the_ratio(target: dict[str, float], words: str, met: bool | None) -> None:
    figure = Figure("latency", 30.0, "ms", 10.0, **target)
    assert (figure.ratio, figure.target, figure.is_met) == (3.0, words, met)


@pytest.mark.parametrize("floor", [None, 0.0, -1.0])
def test_a_figure_without_a_floor_has_no_ratio_to_be_judged_by(floor: float | None) -> None:
    figure = Figure("memory", 30.0, "KB", floor, at_most=50)
    assert (figure.ratio, figure.is_met) == (None, True)
    with pytest.raises(BenchmarkError, match=f"^memory: its target is a ratio, and its floor is {floor}$"):
        Figure("memory", 30.0, "KB", floor, ratio_at_most=2)


def test_a_report_shows_floor_ratio_and_target_and_a_reference_where_there_is_one() -> None:
    plain = Figure("memory", 200.0, "KB", 100.0, at_most=250)
    known = Figure("copies", 2.0, "", 1.0, 2.7, ratio_at_most=1.5)
    head, row = str(Report("one", "a test", [plain])).splitlines()[2:4]
    assert head.split() == ["measured", "floor", "ratio", "target"]
    assert row.split() == ["memory", "200", "KB", "100", "KB", "2.00x", "<=", "250", "KB", "met"]
    head, _, row = str(Report("two", "a test", [plain, known])).splitlines()[2:5]
    assert head.split() == ["measured", "floor", "ratio", "reference", "target"]
    assert row.split() == ["copies", "2.00", "1.00", "2.00x", "2.70", "<=", "1.5x", "MISSED"]


def test_an_ideal_flood_takes_the_shortest_way_over_the_links_and_checks_at_each_node() -> None:
    edges = [*line(5), (0, 4)]  # a ring: each node is reached from the nearer side
    delay = 0.010
    sim = Simulation(nodes=5, settings=SimulationSettings(latency=lambda *pair: delay, edges=edges, crypto="hash"))
    assert sim.settle()
    hop = delay + sim.settings.verify_seconds
    assert ideal_flood(sim, 0) == pytest.approx([hop, hop, 2 * hop, 2 * hop])
    sim.crash(4)
    sim.run_for(1.0)
    assert ideal_flood(sim, 0) == pytest.approx([hop, 2 * hop, 3 * hop])


def test_the_floor_of_several_floods_is_over_all_of_them_and_its_last_is_their_median() -> None:
    assert floor_of([[0.010, 0.020], [0.010, 0.030], [0.010, 0.090]]) == Spread(1.0, 10.0, 90.0, 30.0)


@pytest.mark.parametrize("nodes, faulty", [(1_000, True), (100, True)])
def test_a_simulated_case_is_held_against_its_floor_and_shown_beside_its_reference(nodes: int, faulty: bool) -> None:
    case = Case(nodes, faulty, 5, 20, 1)
    spread, floor = Spread(4.0, 120.0, 300.0, 600.0), Spread(1.0, 60.0, 100.0, 200.0)
    outcome = Outcome(case, spread, floor, 3.0, 999, 0, 0, 0, (), 1.0, 1.0, "")
    found = figures(outcome)[: len(Spread._fields)]
    assert [figure.ratio for figure in found] == [4.0, 2.0, 3.0, 3.0]
    known = REFERENCE.get((nodes, faulty, 5), (None,) * 4)
    assert [figure.reference for figure in found] == list(known)


def test_all_benchmarks_in_turn_give_one_list_and_are_told_no_more_than_its_form(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command[1:])
        return subprocess.CompletedProcess(command, 0, json.dumps({"benchmark": command[2]}).encode())

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--json"])
    assert every.main() == 0
    modules = [f"benchmarks.{name}" for name in every.NAMES]
    assert commands == [["-m", module, "--json"] for module in modules]
    assert json.loads(capsys.readouterr().out) == [{"benchmark": module} for module in modules]
    commands.clear()
    monkeypatch.setattr(sys, "argv", ["benchmarks", "flood", "--json"])
    assert every.main() == 0
    assert commands == [["-m", "benchmarks.flood", "--json"]]
    commands.clear()
    monkeypatch.setattr(sys, "argv", ["benchmarks", "flood", "one_hop"])
    assert every.main() == 0
    assert commands == [["-m", "benchmarks.flood"], ["-m", "benchmarks.one_hop"]]
