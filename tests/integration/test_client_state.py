"""What a client keeps in its state folder from one life to the next."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support import card, client, engine, introduce, linked, until
from zmesh import ConfigError
from zmesh.core.bounds import AHEAD
from zmesh.core.types import Fault
from zmesh.node import read_clocks
from zmesh.saving import EFFECT
from zmesh.state import State


async def test_the_epoch_grows_with_every_start_and_outlives_the_process(tmp_path: Path) -> None:
    epochs = []
    for _ in range(3):
        async with client("a", state_dir=tmp_path / "state"):
            epochs.append(int((tmp_path / "state" / "epoch").read_text()))
    assert epochs == sorted(set(epochs))


async def test_a_start_after_many_in_a_row_waits_until_peers_take_its_epoch(tmp_path: Path) -> None:
    """Each takes an epoch of its own: without that the twelfth in one second was refused, by peers or by itself."""
    (tmp_path / "epoch").write_text(f"{int(time.time()) + 5}\n")
    async with client("a", state_dir=tmp_path):
        assert int((tmp_path / "epoch").read_text()) - time.time() <= AHEAD / 2


async def test_reputation_outlives_a_restart(tmp_path: Path) -> None:
    settings = {"state_dir": tmp_path / "state"}
    b = client("b")
    async with b:
        a = client("a", **settings)
        async with a:
            introduce(a, b)
            await linked(a, b)
            book = engine(a).peers
            member = next(iter(book))
            book.charge(member, Fault.INVALID_MESSAGE, read_clocks().mono)
            assert round(a.peers["b"].reputation) == 90
        # A new process: nothing but the folder is the same.
        again = client("a", **settings)
        again.peers["b"] = card(b)
        async with again:
            assert 90 <= again.peers["b"].reputation < 95
    async with client("a") as forgetful:
        forgetful.peers["b"] = card(b)
        assert forgetful.peers["b"].reputation == 100


async def test_a_start_that_fails_leaves_what_was_saved(tmp_path: Path) -> None:
    (tmp_path / "reputation.json").write_text('{"at": 0, "scores": {"mallory": [5, 0]}}')
    async with client("b") as b:
        with pytest.raises(ConfigError, match="Address already in use"):
            await client("a", listen_port=b.listen_port, state_dir=tmp_path).start()
    assert "mallory" in (tmp_path / "reputation.json").read_text()


async def test_a_folder_that_cannot_be_written_is_warned_of_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(State, "interval", 0.01)
    in_the_way = tmp_path / "reputation.json"
    (in_the_way / "full").mkdir(parents=True)
    async with client("a", state_dir=tmp_path, admission="open") as a:
        await until(lambda: "warnings" in a.health(), a)
        assert a.health()["warnings"] == [f"{in_the_way} cannot be written: Is a directory: {EFFECT}"]
        (in_the_way / "full").rmdir()
        in_the_way.rmdir()
        await until(lambda: "warnings" not in a.health(), a)


async def test_a_state_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(ConfigError, match="state_dir"):
        client("a", state_dir=tmp_path / "file" / "state")


@pytest.mark.parametrize("content", ['{"at": "yesterday"}', "[" * 100_000], ids=["words", "depth"])
@pytest.mark.parametrize(
    "name, said", [("reputation", "reputation_not_restored"), ("delegations", "delegations_not_restored")]
)
async def test_a_damaged_file_of_state_locks_nobody_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, said: str, content: str
) -> None:
    (tmp_path / f"{name}.json").write_text(content, encoding="utf-8")
    async with client("a", state_dir=tmp_path) as a:
        assert a.is_running
    assert said in caplog.text
