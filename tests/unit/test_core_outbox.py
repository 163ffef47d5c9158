"""Direct messages at their sender: repeated until acknowledged, and every way in which they can end."""

from __future__ import annotations

import itertools
import sys
from typing import Any

import pytest

from tests.unit.core_support import ME, NOON, Bench, Person
from tests.unit.direct_support import ALICE, BOB, CODE, DELTA, bench, send, sent, tick
from zmesh.core import wire
from zmesh.core.actions import Dial, Resolved, Send, Verify
from zmesh.core.bounds import MAX_PAYLOAD
from zmesh.core.errors import PayloadError
from zmesh.core.events import LinkClosed, RemovePeer, SendDirect, SendRefused, Stop
from zmesh.core.types import AckStatus, DropReason, Fault, SendResult


def test_a_direct_message_names_its_recipient_and_takes_no_hops() -> None:
    made = bench()
    message = send(made)

    assert (message.recipient, message.ttl, message.code, message.author) == (ALICE.public, 0, CODE, ME.public)
    assert made.sends(wire.ENVELOPE) == [(ALICE.public, message.frames(0, 0))]
    assert made.of(Send)[0].gossip is False


def test_an_acknowledgement_by_the_recipient_delivers() -> None:
    made = bench()
    message = send(made)
    assert made.engine.direct_pending == 1
    made.hear(ALICE, ALICE.ack(ME.public, message))

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.DELIVERED)]
    made.fresh()
    tick(made, 20.0)
    assert (sent(made), made.of(Resolved)) == ([], [])


def test_the_body_of_what_is_settled_is_let_go_of_long_before_its_deadline() -> None:
    made = bench()
    made.handle(SendDirect(ALICE.public, DELTA, {"round_id": "r", "pad": bytes(MAX_PAYLOAD // 2)}, 110.0, 7))
    body = made.sends(wire.ENVELOPE)[-1][1][1]
    made.hear(ALICE, ALICE.ack(ME.public, sent(made)[-1]))
    made.fresh()

    held_here_alone = bytes(len(body))
    assert sys.getrefcount(body) == sys.getrefcount(held_here_alone)
    tick(made, 115.0)
    assert (sent(made), made.of(Resolved)) == ([], [])


def test_without_an_answer_the_same_message_is_sent_again_ever_more_slowly() -> None:
    made = bench()
    message = send(made, timeout=60.0)
    times = [made.now.mono]
    while made.now.mono < NOON.mono + 40.0:
        count = len(sent(made))
        tick(made, 0.05)
        times += [made.now.mono] * (len(sent(made)) - count)

    assert {again.id for again in sent(made)} == {message.id}
    for attempt, (before, after) in enumerate(itertools.pairwise(times)):
        usual = min(5.0, 0.25 * 2**attempt)
        assert 0.75 * usual - 0.06 <= after - before <= 1.25 * usual + 0.06


def test_silence_ends_in_a_timeout() -> None:
    made = bench()
    message = send(made, timeout=3.0)
    made.fresh()
    tick(made, 2.9)
    assert made.of(Resolved) == []
    tick(made, 0.2)

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.TIMEOUT)]


def test_what_never_left_was_unreachable() -> None:
    made = Bench([ALICE])
    made.handle(SendDirect(ALICE.public, DELTA, {}, 3.0, 7))
    made.advance(3.0)

    assert [outcome.result for outcome in made.of(Resolved)] == [SendResult.UNREACHABLE]
    assert sent(made) == []


def test_an_unlinked_recipient_is_dialled_and_the_message_waits() -> None:
    made = Bench([ALICE])
    made.handle(SendDirect(ALICE.public, DELTA, {}, 30.0, 7))
    made.advance(0.0)
    assert [dial.key for dial in made.of(Dial)] == [ALICE.public]
    tick(made, 5.0)
    assert sent(made) == []
    made.greet(ALICE)

    assert len(sent(made)) == 1


def test_busy_is_back_pressure_in_the_end_and_another_chance_before() -> None:
    made = bench()
    message = send(made, timeout=3.0)
    made.hear(ALICE, ALICE.ack(ME.public, message, AckStatus.BUSY))
    assert made.of(Resolved) == []
    made.fresh()
    made.advance(0.4)
    assert [again.id for again in sent(made)] == [message.id]
    made.hear(ALICE, ALICE.ack(ME.public, message, AckStatus.QUEUED))

    assert [outcome.result for outcome in made.of(Resolved)] == [SendResult.DELIVERED]


def test_a_recipient_that_stays_busy_is_told_as_back_pressure() -> None:
    made = bench()
    message = send(made, timeout=1.0)
    for _ in range(21):
        made.hear(ALICE, ALICE.ack(ME.public, message, AckStatus.BUSY))
        made.advance(0.05)

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.BACKPRESSURE)]


def test_an_own_queue_that_stays_full_is_back_pressure_too() -> None:
    made = bench()
    message = send(made, timeout=0.2)
    made.handle(SendRefused(ALICE.public, message.id))
    made.advance(0.2)

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.BACKPRESSURE)]


def test_rejected_by_the_recipient_is_final() -> None:
    made = bench()
    message = send(made)
    made.hear(ALICE, ALICE.ack(ME.public, message, AckStatus.REJECTED))

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.REJECTED)]


@pytest.mark.parametrize("status, skew", [(AckStatus.STALE, -130_000), (AckStatus.FUTURE, 60_000)])
def test_a_clock_that_is_off_is_told_with_how_far(status: AckStatus, skew: int) -> None:
    made = bench()
    message = send(made)
    made.hear(ALICE, ALICE.ack(ME.public, message, status, skew_ms=skew))

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.REJECTED, skew)]


def test_an_acknowledgement_by_anybody_else_is_no_answer() -> None:
    made = bench()
    message = send(made)
    made.hear(BOB, BOB.ack(ME.public, message))
    made.hear(ALICE, ALICE.ack(ME.public, BOB.says()))

    assert (made.of(Resolved), made.of(Verify)) == ([], [])
    assert made.drops() == [DropReason.UNASKED_ACK] * 2


def test_an_acknowledgement_with_a_junk_signature_is_the_links_fault() -> None:
    made = bench()
    message = send(made)
    ack = ALICE.ack(ME.public, message)
    made.receive(ALICE, (b"\x01\x00\x00", ack.body, bytes(64)))

    assert made.of(Resolved) == []
    assert (made.drops(), made.offences()) == (
        [DropReason.BAD_SIGNATURE],
        [(ALICE.public, Fault.RELAYED_FORGERY)],
    )


@pytest.mark.parametrize("content", [{}, {"status": 99}, {"status": True}, {"status": "0"}, {"status": -1}])
def test_an_answer_that_says_nothing_we_know_changes_nothing(content: dict[str, Any]) -> None:
    made = bench()
    message = send(made)
    made.hear(ALICE, ALICE.tells(ME.public, kind=wire.ACK_CODE, correlation=message.id, content=content))

    assert (made.of(Resolved), made.drops(), made.offences()) == ([], [DropReason.BAD_PAYLOAD], [])


def test_each_attempt_is_worth_the_verification_of_one_answer() -> None:
    made = bench()
    message = send(made)
    made.fresh()
    for _ in range(50):
        made.hear(ALICE, ALICE.ack(ME.public, message, AckStatus.BUSY))
    assert (len(made.of(Verify)), made.drops()) == (1, [DropReason.UNASKED_ACK] * 49)

    made.advance(0.5)
    made.hear(ALICE, ALICE.ack(ME.public, message))
    assert [outcome.result for outcome in made.of(Resolved)] == [SendResult.DELIVERED]


def test_a_second_answer_is_no_second_outcome() -> None:
    made = bench()
    message = send(made)
    made.inline = False
    made.hear(ALICE, ALICE.ack(ME.public, message))
    made.advance(0.5)
    made.hear(ALICE, ALICE.ack(ME.public, message, AckStatus.REJECTED))
    made.verified()
    made.verified()

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.DELIVERED)]


def test_strangers_are_unreachable_and_so_are_those_who_are_removed() -> None:
    made = bench()
    made.handle(SendDirect(Person(99).public, DELTA, {}, 3.0, 1))
    message = send(made)
    made.handle(RemovePeer(ALICE.public))
    made.roster([BOB])

    assert made.of(Resolved) == [
        Resolved(1, b"", SendResult.UNREACHABLE),
        Resolved(7, message.id, SendResult.UNREACHABLE),
    ]


def test_too_many_under_way_is_back_pressure_at_once() -> None:
    made = bench(direct_pending=2)
    for token in range(3):
        made.handle(SendDirect(ALICE.public, DELTA, {}, 3.0, token))

    assert made.of(Resolved) == [Resolved(2, b"", SendResult.BACKPRESSURE)]


def test_a_payload_that_is_too_large_or_cannot_travel_never_leaves() -> None:
    made = bench()
    made.handle(SendDirect(ALICE.public, DELTA, {"pad": bytes(MAX_PAYLOAD)}, 3.0, 1))
    assert made.of(Resolved) == [Resolved(1, b"", SendResult.TOO_LARGE)]
    with pytest.raises(PayloadError, match=r"^payload\.what must be "):
        made.handle(SendDirect(ALICE.public, DELTA, {"what": object()}, 3.0, 2))
    assert made.sends() == []


def test_no_send_outlives_what_a_recipient_would_take() -> None:
    made = bench()
    send(made, timeout=10_000.0)
    tick(made, 115.0)

    assert [outcome.result for outcome in made.of(Resolved)] == [SendResult.TIMEOUT]


def test_stopping_answers_every_caller() -> None:
    made = bench()
    message = send(made)
    made.handle(Stop())

    assert made.of(Resolved) == [Resolved(7, message.id, SendResult.TIMEOUT)]


def test_what_waited_for_a_lost_link_is_sent_when_it_is_back() -> None:
    made = bench()
    message = send(made, timeout=60.0)
    made.handle(LinkClosed(ALICE.public, "lost"))
    made.fresh()
    tick(made, 20.0)
    assert sent(made) == []
    made.greet(ALICE)

    assert [again.id for again in sent(made)] == [message.id]
