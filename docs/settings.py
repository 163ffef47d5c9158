"""Writes ``docs/settings.md``, the reference of all settings, from the docstrings in ``zmesh/config.py``.

python docs/settings.py
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from pydantic_core import PydanticUndefined

from zmesh import Settings
from zmesh.config import variable_of

PAGE = Path(__file__).with_name("settings.md")
TOP = """# Settings

An explicit argument of `MeshNetworkClient` beats the environment variable, which beats the default. An invalid value is
refused at the start with one sentence. This page is made from `zmesh/config.py` by `python docs/settings.py`.
"""
COLUMNS = "| variable | argument | default | |\n| --- | --- | --- | --- |"


def page() -> str:
    """The whole reference, as Markdown."""
    return TOP + "\n".join([*_sections(), ""])


def _sections() -> Iterator[str]:
    source = inspect.getsource(Settings)
    found = re.finditer(r"^    # -{10,} (.+)$", source, re.MULTILINE)
    headings = [(source[: match.start()].count("\n") + 1, match[1]) for match in found]
    (settings,) = ast.parse(source).body
    assert isinstance(settings, ast.ClassDef)
    for field, meaning in pairwise(settings.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(meaning, ast.Expr):
            while headings and headings[0][0] < field.lineno:
                yield f"\n## {headings.pop(0)[1].capitalize()}\n\n{COLUMNS}"
            yield _row(field.target.id, str(ast.literal_eval(meaning.value)))


def _row(name: str, meaning: str) -> str:
    default = Settings.model_fields[name].default
    shown = (
        "required"
        if default is PydanticUndefined
        else ""
        if default in (None, "")
        else f"{default:g}"
        if isinstance(default, float)
        else str(default)
    )
    text = " ".join(meaning.split()).replace("``", "`").replace("|", "\\|")
    return f"| `{variable_of(name)}` | `{name}` | {shown} | {text} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
