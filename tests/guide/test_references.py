"""The references under ``docs/`` say what the code says."""

from __future__ import annotations

import re
import runpy
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["settings", "api"])
def test_the_reference_is_what_the_code_says(name: str) -> None:
    """If it is not: ``python docs/settings.py`` and ``python docs/api.py``."""
    assert runpy.run_path(str(DOCS / f"{name}.py"))["page"]() == (DOCS / f"{name}.md").read_text(encoding="utf-8")


def test_the_reference_of_the_api_leaves_out_no_public_name() -> None:
    sections: Any = runpy.run_path(str(DOCS / "api.py"))["SECTIONS"]
    shown = {(section.module, name) for section in sections for name in section.names}
    for module in ("zmesh", "zmesh.registry", "zmesh.testing", "zmesh.transports.simulator"):
        exported = set(import_module(module).__all__) - {"__version__"}
        assert exported - {name for origin, name in shown if origin == module} == set()


def test_everything_in_the_reference_of_the_api_has_a_meaning() -> None:
    """A signature alone does not say what it is for."""
    text = re.sub(r"^```.*?^```$", "", (DOCS / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    _, *parts = re.split(r"^####? (.+)$", text, flags=re.MULTILINE)
    said = dict(zip(parts[::2], parts[1::2], strict=True))
    assert len(said) > 100
    assert [name for name, meaning in said.items() if not meaning.strip()] == []
