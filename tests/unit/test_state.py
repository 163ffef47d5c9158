"""What outlives a restart: what cannot be read is said, and is as good as nothing."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from zmesh import ConfigError
from zmesh import state as module
from zmesh.core.types import MessageType
from zmesh.files import replace_private
from zmesh.handlers.pledges import Pledge, Pledges
from zmesh.state import MAX_LEARNT, PLEDGES_FILE, REPUTATION_FILE, State


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


def test_what_an_earlier_life_still_writes_does_not_replace_what_is_newer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, disk = threading.Event(), threading.Event()

    def write(path: Path, content: bytes) -> None:
        if content == b"old":
            began.set()
            assert disk.wait(20)
        replace_private(path, content)

    monkeypatch.setattr(module, "replace_private", write)
    state = State(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        earlier = pool.submit(state.save, {}, {"records": b"old"})
        assert began.wait(20)
        later = pool.submit(state.save, {}, {"records": b"new"})
        with contextlib.suppress(TimeoutError):
            later.result(0.05)  # without a lock it would be through by now
        disk.set()
        assert [earlier.result(20), later.result(20)] == [None, None]
    assert state.learnt("records") == b"new"


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


def test_an_epoch_is_the_clock_and_never_goes_back_across_restarts(tmp_path: Path) -> None:
    stored = tmp_path / "epoch"
    assert State(tmp_path).next_epoch(1000.9) == 1000
    assert stored.read_text() == "1000\n"
    assert [State(tmp_path).next_epoch(wall) for wall in (1000.9, 995.0, 5000.0)] == [1001, 1002, 5000]
    assert os.listdir(tmp_path) == ["epoch"]


def test_an_epoch_that_peers_would_refuse_is_refused_here(tmp_path: Path) -> None:
    stored = tmp_path / "epoch"
    stored.write_text("2000\n")
    with pytest.raises(
        ConfigError, match=r"holds epoch 2000, 1001 s ahead of this clock, which peers refuse: set the clock"
    ):
        State(tmp_path).next_epoch(1000.0)
    assert stored.read_text() == "2000\n"


@pytest.mark.parametrize("content", ["", "abc", "-1", "1.5", "9" * 40])
def test_an_epoch_file_that_holds_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "epoch").write_text(content)
    with pytest.raises(ConfigError, match=r"must hold an epoch, not .*: delete it, and the clock gives the next one$"):
        State(tmp_path).next_epoch(1000.0)


def test_an_epoch_that_cannot_be_stored_is_not_used(tmp_path: Path) -> None:
    gone, state = tmp_path / "gone", State(tmp_path / "gone")
    gone.rmdir()
    with pytest.raises(ConfigError, match="cannot be written: No such file"):
        state.next_epoch(1000.0)
    (tmp_path / "epoch").mkdir()
    with pytest.raises(ConfigError, match="must be a regular file"):
        State(tmp_path).next_epoch(1000.0)


# ---------------------------------------------------------------- pledges

PLEDGE = Pledge(MessageType.CONSENSUS_VOTE, b"n" * 32, "alice", b"k" * 32, "p \u2603\n", "yes", 1_700_000_000_000)


def test_pledges_come_back_and_without_a_folder_there_are_none(tmp_path: Path) -> None:
    assert list(State(tmp_path).pledges()) == list(State(None).pledges()) == []
    State(tmp_path).pledge(Pledges([PLEDGE]))

    assert list(State(tmp_path).pledges()) == [PLEDGE]
    assert (tmp_path / PLEDGES_FILE).stat().st_mode & 0o777 == 0o600
    assert [State(tmp_path).is_kept, State(None).is_kept] == [True, False]


@pytest.mark.parametrize(
    "content, why",
    [
        (b"", "it is no JSON"),
        (b"\xff\xfe{", "it is no JSON"),
        (b"[]", "it is not of version 1"),
        (b'{"version": 2, "pledges": []}', "it is not of version 1"),
        (b'{"version": 1}', "its pledges are no list"),
        (b'{"version": 1, "pledges": [{"kind": "consensus_vote"}]}', "'network' is missing"),
        (b'{"version": 1, "pledges": [' + b'"\\ud800"' + b"]}", "must be an object"),
        (b"[" * 100_000, "recursion"),
        (b"9" * 10_000, "it is no JSON"),
        (bytes(MAX_LEARNT + 1), f"it is larger than {MAX_LEARNT} bytes"),
    ],
    ids=range(10),
)
def test_damaged_pledges_are_refused_in_one_sentence(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / PLEDGES_FILE).write_bytes(content)

    with pytest.raises(ConfigError) as refused:
        State(tmp_path).pledges()
    said = str(refused.value)
    assert said.startswith(f"{tmp_path / PLEDGES_FILE} must say what this node has pledged, but ")
    assert why in said
    assert said.endswith(
        ": restore it, or delete it if nothing is open that this account may have voted on or proposed"
    )
    assert (tmp_path / PLEDGES_FILE).read_bytes() == content


def test_half_a_character_is_refused_too(tmp_path: Path) -> None:
    State(tmp_path).pledge(Pledges([PLEDGE]))
    content = (tmp_path / PLEDGES_FILE).read_text(encoding="utf-8")
    (tmp_path / PLEDGES_FILE).write_text(content.replace('"alice"', '"\\ud800"'), encoding="utf-8")

    with pytest.raises(ConfigError, match="must say what this node has pledged"):
        State(tmp_path).pledges()


def test_pledges_that_cannot_be_read_are_not_taken_for_none(tmp_path: Path) -> None:
    (tmp_path / PLEDGES_FILE).symlink_to(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="No such file"):
        State(tmp_path).pledges()
    (tmp_path / PLEDGES_FILE).unlink()
    (tmp_path / PLEDGES_FILE).mkdir()
    with pytest.raises(ConfigError, match="it must be a regular file"):
        State(tmp_path).pledges()


def test_more_pledges_than_would_be_read_again_are_not_written(tmp_path: Path) -> None:
    State(tmp_path).pledge(Pledges([PLEDGE]))
    with pytest.raises(ConfigError, match="it would have more than"):
        State(tmp_path).pledge(Pledges([replace(PLEDGE, account="a" * MAX_LEARNT)]))

    assert list(State(tmp_path).pledges()) == [PLEDGE]


def test_what_kills_in_the_midst_of_votes_left_is_removed_at_the_next_start_and_nothing_else_is(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.MonkeyPatch.context() as killed:
            killed.setattr(os, "fsync", _die)
            with pytest.raises(SystemExit):
                State(tmp_path).pledge(Pledges([PLEDGE]))
    others = [".pledges.json.backup-1", ".pledges.json.a.bcdefg", "pledges.json.abcdefgh", ".reputation.json.abcdefgh"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / PLEDGES_FILE).write_text('{"version": 1, "pledges": []}')
    assert len(list(tmp_path.iterdir())) == 2 + len(others) + 1

    assert list(State(tmp_path).pledges()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, PLEDGES_FILE])


def _die(descriptor: int) -> None:
    raise SystemExit  # no OSError: nothing of the clean-up runs


def test_leftovers_that_cannot_be_removed_hinder_no_start(tmp_path: Path) -> None:
    (tmp_path / f".{PLEDGES_FILE}.abcdefgh").mkdir()

    assert list(State(tmp_path).pledges()) == []


def test_a_start_waits_for_what_the_stopped_life_is_still_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, begun, go_on = State(tmp_path), threading.Event(), threading.Event()

    def slow(path: Path, content: bytes) -> None:
        begun.set()
        assert go_on.wait(60)
        replace_private(path, content)

    monkeypatch.setattr(module, "replace_private", slow)
    with ThreadPoolExecutor(2) as threads:
        writing = threads.submit(state.pledge, Pledges([PLEDGE]))
        assert begun.wait(60)
        reading = threads.submit(state.pledges)
        go_on.set()
        writing.result(60)
        assert list(reading.result(60)) == [PLEDGE]


def test_a_folder_belongs_to_one_node_at_a_time(tmp_path: Path) -> None:
    with State(tmp_path).held():
        with pytest.raises(ConfigError, match="another node runs on state_dir"), State(tmp_path).held():
            pass
        with State(tmp_path / "another").held(), State(None).held(), State(None).held():
            pass
    with State(tmp_path).held():
        pass


def test_a_folder_that_is_gone_is_refused_and_one_that_cannot_be_locked_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State(tmp_path / "state")
    (tmp_path / "state").rmdir()
    with pytest.raises(ConfigError, match="cannot be opened: No such file or directory"), state.held():
        pass

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with State(tmp_path).held(), State(tmp_path).held():
        pass
