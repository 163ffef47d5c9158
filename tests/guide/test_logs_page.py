"""The reference of log lines has what the source logs at INFO and above: events, levels and fields."""

from __future__ import annotations

import ast
import json
import logging
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from zmesh.log import get_logger

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/logs.md").read_text(encoding="utf-8")
LEVELS = {"info": "INFO", "warning": "WARNING", "error": "ERROR"}
THROUGH: dict[str, tuple[str, set[str]]] = {
    "_tell_link": ("INFO", {"peer", "key", "held_back"}),
    "_complain": ("ERROR", {"message_id", "message_type", "sender", "handler", "held_back"}),
    "Notice": ("WARNING", {"held_back"}),
}
"""Functions that log what they are given, at which level, and the fields that they add."""
SPREAD = {
    "more": {"held_back"},
    "fields": set[str](),
    "self._life.facts()": {"version", "network", "registry", "listen_port", "router_port", "gossip_port"},
}
"""Mappings that a call spreads, and the fields that they hold."""
RENAMED = {"exc_info": "exception"}


class Line(NamedTuple):
    event: str
    level: str


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call in the source that logs at INFO or above, with its level."""
    for folder in ("zmesh", "transports", "handlers"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and (level := level_of(node)) is not None:
                    yield level, node


def level_of(call: ast.Call) -> str | None:
    """The level at which this call logs; None if it does not."""
    called = ast.unparse(call.func).removeprefix("self.")
    if called == "_tell" and ast.unparse(call.args[0]).startswith("_log."):
        return LEVELS[ast.unparse(call.args[0]).removeprefix("_log.")]
    if called in THROUGH:
        return THROUGH[called][0]
    direct = re.fullmatch(r"(?:_?log|get_logger\(.*\))\.(\w+)", called)
    return None if direct is None else LEVELS.get(direct[1])


def event_of(call: ast.Call) -> str | None:
    """The name of the event, if it stands in the call."""
    name = call.args[1 if ast.unparse(call.func) == "self._tell" else 0]
    return str(name.value) if isinstance(name, ast.Constant) else None


def fields_of(call: ast.Call) -> set[str]:
    """The fields that a line of this call may have."""
    called = ast.unparse(call.func).removeprefix("self.")
    fields = {"held_back"} if called == "_tell" else set(THROUGH[called][1]) if called in THROUGH else set()
    for one in call.keywords:
        fields |= SPREAD[ast.unparse(one.value)] if one.arg is None else {RENAMED.get(one.arg, one.arg)}
    given = [key for one in call.args if isinstance(one, ast.Dict) for key in one.keys]
    return fields | {str(key.value) for key in given if isinstance(key, ast.Constant)}


def documented() -> Iterator[tuple[Line, set[str]]]:
    for event, level, fields in re.findall(r"^\| `(\w+)` \| ([A-Z]+) \| ([^|]*) \| .+ \|$", PAGE, re.MULTILINE):
        yield Line(event, level), set(re.findall(r"`(\w+)`", fields))


def test_every_line_that_is_logged_is_documented_with_its_level_and_its_fields() -> None:
    told = list(documented())
    logged: dict[Line, set[str]] = defaultdict(set)
    for level, call in calls():
        if (event := event_of(call)) is not None:
            logged[Line(event, level)] |= fields_of(call)
    assert len(told) == len(dict(told)) > 50
    assert dict(told) == logged


def test_no_other_line_has_a_name_that_does_not_stand_where_it_is_logged() -> None:
    unnamed = [ast.unparse(call).partition(", **")[0] for _, call in calls() if event_of(call) is None]
    assert sorted(line.partition(", message_id")[0] for line in unnamed) == [
        "_log.error(event",  # in ``_complain``
        "self._tell(_log.info, event, key.hex(), peer=peer, key=key.hex()",  # in ``_tell_link``
        "self._tell(_log.warning, action.event, str(action.fields.get('peer'))",  # a ``Notice``
    ]


def test_the_formatter_for_a_service_writes_one_object_a_line(caplog: pytest.LogCaptureFixture) -> None:
    (code,) = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
    assert len(code.splitlines()) == 6
    written: dict[str, Any] = {"json": json, "logging": logging}
    exec(compile(textwrap.dedent(code), "logs.md", "exec"), written)
    with caplog.at_level("INFO"):
        get_logger("zmesh.node").error("internal_error", what=b"\x01", exc_info=LookupError("gone"))
        logging.getLogger("other").info("plain %s", {1})
    first, second = (json.loads(written["JsonLines"]().format(record)) for record in caplog.records)
    assert first.pop("exception").endswith("LookupError: gone")
    assert {**first, "time": 0} == {
        "time": 0,
        "level": "ERROR",
        "logger": "zmesh.node",
        "event": "internal_error",
        "what": "01",
    }
    assert (second["event"], second["level"]) == ("plain {1}", "INFO")
