"""Bootstrap: whom a node asks, with whom it leaves its record, and when it asks again. Time and seeds are made up."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.virtual_time import in_virtual_time, moment
from zmesh.bootstrap import ENOUGH, LONELY, LONGEST_PAUSE, MAX_PER_NAME, WATCH, Bootstrap, Ports
from zmesh.core import wire
from zmesh.core.types import Endpoint, PeerKey
from zmesh.handlers import Description, Offer, RecordOutcome, decode_record, encode_record
from zmesh.handlers.standing import Standing
from zmesh.http_client import Posted
from zmesh.identity import Identity

NETWORK = wire.network_id("zmesh")
ME = Identity.from_seed(b"m" * 32)
NODES = [Identity.from_seed(bytes([number]) * 32) for number in range(1, 9)]
PLACES = [Endpoint(f"192.0.2.{number}", 9090) for number in range(1, 9)]
REFUSED_BY_ALL = Posted(403, "unknown_account")


def record(of: Identity, *endpoints: Endpoint, sequence: int = 1) -> bytes:
    return encode_record(Description("n", endpoints), NETWORK, of.public, sequence, 0, of.sign).encoded


class World:
    """Who answers where, one after the other; what names lead to; and what was done there."""

    def __init__(self, *nodes: Identity) -> None:
        self.answers: dict[Endpoint, list[Identity | Exception | bytes]] = {
            place: [node] for place, node in zip(PLACES, nodes, strict=False)
        }
        self.names: dict[str, list[Endpoint] | OSError] = {}
        self.refused: dict[PeerKey, Standing] = {}
        self.reply = Posted(202, "new")
        self.own = record(ME, Endpoint("198.51.100.1", 9090))
        self.links = 0
        self.now = 0.0
        self.ways: list[Endpoint] = []
        self.fetched: list[Endpoint] = []
        self.posted: list[tuple[Endpoint, bytes]] = []
        self.arrived = asyncio.Semaphore(0)
        """One for each post."""
        self.offered: dict[PeerKey, bytes] = {}
        self.located: dict[PeerKey, tuple[Endpoint, ...]] = {}

    def bootstrap(self, *seeds: Endpoint) -> Bootstrap:
        return Bootstrap(seeds or tuple(self.answers), ME.public, self.ports(), random.Random(7), lambda: self.now)

    def ports(self) -> Ports:
        return Ports(
            self.resolve,
            self.fetch,
            self.post,
            lambda: self.own,
            self.offer,
            self.located.__setitem__,
            self.ways.append,
            lambda: self.links,
            lambda: (len(self.offered), 100),
        )

    async def resolve(self, endpoint: Endpoint) -> list[Endpoint]:
        found = self.names.get(endpoint.host, [endpoint])
        if isinstance(found, OSError):
            raise found
        return found

    async def fetch(self, place: Endpoint, timeout: float) -> bytes:  # noqa: ASYNC109  # the port of a bootstrap
        self.fetched.append(place)
        line = self.answers[place]
        answer = line[0]
        line.append(line.pop(0))
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, bytes) else record(answer, place)

    async def post(self, place: Endpoint, encoded: bytes, timeout: float) -> Posted:  # noqa: ASYNC109  # as above
        self.posted.append((place, encoded))
        self.arrived.release()
        return self.reply

    def offer(self, encoded: bytes) -> Offer:
        key = decode_record(encoded).key
        if key in self.refused:
            return Offer(RecordOutcome.REFUSED, self.refused[key])
        taken = RecordOutcome.KNOWN if self.offered.get(key) == encoded else RecordOutcome.NEW
        self.offered[key] = encoded
        return Offer(taken)


async def pauses(bootstrap: Bootstrap, world: World, count: int) -> list[float]:
    """So many steps, with time passing between them."""
    taken = []
    for _ in range(count):
        taken.append(await bootstrap.step())
        world.now += taken[-1]
    return taken


async def test_three_seeds_of_many_are_asked_and_get_our_record() -> None:
    world = World(*NODES)
    bootstrap = world.bootstrap()
    await bootstrap.step()
    assert len(world.fetched) == len(set(world.fetched)) == ENOUGH
    assert sorted(world.posted) == sorted((place, world.own) for place in world.fetched)
    assert world.located == {}, "each says itself where it is"
    assert bootstrap.status() == {"seeds_met": "3 of 3", "records": "3 of 100", "problems": []}


async def test_the_way_to_a_seed_on_another_machine_says_more_than_that_to_one_on_this() -> None:
    world = World(NODES[0])
    local = Endpoint("127.0.0.1", 9090)
    world.answers[local] = [ME]
    await world.bootstrap(local, PLACES[0]).step()
    assert world.ways == [PLACES[0]]


async def test_whom_is_not_reached_others_stand_in_for() -> None:
    world = World(*NODES[:5])
    for place in PLACES[:2]:
        world.answers[place] = [ConnectionRefusedError(111, "Connection refused")]
    bootstrap = world.bootstrap()
    await bootstrap.step()
    assert {place for place, _ in world.posted} == set(PLACES[2:5])
    assert bootstrap.status()["seeds_met"] == "3 of 3"


async def test_it_is_met_only_with_a_live_link_and_goes_on_until_then_without_posting_twice() -> None:
    world = World(*NODES[:3])
    bootstrap = world.bootstrap()
    before = await pauses(bootstrap, world, 3)
    world.links = 1
    assert await bootstrap.step() == WATCH
    assert [pytest.approx(pause, rel=0.26) for pause in (1.0, 2.0, 4.0)] == before
    assert len(world.posted) == len(world.fetched) == 3


async def test_pauses_grow_to_their_bound_and_vary() -> None:
    world = World()
    world.answers = {place: [ConnectionRefusedError(111, "Connection refused")] for place in PLACES[:3]}
    one, other = World(), World()
    one.answers = other.answers = world.answers
    first, second = one.bootstrap(), other.bootstrap()
    second._rng.seed(8)
    grown = await pauses(first, one, 9)
    assert max(grown) <= LONGEST_PAUSE * 1.25
    assert grown[-1] >= LONGEST_PAUSE * 0.75
    assert grown != await pauses(second, other, 9)


async def test_a_mesh_that_is_lost_is_met_again() -> None:
    world = World(*NODES[:3])
    bootstrap = world.bootstrap()
    world.links = 3
    assert await bootstrap.step() == WATCH
    world.links = 0
    steps = await pauses(bootstrap, world, int(LONELY / WATCH))
    assert steps == [WATCH] * int(LONELY / WATCH)
    assert len(world.posted) == 3, "a dial may still bring it back"
    await bootstrap.step()
    assert len(world.posted) == 6


async def test_our_new_record_is_posted_to_those_who_have_the_old_one() -> None:
    world = World(*NODES[:3])
    bootstrap = world.bootstrap()
    await bootstrap.step()
    world.own = record(ME, Endpoint("198.51.100.2", 9090), sequence=2)
    await bootstrap.step()
    assert [encoded for _, encoded in world.posted].count(world.own) == 3


async def test_without_a_record_of_its_own_it_waits() -> None:
    world = World(*NODES[:3])
    world.own = b""
    assert 0 < await world.bootstrap().step() < 2
    assert world.fetched == []


async def test_a_name_stands_for_each_of_its_addresses_and_is_resolved_each_time() -> None:
    world = World(*NODES[:2])
    service = Endpoint("mesh.example", 9090)
    world.names["mesh.example"] = PLACES[:2]
    bootstrap = world.bootstrap(service)
    await bootstrap.step()
    assert {place for place, _ in world.posted} == set(PLACES[:2])
    assert bootstrap.status()["seeds_met"] == "2 of 2"
    world.answers[PLACES[2]] = [NODES[2]]
    world.names["mesh.example"] = PLACES[:3]
    await bootstrap.step()
    assert [place for place, _ in world.posted[2:]] == [PLACES[2]]


async def test_a_name_that_stands_for_hundreds_costs_no_more_than_a_few() -> None:
    world = World()
    crowd = [Endpoint(f"198.51.100.{number}", 9090) for number in range(200)]
    world.answers = {place: [ConnectionRefusedError(111, "Connection refused")] for place in crowd}
    world.names["mesh.example"] = crowd
    await world.bootstrap(Endpoint("mesh.example", 9090)).step()
    assert len(world.fetched) == MAX_PER_NAME


async def test_a_name_that_leads_nowhere_is_said_and_tried_again() -> None:
    world = World(NODES[0])
    world.names["gone.example"] = OSError(-2, "Name or service not known")
    bootstrap = world.bootstrap(Endpoint("gone.example", 9090), PLACES[0])
    await bootstrap.step()
    told = {"seeds_met": "1 of 2", "records": "1 of 100", "problems": ["gone.example:9090: Name or service not known"]}
    assert bootstrap.status() == told
    world.links = 1
    assert await bootstrap.step() != WATCH
    world.names["gone.example"] = [PLACES[1]]
    world.answers[PLACES[1]] = [NODES[1]]
    assert await bootstrap.step() == WATCH


async def test_its_own_address_among_the_seeds_is_passed_over() -> None:
    world = World(ME, NODES[0])
    bootstrap = world.bootstrap()
    await bootstrap.step()
    assert world.posted == [(PLACES[1], world.own)]
    assert set(world.offered) == {NODES[0].public}
    assert bootstrap.status()["seeds_met"] == "1 of 1"


async def test_a_node_whose_only_seed_is_itself_asks_nobody_any_more() -> None:
    world = World(ME)
    bootstrap = world.bootstrap()
    await bootstrap.step()
    asked = len(world.fetched)
    await pauses(bootstrap, world, 4)
    assert (world.posted, len(world.fetched)) == ([], asked)


async def test_a_balancer_that_hides_three_nodes_is_each_of_them_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.answers = {PLACES[0]: list(NODES[:3])}
    bootstrap = world.bootstrap()
    await bootstrap.step()
    await bootstrap.step()
    assert {key: decode_record(kept).key for key, kept in world.offered.items()} == {
        node.public: node.public for node in NODES[:3]
    }
    assert len(world.posted) == 3
    assert bootstrap.status()["seeds_met"] == "3 of 3"
    hint = "list the address of each node, and set MESH_ADVERTISE on each"
    assert bootstrap.status()["problems"] == [f"192.0.2.1:9090 answers as 3 different nodes: {hint}"]
    assert caplog.text.count("answers as 3 different nodes") == 1


async def test_who_tells_no_place_of_its_own_is_where_it_was_met() -> None:
    world = World()
    service = Endpoint("one.example", 9090)
    world.answers = {PLACES[0]: [record(NODES[0])]}
    world.names["one.example"] = [PLACES[0]]
    await world.bootstrap(service).step()
    assert world.located == {NODES[0].public: (service,)}
    world.answers[PLACES[1]] = [record(NODES[1])]
    world.names["one.example"] = PLACES[:2]
    await world.bootstrap(service).step()
    assert world.located[NODES[1].public] == (PLACES[1],)


async def test_who_serves_the_record_of_another_does_not_draw_it_away_from_its_place() -> None:
    world = World()
    world.answers = {place: [record(NODES[0])] for place in PLACES[:2]}
    await world.bootstrap().step()
    assert set(world.located[NODES[0].public]) == set(PLACES[:2])


@pytest.mark.parametrize(
    "answer, said",
    [
        (
            NODES[0],
            f"192.0.2.1:9090: the node there ({NODES[0].public.hex()[:12]}...) has a record we refuse: unknown_account",
        ),
        (b"junk", "192.0.2.1:9090: its record is malformed (a record must have 65 to 4096 bytes, not 4)"),
        (ValueError("does not speak HTTP"), "192.0.2.1:9090: does not speak HTTP"),
        (TimeoutError(), "192.0.2.1:9090: no answer in time"),
    ],
)
async def test_a_seed_that_is_no_member_gets_nothing_and_is_named(answer: Any, said: str) -> None:
    world = World()
    world.answers = {PLACES[0]: [answer]}
    world.refused[NODES[0].public] = Standing.UNKNOWN_ACCOUNT
    bootstrap = world.bootstrap()
    await bootstrap.step()
    assert (world.posted, world.located) == ([], {})
    assert bootstrap.status()["problems"] == [said]


async def test_a_node_that_is_refused_says_why_and_tries_at_once_when_it_belongs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(*NODES[:3])
    world.reply = REFUSED_BY_ALL
    bootstrap = world.bootstrap()
    late = (await pauses(bootstrap, world, 6))[-1]
    assert late > 20
    assert caplog.text.count("does not accept our record: unknown_account") == 3, "once for each, not each time"
    assert bootstrap.status()["seeds_met"] == "0 of 3"
    world.reply = Posted(202, "new")
    bootstrap.hurry()
    assert await bootstrap.step() == pytest.approx(1.0, rel=0.26)
    assert len(world.posted) == 6 * 3 + 3


async def test_news_hurries_a_pause_but_not_a_node_that_is_in() -> None:
    world = World(*NODES[:3])
    bootstrap = world.bootstrap()
    running = asyncio.create_task(bootstrap.run())
    async with asyncio.timeout(20):
        for _ in range(3):
            await world.arrived.acquire()
        bootstrap.hurry()
        for _ in range(3):
            await world.arrived.acquire()
    running.cancel()
    world.links = 1
    await bootstrap.step()
    bootstrap.hurry()
    await bootstrap.step()
    assert len(world.posted) == 6


def test_news_ends_a_pause_at_once() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        world = World(*NODES[:3])
        world.reply = REFUSED_BY_ALL
        bootstrap = Bootstrap(tuple(world.answers), ME.public, world.ports(), random.Random(7), loop.time)
        running = asyncio.create_task(bootstrap.run())
        await moment(200.0)
        refused = len(world.posted)
        assert 3 * 8 <= refused <= 3 * 14, "it has come to pauses of half a minute"

        world.reply = Posted(202, "new")
        bootstrap.hurry()
        for _ in range(refused + 3):
            await world.arrived.acquire()
        assert (loop.time(), len(world.posted)) == (200.0, refused + 3)
        assert not running.done()

    in_virtual_time(story())


async def test_news_hurries_a_node_that_was_in_and_has_lost_its_links() -> None:
    world = World(*NODES[:3])
    bootstrap = world.bootstrap()
    world.links = 1
    assert await bootstrap.step() == WATCH
    world.links = 0
    bootstrap.hurry()
    await bootstrap.step()
    assert len(world.posted) == 6, "and not only after it was lonely for a while"


async def test_without_seeds_there_is_nothing_to_run() -> None:
    async with asyncio.timeout(20):
        await Bootstrap((), ME.public, World().ports(), random.Random(7), lambda: 0.0).run()


async def test_the_record_that_is_left_says_where_the_way_to_the_seeds_begins() -> None:
    world = World(*NODES[:3])
    moved = record(ME, Endpoint("198.51.100.7", 9090), sequence=2)
    bootstrap = Bootstrap(
        tuple(world.answers),
        ME.public,
        replace(world.ports(), toward=lambda place: setattr(world, "own", moved)),
        random.Random(7),
        lambda: world.now,
    )
    await bootstrap.step()
    assert [posted for _, posted in world.posted] == [moved] * 3


async def test_what_would_help_is_said_where_it_is_known() -> None:
    world = World(NODES[0])
    world.reply = Posted(403, "expired")
    bootstrap = world.bootstrap()
    await bootstrap.step()
    (problem,) = bootstrap.status()["problems"]
    why = "the delegation has ended, or a clock is wrong"
    remedy = "have the account sign a new one (`zmesh key delegate`), or correct the clock"
    assert problem.endswith(f"does not accept our record: expired ({why}: {remedy})")


async def test_a_fault_of_ours_does_not_end_the_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that ends silently would leave the node alone for ever."""
    monkeypatch.setattr("zmesh.bootstrap.FIRST_PAUSE", 0.0)
    world = World(*NODES[:1])
    world.answers[PLACES[0]] = [RuntimeError("what nobody thought of"), NODES[0]]
    bootstrap = world.bootstrap()
    bootstrap._pause = 0.0
    running = asyncio.create_task(bootstrap.run())
    async with asyncio.timeout(20):
        await world.arrived.acquire()
    running.cancel()
    assert world.posted == [(PLACES[0], world.own)]
