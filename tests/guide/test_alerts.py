"""The alerting rules name what a running node exposes, and cover all that operators are told to alert on.

They are read by their lines, since no YAML library is among the dependencies.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.guide.test_operations_page import part
from tests.integration.test_client_belonging import Told, accounts, delegated

RULES = (Path(__file__).parents[2] / "docs/alerts.yml").read_text(encoding="utf-8")
RULE = re.compile(
    r"""      - alert: (?P<alert>Zmesh\w+)
        expr: (?P<expr>[^\n>][^\n]*|>-(?:\n {10}[^\n]+)+)
(?:        for: \d+m\n)?        labels:
          severity: (?:page|ticket)
        annotations:
          summary: "(?P<summary>[^"\n]+)"
"""
)
TARGET = {"job", "instance"}
"""Labels that Prometheus adds."""

Exposed = Mapping[str, Mapping[str, set[str]]]
"""The values of each label of each metric."""


class Rule(NamedTuple):
    alert: str
    expr: str
    summary: str


def rules() -> list[Rule]:
    """All rules; nothing but these, comments and empty lines may stand below the head."""
    body = re.sub(r"^ *#.*\n", "", RULES, flags=re.MULTILINE)
    head, _, rest = body.partition("    rules:\n")
    assert head == "groups:\n  - name: zmesh\n"
    assert re.sub(r"\n+", "\n", RULE.sub("", rest)).strip("\n") == ""
    return [Rule(*found) for found in RULE.findall(rest)]


@pytest.fixture
async def exposed() -> Exposed:
    """What a node exposes that has a registry and a delegation."""
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    async with delegated("a", Told(accounts("a"))) as node:
        for line in node.metrics().splitlines():
            if (sample := re.fullmatch(r"(\w+)(?:\{(.*)\})? [-+.e\d]+", line)) is not None:
                labels = found[sample[1]]
                for name, value in re.findall(r'(\w+)="([^"]*)"', sample[2] or ""):
                    labels[name].add(value)
    return found


async def test_every_metric_label_and_value_in_a_rule_is_exposed(exposed: Exposed) -> None:
    assert len({rule.alert for rule in rules()}) == len(rules()) > 15
    for rule in rules():
        selected = re.findall(r"(zmesh_\w+)(?:\{([^}]*)\})?", rule.expr)
        assert selected, rule
        for metric, matchers in selected:
            assert metric in exposed, rule
            for label, values in re.findall(r'(\w+)(?:=~|!=|=)"([^"]*)"', matchers):
                assert set(values.split("|")) <= exposed[metric][label], rule
        known = TARGET.union(*(exposed[metric] for metric, _ in selected))
        assert set(re.findall(r"\$labels\.(\w+)", rule.summary)) <= known, rule
        assert all(rule.expr.count(left) == rule.expr.count(right) for left, right in ("()", "{}", "[]")), rule


async def test_whatever_operators_are_told_to_alert_on_has_a_rule(exposed: Exposed) -> None:
    rows = re.findall(r"^\| (`zmesh_[^|]+) \| [^|]* \| ([^|]+) \|$", part("GET /metrics"), re.MULTILINE)
    assert len(rows) > 15
    events = {value for labels in exposed.values() for values in labels.values() for value in values}
    expressions = " ".join(rule.expr for rule in rules())
    for metrics, when in rows:
        assert any(re.search(rf"\b{name}\b", expressions) for name in re.findall(r"`(\w+)`", metrics)), metrics
        for event in set(re.findall(r"`(\w+)`", when)) & events:
            assert re.search(rf'[|"]{event}[|"]', expressions), event
