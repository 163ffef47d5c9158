"""Batches as a node hands them over: verified here or elsewhere, answered late, finished now or later.

Whatever comes together, and in whatever order it is answered, a message is delivered once and the books agree.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.unit.core_support import ME, Bench, Person, people
from tests.unit.core_support import verify as verified
from tests.unit.handlers_support import verify
from zmesh.core import wire
from zmesh.core.actions import Action, Deliver, Failed, Published, Send, Verify, WakeAt
from zmesh.core.bounds import Bounds
from zmesh.core.envelope import Envelope
from zmesh.core.events import (
    Broadcast,
    Event,
    FrameReceived,
    LinkClosed,
    Receipt,
    RosterChanged,
    SendRefused,
    Verified,
    Wake,
)
from zmesh.core.types import MessageType, Roster

STEPS = 40


class Shell:
    """A node's shell that is as capricious as its seed: some checks are answered at once, some much later."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.people = people(6)
        bounds = Bounds(max_links=rng.choice([3, 20]), drop_below=rng.choice([0.0, 70.0]))
        self.bench = Bench(self.people, bounds=bounds, verify=verify, lazy=True, seed=seed)
        self.linked = [person for person in self.people if person.public in self.bench.engine.links]
        self.bench.connect(*self.linked)
        self.said: list[Envelope] = []
        self.out: list[Verify] = []
        self.events: list[Event] = []
        self.delivered: Counter[bytes] = Counter()
        self.published: list[Envelope] = []
        self.failed: list[Failed] = []

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Deliver):
                self.events += self.deliver(action)
            elif isinstance(action, Verify):
                self.out.append(action)
            elif isinstance(action, Failed):
                self.failed.append(action)
            elif isinstance(action, Published):
                self.published.append(action.envelope)
            elif isinstance(action, WakeAt):
                self.bench.wake_at = action.mono
            if isinstance(action, Send) and self.rng.random() < 0.1:
                self.events += [SendRefused(link, action.ref) for link in action.links]

    def deliver(self, action: Deliver) -> list[Event]:
        """A direct message may find the application's queue full, and then be sent and delivered again."""
        queued = not action.receipt or self.rng.random() < 0.8
        self.delivered[action.envelope.id] += queued
        return [Receipt(action.envelope.id, action.envelope.author, queued)] if action.receipt else []

    def happening(self) -> Event:
        rng = self.rng
        link, kind = rng.choice(self.linked), rng.random()
        if kind < 0.8:
            return self.copy(link)
        if kind < 0.85:
            ids = wire.encode_ids([rng.choice(self.said).short]) if self.said else b""
            return FrameReceived(link.public, wire.control(wire.IHAVE, ids))
        if kind < 0.9:
            return Broadcast(MessageType.GOSSIP, {"n": kind})
        if kind < 0.95:
            left = [person.member for person in self.people if rng.random() < 0.8 or kind > 0.93]
            return RosterChanged(Roster.of([ME.member, *left]))
        return LinkClosed(link.public, "gone")

    def copy(self, link: Person) -> FrameReceived:
        """One of the last few messages again, or a new one; one in four is forged, and some with the same junk."""
        if not self.said or self.rng.random() < 0.3:
            direct = {"recipient": ME.public, "ttl": 0} if self.rng.random() < 0.1 else {}
            self.said.append(self.rng.choice(self.people).says(timestamp_ms=self.bench.now.wall_ms, **direct))
        message = self.rng.choice(self.said[-4:])
        head, body, signature = message.frames(message.ttl, 0)
        junk = bytes([self.rng.randrange(3)]) * 64
        return FrameReceived(link.public, (head, body, junk if self.rng.random() < 0.25 else signature))

    def step(self) -> None:
        rng, engine, bench = self.rng, self.bench.engine, self.bench
        batch, self.events = [*self.events, *(self.happening() for _ in range(rng.randrange(8)))], []
        self.carry_out(engine.handle_all(batch, bench.now, ask=rng.random() < 0.5))
        if rng.random() < 0.6:
            self.carry_out(engine.finish(bench.now))
        rng.shuffle(self.out)
        answered, self.out = (self.out, []) if rng.random() < 0.2 else (self.out[::2], self.out[1::2])
        self.events += [Verified(action.message_id, verified(action)) for action in answered]
        if rng.random() < 0.3:
            bench._move(bench.now.mono + rng.choice([0.01, 0.05, 1.0]))
            if bench.wake_at is not None and bench.wake_at <= bench.now.mono:
                bench.wake_at = None
                self.events.append(Wake())

    def end(self) -> None:
        """What is still to come is handled, and finished."""
        self.events += [Verified(action.message_id, verified(action)) for action in self.out]
        self.carry_out(self.bench.engine.handle_all(self.events, self.bench.now))
        self.carry_out(self.bench.engine.finish(self.bench.now))


@pytest.mark.parametrize("seed", range(200))
def test_however_a_batch_is_verified_and_finished_a_message_is_delivered_once_and_the_books_agree(seed: int) -> None:
    shell = Shell(seed)
    for _ in range(STEPS):
        shell.step()
    shell.end()

    engine = shell.bench.engine
    held = engine.seen
    assert shell.failed == []
    assert max(shell.delivered.values()) == 1
    assert {message.short for message in shell.published} <= set(held)
    for slot in held._slots.values():
        assert slot.ids == sorted(set(slot.ids))
    assert held._bytes == sum(len(entry.body or b"") for entry in held._entries.values())
    assert held._bytes == sum(ledger.bytes for ledger in held._ledgers.values())
    assert (engine._context.rest, engine._context.out) == ([], [])
    assert shell.bench.wake_at is not None
    assert shell.bench.wake_at <= engine._timers.next
