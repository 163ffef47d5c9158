"""Whoever breaks the rules gains nothing, and is blamed, and nobody else is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

import pytest

from zmesh.core import wire
from zmesh.core.bounds import AHEAD, Bounds
from zmesh.core.link import LinkState
from zmesh.core.types import DropReason, Fault, Frames, MessageType
from zmesh.transports.faults import (
    Byzantine,
    Loss,
    Partition,
    Replay,
    Rewrite,
    Skew,
    Trouble,
    forge_signature,
    impersonate,
    inflate_ttl,
    zero_ttl,
)
from zmesh.transports.simulator import Simulation, SimulationSettings, line

GOSSIP = MessageType.GOSSIP


def ended_at(sim: Simulation, *nodes: int) -> Counter[DropReason]:
    """Frames that these nodes dropped, by reason."""
    return sum((Counter(sim.nodes[node].engine.drops) for node in nodes), Counter())


DETOUR = 6
"""Nodes in a ring whose number 0 lies: messages pass it in no time, and take theirs the other way round."""


def short_cut(sender: int, receiver: int, chance: float) -> float:
    """What node 0 sends comes first, so that nobody can tell its lies from what is known already."""
    return 0.001 if 0 in (sender, receiver) else 0.05


def heard_once(sim: Simulation, sent: Collection[bytes], *, but: int) -> bool:
    """Did every node but one hear every message once, whoever wrote it?"""
    heard = Counter((told.node, told.message_id) for told in sim.deliveries if told.node != but)
    authors = {identifier: sim.published[identifier].author for identifier in sent}
    nodes = [node for node in range(len(sim.nodes)) if node != but]
    return heard == Counter((node, one) for one in sent for node in nodes if node != authors[one])


@pytest.mark.parametrize(
    "attack,reason,fault",
    [
        (zero_ttl, None, None),
        (inflate_ttl, DropReason.TTL_INFLATED, Fault.TTL_INFLATED),
        (forge_signature, DropReason.BAD_SIGNATURE, Fault.RELAYED_FORGERY),
        (impersonate, DropReason.BAD_SIGNATURE, Fault.RELAYED_FORGERY),
    ],
)
def test_a_liar_on_the_shortest_way_is_blamed_for_each_lie_and_hides_nothing(
    attack: Rewrite, reason: DropReason | None, fault: Fault | None
) -> None:
    ring = (*line(DETOUR), (DETOUR - 1, 0))
    settings = SimulationSettings(edges=ring, latency=short_cut)
    sim = Simulation(seed=1, nodes=DETOUR, faults=[Byzantine(attack, nodes=[0])], settings=settings)
    assert sim.settle()
    sent = []
    for author in range(1, DETOUR):
        sent.append(sim.broadcast(author, GOSSIP, {"by": author}))
        sim.run_for(2.0)
    sim.run_for(10.0)

    assert heard_once(sim, sent, but=0)
    assert [(told.author, told.payload["by"]) for told in sim.deliveries if told.author != told.payload["by"]] == []
    lies = 4  # of five authors four have a neighbour whom the liar tells first; the one opposite is told the truth
    assert sim.tampered == {0: lies}
    assert {why: times for why, times in sim.drops.items() if why is not DropReason.DUPLICATE} == (
        {reason: lies} if reason else {}
    )
    assert sim.blamed() == ({(0, fault): lies} if fault else {})


@pytest.mark.parametrize("attack", [zero_ttl, inflate_ttl, forge_signature, impersonate])
def test_a_liar_among_many_with_losses_is_blamed_alone_and_hides_nothing(attack: Rewrite) -> None:
    # With losses, or all would be served by the authors themselves, and nobody would look at what a relay says.
    sim = Simulation(seed=1, nodes=20, faults=[Byzantine(attack, nodes=[7]), Loss(0.2, start=3.0)])
    assert sim.settle()

    sent = {sim.broadcast(number % 20, GOSSIP, {"by": number % 20}) for number in range(60)}
    sim.run_for(10.0)

    assert {told.message_id for told in sim.deliveries} == sent
    assert [(told.author, told.payload["by"]) for told in sim.deliveries if told.author != told.payload["by"]] == []
    assert (sim.report().missed, sim.report().repeats) == ((), 0)
    assert {culprit for culprit, _ in sim.blamed()} == ({7} if attack is not zero_ttl else set())
    assert len(sim.offences) == sim.drops[DropReason.TTL_INFLATED] + sim.drops[DropReason.BAD_SIGNATURE]
    assert sim.tampered[7] > len(sim.offences), "some of its lies came after the truth, or were lost"


def test_what_a_relay_lets_end_at_its_neighbour_is_found_by_repair() -> None:
    """In a line of four the second is the only way; with the ttl that it leaves nothing is pushed to the far end."""
    hops = {}
    attacks: tuple[list[Trouble], ...] = ([], [Byzantine(zero_ttl, nodes=[1])])
    for faults in attacks:
        sim = Simulation(seed=1, nodes=4, faults=faults, settings=SimulationSettings(edges=line(4)))
        assert sim.settle()
        sent = [sim.broadcast(0, GOSSIP, {"number": number}) for number in range(3)]
        sim.run_for(10.0)
        assert heard_once(sim, sent, but=1)
        assert (sim.drops, sim.offences) == ({}, [])
        hops[sim.tampered[1]] = sim.published[sent[0]].first
    honest, lied_to = hops[0], hops[3]

    assert lied_to[2] == honest[2]
    assert honest[3] + Bounds().offer_delay < lied_to[3] < honest[3] + 1.0, "an offer led there, and not a digest"


@pytest.mark.parametrize("attack", [inflate_ttl, forge_signature, impersonate])
def test_the_only_way_there_may_lead_through_a_liar_and_still_nothing_false_passes(attack: Rewrite) -> None:
    sim = Simulation(seed=2, nodes=3, faults=[Byzantine(attack, nodes=[1])], settings=SimulationSettings(edges=line(3)))
    assert sim.settle()
    sent = sim.broadcast(0, GOSSIP, {"by": 0})
    sim.run_for(30.0)

    assert {(told.message_id, told.author) for told in sim.deliveries} == {(sent, 0)}
    assert sim.tampered[1] == len(sim.offences) > 0
    assert {culprit for culprit, _ in sim.blamed()} == {1}


def test_a_corrupt_copy_sent_first_does_not_suppress_the_good_one() -> None:
    sim = Simulation(seed=3, nodes=3, settings=SimulationSettings(edges=line(3), verify_seconds=0.01))
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


def test_whatever_a_relay_replays_is_dropped_each_time_and_handed_over_once() -> None:
    """The second of four is the only way; it sends its last messages again with each new one, for over two minutes."""
    replay = Replay(nodes=[1], times=1, memory=4, start=5.0)
    sim = Simulation(seed=4, nodes=4, faults=[replay], settings=SimulationSettings(edges=line(4)))
    assert sim.settle()
    sim.run(5.0)
    sent = []
    for author in range(4):
        sent.append(sim.broadcast(author, GOSSIP, {"by": author}))
        sim.run_for(0.5)
    tokens = [
        sim.send_direct(1, 2, MessageType.MODEL_DELTA_OFFER, {"round_id": "from the liar"}),
        sim.send_direct(0, 1, MessageType.MODEL_DELTA_OFFER, {"round_id": "to the liar"}),
    ]
    sim.run_for(100.0)
    replayed, reasons = sim.tampered[1], ended_at(sim, 0, 2, 3)
    assert set(reasons) == {DropReason.DUPLICATE, DropReason.UNASKED_ACK}
    assert reasons.total() == replayed > 100
    sim.run_for(50.0)

    reasons = ended_at(sim, 0, 2, 3)
    assert set(reasons) == {DropReason.DUPLICATE, DropReason.UNASKED_ACK, DropReason.STALE}
    assert reasons.total() == sim.tampered[1] > replayed
    assert sim.offences == [], "an honest relay sends a message twice too, when it is asked for it"
    handed = [told for told in sim.deliveries if told.direct]
    assert sorted((told.node, told.payload["round_id"]) for told in handed) == [
        (1, "to the liar"),
        (2, "from the liar"),
    ]
    assert [bool(sim.results[token]) for token in tokens] == [True, True]
    assert (sim.report(sent).missed, sim.report(sent).repeats) == ((), 0)


def test_a_message_of_tomorrow_is_dropped_each_time_until_it_is_of_today_and_then_taken_once() -> None:
    """Its author's clock is a minute ahead, and only the liar can reach it."""
    faults: list[Trouble] = [Skew([4], 60.0), Replay(nodes=[1], times=1, memory=1, start=5.0)]
    sim = Simulation(seed=4, nodes=5, faults=faults, settings=SimulationSettings(edges=line(4)))
    assert sim.settle()
    sim.run(5.0)
    early = sim.compose(4, GOSSIP, {"said": "a minute from now"})
    sim.inject(1, 2, early.frames(5, 1))
    sim.run_for(60.0 - AHEAD - 1.0)
    assert (sim.deliveries, sim.drops) == ([], {DropReason.FUTURE: 1 + sim.tampered[1]})
    assert sim.tampered[1] > 5
    future = sim.drops[DropReason.FUTURE]
    sim.run_for(30.0)

    assert sorted(told.node for told in sim.deliveries) == [0, 1, 2, 3]
    assert {told.message_id for told in sim.deliveries} == {early.id}
    assert all(told.time >= 5.0 + 60.0 - AHEAD for told in sim.deliveries)
    # All the rest of what the liar sent came after the one that was taken.
    assert sim.drops == {DropReason.FUTURE: future, DropReason.DUPLICATE: sim.tampered[1] - future}
    assert sim.offences == []


def test_old_messages_are_stale_and_messages_of_tomorrow_are_not_taken_today() -> None:
    sim = Simulation(seed=5, nodes=5, faults=[Skew([4], 60.0)], settings=SimulationSettings(crypto="hash"))
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
    sim = Simulation(seed=7, nodes=10, settings=SimulationSettings(crypto="hash"))
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
    sim = Simulation(seed=8, nodes=20, faults=[Loss(0.2, start=3.0)], settings=SimulationSettings(crypto="hash"))
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
    sim = Simulation(seed=9, nodes=10, settings=SimulationSettings(crypto="hash"))
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
        seed=10, nodes=10, faults=[Byzantine(garbage, nodes=[5], start=5.0)], settings=SimulationSettings(crypto="hash")
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
    sim = Simulation(seed=9, nodes=8, settings=SimulationSettings(crypto="hash"), faults=[cut_off])
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

    assert sim.nodes[1].engine.drops[DropReason.IGNORED] == len(planted)
    assert {told.message_id for told in sim.deliveries if told.node == 1} == {round_of_another, *missed}
    assert sim.offences == []


def test_bursts_of_large_messages_do_not_make_an_honest_relay_break_its_offers() -> None:
    """All come to one node alone, which offers them: what it offers must not be evicted before it is asked for."""
    sim = Simulation(seed=3, nodes=5, settings=SimulationSettings(crypto="hash", latency=lambda a, b, rng: 0.1))
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
    sim = Simulation(seed=11, nodes=4, settings=SimulationSettings(crypto="hash", verify_seconds=0.5))
    assert sim.settle()
    sim.run_for(10.0)
    sim.broadcast(3, GOSSIP, {"said": "in time"})
    sim.send_direct(3, 0, MessageType.MODEL_DELTA_OFFER, {"round_id": "r"}, timeout=1.0)
    sim.run_for(0.3)
    sim.remove(3)
    sim.run_for(30.0)

    assert (sim.deliveries, sim.offences) == ([], [])
    assert sim.drops[DropReason.NOT_ADMITTED] >= 3
