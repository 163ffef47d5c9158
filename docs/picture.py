"""Runs the demo and draws its last screen as ``docs/demo.svg``: the picture in the README is a real run.

python docs/picture.py
"""

from __future__ import annotations

import asyncio
import io
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console

from zmesh.demo.ground import FileGround
from zmesh.demo.score import Score
from zmesh.demo.screen import screen_table, summary
from zmesh.demo.stage import perform

WIDTH = 80
"""Terminal columns."""


def _ignore(score: Score, now: str) -> None:
    """Show nothing: only the end is drawn."""


def main() -> None:
    """Run the demo, draw it and write the picture."""
    score = asyncio.run(perform(10, 5, FileGround, _ignore))
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print("$ make demo", style="bold")
    console.print(screen_table(score, ""))
    console.print(summary(score), highlight=False)
    drawn = console.export_svg(title="zmesh", code_format=_alone(CONSOLE_SVG_FORMAT))
    Path(__file__).with_name("demo.svg").write_text(drawn, encoding="utf-8")


def _alone(template: str) -> str:
    """A template whose pictures fetch nothing: without web fonts, and without a comment about the tool."""
    return re.sub(r"@font-face {{.*?}}\s*|<!--.*?-->\s*", "", template, flags=re.DOTALL).replace(
        "Fira Code", "monospace"
    )


if __name__ == "__main__":
    main()
