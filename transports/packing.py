"""Messages as frames of ZMTP, and back.

Theory
    ZMTP encrypts, queues and hands over every frame separately. For a small message, three frames cost 21 us at each
    end and one costs 12 (measured), so a message is one frame, and is never half received here.
    For a small message that follows others to the same peer, it is nearly all of the cost, together with a wake-up of
    ZeroMQ's thread (measured: 60 us per message at the sender), so such messages travel together as a bundle.
Layout
    a message    ``count: u8, 1 to 6 | a size for each frame but the last: u32, big endian | the frames``
    a bundle     ``0: u8 | count: u8, 2 to 16 | a size for each message but the last: u32, big endian | the messages``
Rules
 1. Any bytes unpack: what ``pack`` or ``bundle`` did not make becomes a message of no frames, which the engine blames.
 2. There is no bundle within a bundle.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from zmesh.core.types import Frames

MAX_FRAMES = 6
"""Frames of one message: envelopes have three; the rest is room for later kinds."""
MAX_BUNDLE = 16
"""Messages of one bundle: a sixteenth of a frame's cost is little enough, and more would arrive in lumps."""

_COUNTS = tuple(bytes([count]) for count in range(MAX_FRAMES + 1))
_BUNDLED = tuple(bytes([0, count]) for count in range(MAX_BUNDLE + 1))
_SIZES = tuple(struct.Struct(f">{count}I") for count in range(MAX_BUNDLE))
_NO_FRAMES: Frames = ()


def pack(frames: Frames) -> bytes:
    """One ZMTP frame that holds a message of 1 to ``MAX_FRAMES`` frames."""
    count = len(frames)
    return b"".join((_COUNTS[count], _SIZES[count - 1].pack(*map(len, frames[:-1])), *frames))


def bundle(packed: Sequence[bytes]) -> bytes:
    """One ZMTP frame that holds 1 to ``MAX_BUNDLE`` messages, each as returned by ``pack``."""
    count = len(packed)
    if count == 1:
        return packed[0]
    return b"".join((_BUNDLED[count], _SIZES[count - 1].pack(*map(len, packed[:-1])), *packed))


def unpack(data: bytes, start: int = 0) -> list[Frames]:
    """The messages in ``data`` from byte ``start`` on; a single one of no frames if they are not packed like this."""
    count = data[start] if start < len(data) else 0
    if 1 <= count <= MAX_FRAMES:
        return [tuple(_split(data, start + 1, count))]
    many = data[start + 1] if start + 1 < len(data) else 0
    if count or not 2 <= many <= MAX_BUNDLE:
        return [_NO_FRAMES]
    return [_frames(message) for message in _split(data, start + 2, many)] or [_NO_FRAMES]


def _frames(message: bytes) -> Frames:
    """A message of a bundle; what is no message has no frames."""
    count = message[0] if message else 0
    return tuple(_split(message, 1, count)) if 1 <= count <= MAX_FRAMES else _NO_FRAMES


def _split(data: bytes, start: int, count: int) -> list[bytes]:
    """``count`` parts; their sizes, but for the last, begin at ``start``. Empty if the data is too short for them."""
    end = len(data)
    sizes = _SIZES[count - 1]
    at = start + sizes.size
    if at > end:
        return []
    parts = []
    for size in sizes.unpack_from(data, start):
        parts.append(data[at : at + size])
        at += size
    if at > end:
        return []
    parts.append(data[at:])
    return parts
