"""FL rounds: schema, who may say what, how far a round is, and who delivered."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.handlers_support import NOON, Someone, judge, later, take
from zmesh.core.types import MessageType, Verdict
from zmesh.handlers import Round, Rounds, RoundState
from zmesh.handlers import rounds as module

ALICE, BOB, CAROL = Someone(1, "alice"), Someone(2, "bob", stake=5), Someone(3, "carol", stake=50)
START, UPDATE = MessageType.FL_ROUND_START, MessageType.FL_ROUND_UPDATE
OFFER, REQUEST, TRANSFER = (
    MessageType.MODEL_DELTA_OFFER,
    MessageType.MODEL_DELTA_REQUEST,
    MessageType.MODEL_DELTA_TRANSFER,
)
FULL = {
    "round_id": "r1",
    "dataset_name": "belize_corpus",
    "target_participants": 10,
    "deadline": NOON.wall + 3600,
    "deadline_seconds": 3600,
    "min_stake": 10,
    "reward_pool": 50000,
    "model_hash": "Qm...",
}


@pytest.mark.parametrize(
    "kind,payload,verdict",
    [
        (START, FULL, Verdict.ACCEPT),
        (START, {"round_id": "001"}, Verdict.ACCEPT),
        (START, {"round_id": "001", "model_hash": None, "min_stake": 0.5, "x": {"y": [1]}}, Verdict.ACCEPT),
        (START, {}, Verdict.REJECT),
        (START, {"round_id": ""}, Verdict.REJECT),
        (START, {"round_id": 1}, Verdict.REJECT),
        (START, {"round_id": "r" * 257}, Verdict.REJECT),
        (START, FULL | {"deadline": float("nan")}, Verdict.REJECT),
        (START, FULL | {"deadline": "soon"}, Verdict.REJECT),
        (START, FULL | {"min_stake": -1}, Verdict.REJECT),
        (START, FULL | {"target_participants": True}, Verdict.REJECT),
        (START, FULL | {"reward_pool": float("inf")}, Verdict.REJECT),
        (START, FULL | {"deadline": NOON.wall - 1}, Verdict.RELAY),
        (UPDATE, {"round_id": "r1", "state": "running", "accuracy": 0.9}, Verdict.ACCEPT),
        (UPDATE, {"round_id": "r1"}, Verdict.ACCEPT),
        (UPDATE, {"round_id": "r1", "state": "paused"}, Verdict.ACCEPT),
        (UPDATE, {"round_id": "r1", "state": 2}, Verdict.REJECT),
        (UPDATE, {"state": "closed"}, Verdict.REJECT),
        (OFFER, {"round_id": "r1", "model_cid": "QmX", "quality_score": 0}, Verdict.ACCEPT),
        (TRANSFER, {"round_id": "r1", "model_cid": "QmX", "quality_score": 95.5}, Verdict.ACCEPT),
        (TRANSFER, {"round_id": "r1", "quality_score": 100, "weights": b"\0" * 5000}, Verdict.ACCEPT),
        (TRANSFER, {"round_id": "r1", "quality_score": 100.1}, Verdict.REJECT),
        (TRANSFER, {"round_id": "r1", "quality_score": float("nan")}, Verdict.REJECT),
        (TRANSFER, {"round_id": "r1", "quality_score": False}, Verdict.REJECT),
        (TRANSFER, {"model_cid": "QmX", "quality_score": 1}, Verdict.REJECT),
        (REQUEST, {"action": "request_model", "round_id": "r1"}, Verdict.ACCEPT),
        (REQUEST, {}, Verdict.ACCEPT),
        (REQUEST, {"round_id": 5}, Verdict.REJECT),
    ],
)
def test_the_schema_is_what_applications_need_and_no_stricter(
    kind: MessageType, payload: dict[str, Any], verdict: Verdict
) -> None:
    assert take(Rounds(lambda: "nobody"), ALICE.says(kind, payload)) is verdict


def test_a_round_is_announced_runs_and_closes() -> None:
    held = Rounds(lambda: "nobody")
    states = []
    for kind, extra in (
        (START, {}),
        (UPDATE, {"state": "running"}),
        (UPDATE, {}),
        (UPDATE, {"state": "closed"}),
    ):
        assert take(held, ALICE.says(kind, {"round_id": "r1"} | extra)) is Verdict.ACCEPT
        states.append(_round(held, "alice").state)

    assert states == [RoundState.ANNOUNCED, RoundState.RUNNING, RoundState.RUNNING, RoundState.CLOSED]


def test_an_update_that_comes_too_late_is_relayed_and_changes_nothing() -> None:
    held = Rounds(lambda: "nobody")
    take(held, ALICE.says(START, FULL))
    take(held, ALICE.says(UPDATE, {"round_id": "r1", "state": "closed"}))

    assert take(held, ALICE.says(UPDATE, {"round_id": "r1", "state": "running"})) is Verdict.RELAY
    assert _round(held, "alice").state is RoundState.CLOSED


def test_only_the_coordinator_updates_a_round() -> None:
    held = Rounds(lambda: "nobody")
    take(held, ALICE.says(START, FULL))

    assert take(held, BOB.says(UPDATE, {"round_id": "r1", "state": "closed"})) is Verdict.IGNORE
    assert [(each.coordinator, each.state) for each in held.named("r1")] == [("alice", RoundState.ANNOUNCED)]


def test_an_update_without_its_start_is_taken_by_who_came_late() -> None:
    held = Rounds(lambda: "nobody")

    assert take(held, ALICE.says(UPDATE, {"round_id": "r1", "state": "running"})) is Verdict.ACCEPT
    assert take(held, ALICE.says(START, FULL)) is Verdict.ACCEPT

    known = _round(held, "alice")
    assert (known.state, known.deadline, known.target_participants) == (
        RoundState.RUNNING,
        FULL["deadline"],
        10,
    )


def test_squatting_an_id_silences_nobody() -> None:
    held = Rounds(lambda: "nobody")

    assert take(held, BOB.says(START, {"round_id": "r1"})) is Verdict.ACCEPT
    assert take(held, ALICE.says(START, FULL)) is Verdict.ACCEPT
    assert take(held, BOB.says(UPDATE, {"round_id": "r1", "state": "closed"})) is Verdict.ACCEPT

    assert [(each.coordinator, each.state) for each in held.named("r1")] == [
        ("alice", RoundState.ANNOUNCED),
        ("bob", RoundState.CLOSED),
    ]


def test_a_coordinator_that_contradicts_itself_is_marked_everywhere_and_not_punished() -> None:
    other = FULL | {"deadline": NOON.wall + 7200}
    for first, second in ((FULL, other), (other, FULL)):
        held = Rounds(lambda: "nobody")
        assert take(held, ALICE.says(START, first)) is Verdict.ACCEPT
        assert take(held, ALICE.says(START, first)) is Verdict.RELAY
        assert not _round(held, "alice").contradicted
        assert take(held, ALICE.says(START, second)) is Verdict.RELAY
        assert take(held, ALICE.says(START, second)) is Verdict.IGNORE
        assert _round(held, "alice").contradicted
        assert _round(held, "alice").deadline == first["deadline"]


def test_the_coordinator_knows_who_offered_and_who_delivered() -> None:
    held = Rounds(lambda: "alice")
    take(held, ALICE.says(START, FULL))

    take(held, BOB.says(OFFER, {"round_id": "r1", "model_cid": "QmB", "quality_score": 1}))
    take(held, CAROL.says(TRANSFER, {"round_id": "r1", "model_cid": "QmC", "quality_score": 90}))
    take(held, BOB.says(TRANSFER, {"round_id": "r1", "quality_score": 80}, later(3601)), later(3601))
    take(held, BOB.says(TRANSFER, {"round_id": "another", "quality_score": 80}))

    known = _round(held, "alice")
    assert [(each.account, each.model_cid, each.quality_score) for each in known.offered.values()] == [
        ("bob", "QmB", 1)
    ]
    assert [
        (each.account, each.key, each.model_cid, each.quality_score, each.late, each.staked)
        for each in known.delivered.values()
    ] == [
        ("carol", CAROL.public, "QmC", 90, False, True),
        ("bob", BOB.public, None, 80, True, False),
    ]


def test_deltas_for_somebody_elses_round_are_not_kept() -> None:
    held = Rounds(lambda: "carol")
    take(held, ALICE.says(START, FULL))

    assert take(held, BOB.says(TRANSFER, {"round_id": "r1", "quality_score": 1})) is Verdict.ACCEPT
    assert _round(held, "alice").delivered == {}


def test_one_coordinator_pushes_out_only_its_own_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUNDS_PER_COORDINATOR", 2)
    held = Rounds(lambda: "nobody")
    take(held, ALICE.says(START, FULL))
    for number in range(5):
        take(held, BOB.says(START, {"round_id": f"b{number}"}))

    assert [(each.coordinator, each.round_id) for each in held] == [
        ("alice", "r1"),
        ("bob", "b3"),
        ("bob", "b4"),
    ]
    assert held.named("b0") == ()


def test_when_memory_is_full_one_goes_of_who_holds_most_a_finished_one_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ROUNDS", 3)
    held = Rounds(lambda: "nobody")

    def announced(of: Someone, round_id: str) -> list[str]:
        take(held, of.says(START, {"round_id": round_id}))
        return [each.round_id for each in held]

    for of, round_id in ((ALICE, "a1"), (BOB, "b1"), (BOB, "b2")):
        announced(of, round_id)
    take(held, BOB.says(UPDATE, {"round_id": "b2", "state": "closed"}))

    assert announced(CAROL, "c1") == ["a1", "b1", "c1"], "Bob held most, and b2 was over"
    assert announced(CAROL, "c2") == ["a1", "b1", "c2"], "a second one takes nobody's only one"
    assert announced(Someone(4), "d1") == ["b1", "c2", "d1"], "all hold one: whoever is known longest"


def test_participants_of_a_round_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_PARTICIPANTS", 1)
    held = Rounds(lambda: "alice")
    take(held, ALICE.says(START, FULL))
    for score in (1, 2):
        for each in (BOB, CAROL):
            take(held, each.says(TRANSFER, {"round_id": "r1", "quality_score": score}))

    assert [(each.account, each.quality_score) for each in _round(held, "alice").delivered.values()] == [("bob", 2)]


def test_it_never_speaks_by_itself() -> None:
    held = Rounds(lambda: "nobody")
    assert held.deadline is None
    assert held.wake(NOON) == ()
    assert judge(held, ALICE.says(START, FULL), later(3601)) is Verdict.RELAY


def _round(held: Rounds, coordinator: str) -> Round:
    known = held.round(coordinator, "r1")
    assert known is not None
    return known
