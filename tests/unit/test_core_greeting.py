"""Greeting: what makes a link live, and what a HELLO may and may not do."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core_support import ME, Bench, opened
from tests.unit.links_support import ALICE, BOB, hellos
from zmesh.core import wire
from zmesh.core.actions import Hangup, LinkLive, Notice, Verify
from zmesh.core.events import (
    LinkClosed,
    LinkOpened,
    SendDirect,
    Verified,
)
from zmesh.core.types import DropReason, Fault, MessageType


def test_an_open_connection_is_greeted_and_nothing_else_is_sent() -> None:
    bench = Bench([ALICE])
    bench.handle(SendDirect(ALICE.public, MessageType.GOSSIP, {"waits": True}))
    bench.fresh()
    bench.handle(LinkOpened(ALICE.public))

    ((to, frames),) = bench.sends()
    hello = opened(frames)
    assert to == ALICE.public
    assert frames[0] == b"\x01\x00\x00"
    assert (hello.code, hello.author, hello.recipient, hello.correlation, hello.ttl) == (
        wire.HELLO_CODE,
        ME.public,
        ALICE.public,
        None,
        0,
    )
    assert wire.decode_payload(hello.payload) == {"versions": [1]}
    assert bench.live == ()


def test_their_hello_makes_the_link_live_and_is_answered() -> None:
    bench = Bench([ALICE])
    bench.handle(SendDirect(ALICE.public, MessageType.GOSSIP, {"waits": True}))
    bench.handle(LinkOpened(ALICE.public))
    bench.fresh()
    theirs = ALICE.hello(ME.public)
    bench.hear(ALICE, theirs)

    assert bench.of(LinkLive) == [LinkLive(ALICE.public)]
    assert [(hello.recipient, hello.correlation) for hello in hellos(bench)] == [(ALICE.public, theirs.id)]
    assert [payload for _, payload in ((k, wire.decode_payload(e.payload)) for k, e in bench.envelopes(9))] == [
        {"waits": True}
    ]
    assert [key for key, _ in bench.sends(wire.DIGEST)] == [ALICE.public]


def test_the_answer_to_ours_makes_it_live_too_and_measures_the_round_trip() -> None:
    bench = Bench([ALICE])
    bench.handle(LinkOpened(ALICE.public))
    (ours,) = hellos(bench)
    bench.fresh()
    bench.advance(0.25)
    bench.hear(ALICE, ALICE.hello(ME.public, correlation=ours.id))

    assert bench.live == (ALICE.public,)
    assert hellos(bench) == [], "an answer is not answered"
    assert bench.engine.links[ALICE.public].rtt == pytest.approx(0.25)


def test_an_answer_after_the_time_of_a_hello_measures_nothing() -> None:
    bench = Bench([ALICE])
    bench.greet(ALICE)
    (ours, _) = hellos(bench)
    bench.advance(5.01)
    bench.fresh()
    bench.hear(ALICE, ALICE.hello(ME.public, correlation=ours.id))

    assert bench.live == (ALICE.public,)
    assert hellos(bench) == []
    assert bench.engine.links[ALICE.public].rtt == 0.0


def test_two_ends_that_answer_late_do_not_greet_each_other_for_ever() -> None:
    bench = Bench([ALICE])
    bench.handle(LinkOpened(ALICE.public))
    (first,) = hellos(bench)
    bench.advance(1.5)
    assert len(hellos(bench)) == 2, "it was repeated"
    bench.fresh()
    bench.hear(ALICE, ALICE.hello(ME.public, correlation=first.id))

    assert bench.live == (ALICE.public,)
    assert hellos(bench) == []


@pytest.mark.parametrize(
    "hello, reason, fault",
    [
        (lambda: ALICE.hello(BOB.public), DropReason.WRONG_RECIPIENT, Fault.MISROUTED_DIRECT),
        (lambda: BOB.hello(ME.public), DropReason.NOT_FROM_AUTHOR, Fault.MISROUTED_DIRECT),
        (lambda: ALICE.hello(ME.public, network=bytes(32)), DropReason.WRONG_NETWORK, None),
    ],
)
def test_a_hello_must_be_by_the_links_key_to_us_in_our_network(
    hello: Any, reason: DropReason, fault: Fault | None
) -> None:
    bench = Bench([ALICE, BOB])
    bench.handle(LinkOpened(ALICE.public))
    bench.hear(ALICE, hello())

    assert bench.live == ()
    assert bench.drops() == [reason]
    assert bench.offences() == ([(ALICE.public, fault)] if fault else [])


def test_without_a_hello_a_link_is_greeted_every_second_and_given_up_after_five() -> None:
    bench = Bench([ALICE])
    bench.advance(0.0)
    bench.handle(LinkOpened(ALICE.public))
    bench.fresh()
    bench.advance(4.5)
    assert len(hellos(bench)) == 4
    assert bench.of(Hangup) == []

    bench.advance(1.6)
    assert bench.of(Hangup) == [Hangup(ALICE.public, "no HELLO")]
    assert bench.engine.links[ALICE.public].why == "it did not answer our HELLO"


@pytest.mark.parametrize("offset", [0.0, 0.1, 0.3, 0.7, 1 / 3, 1.1, 4.35, 1234.567])
def test_hellos_are_repeated_at_any_reading_of_the_clock(offset: float) -> None:
    bench = Bench([ALICE])
    bench.advance(offset)
    bench.handle(LinkOpened(ALICE.public))
    bench.fresh()
    bench.advance(3.5)

    assert len(hellos(bench)) == 3


def test_hellos_in_a_flood_are_looked_at_twenty_times_a_second() -> None:
    bench = Bench([ALICE])
    bench.connect(ALICE)
    bench.advance(1.0)
    bench.fresh()
    for _ in range(100):
        bench.hear(ALICE, ALICE.hello(ME.public))
        bench.advance(0.01)

    assert len(bench.of(Verify)) == len(hellos(bench)) <= 20
    assert set(bench.drops()) == {DropReason.RATE}


def test_a_new_process_behind_a_live_link_is_answered_and_owes_nothing_of_the_old_one() -> None:
    bench = Bench([ALICE])
    bench.connect(ALICE)
    bench.control(ALICE, wire.IHAVE, bytes(16))
    assert bench.engine.links[ALICE.public].holder.offered
    bench.advance(1.0)
    bench.fresh()
    reborn = ALICE.hello(ME.public)
    bench.hear(ALICE, reborn)

    assert [hello.correlation for hello in hellos(bench)] == [reborn.id]
    assert not bench.engine.links[ALICE.public].holder.offered
    bench.advance(5.0)
    assert bench.offences() == []


def test_a_hello_that_is_verified_after_its_connection_ended_makes_nothing_live() -> None:
    bench = Bench([ALICE])
    bench.advance(0.0)
    bench.inline = False
    bench.handle(LinkOpened(ALICE.public))
    bench.hear(ALICE, ALICE.hello(ME.public))
    (verify,) = bench.unverified
    bench.handle(LinkClosed(ALICE.public, "gone"))
    bench.handle(Verified(verify.message_id, True))

    assert (bench.live, bench.of(LinkLive), bench.drops()) == ((), [], [DropReason.NOT_ADMITTED])


def test_a_clock_that_is_off_is_told_and_not_cut() -> None:
    bench = Bench([ALICE])
    bench.handle(LinkOpened(ALICE.public))
    bench.hear(ALICE, ALICE.hello(ME.public, timestamp_ms=bench.now.wall_ms + 60_000))

    assert bench.live == (ALICE.public,)
    assert bench.of(Notice) == [Notice("clock_skew", {"peer": ALICE.public.hex(), "ahead_seconds": 60.0})]
