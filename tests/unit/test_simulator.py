"""The simulator's own parts: faults, latency, and the report."""

from __future__ import annotations

from random import Random

import pytest

from zmesh.core.types import MessageType
from zmesh.transports.faults import (
    Arena,
    Corrupt,
    Crash,
    Delay,
    Duplicate,
    Fault,
    Loss,
    Parcel,
    Partition,
    Reorder,
    Silent,
    Skew,
    Trouble,
    flip_a_bit,
)
from zmesh.transports.simulated import Publication, regions, summarise, uniform
from zmesh.transports.simulator import Simulation

PARCEL: Parcel = (0.01, (b"\x01\x05\x01", b"body", b"signature"))


def carried(fault: Fault, times: int = 2000, *, sender: int = 0, receiver: int = 9, at: float = 1.0) -> list[Parcel]:
    carry = fault.arm(Arena(10, Random(1)))
    return [parcel for _ in range(times) for parcel in carry(at, sender, receiver, [PARCEL])]


def test_rates_are_kept() -> None:
    assert len(carried(Loss(0.2))) == pytest.approx(1600, rel=0.05)
    assert len(carried(Duplicate(0.2))) == pytest.approx(2400, rel=0.05)
    assert sum(parcel[0] > 0.01 for parcel in carried(Reorder(0.2))) == pytest.approx(400, rel=0.15)
    assert sum(parcel[1] != PARCEL[1] for parcel in carried(Corrupt(0.2))) == pytest.approx(400, rel=0.15)
    assert carried(Delay(1.0), times=1) == [(1.01, PARCEL[1])]


def test_a_fault_acts_only_on_its_nodes_and_in_its_time() -> None:
    fault = Loss(1.0, nodes=[3], start=1.0, end=2.0)

    assert [len(carried(fault, 1, sender=3, at=at)) for at in (0.5, 1.0, 1.9, 2.0)] == [1, 0, 0, 1]
    assert len(carried(fault, 1, sender=4, at=1.0)) == 1


def test_a_partition_separates_its_groups_and_nobody_else() -> None:
    split = Partition([[0, 1], [2, 3]])

    assert [len(carried(split, 1, sender=a, receiver=b)) for a, b in ((0, 1), (0, 2), (3, 1), (0, 9), (9, 2))] == [
        1,
        0,
        0,
        1,
        1,
    ]


def test_the_silent_are_a_share_of_all_or_those_that_are_named() -> None:
    assert sum(not carried(Silent(share=0.3), 1, sender=node) for node in range(10)) == 3
    assert [node for node in range(10) if not carried(Silent(nodes=[2, 5]), 1, sender=node)] == [2, 5]


def test_a_flipped_bit_is_one_bit_of_any_frame() -> None:
    rng, seen = Random(2), set()
    for _ in range(500):
        damaged = flip_a_bit(PARCEL[1], rng)
        (place,) = [number for number in range(3) if damaged[number] != PARCEL[1][number]]
        changed = int.from_bytes(damaged[place]) ^ int.from_bytes(PARCEL[1][place])
        assert changed.bit_count() == 1
        seen.add(place)
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("fault", [Loss(1.5), Duplicate(-0.1), Reorder(2), Corrupt(float("nan")), Silent(share=7)])
def test_an_impossible_share_is_refused(fault: Fault) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Simulation(nodes=3, faults=[fault])


@pytest.mark.parametrize("fault", [Crash(3, at=1.0), Skew([-1], 1.0), Loss(0.1, nodes=[0, 7])])
def test_a_fault_of_a_node_that_is_not_there_is_refused(fault: Trouble) -> None:
    with pytest.raises(ValueError, match="nodes must be numbers from 0 to 2"):
        Simulation(nodes=3, faults=[fault])


def test_a_mesh_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="must have at least 1 node, not 0"):
        Simulation(nodes=0)


def test_only_a_crashed_node_restarts_and_waiting_has_an_end() -> None:
    sim = Simulation(nodes=2)
    with pytest.raises(ValueError, match="crash it first"):
        sim.restart(1)
    assert not sim.run_until(lambda: False, limit=1.0)
    assert sim.time == 1.0


def test_latency_is_the_same_both_ways_and_within_its_range() -> None:
    sim = Simulation(seed=3, nodes=30)
    there = [sim.latency(a, b) for a in range(30) for b in range(30) if a != b]
    back = [sim.latency(b, a) for a in range(30) for b in range(30) if a != b]

    assert there == back
    assert 0.010 <= min(there) < 0.012
    assert 0.048 < max(there) < 0.050
    assert (uniform(1.0, 3.0)(0, 1, 0.5), regions([1, 1], 0.1, 1.0)(0, 1, 0.0)) == (2.0, 1.0)


def test_the_report_counts_what_was_made_and_what_was_missed() -> None:
    first, second = (Publication(bytes([n]) * 32, MessageType.GOSSIP, author=0, at=1.0) for n in (1, 2))
    for node, at in ((1, 1.1), (2, 1.2), (2, 1.5), (3, 1.3)):
        first.delivered_to(node, at)
    second.delivered_to(1, 1.4)
    first.pushed, first.arrived = 8, 6

    report = summarise([first, second], running=[0, 1, 2, 3])

    assert (report.messages, report.expected, report.delivered, report.repeats) == (2, 6, 4, 1)
    assert report.missed == (("02" * 32, 2), ("02" * 32, 3))
    assert (report.pushed_per_delivery, report.arrived_per_delivery) == (2.0, 1.5)
    assert [round(value, 3) for value in (report.p50, report.p99, report.last, report.worst)] == [0.2, 0.4, 0.3, 0.4]
