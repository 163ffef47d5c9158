"""A seed is a run: the same arguments give the same run, on any machine and under any PYTHONHASHSEED."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from pathlib import Path

from zmesh.core.types import MessageType
from zmesh.transports import faults
from zmesh.transports.faults import (
    Byzantine,
    Corrupt,
    Crash,
    Duplicate,
    Loss,
    Partition,
    Reorder,
    Silent,
    Trouble,
    forge_signature,
)
from zmesh.transports.simulator import Simulation, SimulationSettings, all_handlers

ROOT = Path(__file__).parents[2]


def eventful_run(seed: int) -> str:
    """Everything that a run can hold, in a few seconds."""
    trouble: list[Trouble] = [
        Loss(0.1),
        Duplicate(0.1),
        Reorder(0.2),
        Corrupt(0.002),
        Silent(share=0.2),
        Byzantine(forge_signature, nodes=[3]),
        Partition([range(6), range(6, 12)], start=8.0, end=12.0),
        Crash(2, at=6.0, back=9.0),
    ]
    sim = Simulation(seed, nodes=16, faults=trouble, settings=SimulationSettings(handlers=all_handlers))
    sim.run(5.0)
    for number in range(10):
        if number != 2:
            sim.broadcast(number, MessageType.GOSSIP, {"number": number})
            sim.send_direct(number, (number + 5) % 16, MessageType.MODEL_DELTA_OFFER, {"round_id": str(number)})
        sim.run_for(1.0)
    sim.remove(15)
    sim.run_for(15.0)
    return f"{sim.digest()} {sim.events} {len(sim.deliveries)} {sorted(sim.drops.items())} {sim.offences}"


def test_the_same_seed_gives_the_same_digest_under_two_hash_seeds() -> None:
    script = "from tests.simulation.test_replay import eventful_run; print(eventful_run(7))"
    told = [
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
        for hash_seed in ("1", "4242")
    ]

    assert told[0] == told[1]
    assert len(told[0].split()[0]) == 64


def test_another_seed_is_another_run() -> None:
    assert eventful_run(8).split()[0] != eventful_run(9).split()[0]


def test_the_example_in_the_documentation_runs() -> None:
    failed, tried = doctest.testmod(faults)
    assert (failed, tried > 0) == (0, True)
