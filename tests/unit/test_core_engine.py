"""The one door: commands of the application, handlers and their deadlines, and the one timer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import pytest

from tests.unit.core_support import ME, NOON, Bench, people
from zmesh.core import wire
from zmesh.core.actions import Composed, Deliver, Dropped, Failed, Notice, Published, Resolved, Send, WakeAt
from zmesh.core.bounds import Bounds
from zmesh.core.envelope import Envelope
from zmesh.core.errors import PayloadError
from zmesh.core.events import Broadcast, Command, Compose, JoinNetwork, RemovePeer, SendDirect, Verified, Wake
from zmesh.core.now import Now
from zmesh.core.types import DropReason, Member, MessageType, Verdict

ALICE, BOB = people(2)
GOSSIP = MessageType.GOSSIP


class Clockwork:
    """A handler that rejects the word "bad", answers every message with ``commands``, and wakes every ten seconds."""

    kinds = frozenset({GOSSIP})

    def __init__(self, *commands: Command, every: float | None = None) -> None:
        self.commands = commands
        self.every = every
        self.deadline: float | None = None if every is None else 0.0
        self.heard: list[tuple[str, Mapping[str, Any]]] = []
        self.woken: list[float] = []

    def validate(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Verdict:
        return Verdict.REJECT if "bad" in payload else Verdict.ACCEPT

    def objection(self, envelope: Envelope, payload: Mapping[str, Any]) -> str:
        return "it is bad"

    def harm(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any]) -> str:
        return ""

    def received(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Sequence[Command]:
        self.heard.append((sender.peer_id, payload))
        return self.commands if sender.key != ME.public else ()

    def wake(self, now: Now) -> Sequence[Command]:
        self.woken.append(now.mono - NOON.mono)
        self.deadline = None if self.every is None else now.mono + self.every
        return self.commands


def bench(*handlers: Clockwork) -> Bench:
    made = Bench([ALICE, BOB], handlers=handlers)
    made.connect(ALICE, BOB)
    return made


def test_a_broadcast_is_signed_pushed_and_told_to_our_own_handler_but_not_delivered() -> None:
    clockwork = Clockwork()
    made = bench(clockwork)
    made.handle(Broadcast(GOSSIP, {"n": 1}))

    published, send = made.actions[:2]
    assert isinstance(published, Published)
    assert send == Send(published.links, published.envelope.frames(5, 0), published.envelope.id, True)
    assert set(published.links) == {ALICE.public, BOB.public}
    assert clockwork.heard == [("peer-1", {"n": 1})]
    assert made.of(Deliver) == []


def test_sequences_grow_over_all_kinds_within_one_epoch() -> None:
    made = bench()
    for _ in range(3):
        made.handle(Broadcast(GOSSIP, {}))
    made.handle(Compose(GOSSIP, {}))

    made_here = [action.envelope for action in made.of(Published)] + [action.envelope for action in made.of(Composed)]
    assert {envelope.epoch for envelope in made_here} == {int(NOON.wall)}
    numbers = [envelope.sequence for envelope in made_here]
    assert numbers == sorted(set(numbers))


def test_a_message_can_be_composed_without_being_sent() -> None:
    made = bench()
    made.handle(Compose(GOSSIP, {"n": 1}, ttl=3))
    made.handle(Compose(GOSSIP, {"n": 2}, recipient=ALICE.public))

    first, second = (composed.envelope for composed in made.of(Composed))
    assert (first.ttl, first.recipient, wire.decode_payload(first.payload)) == (3, None, {"n": 1})
    assert (second.ttl, second.recipient) == (0, ALICE.public)
    assert (made.sends(), len(made.engine.seen)) == ([], 0)


def test_who_learns_its_chain_leaves_the_mesh_that_has_only_a_name() -> None:
    made = bench()
    before = ALICE.says()
    made.hear(ALICE, before)
    chain = wire.network_id("core tests", bytes([9]) * 32)
    made.handle(JoinNetwork(chain))

    assert (made.engine.network, len(made.engine.seen)) == (chain, 0)
    made.handle(Broadcast(GOSSIP, {"n": 1}))
    for message in (before, ALICE.says(), ALICE.says(network=chain)):
        made.hear(ALICE, message)
    assert [published.envelope.network for published in made.of(Published)] == [chain]
    assert [drop.reason for drop in made.of(Dropped)] == [DropReason.WRONG_NETWORK] * 2
    assert [delivered.envelope.network for delivered in made.of(Deliver)][1:] == [chain]


def test_what_was_being_verified_when_its_mesh_was_left_is_not_taken() -> None:
    made = Bench([ALICE, BOB])
    made.connect(ALICE)
    made.inline = False
    made.hear(ALICE, ALICE.says())
    made.handle(JoinNetwork(wire.network_id("core tests", bytes([9]) * 32)))
    made.fresh()
    made.verified()

    assert (made.of(Deliver), made.drops(), len(made.engine.seen)) == ([], [DropReason.WRONG_NETWORK], 0)


@pytest.mark.parametrize("ttl", [0, -1, 256, 1000])
def test_an_impossible_ttl_is_an_error_at_the_caller(ttl: int) -> None:
    made = bench()
    with pytest.raises(PayloadError, match="1 to 255"):
        made.handle(Broadcast(GOSSIP, {}, ttl))
    assert made.actions == []


def test_what_every_peer_would_reject_is_refused_at_its_author() -> None:
    clockwork = Clockwork()
    made = bench(clockwork)
    with pytest.raises(PayloadError, match="every peer would reject this gossip: it is bad"):
        made.handle(Broadcast(GOSSIP, {"bad": 1}))

    assert (made.actions, clockwork.heard, len(made.engine.seen)) == ([], [], 0)
    made.handle(Broadcast(GOSSIP, {"good": 1}))
    assert len(made.of(Published)) == 1, "and the door works on"


def test_what_the_recipient_would_reject_is_refused_at_its_author() -> None:
    made = bench(Clockwork())
    with pytest.raises(PayloadError, match="every peer would reject this gossip: it is bad"):
        made.handle(SendDirect(ALICE.public, GOSSIP, {"bad": 1}, 3.0, 1))

    assert made.actions == []
    made.advance(3.0)
    assert made.of(Resolved) == [], "whoever asked has had its answer"
    made.handle(SendDirect(ALICE.public, GOSSIP, {"good": 1}, 3.0, 2))
    assert [key for key, _ in made.envelopes(wire.KIND_CODES[GOSSIP])] == [ALICE.public], "and the door works on"


def test_what_a_handler_commands_is_carried_out() -> None:
    made = bench(Clockwork(Broadcast(MessageType.HEARTBEAT, {"status": "woken"})))
    made.hear(ALICE, BOB.says())

    assert [published.envelope.kind for published in made.of(Published)] == [MessageType.HEARTBEAT]


def test_a_command_that_cannot_travel_is_a_notice_and_harms_nothing() -> None:
    made = bench(Clockwork(Broadcast(GOSSIP, {"what": object()}), Broadcast(MessageType.HEARTBEAT, {})))
    made.hear(ALICE, BOB.says())

    (notice,) = made.of(Notice)
    assert notice.event == "handler_command_refused"
    assert notice.fields["error"].startswith("payload.what must be None, a bool, ")
    assert (len(made.of(Deliver)), len(made.of(Published))) == (1, 1)


def test_a_handler_is_woken_once_for_each_deadline() -> None:
    clockwork = Clockwork(every=10.0)
    made = bench(clockwork)
    for _ in range(7):
        made.advance(5.0)
        for person in (ALICE, BOB):
            made.control(person, wire.DIGEST)
            made.hear(person, person.says(timestamp_ms=made.now.wall_ms))

    assert clockwork.woken == [0.0, 10.0, 20.0, 30.0]


def test_one_timer_is_enough_and_it_is_asked_for_only_when_it_moves_forward() -> None:
    made = bench()
    asked: list[float] = []
    for _ in range(200):
        assert made.wake_at is not None
        made.advance(made.wake_at - made.now.mono)
        asked += [action.mono for action in made.of(WakeAt)]
        made.fresh()

    assert asked == sorted(asked)
    assert len(asked) <= 400


class Broken(Clockwork):
    """Raises when it is woken, for the first 30 seconds."""

    def wake(self, now: Now) -> Sequence[Command]:
        commands = super().wake(now)
        if self.woken[-1] < 30.0:
            self.deadline = self.woken[-1]  # nothing of what it meant to do is done
            raise RuntimeError("a port of the application")
        return commands


def test_a_handler_that_raises_stops_no_timer_and_does_not_spin() -> None:
    broken, sound = Broken(every=10.0), Clockwork(every=10.0)
    made = Bench([ALICE, BOB], handlers=[broken, sound])
    made.connect(ALICE, BOB)
    made.fresh()
    while made.now.mono < NOON.mono + 60.0:
        assert made.wake_at is not None
        made.now = Now(max(made.now.mono, made.wake_at), NOON.wall + max(made.now.mono, made.wake_at) - NOON.mono)
        made.handle(Wake())

    failures = made.of(Failed)
    assert {(failure.what, str(failure.error)) for failure in failures} == {
        ("waking Broken", "a port of the application")
    }
    assert 25 <= len(failures) <= 31, "about once a second"
    assert len(sound.woken) >= 6
    assert [round(at) for at in broken.woken if at >= 30.0] == [30, 40, 50, 60], "it goes on where it can"


def test_an_event_that_raises_hides_no_other_and_no_timer() -> None:
    made = bench()
    cannot_travel = Broadcast(GOSSIP, {"n": object()})
    actions = made.engine.handle_all([cannot_travel, Broadcast(GOSSIP, {"n": 1})], made.now)

    assert [(action.what, type(action.error)) for action in actions if isinstance(action, Failed)] == [
        ("Broadcast", PayloadError)
    ]
    assert [action.envelope.payload for action in actions if isinstance(action, Published)] == [
        wire.encode_payload({"n": 1})
    ]


def test_a_node_sends_no_faster_than_others_accept_whatever_small_things_it_says_in_between() -> None:
    made = Bench([ALICE], bounds=Bounds(author_rate=1.0, author_burst=20.0))
    made.connect(ALICE)
    assert made.engine.clear_at < made.now.mono

    made.handle(Broadcast(GOSSIP, {"large": bytes(9 * 2048)}))  # 10 of the 18 that it may send at once
    assert made.engine.clear_at == made.now.mono + 2.0
    made.handle(Broadcast(GOSSIP, {}))
    assert made.engine.clear_at == made.now.mono + 2.0
    made.advance(5.0)
    made.handle(Broadcast(GOSSIP, {"large": bytes(9 * 2048)}))
    assert made.engine.clear_at == pytest.approx(made.now.mono + 8.0)


class Word(str, Enum):  # noqa: UP042 - the kind that prints as Word.YES
    """What an application may well write: a string, which prints as something else."""

    YES = "yes"


def test_our_own_message_is_judged_as_it_travels_and_not_as_it_was_given() -> None:
    handler = Clockwork()
    made = bench(handler)
    made.handle(Broadcast(GOSSIP, {"choice": Word.YES, "list": (1, 2)}))

    ((_, payload),) = handler.heard
    assert (payload, type(payload["choice"]), type(payload["list"])) == ({"choice": "yes", "list": [1, 2]}, str, list)


def test_gossip_that_the_application_has_no_room_for_is_counted() -> None:
    made = bench()
    made.queues = lambda message: False
    made.hear(ALICE, BOB.says())

    assert (made.drops(), made.offences()) == ([DropReason.APPLICATION_BUSY], [])


def test_a_wake_that_comes_early_changes_nothing() -> None:
    made = bench()
    made.advance(0.0)
    before = made.wake_at
    assert before is not None
    made.fresh()
    made.handle(Wake())

    assert made.actions == [WakeAt(before)]


def test_answers_to_nothing_and_removals_of_nobody_change_nothing() -> None:
    made = bench()
    made.handle(Verified(bytes(32), True))
    made.handle(RemovePeer(ALICE.public))

    assert (made.actions, made.live) == ([], tuple(sorted((ALICE.public, BOB.public))))
