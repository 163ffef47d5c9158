"""What a member gone bad can repeat as often as it likes costs this node little."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from tests.unit.core_support import ME, Bench, Person, people
from zmesh.core import wire
from zmesh.core.actions import Dial, WakeAt
from zmesh.core.errors import WireError
from zmesh.core.events import LinkOpened
from zmesh.core.types import DropReason

(ALICE,) = people(1)


def test_offers_taken_back_and_made_anew_add_no_checks() -> None:
    """A HELLO voids what its link offered; the offers that follow revive the same wants."""
    bench = Bench([ALICE])
    bench.connect(ALICE)
    offer = wire.encode_ids([number.to_bytes(16) for number in range(256)])
    for _ in range(200):
        bench.hear(ALICE, ALICE.hello(ME.public, timestamp_ms=bench.now.wall_ms))
        bench.control(ALICE, wire.IHAVE, offer)
        bench.advance(0.055)
    assert bench.engine.wanted == 256

    bench.fresh()
    bench.advance(2.0)

    assert len(bench.of(WakeAt)) < 40, "each round of offers left a check that goes on by itself"


def silent(bench: Bench, peer: Person) -> None:
    """It takes the connection and never says HELLO."""


def leaves(bench: Bench, peer: Person) -> None:
    """It says HELLO, and goodbye at once."""
    bench.hear(peer, peer.hello(ME.public, timestamp_ms=bench.now.wall_ms))
    bench.control(peer, wire.LEAVE)


@pytest.mark.parametrize("ends", [silent, leaves])
def test_a_connection_that_we_have_to_end_slows_the_next_dial_too(ends: Callable[[Bench, Person], None]) -> None:
    bench = Bench([ALICE])
    dialled = 0
    for _ in range(3000):
        bench.fresh()
        bench.advance(0.1)
        if bench.of(Dial):
            dialled += 1
            bench.handle(LinkOpened(ALICE.public))
            ends(bench, ALICE)

    assert 8 <= dialled <= 20, "in five minutes, at a pause of up to 30 s"


def test_of_many_hellos_at_once_one_is_verified() -> None:
    bench = Bench([ALICE], inline=False)
    bench.greet(ALICE)
    bench.verified()
    bench.advance(1.0)
    bench.fresh()

    for _ in range(32):
        bench.hear(ALICE, ALICE.hello(ME.public, timestamp_ms=bench.now.wall_ms))

    assert len(bench.unverified) == 1
    assert bench.drops() == [DropReason.RATE] * 31


@pytest.mark.parametrize("claimed", [60_000, 8_193, 8_192])
@pytest.mark.parametrize("header", [b"\xdc", b"\xde"], ids=["arrays", "maps"])
def test_what_a_payload_claims_to_hold_takes_no_memory(header: bytes, claimed: int) -> None:
    """msgpack makes room for each array as its header says, before it looks at what is there."""
    key = b"\xa1k"
    nest = header + claimed.to_bytes(2) + (key if header == b"\xde" else b"")
    payload = (b"\x81" + key + nest * 500).ljust(64 << 10, b"\0")
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            wire.decode_payload(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < (40 << 20 if claimed <= 8_192 else 1 << 20)
