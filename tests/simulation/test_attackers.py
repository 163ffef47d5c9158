"""Whoever breaks the rules gains nothing, and is blamed, and nobody else is."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from zmesh.core import wire
from zmesh.core.link import LinkState
from zmesh.core.types import DropReason, Fault, Frames, MessageType
from zmesh.transports.faults import (
    Byzantine,
    Loss,
    Partition,
    Replay,
    Rewrite,
    Skew,
    forge_signature,
    impersonate,
    inflate_ttl,
    zero_ttl,
)
from zmesh.transports.simulated import Settings, line
from zmesh.transports.simulator import Simulation

GOSSIP = MessageType.GOSSIP


@pytest.mark.parametrize(
    "attack,fault",
    [
        (zero_ttl, None),
        (inflate_ttl, Fault.TTL_INFLATED),
        (forge_signature, Fault.RELAYED_FORGERY),
        (impersonate, Fault.RELAYED_FORGERY),
    ],
)
def test_a_lying_relay_is_blamed_alone_and_hides_nothing(attack: Rewrite, fault: Fault | None) -> None:
    # With losses, or all would be served by the authors themselves, and nobody would look at what a relay says.
    sim = Simulation(seed=1, nodes=20, faults=[Byzantine(attack, nodes=[7]), Loss(0.2, start=3.0)])
    assert sim.settle()

    sent = {sim.broadcast(number % 20, GOSSIP, {"by": number % 20}) for number in range(60)}
    sim.run_for(10.0)

    assert {told.message_id for told in sim.deliveries} == sent
    assert [(told.author, told.payload["by"]) for told in sim.deliveries if told.author != told.payload["by"]] == []
    assert (sim.report().missed, sim.report().repeats) == ((), 0)
    assert set(sim.blamed()) == ({(7, fault)} if fault else set())


@pytest.mark.parametrize("attack", [inflate_ttl, forge_signature, impersonate])
def test_the_only_way_there_may_lead_through_a_liar_and_still_nothing_false_passes(attack: Rewrite) -> None:
    sim = Simulation(seed=2, nodes=3, faults=[Byzantine(attack, nodes=[1])], settings=Settings(edges=line(3)))
    assert sim.settle()
    sent = sim.broadcast(0, GOSSIP, {"by": 0})
    sim.run_for(30.0)

    assert {(told.message_id, told.author) for told in sim.deliveries} == {(sent, 0)}
    assert {culprit for culprit, _ in sim.blamed()} == {1}


def test_a_corrupt_copy_sent_first_does_not_suppress_the_good_one() -> None:
    sim = Simulation(seed=3, nodes=3, settings=Settings(edges=line(3), verify_seconds=0.01))
    assert sim.settle()
    good = sim.compose(0, GOSSIP, {"it": "arrives"})
    head, body, signature = good.frames(5, 0)

    sim.inject(1, 2, (head, body, bytes(64)))
    sim.run_for(0.005 + 0.05)
    for _ in range(3):
        sim.inject(1, 2, (head, body, bytes(64)))
    sim.inject(0, 1, (head, body, signature))
    sim.run_for(5.0)

    assert sorted((told.node, told.message_id) for told in sim.deliveries) == [(1, good.id), (2, good.id)]
    assert set(sim.blamed()) == {(1, Fault.RELAYED_FORGERY)}


def test_a_replayer_gains_nothing() -> None:
    sim = Simulation(seed=4, nodes=20, faults=[Replay(nodes=[7], times=3, memory=4)], settings=Settings(crypto="hash"))
    assert sim.settle()
    for number in range(20):
        sim.broadcast(number, GOSSIP, {"by": number})
        sim.run_for(0.2)
    token = sim.send_direct(7, 3, MessageType.MODEL_DELTA_OFFER, {"round_id": "r"})
    sim.run_for(15.0)

    assert (sim.report().missed, sim.report().repeats) == ((), 0)
    assert [told.node for told in sim.deliveries if told.direct] == [3]
    assert sim.results[token]


def test_old_messages_are_stale_and_messages_of_tomorrow_are_not_taken_today() -> None:
    sim = Simulation(seed=5, nodes=5, faults=[Skew([4], 60.0)], settings=Settings(crypto="hash"))
    sim.run(10.0)
    old = sim.compose(1, GOSSIP, {"said": "long ago"})
    sim.run_for(121.0)
    early = sim.compose(4, GOSSIP, {"said": "a minute from now"})
    sim.inject(2, 3, old.frames(5, 1))
    sim.inject(2, 3, early.frames(5, 1))
    sim.run_for(30.0)

    assert sim.deliveries == []
    assert (sim.drops[DropReason.STALE], sim.drops[DropReason.FUTURE]) == (1, 1)
    assert sim.offences == [], "who passes on what somebody's clock says is not to blame"


def test_a_message_of_somebody_else_is_not_taken_as_direct() -> None:
    sim = Simulation(seed=6, nodes=4)
    assert sim.settle()
    stolen = sim.compose(1, MessageType.MODEL_DELTA_OFFER, {"round_id": "r"}, recipient=2)
    foreign = sim.compose(3, MessageType.MODEL_DELTA_OFFER, {"round_id": "r"}, recipient=1)

    sim.inject(3, 2, stolen.frames(0, 0))
    sim.inject(3, 2, foreign.frames(0, 0))
    sim.run_for(1.0)

    assert sim.deliveries == []
    assert (sim.drops[DropReason.NOT_FROM_AUTHOR], sim.drops[DropReason.WRONG_RECIPIENT]) == (1, 1)
    assert sim.blamed() == {(3, Fault.MISROUTED_DIRECT): 2}


def test_a_removed_validators_frames_die_at_once() -> None:
    sim = Simulation(seed=7, nodes=10, settings=Settings(crypto="hash"))
    assert sim.settle()
    sim.broadcast(9, GOSSIP, {"said": "just before, and still on its way"})
    sim.remove(9)
    sim.broadcast(9, GOSSIP, {"said": "after"})
    envelope = sim.compose(9, GOSSIP, {"said": "through a friend"})
    sim.inject(1, 2, envelope.frames(5, 1))
    token = sim.send_direct(9, 0, MessageType.MODEL_DELTA_OFFER, {"round_id": "r"})
    sim.run_for(30.0)

    assert sim.deliveries == []
    assert not sim.results[token]
    assert sim.offences == [], "registries differ for a moment: whoever passed it on is not to blame"
    sim.broadcast(0, GOSSIP, {"said": "among those who stay"})
    sim.run_for(5.0)
    assert {told.node for told in sim.deliveries} == set(range(1, 9))


def test_one_voter_has_one_vote_even_if_it_tells_each_half_another() -> None:
    vote = MessageType.CONSENSUS_VOTE
    sim = Simulation(seed=8, nodes=20, faults=[Loss(0.2, start=3.0)], settings=Settings(crypto="hash"))
    sim.run(4.0)
    sim.broadcast(1, MessageType.CONSENSUS_PROPOSE, {"proposal_id": "p"})
    yes = sim.compose(0, vote, {"proposal_id": "p", "choice": "yes"})
    no = sim.compose(0, vote, {"proposal_id": "p", "choice": "no"})
    for other in range(1, 20):
        sim.inject(0, other, (yes if other % 2 else no).frames(5, 0))
    for other in range(1, 10):
        sim.broadcast(other, vote, {"proposal_id": "p", "choice": "yes" if other < 7 else "no"})
    sim.run_for(15.0)

    tallies = [life.handlers[1].tally("p") for life in sim.nodes[1:]]  # type: ignore[attr-defined]
    assert tallies == [tallies[0]] * 19
    assert tallies[0].counts == {"yes": 6, "no": 3}
    assert tallies[0].equivocators == ("account-0",)
    for life in sim.nodes[1:]:
        (proof,) = life.handlers[1].equivocations("p")  # type: ignore[attr-defined]
        assert {wire.message_id(proof.first.body), wire.message_id(proof.second.body)} == {yes.id, no.id}


def test_nobody_is_blamed_for_an_honest_relay_of_what_a_validator_rejects() -> None:
    """The author signed it and is to blame, at each node that heard it; those who passed it on are not."""
    sim = Simulation(seed=9, nodes=10, settings=Settings(crypto="hash"))
    assert sim.settle()
    nonsense = sim.compose(0, MessageType.FL_ROUND_START, {"round_id": ""})
    for other in range(1, 10):
        sim.inject(0, other, nonsense.frames(5, 0))
    sim.run_for(5.0)

    assert sim.deliveries == []
    assert set(sim.blamed()) == {(0, Fault.INVALID_MESSAGE)}


def test_a_flooder_of_garbage_is_cut_and_the_rest_goes_on() -> None:
    def garbage(sender: int, receiver: int, frames: Frames) -> Iterable[Frames]:
        return [(b"\x01\x05\x00", bytes(100), bytes(64)), frames]

    sim = Simulation(
        seed=10, nodes=10, faults=[Byzantine(garbage, nodes=[5], start=5.0)], settings=Settings(crypto="hash")
    )
    assert sim.settle()
    sim.run(6.0)
    sent = {}
    for author in (0, 1, 2, 3, 4, 6, 7, 8, 9):
        sent[sim.broadcast(author, GOSSIP, {})] = author
        sim.run_for(3.0)

    assert set(sim.blamed()) == {(5, Fault.MALFORMED)}
    garbler = sim.nodes[5].seat.member.key
    assert {sim.nodes[node].engine.links[garbler].state for node in range(10) if node != 5} == {LinkState.AWAY}
    heard = {(told.node, told.message_id) for told in sim.deliveries if told.node != 5}
    assert heard >= {
        (node, identifier) for identifier in sent for node in range(10) if node not in (5, sent[identifier])
    }


def test_what_is_planted_at_one_node_does_not_hide_from_it_what_it_lacks() -> None:
    """It ignores updates of a round of another, without blame; yet it has more ids of each second by them than all."""
    cut_off = Partition([[1], [0, *range(2, 8)]], start=20.0, end=26.0)
    sim = Simulation(seed=9, nodes=8, settings=Settings(crypto="hash"), faults=[cut_off])
    assert sim.settle()
    round_of_another = sim.broadcast(2, MessageType.FL_ROUND_START, {"round_id": "r"})
    sim.run(20.5)
    planted, missed = [], []
    for number in range(16):
        planted += [sim.compose(0, MessageType.FL_ROUND_UPDATE, {"round_id": "r", "n": n}) for n in range(3)]
        missed.append(sim.broadcast(2 + number % 6, GOSSIP, {"number": number}))
        sim.run_for(0.25)
    sim.run(26.0)
    for message in planted:
        sim.inject(0, 1, message.frames(1, 0))
    sim.run(46.0)

    assert sim.nodes[1].engine.drops[DropReason.IGNORED_BY_VALIDATOR] == len(planted)
    assert {told.message_id for told in sim.deliveries if told.node == 1} == {round_of_another, *missed}
    assert sim.offences == []


def test_bursts_of_large_messages_do_not_make_an_honest_relay_break_its_offers() -> None:
    """All come to one node alone, which offers them: what it offers must not be evicted before it is asked for."""
    sim = Simulation(seed=3, nodes=5, settings=Settings(crypto="hash", latency=lambda a, b, rng: 0.1))
    assert sim.settle()
    sim.run_for(2.0)
    for _ in range(2):
        for _ in range(600):
            sim.inject(0, 1, sim.compose(0, GOSSIP, {"pad": bytes(60_000)}).frames(1, 0))
        sim.run_for(4.0)
    sim.run_for(6.0)

    assert sim.offences == []
    assert sim.nodes[1].engine.drops[DropReason.AUTHOR_RATE] >= 800
    heard = {node: {told.message_id for told in sim.deliveries if told.node == node} for node in range(1, 5)}
    assert len(heard[1]) > 150
    assert all(heard[node] == heard[1] for node in range(2, 5))


def test_a_validator_removed_while_its_signature_is_being_checked_is_removed() -> None:
    sim = Simulation(seed=11, nodes=4, settings=Settings(crypto="hash", verify_seconds=0.5))
    assert sim.settle()
    sim.run_for(10.0)
    sim.broadcast(3, GOSSIP, {"said": "in time"})
    sim.send_direct(3, 0, MessageType.MODEL_DELTA_OFFER, {"round_id": "r"}, timeout=1.0)
    sim.run_for(0.3)
    sim.remove(3)
    sim.run_for(30.0)

    assert (sim.deliveries, sim.offences) == ([], [])
    assert sim.drops[DropReason.NOT_ADMITTED] >= 3
