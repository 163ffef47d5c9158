"""The reference of metrics says what the code says, and all that a running node exposes."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

from tests.support import client

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "metrics.md").read_text(encoding="utf-8")
LABEL = re.compile(r'^(\w+)\{(?:reason|fault|result|event)="(\w+)"\} ', re.MULTILINE)


def test_the_reference_of_metrics_is_what_the_code_says() -> None:
    """If it is not: ``python docs/metrics.py``."""
    assert runpy.run_path(str(DOCS / "metrics.py"))["page"]() == PAGE


async def test_the_reference_has_every_metric_and_every_label_value_of_a_running_node() -> None:
    async with client("a") as mesh:
        exposed = mesh.metrics()
    sections = {heading: body for heading, _, body in (part.partition("\n") for part in PAGE.split("\n## ")[1:])}
    shown = {(metric, name) for metric, body in sections.items() for name in re.findall(r"`(\w+)`[,| ]", body)}
    assert set(LABEL.findall(exposed)) - shown == set()
    assert set(re.findall(r"^# HELP (\w+ .+)$", exposed, re.MULTILINE)) <= {
        f"{name} {meaning}" for name, meaning in re.findall(r"^\| `(zmesh_\w+)` \|.*\| (.+) \|$", PAGE, re.MULTILINE)
    }
