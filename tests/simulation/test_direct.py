"""Direct messages: handed over once, and the sender knows how it ended."""

from __future__ import annotations

from collections import Counter

from zmesh.core.bounds import Bounds
from zmesh.core.types import MessageType, SendResult
from zmesh.transports.faults import Crash, Duplicate, Loss, Reorder, Skew
from zmesh.transports.simulator import Delivery, Simulation, SimulationSettings, line

OFFER = MessageType.MODEL_DELTA_OFFER
QUICK = SimulationSettings(crypto="hash")


def test_at_a_third_lost_every_message_is_handed_over_exactly_once() -> None:
    sim = Simulation(
        seed=1,
        nodes=10,
        faults=[Loss(0.3, start=3.0), Duplicate(0.2), Reorder(0.2, window=1.0)],
        settings=QUICK,
    )
    sim.run(4.0)

    tokens = [
        sim.send_direct(number % 10, (number + 1 + number // 10) % 10, OFFER, {"round_id": str(number)}, 60.0)
        for number in range(90)
    ]
    sim.run_for(61.0)

    assert [sim.results[token] for token in tokens] == [SendResult.DELIVERED] * 90
    handed = Counter(told.payload["round_id"] for told in sim.deliveries)
    assert handed == Counter({str(number): 1 for number in range(90)})
    assert sim.offences == []


def test_a_busy_application_is_asked_again_until_it_takes_it() -> None:
    sim = Simulation(seed=2, nodes=2, settings=QUICK)
    asked: list[float] = []

    @sim.on(OFFER)
    def busy_twice(sim: Simulation, told: Delivery) -> bool:
        asked.append(told.time)
        return len(asked) > 2

    assert sim.settle()
    token = sim.send_direct(0, 1, OFFER, {"round_id": "r"})
    sim.run_for(10.0)

    assert (sim.results[token], len(asked)) == (SendResult.DELIVERED, 3)


def test_an_application_that_stays_busy_is_back_pressure() -> None:
    sim = Simulation(seed=3, nodes=2, settings=QUICK)
    sim.on(OFFER)(lambda sim, told: False)
    assert sim.settle()
    token = sim.send_direct(0, 1, OFFER, {"round_id": "r"}, timeout=5.0)
    sim.run_for(6.0)

    assert sim.results[token] is SendResult.BACKPRESSURE


def test_who_is_away_is_unreachable_and_who_comes_back_in_time_is_reached() -> None:
    sim = Simulation(seed=4, nodes=3, faults=[Crash(1, at=5.0, back=10.0), Crash(2, at=5.0)], settings=QUICK)
    sim.run(6.0)
    back, gone = (sim.send_direct(0, node, OFFER, {"round_id": "r"}, timeout=15.0) for node in (1, 2))
    sim.run_for(16.0)

    assert (sim.results[back], sim.results[gone]) == (SendResult.DELIVERED, SendResult.UNREACHABLE)
    assert [told.node for told in sim.deliveries] == [1]


def test_without_a_way_there_it_is_unreachable_and_never_passed_through_others() -> None:
    sim = Simulation(seed=5, nodes=3, settings=SimulationSettings(edges=line(3)))
    assert sim.settle()
    token = sim.send_direct(0, 2, OFFER, {"round_id": "r"}, timeout=5.0)
    sim.run_for(6.0)

    assert (sim.results[token], sim.deliveries) == (SendResult.UNREACHABLE, [])


def test_a_clock_that_is_off_is_told_and_not_a_riddle() -> None:
    sim = Simulation(seed=6, nodes=3, faults=[Skew([0], -300.0), Skew([1], 60.0)], settings=QUICK)
    assert sim.settle()
    late, early = (sim.send_direct(node, 2, OFFER, {"round_id": "r"}) for node in (0, 1))
    sim.run_for(11.0)

    assert (sim.results[late], sim.results[early]) == (SendResult.REJECTED, SendResult.REJECTED)
    assert (sim.deliveries, sim.offences) == ([], [])


def test_an_unlinked_peer_of_a_large_mesh_is_dialled_for_one_message() -> None:
    sparse = SimulationSettings(crypto="hash", bounds=Bounds(max_links=10, sparse_links=4, direct_idle=5.0))
    sim = Simulation(seed=7, nodes=40, settings=sparse)
    assert sim.settle()
    keys = [life.seat.member.key for life in sim.nodes]
    far = next(number for number in range(1, 40) if keys[number] not in sim.nodes[0].engine.links)

    token = sim.send_direct(0, far, OFFER, {"round_id": "r"})
    sim.run_for(2.0)
    assert (sim.results[token], [told.node for told in sim.deliveries]) == (SendResult.DELIVERED, [far])
    assert keys[far] in sim.nodes[0].engine.links

    sim.run_for(30.0)
    assert keys[far] not in sim.nodes[0].engine.links
