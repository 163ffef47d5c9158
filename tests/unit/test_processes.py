"""The demo's processes: a report that cannot be taken ends the waiting for it, and is what the demo fails with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from zmesh.demo.processes import MAX_REPORT, DemoError, Processes

PATIENCE = 20.0


@pytest.mark.parametrize(
    "said, why",
    [
        (f"'x' * {2 * MAX_REPORT}", "ValueError: Separator is "),
        ("'nonsense'", "JSONDecodeError: Expecting value"),
        ("'{}'", "KeyError: 'event'"),
    ],
    ids=["too long", "no JSON", "not understood"],
)
async def test_a_report_that_cannot_be_taken_is_told_at_once(said: str, why: str, tmp_path: Path) -> None:
    """Its process lives on, so nothing but the report itself can say so."""

    def take(name: str, report: Mapping[str, Any]) -> None:
        assert (name, report["event"]) == ("one", "ready")

    # A module that runs what it is given: it says so, then waits to be ended.
    given = f"print({said}, flush=True)", "import sys; sys.stdin.read()"
    async with Processes("timeit", {"one": ["-n1", "-r1", *given]}, tmp_path, take) as processes:
        with pytest.raises(DemoError) as failure:
            assert await processes.until(lambda: False, PATIENCE, "waiting for it"), "its failure was not seen"
    told = str(failure.value)
    assert told.startswith(f"a report of one cannot be taken: {why}")
    assert told.endswith(" (while waiting for it)")
    assert failure.value.__cause__ is not None


async def test_a_process_that_ends_early_is_told_with_its_last_words(tmp_path: Path) -> None:
    commands = {"one": ["-n1", "-r1", "raise SystemExit('no room')"]}
    async with Processes("timeit", commands, tmp_path, print) as processes:
        with pytest.raises(DemoError) as failure:
            await processes.until(lambda: False, PATIENCE, "waiting for it")
    assert str(failure.value) == "one ended early: SystemExit: no room (while waiting for it)"
