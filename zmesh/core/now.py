"""The one value that tells the time.

Rules
 1. The interpreter reads the clocks and passes the time in; the core never reads a clock itself.
"""

from __future__ import annotations


class Now:
    """One reading of both clocks, handed to the engine with every event. Treated as immutable.

    A slotted class: a dozen checks of every message read it, and an attribute of a named tuple costs twice as much.
    ``mono``: monotonic seconds, which measure every timeout and deadline. ``wall``: seconds since the Unix epoch,
    compared only with the times inside messages. ``wall_ms``: the same in whole milliseconds, the unit of the wire.
    """

    __slots__ = ("mono", "wall", "wall_ms")

    def __init__(self, mono: float, wall: float) -> None:
        self.mono = mono
        self.wall = wall
        self.wall_ms = int(wall * 1000)

    def __repr__(self) -> str:
        return f"Now(mono={self.mono!r}, wall={self.wall!r})"
