"""Nodes in processes of their own: a burst to ten of them, and one that is killed and comes back."""

from __future__ import annotations

import os
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import PATIENCE, client, until
from zmesh import MeshNetworkClient, MessageType, node
from zmesh.core.bounds import Bounds
from zmesh.core.now import Now
from zmesh.demo.processes import Processes
from zmesh.identity import create_key_file

ROOT = Path(__file__).parents[2]
START = 120.0
"""Seconds that ten interpreters may take to start on two busy cores."""

BACK = 2.0
"""Seconds from the beginning of a node's start until it is linked again. Then the first DIGEST finds what it missed,
and if that one is lost as well, the next, one interval later."""


class Reports:
    """What the processes said, by name and event."""

    def __init__(self) -> None:
        self.said: dict[str, dict[str, Mapping[str, Any]]] = defaultdict(dict)

    def take(self, name: str, report: Mapping[str, Any]) -> None:
        self.said[name][report["event"]] = report

    def all(self, event: str, *names: str) -> bool:
        return all(event in self.said[name] for name in names)


def write_registry(path: Path, keys: Mapping[str, str], ports: Mapping[str, int]) -> None:
    entries = []
    for name, key in keys.items():
        address = f'"/ip4/127.0.0.1/tcp/{ports[name]}"' if name in ports else "[]"
        entries.append(
            f'[[validator]]\npeer_id = "{name}"\naccount = "account of {name}"\npublic_key = "{key}"\n'
            f"address = {address}\n"
        )
    path.write_text("\n".join(entries), encoding="utf-8")


@asynccontextmanager
async def started(
    folder: Path, reports: Reports, commands: Mapping[str, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Processes]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    async with Processes("tests.integration.mesh_process", commands, folder, reports.take) as processes:
        listening = await processes.until(lambda: reports.all("listening", *commands), START, "starting")
        assert listening, reports.said
        yield processes


async def test_a_thousand_announcements_to_ten_processes_arrive_exactly_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"validator_{number:02}" for number in range(10)]
    keys = {name: create_key_file(tmp_path / name).public.hex() for name in names}
    registry = tmp_path / "registry.toml"
    write_registry(registry, keys, {})
    commands = {name: (name, str(tmp_path / name), "0", str(registry)) for name in names}
    reports = Reports()
    async with started(tmp_path, reports, commands, monkeypatch) as processes:
        write_registry(registry, keys, {name: reports.said[name]["listening"]["port"] for name in names})
        for name in names:
            processes.tell(name, "meet")
        assert await processes.until(lambda: reports.all("linked", *names), START, "linking"), reports.said
        for name in names[1:]:
            processes.tell(name, "expect 1000")
        processes.tell(names[0], "publish 1000")
        complete = await processes.until(lambda: reports.all("complete", *names[1:]), START, "delivering")
        assert complete, {name: sorted(said) for name, said in reports.said.items()}
    once = {f"round_{n}": 1 for n in range(1000)}
    assert {name: reports.said[name]["stopping"]["handled"] for name in names[1:]} == dict.fromkeys(names[1:], once)
    assert reports.said[names[0]]["stopping"]["handled"] == {}


async def test_a_killed_peer_is_back_within_two_seconds_and_is_told_what_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published in the minute while it was away: here that minute is over at once, for the clock is set."""
    key = create_key_file(tmp_path / "b.key").public.hex()
    a, b = client("a", registry=tmp_path / "registry.toml"), "b"
    command = {b: (b, str(tmp_path / "b.key"), "0", str(tmp_path / "registry.toml"))}
    write_registry(tmp_path / "registry.toml", {"a": a.public_key, b: key}, {})
    async with a:
        first = Reports()
        async with started(tmp_path, first, command, monkeypatch) as processes:
            port = first.said[b]["listening"]["port"]
            write_registry(tmp_path / "registry.toml", {"a": a.public_key, b: key}, {"a": a.listen_port, b: port})
            processes.tell(b, "meet")
            await until(lambda: a.peers[b].is_linked, a, seconds=START)
            os.kill(first.said[b]["listening"]["pid"], signal.SIGKILL)
            await until(lambda: not a.peers[b].is_linked, a, seconds=5)
        await publish_over_the_last_minute(a, monkeypatch)
        second = Reports()
        async with started(
            tmp_path, second, {b: (*command[b][:2], str(port), command[b][3])}, monkeypatch
        ) as processes:
            processes.tell(b, "expect 20")
            await until(lambda: a.peers[b].is_linked, a)
            back = time.monotonic()
            assert await processes.until(lambda: "complete" in second.said[b], PATIENCE, "repairing"), second.said
            assert await a.send(b, MessageType.GOSSIP, {"again": True})
        said = second.said[b]
        assert said["listening"]["port"] == port
        assert back - said["starting"]["at"] < BACK
        assert said["complete"]["at"] - said["starting"]["at"] < BACK + Bounds().digest_interval
        assert said["stopping"]["handled"] == {f"missed_{n}": 1 for n in range(20)}


async def publish_over_the_last_minute(a: MeshNetworkClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty rounds, each three seconds after the one before; the last a moment ago."""
    read_clocks = node.read_clocks
    with monkeypatch.context() as clock:
        for n in range(20):
            now = read_clocks()
            then = Now(now.mono, now.wall - (60 - 3 * n))
            clock.setattr(node, "read_clocks", lambda then=then: then)
            await a.announce_fl_round(f"missed_{n}", "corpus", 10, 3600)
