"""Whatever happens to a small mesh, in whatever order, what is promised holds once things calm down."""

from __future__ import annotations

from collections import Counter

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zmesh.core import types
from zmesh.core.types import MessageType
from zmesh.transports.faults import Delay, Duplicate, Loss, Partition, Reorder, Silent
from zmesh.transports.faults import Fault as Wrong
from zmesh.transports.simulator import Simulation, SimulationSettings

NODES = 6
CALM = 40.0
"""Virtual second from which nothing goes wrong any more."""

shares = st.floats(0.0, 0.4)
wrongs: st.SearchStrategy[Wrong] = st.one_of(
    st.builds(Loss, shares, end=st.just(CALM)),
    st.builds(Duplicate, shares, end=st.just(CALM)),
    st.builds(Reorder, shares, st.floats(0.0, 2.0), end=st.just(CALM)),
    st.builds(Delay, st.floats(0.0, 1.0), nodes=st.sets(st.integers(0, NODES - 1)), end=st.just(CALM)),
    st.builds(Silent, st.floats(0.0, 0.5), end=st.just(CALM)),
    st.builds(
        lambda at, length: Partition([[0, 1, 2], [3, 4, 5]], start=at, end=at + length),
        st.floats(0.0, 20.0),
        st.floats(0.0, 20.0),
    ),
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["say", "say", "tell", "crash", "restart", "wait"]),
        st.integers(0, NODES - 1),
        st.integers(1, NODES - 1),
    ),
    max_size=12,
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 2**32), st.lists(wrongs, max_size=3), steps)
def test_all_agree_nothing_is_handed_over_twice_and_nobody_honest_is_blamed(
    seed: int, faults: list[Wrong], script: list[tuple[str, int, int]]
) -> None:
    sim = Simulation(seed, NODES, faults, SimulationSettings(crypto="hash"))
    sim.run(3.0)
    lives = Counter(range(NODES))
    tokens = {}
    for what, node, distance in script:
        alive = sim.nodes[node].alive
        if what == "say" and alive:
            sim.broadcast(node, MessageType.GOSSIP, {"at": sim.time})
        elif what == "tell" and alive:
            payload = {"round_id": str(sim.time)}
            recipient = (node + distance) % NODES
            tokens[sim.send_direct(node, recipient, MessageType.MODEL_DELTA_OFFER, payload, 5.0)] = node
        elif what == "crash" and alive:
            sim.crash(node)
        elif what == "restart" and not alive:
            sim.restart(node)
            lives[node] += 1
        sim.run_for(2.0)
    crashed = {node for node in range(NODES) if not sim.nodes[node].alive or lives[node] > 1}
    sim.run(CALM + 50.0)

    # Agreement: what one running node has, all have; and what a node that never crashed wrote, all have.
    running = {life.seat.number for life in sim.nodes if life.alive}
    for message in sim.published.values():
        holders = running & message.first.keys()
        if holders or message.author not in crashed:
            assert holders >= running - {message.author}
    # Integrity: at most once for each life of a node.
    handed = Counter((told.node, told.message_id) for told in sim.deliveries)
    assert all(times <= lives[node] for (node, _), times in handed.items())
    # Everybody learns how its direct message ended, unless it crashed meanwhile.
    assert {token for token, node in tokens.items() if node not in crashed} <= sim.results.keys()
    # Loss can make an offer look broken, which costs little; nothing else looks like malice.
    assert {offence.fault for offence in sim.offences} <= {types.Fault.BROKEN_OFFER}
