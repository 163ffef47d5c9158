"""What somebody waits for comes first, and the rest of an event is done before anything can tell the difference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.unit.core_support import Bench, people, short
from tests.unit.handlers_support import verify
from tests.unit.test_core_engine import Clockwork
from zmesh.core import wire
from zmesh.core.actions import Deliver, Dropped, Failed, Hangup, Published, Send, Verify
from zmesh.core.bounds import Bounds
from zmesh.core.envelope import Envelope
from zmesh.core.errors import PayloadError
from zmesh.core.events import Broadcast, Command, Event, FrameReceived, Verified
from zmesh.core.now import Now
from zmesh.core.types import DropReason, Fault, Member, MessageType, PeerKey

ALICE, BOB, CAROL, DAVE = people(4)
GOSSIP = MessageType.GOSSIP


def lazy() -> Bench:
    made = Bench([ALICE, BOB, CAROL], verify=verify, lazy=True)
    made.connect(ALICE, BOB, CAROL)
    return made


def remembered(made: Bench, message: Envelope) -> bool:
    """Without asking, which would finish."""
    return short(message) in made.engine._context.seen


def copies(message: Envelope) -> list[Event]:
    """The same message over three links at once."""
    return [FrameReceived(link.public, message.frames(5, 0)) for link in (CAROL, ALICE, BOB)]


def holders(made: Bench, message: Envelope) -> set[PeerKey]:
    """The links that are known to have it."""
    entry = made.engine.seen.get(short(message))
    return set(entry.holders) if entry is not None else set()


# ---------------------------------------------------------------- what is left for later


def test_a_message_that_its_author_sent_to_all_is_handed_over_before_it_is_remembered() -> None:
    made, message = lazy(), CAROL.says()
    made.hear(CAROL, message)

    assert [action.envelope.id for action in made.of(Deliver)] == [message.id]
    assert not remembered(made, message)
    made.engine.finish(made.now)
    assert remembered(made, message)


def test_a_message_that_others_get_through_us_is_passed_on_before_it_is_handed_over() -> None:
    crowd = people(40)
    made = Bench(crowd, bounds=Bounds(max_links=20), verify=verify, lazy=True)
    linked = [person for person in crowd if person.public in made.engine.links]
    made.connect(*linked)
    message = linked[1].says()
    made.hear(linked[0], message)

    assert [type(action) for action in made.actions if isinstance(action, Send | Deliver)] == [Send, Deliver]
    assert remembered(made, message)


def test_our_own_message_leaves_before_it_is_remembered() -> None:
    made = lazy()
    made.handle(Broadcast(GOSSIP, {"n": 1}))

    published, send = made.actions
    assert isinstance(published, Published)
    assert send == Send(published.links, published.envelope.frames(5, 0), published.envelope.id, True)
    assert not remembered(made, published.envelope)
    assert made.engine.sent[GOSSIP] == 0
    made.engine.finish(made.now)
    assert remembered(made, published.envelope)
    assert made.engine.sent[GOSSIP] == 1


# ---------------------------------------------------------------- and what finishes it


def test_a_copy_that_comes_at_once_finds_the_first_one_remembered() -> None:
    made, message = lazy(), CAROL.says()
    actions = made.engine.handle_all(copies(message), made.now)

    assert [type(action) for action in actions if isinstance(action, Deliver | Dropped)] == [Deliver, Dropped, Dropped]
    assert made.engine.drops[DropReason.DUPLICATE] == 2
    assert holders(made, message) == {link.public for link in (CAROL, ALICE, BOB)}


def test_copies_that_waited_while_the_first_one_was_verified_tell_who_has_the_message() -> None:
    made, message = lazy(), CAROL.says()
    asked = [
        action for action in made.engine.handle_all(copies(message), made.now, ask=True) if isinstance(action, Verify)
    ]
    made.handle(Verified(message.id, True))

    assert [action.message_id for action in asked] == [message.id]
    assert holders(made, message) == {link.public for link in (CAROL, ALICE, BOB)}


def test_of_copies_that_waited_behind_a_forgery_one_is_taken_even_if_they_are_verified_on_the_spot() -> None:
    made = Bench([ALICE, BOB, CAROL, DAVE], verify=verify, lazy=True)
    made.connect(ALICE, BOB, CAROL, DAVE)
    message = CAROL.says()
    head, body, _ = message.frames(5, 0)
    forged = FrameReceived(DAVE.public, (head, body, bytes(64)))
    made.engine.handle_all([forged, *copies(message)], made.now, ask=True)
    made.handle(Verified(message.id, False))

    assert [action.envelope.id for action in made.of(Deliver)] == [message.id]
    assert made.engine.drops[DropReason.DUPLICATE] == 2
    assert holders(made, message) == {link.public for link in (CAROL, ALICE, BOB)}


def test_whoever_asks_what_was_seen_is_told_all_of_it() -> None:
    made, message = lazy(), CAROL.says()
    made.hear(CAROL, message)

    assert list(made.engine.seen) == [short(message)]


class Broken(Clockwork):
    """A handler that breaks on what this node says itself."""

    def received(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Sequence[Command]:
        raise RuntimeError("broken")


def test_a_rest_that_raises_is_reported_and_holds_up_nothing() -> None:
    made = Bench([ALICE], handlers=[Broken()], lazy=True)
    made.connect(ALICE)
    made.handle(Broadcast(GOSSIP, {"n": 1}))
    made.handle(Broadcast(GOSSIP, {"n": 2}))

    published, _, failed, another, _ = made.actions
    assert isinstance(published, Published)
    assert isinstance(another, Published)
    assert isinstance(failed, Failed)
    assert (failed.what, str(failed.error)) == ("rest", "broken")
    assert remembered(made, published.envelope)


def test_a_command_that_cannot_be_carried_out_takes_nothing_back_of_the_one_before() -> None:
    made = Bench([ALICE], handlers=[Broken()], lazy=True)
    made.handle(Broadcast(GOSSIP, {"n": 1}))
    with pytest.raises(PayloadError):
        made.handle(Broadcast(GOSSIP, {"n": object()}))

    assert [action.what for action in made.engine.finish(made.now) if isinstance(action, Failed)] == ["rest"]


def test_all_that_a_handler_says_within_one_event_is_remembered() -> None:
    talkative = Clockwork(Broadcast(GOSSIP, {"n": 1}), Broadcast(GOSSIP, {"n": 2}))
    made = Bench([ALICE, BOB], handlers=[talkative], lazy=True)
    made.connect(ALICE, BOB)
    made.hear(ALICE, ALICE.says())

    said = [action.envelope for action in made.of(Published)]
    assert len(said) == 2
    assert {short(message) for message in said} < set(made.engine.seen)


class Echo(Clockwork):
    """A handler that counts to three as soon as this node says one."""

    def received(self, envelope: Envelope, sender: Member, payload: Mapping[str, Any], now: Now) -> Sequence[Command]:
        return [Broadcast(GOSSIP, {"n": payload["n"] + 1})] if payload["n"] < 3 else []


def test_what_the_rest_of_an_event_says_has_its_rest_done_as_well() -> None:
    made = Bench([ALICE], handlers=[Echo()], lazy=True)
    made.connect(ALICE)
    made.handle(Broadcast(GOSSIP, {"n": 1}))
    made.engine.finish(made.now)

    assert made.engine.sent[GOSSIP] == 3
    assert made.engine._context.rest == []


def test_a_message_that_was_refused_is_offered_to_nobody_even_if_asked() -> None:
    made = Bench([ALICE, BOB], handlers=[Clockwork()], verify=verify)
    made.connect(ALICE, BOB)
    message = ALICE.says(content={"bad": 1})
    made.hear(ALICE, message)
    made.advance(3.0)
    made.fresh()
    made.control(BOB, wire.LIST, wire.encode_slots([message.slot]))

    assert made.engine.drops[DropReason.REJECTED] == 1
    assert list(made.engine.seen) == [short(message)]
    assert made.of(Send) == []


def test_a_ban_in_the_same_event_asks_nobody_for_a_message_that_is_here() -> None:
    """Alice's message is refused, which bans her while it is wanted: it came, so no other holder is asked for it."""
    made = Bench([ALICE, BOB], bounds=Bounds(drop_below=99.0), handlers=[Clockwork()], verify=verify, lazy=True)
    made.connect(ALICE, BOB)
    message = ALICE.says(content={"bad": 1})
    for link in (ALICE, BOB):
        made.control(link, wire.IHAVE, wire.encode_ids([short(message)]))
    asked = [key for key, _ in made.ids(wire.IWANT)]
    made.fresh()
    made.hear(ALICE, message)

    assert asked == [ALICE.public]
    assert made.engine.drops[DropReason.REJECTED] == 1
    assert [action.key for action in made.of(Hangup)] == [ALICE.public]
    assert made.ids(wire.IWANT) == []


# ---------------------------------------------------------------- who verifies


def test_few_signatures_are_verified_on_the_spot_and_many_are_asked_for() -> None:
    made = lazy()
    few, many = ([FrameReceived(CAROL.public, CAROL.says().frames(5, 0)) for _ in range(3)] for _ in range(2))

    assert [type(action) for action in made.engine.handle_all(few, made.now)][:1] == [Deliver]
    assert [type(action) for action in made.engine.handle_all(many, made.now, ask=True)] == [Verify] * 3
    assert made.of(Deliver) == []
    made.hear(CAROL, CAROL.says())
    assert (len(made.of(Verify)), len(made.of(Deliver))) == (0, 1)


def test_a_bad_signature_is_found_on_the_spot_and_its_link_is_blamed() -> None:
    made, message = lazy(), CAROL.says()
    made.receive(ALICE, (message.frames(5, 0)[0], message.body, bytes(64)))
    made.hear(CAROL, message)

    assert made.engine.drops[DropReason.BAD_SIGNATURE] == 1
    assert made.offences() == [(ALICE.public, Fault.RELAYED_FORGERY)]
    assert [action.envelope.id for action in made.of(Deliver)] == [message.id]
