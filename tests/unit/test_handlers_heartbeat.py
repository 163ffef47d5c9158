"""Heartbeat: when it beats, and what it takes from others."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tests.unit.handlers_support import NOON, Someone, judge, later, run
from zmesh.core.errors import ConfigError
from zmesh.core.events import Broadcast
from zmesh.core.types import MessageType, Verdict
from zmesh.handlers import Heartbeat


def _status() -> dict[str, Any]:
    return {"peers_count": 3, "status": "healthy"}


def test_it_beats_soon_after_the_start_and_then_once_per_interval_at_its_own_phase() -> None:
    beats = run(Heartbeat(_status, interval=60.0, phase=0.25), until=200.0)

    assert [at for at, _ in beats] == pytest.approx([0.25, 15.0, 75.0, 135.0, 195.0])
    assert all(commands == (Broadcast(MessageType.HEARTBEAT, _status()),) for _, commands in beats)


def test_beats_missed_in_a_sleep_are_not_made_up_for() -> None:
    heartbeat = Heartbeat(_status, interval=60.0, phase=0.5)
    run(heartbeat, until=40.0)

    assert len(heartbeat.wake(later(1000.0))) == 1
    assert heartbeat.deadline == pytest.approx(NOON.mono + 1050.0)
    assert heartbeat.wake(later(1001.0)) == ()


@pytest.mark.parametrize("phase", [0.0, 0.1, 1 / 3, 0.999])
@pytest.mark.parametrize("interval", [0.1, 7.3, 60.0])
def test_no_rounding_makes_it_beat_twice(interval: float, phase: float) -> None:
    beats = run(Heartbeat(_status, interval, phase), until=100 * interval)

    gaps = [later_ - earlier for (earlier, _), (later_, _) in pairwise(beats[1:])]
    assert gaps == pytest.approx([interval] * len(gaps))


@pytest.mark.parametrize(
    "payload,verdict",
    [
        ({}, Verdict.ACCEPT),
        ({"peers_count": 5, "status": "degraded", "version": "0.1.0", "more": [1]}, Verdict.ACCEPT),
        ({"capabilities": ["train", "aggregate"], "status": None}, Verdict.ACCEPT),
        ({"peers_count": -1}, Verdict.REJECT),
        ({"peers_count": True}, Verdict.REJECT),
        ({"status": 1}, Verdict.REJECT),
        ({"capabilities": ["x"] * 33}, Verdict.REJECT),
        ({"padding": "x" * 5000}, Verdict.REJECT),
    ],
)
def test_a_beat_of_somebody_else_must_fit(payload: dict[str, Any], verdict: Verdict) -> None:
    said = Someone(1).says(MessageType.HEARTBEAT, payload)

    assert judge(Heartbeat(_status), said) is verdict
    assert Heartbeat(_status).received(said.envelope, said.sender, said.payload, NOON) == ()


@pytest.mark.parametrize("interval,phase", [(0, 0.5), (-1, 0.5), (float("nan"), 0.5), (60, 1.0), (60, -0.1)])
def test_an_impossible_interval_or_phase_is_refused(interval: float, phase: float) -> None:
    with pytest.raises(ConfigError, match=rf"^heartbeat (interval|phase) must be .*, not ({interval}|{phase})$"):
        Heartbeat(_status, interval, phase)
