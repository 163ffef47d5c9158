"""The one value that says what time it is.

Rules
 1. Whoever runs the engine reads the clocks; the core is told, and never looks itself.
"""

from __future__ import annotations


class Now:
    """One reading of both clocks, handed to the engine with every event. Treated as immutable.

    A slotted class, for a dozen checks of every message read it, and an attribute of a tuple costs twice as much.
    ``mono``: seconds, monotonic: every timeout and deadline is measured with it. ``wall``: seconds since the Unix
    epoch: only the timestamps inside messages are compared with it. ``wall_ms``: the same in whole milliseconds, the
    unit of the wire.
    """

    __slots__ = ("mono", "wall", "wall_ms")

    def __init__(self, mono: float, wall: float) -> None:
        self.mono = mono
        self.wall = wall
        self.wall_ms = int(wall * 1000)

    def __repr__(self) -> str:
        return f"Now(mono={self.mono!r}, wall={self.wall!r})"
