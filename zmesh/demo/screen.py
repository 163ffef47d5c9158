"""Shows a demo while it runs: a live table on a terminal, plain lines elsewhere.

Rules
 1. Nothing is shown that was not measured.
 2. The plain form says the same, one line per round, and works in a log.
"""

from __future__ import annotations

import math
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from typer import echo

from zmesh.demo.digits import HELD_OUT
from zmesh.demo.score import ENOUGH, RESULT, Announcement, Score

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

NAMED = 10
"""Other validators up to which each is shown by its number, so that the table fits a terminal of 80 columns."""


class Screen(Protocol):
    """Where a demo is shown."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show(self, score: Score, now: str) -> None:
        """Show the present state; ``now`` is what is being done."""
        ...


def screen(plain: bool) -> Screen:
    """A table if there is a terminal for it, else lines."""
    if plain or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return Lines()
    return Table()


class Lines:
    """Plain text: one line whenever something is complete."""

    def __init__(self) -> None:
        self._said: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return

    def show(self, score: Score, now: str) -> None:
        """Print what has become complete since the last time."""
        for line in self._lines(score, now):
            if line not in self._said:
                self._said.append(line)
                echo(line)

    def _lines(self, score: Score, now: str) -> list[str]:
        lines = [f"{len(score.validators)} validators in {len(score.validators)} processes"]
        if now:
            lines.append(f"... {now}")
        for one in score.announcements:
            # Reports of ten processes come in any order: a line waits for all of its own, or for the end.
            is_told = len(one.heard_at) == len(score.others) and not math.isnan(one.announced_at)
            if now and not is_told:
                continue
            if one.name == RESULT:
                lines.append(f"result: the last model reached {_heard(one, score)}")
            elif one.accuracy is not None:
                deltas = f"{len(one.deltas)}/{len(score.others)} deltas came back"
                lines.append(f"{one.name}: reached {_heard(one, score)}; {deltas}; accuracy {one.accuracy:.3f}")
        return lines


class Silence:
    """Nothing at all: for ``--json``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return

    def show(self, score: Score, now: str) -> None:
        """Show nothing."""


class Table:
    """A rich table that is redrawn as reports come in."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live: Live = Live(console=Console(), refresh_per_second=12)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def show(self, score: Score, now: str) -> None:
        """Redraw."""
        self._live.update(screen_table(score, now))


def screen_table(score: Score, now: str) -> RenderableType:
    """The table as it is now; ``now`` is what is being done."""
    from rich.table import Table as Grid

    others = len(score.others)
    table = Grid(
        title=f"zmesh: {others + 1} validators in {others + 1} processes learn to read digits together",
        caption=f"{now} ..." if now else "",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("round", style="bold")
    table.add_column("reached", justify="right")
    table.add_column("last after", justify="right")
    table.add_column("copies", justify="right")
    table.add_column("deltas from")
    table.add_column("accuracy", justify="right")
    if not score.announcements:
        ready = f"{len(score.ports)} listen, {len(score.linked)} linked with all others"
        table.add_row("", f"0/{others}", "", "", ready, "")
    for one in score.announcements:
        table.add_row(
            one.name,
            f"{len(one.heard_at)}/{others}",
            f"{one.delays[-1] * 1000:.1f} ms" if one.delays else "",
            f"{one.copies:.1f}" if one.copies is not None else "",
            "" if one.name == RESULT else _deltas(one, score),
            "" if one.accuracy is None else f"[green]{one.accuracy:.3f}[/]",
        )
    return table


def _deltas(one: Announcement, score: Score) -> str:
    if len(score.others) > NAMED:
        return f"{len(one.deltas)}/{len(score.others)}"
    marks = []
    for name in score.others:
        number = name.rpartition("_")[2].lstrip("0")
        marks.append(f"[green]{number}[/]" if name in one.deltas else f"[dim]{number}[/]")
    return " ".join(marks)


def _heard(one: Announcement, score: Score) -> str:
    last = f", last after {one.delays[-1] * 1000:.1f} ms" if one.delays else ""
    return f"{len(one.heard_at)}/{len(score.others)}{last}"


def summary(score: Score) -> str:
    """The result, in a few lines of plain text."""
    heard, should_hear = score.gossiped
    sent, should_send = score.sent_back
    lines = [
        f"accuracy     {score.accuracy:.3f} on {HELD_OUT} unseen digits "
        f"(target: above {ENOUGH}; each alone: {score.alone:.3f})",
        f"deliveries   {heard + sent}/{should_hear + should_send}: {heard}/{should_hear} announcements by gossip, "
        f"{sent}/{should_send} deltas straight back",
        f"propagation  p50 {score.delay(50) * 1000:.1f} ms, p99 {score.delay(99) * 1000:.1f} ms, "
        "from announcement to handler",
        f"copies       {score.copies:.2f} per delivery of gossip",
    ]
    return "\n".join(lines + [f"MISSED       {problem}" for problem in score.problems])
