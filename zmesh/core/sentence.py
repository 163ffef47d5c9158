"""How a value looks inside a one-sentence error."""

from __future__ import annotations

MAX_SHOWN = 80
"""Characters of a bad value that are shown: enough to find it, too few to flood a log."""


def shown(value: object) -> str:
    """``value`` quoted on one line and cut to ``MAX_SHOWN`` characters. Never call it with a secret."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}... ({len(text)} characters)"
