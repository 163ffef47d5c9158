"""Where signatures are verified: on the loop while few, in threads when many. When the one timer is set."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from zmesh.core.actions import Action, LinkDown, LinkLive, Notice, Offence, Send, Verify, WakeAt
from zmesh.core.events import Event, FrameReceived, Verified, Wake
from zmesh.core.now import Now
from zmesh.core.types import Fault
from zmesh.identity import Identity, verify
from zmesh.log_limit import BURST
from zmesh.node import MANY, POOL_LIMIT, Node

AUTHOR = Identity.from_seed(b"a" * 32)
GOOD, BAD = AUTHOR.sign(b"data"), bytes(64)


class Asking:
    """An engine that has the second part of every frame verified, and notes the answers by the number in the first."""

    def __init__(self) -> None:
        self.answers: dict[int, bool] = {}
        self.asked: list[bool] = []
        """Whether each batch came with the wish to verify outside."""
        self.news = asyncio.Event()

    def handle(self, event: Event, now: Now) -> list[Action]:
        """As the engine's."""
        if isinstance(event, Verified):
            number = int.from_bytes(event.message_id)
            assert number not in self.answers
            self.answers[number] = event.ok
            self.news.set()
        elif isinstance(event, FrameReceived):
            return [Verify(event.frames[0], AUTHOR.public, b"data", event.frames[1])]
        return []

    def handle_all(self, events: list[Event], now: Now, *, ask: bool = False) -> list[Action]:
        """As the engine's."""
        self.asked.append(ask)
        return [action for event in events for action in self.handle(event, now)]

    def finish(self, now: Now) -> list[Action]:
        """As the engine's."""
        return []

    async def until(self, count: int) -> None:
        """Wait until so many answers came."""
        async with asyncio.timeout(20):
            while len(self.answers) < count:
                self.news.clear()
                await self.news.wait()


@pytest.mark.parametrize(
    "threads, count, on_the_loop",
    [
        (2, MANY - 1, MANY - 1),
        (2, MANY, 0),
        (2, POOL_LIMIT + 30, 30),
        (1, MANY, MANY),
        (0, MANY, MANY),
    ],
)
async def test_many_signatures_go_to_threads_and_what_they_cannot_take_stays(
    monkeypatch: pytest.MonkeyPatch, threads: int, count: int, on_the_loop: int
) -> None:
    where: list[bool] = []

    def watched(*asked: Any) -> bool:
        where.append(threading.current_thread() is threading.main_thread())
        return verify(*asked)

    async def stop_transport(deadline: float) -> None:
        assert deadline == 1.0

    monkeypatch.setattr("zmesh.node.verify", watched)
    asking = Asking()
    engine: Any = asking
    parts: Any = SimpleNamespace(stop=stop_transport, resolved=None, stepped=lambda: None)
    node = Node(engine, parts, parts, parts, verify_threads=threads)
    node.start()
    signatures = [BAD if number % 5 == 4 else GOOD for number in range(count)]
    node.receive([FrameReceived(b"", (bytes([n >> 8, n & 255]), signature)) for n, signature in enumerate(signatures)])
    assert asking.asked[0] is (count >= MANY)
    assert len(asking.answers) == on_the_loop  # before anything else had its turn
    await asking.until(count)
    assert asking.answers == {number: signature is GOOD for number, signature in enumerate(signatures)}
    assert sum(where) == on_the_loop
    assert len(where) == count
    await node.stop(1.0)
    for thread in threading.enumerate():  # idle by now, and told to end: stop() does not wait for that
        if thread.name.startswith("zmesh-verify"):
            thread.join(20)


class Sending(Asking):
    """An engine that wants two things done, and then to be woken."""

    def handle(self, event: Event, now: Now) -> list[Action]:
        """As the engine's."""
        return [Send((b"a",), (b"x",), None, False), LinkLive(b"a"), WakeAt(now.mono + 60.0)]


async def test_an_action_that_raises_ends_neither_the_others_nor_the_timer() -> None:
    changes: list[int] = []
    asked: Any = Sending()
    asked.peers = {}
    parts: Any = SimpleNamespace(
        send=lambda key, frames, gossip: 1 / 0,
        resolved=None,
        stepped=lambda: None,
        links_changed=lambda: changes.append(1),
    )
    node = Node(asked, parts, parts, parts)
    node.start()
    node.submit(Wake())
    try:
        assert (len(changes), node._timer is not None, node.counters["internal_error"]) == (1, True, 1)
    finally:
        if node._timer is not None:
            node._timer.cancel()


class Sleeping:
    """An engine that asks to be woken in a minute, and a second earlier each time."""

    def __init__(self) -> None:
        self.at = time.monotonic() + 60.0

    def handle(self, event: Event, now: Now) -> list[Action]:
        """As the engine's."""
        self.at -= 1.0
        return []

    def handle_all(self, events: list[Event], now: Now, *, ask: bool = False) -> list[Action]:
        """As the engine's."""
        return [action for event in events for action in self.handle(event, now)]

    def finish(self, now: Now) -> list[Action]:
        """As the engine's."""
        return [WakeAt(self.at)]


async def test_the_one_timer_is_set_anew_once_handlers_have_begun() -> None:
    loop: Any = asyncio.get_running_loop()
    seen: list[list[float]] = []

    def due() -> list[float]:
        return [timer.when() for timer in loop._scheduled if not timer.cancelled()]

    async def stop_transport(deadline: float) -> None:
        pass

    engine: Any = Sleeping()
    parts: Any = SimpleNamespace(stop=stop_transport, resolved=None, stepped=lambda: seen.append(due()))
    node = Node(engine, parts, parts, parts)
    others = due()
    node.start()
    frame = FrameReceived(b"", (b"", b""))
    node.receive([frame])
    first = [when for when in due() if when not in others]
    node.receive([frame])
    second = [when for when in due() if when not in others]
    node.ask(Wake())
    third = [when for when in due() if when not in others]
    await node.stop(1.0)

    assert [len(timers) for timers in (first, second, third)] == [1, 1, 1]
    assert first[0] > second[0] > third[0]
    assert seen[:2] == [others, [*others, *first]], "the handlers had their turn before"
    assert [when for when in due() if when not in others] == []


def test_a_link_goes_down_under_the_name_under_which_it_came_up(caplog: pytest.LogCaptureFixture) -> None:
    members = {b"k" * 32: SimpleNamespace(peer_id="b")}
    application = SimpleNamespace(resolved=None, links_changed=lambda: None)
    node = Node(Asking(), SimpleNamespace(), application, SimpleNamespace())  # type: ignore[arg-type]
    node.engine.peers = members  # type: ignore[assignment]
    caplog.set_level("INFO")
    node._carry_out([LinkLive(b"k" * 32)])
    del members[b"k" * 32]  # the registry removes it, which is why its link ends
    node._carry_out([LinkDown(b"k" * 32, "it was removed")])
    both = {"peer": "b", "key": (b"k" * 32).hex()}
    assert [vars(record)["zmesh"] for record in caplog.records] == [
        {"event": "link_live", **both},
        {"event": "link_down", **both, "why": "it was removed"},
    ]
    assert node._linked == {}


def test_what_others_cause_is_not_logged_without_end(caplog: pytest.LogCaptureFixture) -> None:
    looked: list[None] = []
    application = SimpleNamespace(resolved=None, links_changed=lambda: looked.append(None))
    node = Node(Asking(), SimpleNamespace(), application, SimpleNamespace())  # type: ignore[arg-type]
    node.engine.peers = SimpleNamespace(get=lambda key: None)  # type: ignore[assignment]
    caplog.set_level("INFO")
    told: list[Action] = [
        Offence(b"k" * 32, Fault.INVALID_MESSAGE, 90.0),
        LinkLive(b"k" * 32),
        LinkDown(b"k" * 32, "left"),
        Notice("odd", {}),
    ]
    for _ in range(100):
        node._carry_out(told)
    events = [record.getMessage().split()[0] for record in caplog.records]
    assert sorted(events) == sorted(["offence", "link_live", "link_down", "odd"] * int(BURST))
    assert len(looked) == 200, "whoever waits for links is told of each"
