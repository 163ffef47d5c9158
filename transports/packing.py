"""A message's frames as one frame of ZMTP, and back.

Theory
    ZMTP encrypts, queues and hands over every frame by itself: of a small message of three, two thirds of what it
    costs at both ends (measured: 21 us against 12). And a message of one frame is never half here.
Layout
    ``count: u8 | a size for each frame but the last: u32, big endian | the frames``
Rules
 1. Any bytes whatsoever unpack: what no ``pack`` made becomes a message of no frames, which the engine blames.
"""

from __future__ import annotations

import struct

from zmesh.core.types import Frames

MAX_FRAMES = 6
"""Frames of one message: envelopes have three; the rest is room for later kinds."""

_COUNTS = tuple(bytes([count]) for count in range(MAX_FRAMES + 1))
_SIZES = tuple(struct.Struct(f">{count}I") for count in range(MAX_FRAMES))


def pack(frames: Frames) -> bytes:
    """One frame of ZMTP that holds 1 to ``MAX_FRAMES`` frames."""
    count = len(frames)
    return b"".join((_COUNTS[count], _SIZES[count - 1].pack(*map(len, frames[:-1])), *frames))


def unpack(data: bytes, start: int = 0) -> Frames:
    """The frames that ``data`` holds from ``start`` (a byte) on; none if they are not so packed."""
    end = len(data)
    count = data[start] if start < end else 0
    if not 1 <= count <= MAX_FRAMES:
        return ()
    sizes = _SIZES[count - 1]
    at = start + 1 + sizes.size
    if at > end:
        return ()
    frames = []
    for size in sizes.unpack_from(data, start + 1):
        frames.append(data[at : at + size])
        at += size
    if at > end:
        return ()
    frames.append(data[at:])
    return tuple(frames)
