"""The values that an application sees, and what they are made from."""

from __future__ import annotations

from typing import Any

import pytest

from zmesh import FLRoundAnnouncement


def test_a_round_of_which_only_the_id_is_said_is_a_round() -> None:
    """The wire requires no more, and another coordinator may leave out the rest."""
    announced = FLRoundAnnouncement.from_dict({"round_id": "r1", "deadline": None, "weights": b"more"})
    assert announced == FLRoundAnnouncement("r1")
    assert (announced.deadline, announced.target_participants, announced.dataset_name) == (None, None, "")
    assert (announced.min_stake, announced.reward_pool) == (0, 0)
    assert FLRoundAnnouncement.from_dict(announced.to_dict()) == announced


def test_a_round_survives_the_way_into_a_payload_and_back() -> None:
    announced = FLRoundAnnouncement("r1", "belize_corpus", 10, 1.8e9, 3600, 50_000, 1000, "Qm")
    assert FLRoundAnnouncement.from_dict(announced.to_dict()) == announced
    assert announced.to_dict()["deadline_seconds"] == 3600


@pytest.mark.parametrize(
    "payload, sentence",
    [
        ({"dataset_name": "d"}, "its field 'round_id' is missing and must be text of 1 to 256 bytes"),
        ({"round_id": 7}, "its field 'round_id' is 7 and must be text of 1 to 256 bytes"),
        ({"round_id": "r", "min_stake": -1}, "its field 'min_stake' is -1 and must be a number from 0 to 9.22337e+18"),
    ],
)
def test_what_is_no_round_is_refused_with_the_field(payload: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        FLRoundAnnouncement.from_dict(payload)
    assert str(refused.value) == f"not an FL round announcement: {sentence}"
