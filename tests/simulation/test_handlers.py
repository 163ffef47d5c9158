"""The handlers of a real node, together, in a mesh of real engines."""

from __future__ import annotations

import pytest

from zmesh.core.events import Command
from zmesh.core.now import Now
from zmesh.core.types import MessageType
from zmesh.handlers import Handlers, RoundState
from zmesh.handlers.heartbeat import Heartbeat
from zmesh.transports.faults import Crash, Loss
from zmesh.transports.simulator import Delivery, Simulation, SimulationSettings, all_handlers

FULL = SimulationSettings(crypto="hash", handlers=all_handlers)


def handlers(sim: Simulation, node: int) -> Handlers:
    of = sim.nodes[node].handlers
    return Handlers._make(of)


def test_everybody_beats_every_minute_and_is_heard_by_all() -> None:
    sim = Simulation(seed=1, nodes=10, settings=FULL)
    sim.run(62.0)

    beats = [told for told in sim.deliveries if told.kind is MessageType.HEARTBEAT and told.time > 2.0]
    assert {(told.author, told.node) for told in beats} == {(a, b) for a in range(10) for b in range(10) if a != b}
    assert len(beats) <= 2 * 90


def test_what_a_handler_raises_when_it_is_woken_ends_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Heartbeat, now: Now) -> list[Command]:
        raise RuntimeError("a bug in a handler")

    monkeypatch.setattr(Heartbeat, "wake", broken)
    with pytest.raises(RuntimeError, match="a bug in a handler"):
        Simulation(seed=1, nodes=2, settings=FULL).run(62.0)


def test_everybody_learns_everybodys_record_and_a_restarted_node_learns_them_anew() -> None:
    sim = Simulation(seed=2, nodes=12, faults=[Crash(4, at=150.0, back=300.0), Loss(0.1)], settings=FULL)
    keys = {life.seat.member.key for life in sim.nodes}
    sim.run(45.0)
    assert [set(handlers(sim, node).records.records) for node in range(12)] == [keys] * 12

    before = handlers(sim, 3).records.records[sim.nodes[4].seat.member.key]
    sim.run(345.0)
    assert set(handlers(sim, 4).records.records) == keys
    after = handlers(sim, 3).records.records[sim.nodes[4].seat.member.key]
    assert after.sequence > before.sequence
    assert sim.offences == []


@pytest.mark.parametrize("seed", range(3))
def test_a_learning_round_from_its_announcement_to_its_end_under_loss(seed: int) -> None:
    sim = Simulation(seed, nodes=15, faults=[Loss(0.2)], settings=FULL)
    assert sim.settle()

    @sim.on(MessageType.FL_ROUND_START)
    def train(sim: Simulation, told: Delivery) -> None:
        delta = {"round_id": told.payload["round_id"], "model_cid": f"cid-{told.node}", "quality_score": 90.0}
        sim.send_direct(told.node, told.author, MessageType.MODEL_DELTA_TRANSFER, delta, timeout=60.0)

    sim.broadcast(0, MessageType.FL_ROUND_START, {"round_id": "r1", "deadline": sim.wall + 100, "min_stake": 1})
    own = handlers(sim, 0).rounds
    assert sim.run_until(lambda: len(own.named("r1")[0].delivered) == 14, limit=60.0)
    sim.broadcast(0, MessageType.FL_ROUND_UPDATE, {"round_id": "r1", "state": "closed", "model_cid": "cid-next"})
    sim.run_for(10.0)

    assert sorted(delta.model_cid or "" for delta in own.named("r1")[0].delivered.values()) == sorted(
        f"cid-{node}" for node in range(1, 15)
    )
    assert all(delta.staked and not delta.late for delta in own.named("r1")[0].delivered.values())
    for node in range(15):
        (known,) = handlers(sim, node).rounds.named("r1")
        assert (known.coordinator, known.state) == ("account-0", RoundState.CLOSED)
    assert (sim.report().missed, sim.report().repeats) == ((), 0)


def test_a_node_that_restarts_learns_how_it_has_voted() -> None:
    sim = Simulation(seed=4, nodes=5, faults=[Crash(0, at=10.0, back=12.0)], settings=FULL)
    sim.run(5.0)
    for node in range(5):
        sim.broadcast(node, MessageType.CONSENSUS_VOTE, {"proposal_id": "p", "choice": "yes"})
    sim.run(30.0)

    tallies = [handlers(sim, node).votes.tally("p") for node in range(5)]
    assert tallies[0].counts == {"yes": 5}
    assert tallies == [tallies[0]] * 5
    assert [told.node for told in sim.deliveries if told.author == 0 and told.node == 0] == []


def test_who_is_ignored_by_some_applications_has_its_vote_counted_by_all_nodes() -> None:
    """Reputation is each node's own, and a tally must not depend on it."""
    sim = Simulation(seed=5, nodes=5, settings=FULL)
    sim.run(5.0)
    for _ in range(3):
        sim.inject(0, 1, (b"\x01\x05\x00", b"garbage", bytes(64)))
    sim.run(6.0)
    sim.broadcast(0, MessageType.CONSENSUS_VOTE, {"proposal_id": "p", "choice": "yes"})
    sim.run(20.0)

    votes = [told.node for told in sim.deliveries if told.kind is MessageType.CONSENSUS_VOTE]
    assert sorted(votes) == [2, 3, 4]
    assert [handlers(sim, node).votes.tally("p").counts for node in range(5)] == [{"yes": 1}] * 5
