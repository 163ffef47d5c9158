"""What a member gone bad can repeat as often as it likes costs this node little."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest

from tests.unit.core_support import ME, Bench, Person, people
from zmesh.core import wire
from zmesh.core.actions import Dial, WakeAt
from zmesh.core.errors import WireError
from zmesh.core.events import LinkClosed, LinkOpened
from zmesh.core.now import Now
from zmesh.core.types import DropReason

ALICE, BOB = people(2)


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


def test_whoever_else_offers_a_message_is_asked_though_its_first_holder_takes_its_offers_back_all_the_time() -> None:
    bench = Bench([ALICE, BOB])
    bench.connect(ALICE, BOB)
    wanted = bytes(16)
    for person in (ALICE, BOB):
        bench.control(person, wire.IHAVE, wanted)
    assert bench.ids(wire.IWANT) == [(ALICE.public, [wanted])]

    bench.now = Now(bench.now.mono + 0.06, bench.now.wall + 0.06)
    bench.hear(ALICE, ALICE.hello(ME.public, timestamp_ms=bench.now.wall_ms))
    for _ in range(40):  # in the same reading: no timer comes between
        bench.control(ALICE, wire.IHAVE, wanted)

    assert bench.ids(wire.IWANT) == [(ALICE.public, [wanted]), (BOB.public, [wanted])]


def test_a_message_that_another_link_is_asked_for_is_not_asked_again_when_an_offer_is_taken_back() -> None:
    bench = Bench([ALICE, BOB])
    bench.connect(ALICE, BOB)
    wanted = bytes(16)
    for person in (BOB, ALICE):
        bench.control(person, wire.IHAVE, wanted)
    for _ in range(5):
        bench.now = Now(bench.now.mono + 0.01, bench.now.wall + 0.01)
        bench.handle(LinkClosed(ALICE.public, "gone"))
        bench.greet(ALICE)
        bench.control(ALICE, wire.IHAVE, wanted)

    assert bench.ids(wire.IWANT) == [(BOB.public, [wanted])]


def silent(bench: Bench, peer: Person) -> None:
    """It takes the connection and never says HELLO."""


def leaves(bench: Bench, peer: Person) -> None:
    """It says HELLO, and goodbye at once."""
    bench.hear(peer, peer.hello(ME.public, timestamp_ms=bench.now.wall_ms))
    bench.control(peer, wire.LEAVE)


def leaves_by_its_own_connection(bench: Bench, peer: Person) -> None:
    """As above, over a connection that it made while we dial it."""
    bench.handle(LinkOpened(peer.public, inbound=True))
    leaves(bench, peer)


def silent_on_its_own_connection(bench: Bench, peer: Person) -> None:
    """It connects while we dial it, and says nothing."""
    bench.handle(LinkOpened(peer.public, inbound=True))


@pytest.mark.parametrize("ends", [silent, silent_on_its_own_connection, leaves, leaves_by_its_own_connection])
def test_a_connection_that_we_have_to_end_slows_the_next_dial_too(ends: Callable[[Bench, Person], None]) -> None:
    bench = Bench([ALICE])
    dialled = 0
    for _ in range(3000):
        bench.fresh()
        bench.advance(0.1)
        if bench.of(Dial):
            dialled += 1
            if ends in (silent, leaves):
                bench.handle(LinkOpened(ALICE.public))
            ends(bench, ALICE)

    assert 8 <= dialled <= 25, "in five minutes, at a pause of up to 30 s"


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


def test_of_many_answers_to_one_hello_one_is_verified() -> None:
    bench = Bench([ALICE], inline=False)
    bench.advance(0.0)
    bench.handle(LinkOpened(ALICE.public))
    ((_, ours),) = bench.envelopes(wire.HELLO_CODE)
    bench.fresh()

    for _ in range(100):
        bench.hear(ALICE, ALICE.hello(ME.public, correlation=ours.id, timestamp_ms=bench.now.wall_ms))

    assert len(bench.unverified) == 2, "one as the answer, and one as any HELLO"
    assert bench.drops() == [DropReason.RATE] * 98


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

    assert peak < 1 << 20
