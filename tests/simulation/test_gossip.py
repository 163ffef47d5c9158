"""Everybody gets every message once, whatever the network does to it."""

from __future__ import annotations

import pytest

from zmesh.core.bounds import Bounds
from zmesh.core.types import DropReason, MessageType, Roster
from zmesh.transports.faults import Corrupt, Crash, Delay, Duplicate, Loss, Partition, Reorder, Silent
from zmesh.transports.simulator import Simulation, SimulationSettings, line

GOSSIP = MessageType.GOSSIP
QUICK = SimulationSettings(crypto="hash")
SPARSE = SimulationSettings(crypto="hash", bounds=Bounds(max_links=32, sparse_links=16))


def test_a_line_of_three_delivers_end_to_end() -> None:
    sim = Simulation(seed=1, nodes=3, settings=SimulationSettings(edges=line(3)))
    assert sim.settle()

    there = sim.broadcast(0, GOSSIP, {"to": "the far end"})
    back = sim.broadcast(2, GOSSIP, {"and": "back"})
    sim.run_for(1.0)

    told = sorted((told.node, told.author, told.message_id, dict(told.payload)) for told in sim.deliveries)
    assert told == [
        (0, 2, back, {"and": "back"}),
        (1, 0, there, {"to": "the far end"}),
        (1, 2, back, {"and": "back"}),
        (2, 0, there, {"to": "the far end"}),
    ]
    report = sim.report()
    assert (report.delivered, report.missed, report.repeats) == (4, (), 0)
    assert report.worst < 0.2
    assert sim.offences == []


@pytest.mark.parametrize("seed", range(20))
def test_a_hundred_nodes_miss_nothing_at_a_fifth_lost(seed: int) -> None:
    """Every tenth seed in a full mesh, where the origin reaches all at once; the others over 16 links or so each."""
    settings = QUICK if seed % 10 == 0 else SPARSE
    sim = Simulation(seed, nodes=100, faults=[Loss(0.2, start=3.0)], settings=settings)
    sim.run(5.0)

    for number in range(5):
        sim.broadcast(number * 17, GOSSIP, {"number": number})
        sim.run_for(0.5)
    sim.run_for(5.0)

    report = sim.report()
    assert (report.expected, report.delivered, report.missed, report.repeats) == (495, 495, (), 0)
    assert report.pushed_per_delivery < 6
    assert sim.offences == []


def test_every_copy_is_counted_those_that_the_author_pushed_included() -> None:
    sim = Simulation(seed=1, nodes=3)
    assert sim.settle()
    identifier = sim.broadcast(0, GOSSIP, {})
    sim.run_for(2.0)

    sent = sim.published[identifier]
    # Two by the author, and one by each of the others to the other, as neither knows of the author's.
    assert (sent.pushed, sent.arrived, sim.report().pushed_per_delivery) == (4, 4, 2.0)


def test_links_come_up_and_messages_arrive_although_every_greeting_may_be_lost() -> None:
    sim = Simulation(seed=3, nodes=20, faults=[Loss(0.4)], settings=QUICK)

    assert sim.settle(limit=120.0)
    sim.broadcast(0, GOSSIP, {})
    assert sim.run_until(lambda: not sim.report().missed, limit=20.0)
    assert sim.report().repeats == 0


def test_a_third_of_silent_relays_and_every_kind_of_trouble_hide_nothing() -> None:
    trouble = [
        Silent(share=0.3),
        Loss(0.1),
        Duplicate(0.2),
        Reorder(0.3, window=0.5),
        Delay(0.2, nodes=range(10)),
    ]
    sim = Simulation(seed=4, nodes=40, faults=trouble, settings=SPARSE)
    assert sim.settle()

    for number in range(10):
        sim.broadcast(number, GOSSIP, {"number": number})
    sim.run_for(20.0)

    assert (sim.report().missed, sim.report().repeats) == ((), 0)


def test_flipped_bits_suppress_nothing_and_change_nothing() -> None:
    sim = Simulation(seed=5, nodes=20, faults=[Corrupt(0.05, start=3.0)])
    sim.run(4.0)

    sent = {sim.broadcast(number, GOSSIP, {"number": number}) for number in range(20)}
    sim.run_for(10.0)

    assert (sim.report().missed, sim.report().repeats) == ((), 0)
    assert {told.message_id for told in sim.deliveries} == sent
    assert all(told.payload == {"number": told.author} for told in sim.deliveries)
    assert sim.drops[DropReason.BAD_SIGNATURE] + sim.drops[DropReason.MALFORMED] > 0


def test_a_partition_heals() -> None:
    halves = Partition([range(10), range(10, 20)], start=5.0, end=50.0)
    sim = Simulation(seed=6, nodes=20, faults=[halves], settings=QUICK)
    sim.run(10.0)
    sim.broadcast(0, GOSSIP, {"from": "one side"})
    sim.broadcast(10, GOSSIP, {"from": "the other"})

    sim.run(50.0)
    assert sim.report().delivered == 18, "each half heard its own"
    assert sim.run_until(lambda: not sim.report().missed, limit=60.0)
    assert (sim.report().delivered, sim.report().repeats, sim.offences) == (38, 0, [])


@pytest.mark.parametrize("seconds", [3, 22, 60])
def test_registries_that_differ_for_a_minute_lose_no_message_and_nobody_is_blamed(seconds: int) -> None:
    """The far end of a line does not know the author: it is offered, and sent, the same message time and again."""
    sim = Simulation(seed=2, nodes=3, settings=SimulationSettings(crypto="hash", edges=line(3)))
    assert sim.settle()
    everybody = sim.roster
    author = sim.nodes[0].seat.member
    sim.set_roster(Roster.of(member for member in everybody.members if member != author), [2])
    sim.broadcast(0, GOSSIP, {"from": "a newcomer"})
    sim.run_for(float(seconds))
    assert sim.report().delivered == 1

    sim.set_roster(everybody, [2])
    assert sim.run_until(lambda: not sim.report().missed, limit=110.0 - seconds)
    assert (sim.report().delivered, sim.report().repeats, sim.offences) == (2, 0, [])


def test_a_node_that_crashed_catches_up_by_repair() -> None:
    sim = Simulation(seed=7, nodes=20, faults=[Crash(3, at=5.0, back=65.0)], settings=QUICK)
    sim.run(6.0)
    for second in range(6, 64):
        sim.broadcast(second % 3, GOSSIP, {"second": second})
        sim.run_for(1.0)
    assert {node for _, node in sim.report().missed} == set()

    sim.run(65.0)
    assert {node for _, node in sim.report().missed} == {3}
    assert sim.run_until(lambda: not sim.report().missed, limit=10.0)

    sim.run_for(30.0)
    assert (sim.report().repeats, sim.offences) == (0, [])


def test_what_a_node_published_before_its_crash_is_no_news_to_itself() -> None:
    sim = Simulation(seed=8, nodes=5, faults=[Crash(0, at=10.0, back=11.0)], settings=QUICK)
    sim.run(9.0)
    sim.broadcast(0, GOSSIP, {"life": 1})
    sim.run(12.0)
    sim.broadcast(0, GOSSIP, {"life": 2})
    sim.run(30.0)

    assert (sim.report().missed, sim.report().repeats) == ((), 0)
    assert [told for told in sim.deliveries if told.node == 0] == []


def test_a_thousand_announcements_at_once_arrive_everywhere_once() -> None:
    sim = Simulation(seed=9, nodes=10, faults=[Loss(0.05, start=3.0)], settings=QUICK)
    sim.run(4.0)

    for number in range(1000):
        sim.broadcast(number % 10, GOSSIP, {"number": number})
    sim.run_for(30.0)

    report = sim.report()
    assert (report.delivered, report.missed, report.repeats, sim.offences) == (9000, (), 0, [])
