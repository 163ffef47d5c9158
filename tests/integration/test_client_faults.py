"""What goes wrong in the background is said, and ends nothing else."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from tests.support import client, counted
from zmesh.bootstrap import Bootstrap
from zmesh.state import State

SECONDS = 20


async def test_a_state_that_cannot_be_saved_is_tried_again_and_keeps_nobody_from_stopping(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: asyncio.Queue[None] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def save(*_: Any) -> None:
        loop.call_soon_threadsafe(tried.put_nowait, None)
        raise RuntimeError("what nobody thought of")

    monkeypatch.setattr(State, "interval", 0.01)
    monkeypatch.setattr(State, "save", save)
    a = client("a")
    await a.start()
    async with asyncio.timeout(SECONDS):
        await tried.get()
        await tried.get()
    port = a.listen_port
    await a.stop()

    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", port)
    assert "state_not_saved" in caplog.text


async def test_a_disk_that_hangs_holds_up_neither_the_next_save_nor_the_stop(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    started: list[None] = []
    disk, given_up = threading.Event(), asyncio.Event()

    def save(*_: Any) -> None:
        started.append(None)
        assert disk.wait(SECONDS)

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "state_not_saved" in record.getMessage():
                given_up.set()

    monkeypatch.setattr(State, "interval", 0.01)
    monkeypatch.setattr(State, "save", save)
    monkeypatch.setattr("zmesh.saving.SLOW", 0.05)
    listener = Listener()
    logging.getLogger("zmesh.saving").addHandler(listener)
    try:
        async with asyncio.timeout(SECONDS), client("a", stop_timeout=0.8) as a:
            await given_up.wait()
            hint = "votes may be refused, and this node may not start again"
            assert f"the disk of MESH_STATE_DIR took more than 0.05 s: {hint}" in a.health()["warnings"]
        assert len(started) == 1
        said = [record.getMessage() for record in caplog.records if record.name == "zmesh.saving"]
        assert len(said) >= 2
        assert all("the disk of MESH_STATE_DIR took more than 0.05 s" in each for each in said[:-1])
        assert "the disk of MESH_STATE_DIR took more than 0.1 s" in said[-1]
    finally:
        logging.getLogger("zmesh.saving").removeHandler(listener)
        disk.set()


async def test_work_in_the_background_that_ends_says_so_is_counted_and_degrades_the_node(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = asyncio.Event()

    async def run(_: Bootstrap) -> None:
        await told.wait()
        raise RuntimeError("what nobody thought of")

    monkeypatch.setattr(Bootstrap, "run", run)
    async with client("a") as a, asyncio.timeout(SECONDS):
        work = [task for task in asyncio.all_tasks() if task.get_name() == "zmesh bootstrap of a"]
        assert (a.health()["status"], counted(a, "node", "background_ended"), len(work)) == ("healthy", 0, 1)
        told.set()
        await asyncio.wait(work)
        said = "the task 'bootstrap' of this node ended with RuntimeError: restart the node"
        assert (a.health()["status"], a.health()["why"], a.health()["running"]) == ("degraded", [said], True)
        assert "\nzmesh_healthy 0\n" in a.metrics()
        assert counted(a, "node", "background_ended") == 1
    assert "background_ended" in caplog.text
    assert "what nobody thought of" in caplog.text
