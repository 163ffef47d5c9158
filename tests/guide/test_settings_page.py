"""The reference of settings says what the code says."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_of_settings_is_what_the_code_says() -> None:
    """If it is not: ``python docs/settings.py``."""
    assert runpy.run_path(str(DOCS / "settings.py"))["page"]() == (DOCS / "settings.md").read_text(encoding="utf-8")
