"""Writes ``docs/metrics.md``, the reference of all metrics, from the code and from the tables of PROTOCOL.md.

python docs/metrics.py
"""

from __future__ import annotations

import ast
import inspect
import random
import re
from collections.abc import Iterator, Mapping
from enum import Enum
from itertools import groupby, pairwise
from pathlib import Path

from zmesh.core.engine import Engine
from zmesh.core.envelope import Composer
from zmesh.core.types import DropReason, Fault, SendResult
from zmesh.counted import LAYERS
from zmesh.identity import Identity
from zmesh.status import Gauges, metrics

PAGE = Path(__file__).with_name("metrics.md")
PROTOCOL = Path(__file__).parents[1] / "PROTOCOL.md"
TOP = """# Metrics

Everything that `GET /metrics` shows, in Prometheus text format. [operations.md](operations.md#get-metrics) says what to
alert on, and [alerts.yml](alerts.yml) has it as rules. Counters start at 0 with each start of the node, and each label
value is there before its first event. This page is made from the code and PROTOCOL.md by `python docs/metrics.py`.

| metric | type | labels | |
| --- | --- | --- | --- |
"""


def page() -> str:
    """The whole reference, as Markdown."""
    return TOP + "\n".join([*_families(), *_sections(), ""])


def exposed() -> str:
    """What a node says that has everything a metric can be about, and has done nothing yet."""
    me = Identity.from_seed(bytes(32))
    engine = Engine(Composer(me, bytes(32), 1), random.Random(0))
    return metrics(engine, Gauges(True, 0.0, 0, 0, 0, 0.0, 0.0), {}, {}, {})


def _families() -> Iterator[str]:
    text = exposed()
    kinds = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    for name, meaning in re.findall(r"^# HELP (\w+) (.+)$", text, re.MULTILINE):
        sample = re.search(rf"^{name}\{{(.+)\}} ", text, re.MULTILINE)
        labels = [] if sample is None else re.findall(r'(\w+)="', sample[1])
        yield f"| `{name}` | {kinds[name]} | {', '.join(f'`{label}`' for label in labels)} | {meaning} |"


def _sections() -> Iterator[str]:
    yield from _section("zmesh_direct_sends_total", "| result | |\n| --- | --- |", _docstrings(SendResult))
    yield from _section(
        "zmesh_frames_dropped_total", "| reason | counted when | to blame |\n| --- | --- | --- |", _protocol(DropReason)
    )
    yield from _section("zmesh_offences_total", "| fault | |\n| --- | --- |", _docstrings(Fault))
    for name, layer in LAYERS.items():
        yield from _section(f"zmesh_{name}_events_total", "| event | |\n| --- | --- |", layer.events)


def _section(metric: str, head: str, meanings: Mapping[str, str]) -> Iterator[str]:
    yield f"\n## {metric}\n\n{head}"
    for meaning, names in groupby(meanings, meanings.__getitem__):
        yield f"| {', '.join(f'`{name}`' for name in names)} | {meaning} |"


def _docstrings(values: type[Enum]) -> dict[str, str]:
    """The meaning of each member, as its docstring gives it."""
    (defined,) = ast.parse(inspect.getsource(values)).body
    assert isinstance(defined, ast.ClassDef)
    found = {
        str(ast.literal_eval(member.value)): " ".join(str(ast.literal_eval(meaning.value)).split())
        for member, meaning in pairwise(defined.body)
        if isinstance(member, ast.Assign) and isinstance(meaning, ast.Expr)
    }
    return {member.value: found[member.value].replace("``", "`") for member in values}


def _protocol(values: type[Enum]) -> dict[str, str]:
    """The last two columns of the table in PROTOCOL.md for each member: what happened, and who is to blame."""
    table = PROTOCOL.read_text(encoding="utf-8").partition("### 7.1 ")[2].partition("\n### ")[0]
    found = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE))
    return {member.value: found[member.value] for member in values}


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
