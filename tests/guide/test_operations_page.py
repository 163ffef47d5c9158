"""The page for operators names what a node says of itself, all of it and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support import client
from zmesh.cli import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
LOCAL = {"delegation_ends_in_seconds", "bootstrap", "why", "warnings", "registry", "clocks_ahead_seconds"}
"""Fields of /health that not every node has."""
SOMETIMES = {"zmesh_registry_members", "zmesh_registry_age_seconds", "zmesh_delegation_left_seconds"}


def part(heading: str) -> str:
    return PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def named(heading: str) -> set[str]:
    """What stands in code in the first column of the table under a heading."""
    cells = re.findall(r"^\| (`[^|]+) \|", part(heading), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


async def test_metrics_and_health_are_those_of_a_running_node() -> None:
    async with client("a") as mesh:
        families = set(re.findall(r"^# TYPE (\w+) ", mesh.metrics(), re.MULTILINE))
        fields = set(mesh.health())
    assert named("GET /metrics") == families | SOMETIMES
    assert named("GET /health") == fields | LOCAL


def test_fields_that_not_every_node_has_stand_in_the_code() -> None:
    code = "".join((ROOT / "zmesh" / name).read_text(encoding="utf-8") for name in ("status.py", "running.py"))
    assert {name for name in LOCAL | SOMETIMES if f'"{name}"' not in code and f"{name}=" not in code} == set()


def test_exit_statuses_are_those_of_the_help() -> None:
    rows = re.findall(r"^\| ([\d, ]+) \|", part("Exit status"), re.MULTILINE)
    told = {int(status) for row in rows for status in row.split(", ")}
    said = {int(status) for status in re.findall(r"(\d+) (?:if|after)", " ".join((app.info.epilog or "").split()))}
    assert told == said
