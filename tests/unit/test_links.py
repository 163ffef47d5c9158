"""How what came over the links is handed to the sink."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from zmesh.core.events import FrameReceived
from zmesh.transport import MAX_BATCH, TransportEvent
from zmesh.transports.links import Links

KEY, OTHER = bytes(32), bytes([1]) * 32
ROUNDS = 20


async def rounds(batches: list[list[TransportEvent]], links: Links) -> list[int]:
    """How many events the sink was given in each round of the loop, up to the last that brought some."""
    given: list[int] = []
    links.flush()
    for _ in range(ROUNDS):
        given.append(sum(map(len, batches)))
        batches.clear()
        await asyncio.sleep(0)
    while given and not given[-1]:
        given.pop()
    return given


async def test_what_is_beyond_one_batch_waits_until_others_had_their_turn() -> None:
    batches: list[list[TransportEvent]] = []

    def sink(events: Sequence[TransportEvent]) -> None:
        batches.append(list(events))

    links = Links(asyncio.get_running_loop(), sink, Counter())
    assert links.received(KEY, [(b"%d" % number,) for number in range(100)]) == 100

    assert await rounds(batches, links) == [MAX_BATCH, MAX_BATCH, MAX_BATCH, 100 - 3 * MAX_BATCH]


async def test_what_waits_is_forgotten_with_its_link() -> None:
    seen: list[TransportEvent] = []

    def sink(events: Sequence[TransportEvent]) -> None:
        seen.extend(events)
        links.forget(KEY)

    links = Links(asyncio.get_running_loop(), sink, Counter())
    links.received(KEY, [(b"of one",)] * 100)
    links.received(OTHER, [(b"of another",)])
    links.flush()
    for _ in range(ROUNDS):
        await asyncio.sleep(0)

    assert seen == [FrameReceived(KEY, (b"of one",))] * MAX_BATCH + [FrameReceived(OTHER, (b"of another",))]
