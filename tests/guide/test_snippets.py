"""The guide's words are its own, none of its blocks is left out, and every change to one has its reason."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from tests.guide.guide import ADDITIONS, GIVEN, PYTHON, SHELL, SUBSTITUTIONS, USED, VARIABLES, YAML, snippets

WORDS = "e690bb03b6209dd3468062e31106c61cae4a33cbac55ab963e68031fe620004b"
"""SHA-256 of the guide's blocks, one after the other, as the guide has them."""


def test_the_snippets_are_the_guides_to_the_byte() -> None:
    text = "".join(snippet.text for snippet in snippets().values())
    assert hashlib.sha256(text.encode()).hexdigest() == WORDS


def test_every_snippet_is_run() -> None:
    tests = [path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")]
    assert {name for text in tests for name in re.findall(r'^@runs\("(.+)"\)$', text, re.MULTILINE)} == set(snippets())


def test_every_change_is_of_a_snippet_and_has_its_reason() -> None:
    changes = (*SUBSTITUTIONS, *ADDITIONS, *VARIABLES)
    changed = {change.snippet for change in changes} | {name for given in GIVEN for name in given.snippets}
    assert changed <= set(snippets())
    assert all(change.why for change in (*changes, *GIVEN))
    assert {snippet.language for snippet in snippets().values()} == {PYTHON, SHELL, YAML}
    assert {name for name, snippet in snippets().items() if snippet.language == YAML} == USED.keys()
