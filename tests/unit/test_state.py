"""What outlives a restart: what cannot be read is said, and is as good as nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from zmesh.state import MAX_LEARNT, REPUTATION_FILE, State


def test_what_was_saved_of_others_comes_back(tmp_path: Path) -> None:
    State(tmp_path).save({}, {"records": b"whatever it was"})

    assert State(tmp_path).learnt("records") == b"whatever it was"
    assert State(tmp_path).learnt("another") is None
    assert State(None).learnt("records") is None


def test_a_file_that_is_too_large_is_not_read_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "records"
    path.write_bytes(bytes(MAX_LEARNT))
    path.chmod(0o600)
    assert State(tmp_path).learnt("records") == bytes(MAX_LEARNT)
    path.write_bytes(bytes(MAX_LEARNT + 1))

    assert State(tmp_path).learnt("records") is None
    assert f"it is larger than {MAX_LEARNT} bytes" in caplog.text


@pytest.mark.parametrize(
    "saved", ["", "[]", '{"at": 1}', f'{{"at": 1{"0" * 400}, "scores": {{}}}}', '{"at": 1, "scores": {"a": [1]}}']
)
def test_damaged_reputations_start_afresh_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, saved: str
) -> None:
    (tmp_path / REPUTATION_FILE).write_text(saved)

    assert State(tmp_path).reputation() == {}
    assert "reputation_not_restored" in caplog.text


def test_no_two_starts_have_the_same_epoch_not_even_within_a_second() -> None:
    state = State(None)
    assert [state.next_epoch(1000.2), state.next_epoch(1000.9), state.next_epoch(1005.0)] == [1000, 1001, 1005]


def test_a_start_is_heard_at_once_after_a_clock_that_was_an_hour_ahead_is_set_right() -> None:
    state = State(None)
    assert [state.next_epoch(4600.0), state.next_epoch(1010.0), state.next_epoch(1001.0)] == [4600, 1010, 1011]
