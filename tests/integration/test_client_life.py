"""Starting, stopping, and what a client says about itself in between."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import re
import socket
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import zmesh
from tests.contract.peers import settle
from tests.support import (
    PATIENCE,
    Inbox,
    card,
    client,
    engine,
    http_get,
    introduce,
    linked,
    mesh,
    registry_file,
    until,
)
from zmesh import ConfigError, MeshNetworkClient, MessageType, NotRunningError, Settings
from zmesh.core.wire import network_id
from zmesh.registry.static import StaticRegistry
from zmesh.running import TWIN
from zmesh.status import NOBODY


async def test_a_client_starts_and_stops_and_starts_again() -> None:
    a = client("a")
    assert (a.is_running, a.listen_port, repr(a)) == (False, 0, f"<MeshNetworkClient a {a.public_key[:12]} stopped>")
    ports = []
    for _ in range(2):
        await a.start()
        assert a.is_running
        assert "running" in repr(a)
        ports.append(a.listen_port)
        with pytest.raises(NotRunningError, match="a is already running: stop"):
            await a.start()
        assert a.is_running
        await a.stop()
        await a.stop()
        assert (a.is_running, a.listen_port) == (False, 0)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", ports[-1])
    assert all(ports)


async def test_a_start_is_logged_with_what_an_operator_asks_first(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "zmesh.client")
    path = registry_file(tmp_path / "validators.toml", client("b"))
    for registry in (path, None):
        caplog.clear()
        async with client("a", registry=registry) as a:
            (fields,) = [vars(one)["zmesh"] for one in caplog.records if one.getMessage().startswith("started ")]
            ports = [fields.pop(name) for name in ("router_port", "gossip_port")]
            assert fields == {
                "event": "started",
                "peer_id": "a",
                "public_key": a.public_key,
                "version": zmesh.__version__,
                "network": network_id("zmesh", b"").hex()[:16],
                "registry": None if registry is None else f"registry {path}",
                "listen_port": a.listen_port,
            }
            for port in ports:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()


async def test_handlers_and_peers_outlive_a_restart() -> None:
    a, b = client("a"), client("b")
    inbox = Inbox(a, MessageType.GOSSIP)
    async with b:
        for n in range(2):
            async with a:
                introduce(a, b)
                await linked(a, b)
                await b.broadcast(MessageType.GOSSIP, {"n": n})
                assert (await inbox.next()).payload == {"n": n}
            await until(lambda: not b.peers["a"].is_linked, b)


async def test_a_life_that_is_over_keeps_no_messages() -> None:
    """What is left of it is garbage in cycles, that Python frees when it likes: some lives' worth were 90 MB."""
    async with mesh("a", "b") as (a, _):
        await a.broadcast(MessageType.GOSSIP, {"n": 1})
        seen = engine(a).seen
        assert len(seen)
        await a.stop()
        assert not len(seen)


async def test_a_registry_keeps_nothing_of_a_life_that_is_over(tmp_path: Path) -> None:
    a = client("a", private_key=bytes(32), registry=registry_file(tmp_path / "registry.toml", client("b")))
    await a.start()
    life = weakref.ref(a._running())
    await a.stop()
    for thread in threading.enumerate():
        if thread.name.startswith("zmesh"):  # one that wrote the state may be ending still
            thread.join(PATIENCE)
    gc.collect()
    assert life() is None


async def test_stopping_says_goodbye_so_that_others_know_at_once() -> None:
    async with mesh("a", "b") as (a, b):
        await b.stop()
        # A silent end would be noticed after 20 seconds.
        await until(lambda: not a.peers["b"].is_linked, a, seconds=5)


async def test_stopping_answers_whoever_waits_for_an_answer() -> None:
    async with mesh("a", "b") as (a, b):
        engine(b).handle_all = lambda events, now, *, ask: []  # type: ignore[method-assign, misc, assignment]
        waiting = asyncio.create_task(a.send("b", MessageType.GOSSIP, {}, timeout=60))
        await asyncio.sleep(0)
        await a.stop()
        async with asyncio.timeout(1):
            assert not await waiting
        del engine(b).handle_all


async def test_a_port_in_use_is_one_sentence_and_leaves_nothing_behind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        a = client("a", listen_port=port)
        reader = a.receive_messages()
        with pytest.raises(ConfigError) as refused:
            await a.start()
        assert "\n" not in str(refused.value)
        assert str(port) in str(refused.value)
        assert "in use" in str(refused.value)
        assert not a.is_running
    await a.start()  # free now, and nothing of the first attempt is in the way
    assert a.listen_port == port
    (unread,) = a._setup.dispatcher._reading()
    assert not unread._ended, "an attempt that failed must not end a reader"
    await a.stop()
    assert [message async for message in reader] == []


@pytest.mark.parametrize("port", ["router_port", "gossip_port"])
async def test_the_other_ports_can_be_fixed_and_be_taken(port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=str(number)):
            await client("a", **{port: number}).start()


async def test_a_malformed_registry_is_one_sentence_and_leaves_nothing_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "registry.toml"
    path.write_text("[[validator]]\npeer_id = 7\n", encoding="utf-8")
    a = client("a", registry=path)
    with pytest.raises(ConfigError, match=r"registry\.toml, validator 1: ") as refused:
        await a.start()
    assert "\n" not in str(refused.value)
    assert not a.is_running
    assert "stopped" not in caplog.text, "it never started"


@pytest.mark.parametrize("registry", [5, b"validators.toml", object()])
def test_an_object_that_is_no_registry_is_refused_when_the_client_is_made(registry: Any) -> None:
    with pytest.raises(
        ConfigError, match=rf"^registry must be a path, .*, not a value of type {type(registry).__name__}$"
    ):
        client("a", registry=registry)


BAD: dict[str, dict[str, Any]] = {
    "peer_id": {"peer_id": ""},
    "listen_port": {"listen_port": 70_000},
    "private_key": {"private_key": "abc"},
    "heartbeat_interval": {"heartbeat_interval": -1},
    "max_peers": {"max_peers": 0},
    "listen_host": {"listen_host": "nowhere"},
    "no_such_setting": {"no_such_setting": 1},
}


@pytest.mark.parametrize("field", BAD)
def test_a_bad_setting_is_refused_when_the_client_is_made(field: str) -> None:
    with pytest.raises(ConfigError, match=field) as refused:
        client(**{"peer_id": "a", **BAD[field]})
    assert "\n" not in str(refused.value)


def test_an_argument_beats_the_environment_which_beats_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_PEER_ID", "from the environment")
    monkeypatch.setenv("MESH_LISTEN_PORT", "9191")
    assert (MeshNetworkClient().peer_id, MeshNetworkClient().listen_port) == ("from the environment", 9191)
    assert MeshNetworkClient("explicit", 0).peer_id == "explicit"
    monkeypatch.delenv("MESH_LISTEN_PORT")
    assert MeshNetworkClient().listen_port == Settings(peer_id="x").listen_port == 9090


def test_settings_that_were_made_before_are_taken_as_they_are_and_nothing_beside_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = Settings(peer_id="made", listen_port=0)
    monkeypatch.setenv("MESH_LISTEN_PORT", "9191")
    a, registry = MeshNetworkClient(settings=made), StaticRegistry(Path("validators.toml"))
    assert (a.settings, a.peer_id, a.listen_port) == (made, "made", 0)
    assert MeshNetworkClient(settings=made, registry=registry).settings is made
    with pytest.raises(ConfigError) as refused:
        MeshNetworkClient("a", settings=made, max_peers=3)
    assert str(refused.value) == "settings and peer_id, max_peers must not both be given: put everything into Settings"
    with pytest.raises(ConfigError, match=r"^settings must be a zmesh\.Settings, not a value of type dict$"):
        MeshNetworkClient(settings={"peer_id": "a"})  # type: ignore[arg-type]


# ---------------------------------------------------------------- health


async def test_a_first_node_that_expects_nobody_is_healthy() -> None:
    async with client("a") as a:
        # Its record and its first heartbeat: until both are out, what health counts is not the same from turn to turn.
        await until(lambda: a.health()["messages_seen"] == 2, a)
        status, kind, body = await http_get(a.listen_port, "/health")
        said = json.loads(body)
        assert (status, kind.split(";")[0]) == (200, "application/json")
        assert said == a.health()
        assert {name: said[name] for name in ("status", "peer_id", "peers_count", "running")} == {
            "status": "healthy",
            "peer_id": "a",
            "peers_count": 0,
            "running": True,
        }
        assert "why" not in said


async def test_a_node_that_nobody_can_join_is_healthy_and_warns_of_it() -> None:
    async with client("a") as a:
        assert (a.health()["status"], a.health()["warnings"]) == ("healthy", [NOBODY])
        a.peers["b"] = card(client("b"))
        assert "warnings" not in a.health()
        del a.peers["b"]
        assert a.health()["warnings"] == [NOBODY]
    for expecting in ({"admission": "open"}, {"bootstrap": "127.0.0.1:1"}):
        async with client("a", **expecting) as a:
            assert "warnings" not in a.health()


async def test_a_node_that_reaches_nobody_is_degraded_and_says_why() -> None:
    async with client("a") as a:
        a.peers["b"] = card(client("b"), multiaddr="/ip4/127.0.0.1/tcp/9")
        a.peers["c"] = card(client("c"))
        links = engine(a).links.values()
        await until(lambda: all(link.why not in ("", "not dialled yet") for link in links), a)
        _, _, body = await http_get(a.listen_port, "/health")
        said = json.loads(body)
        assert (said["status"], said["running"], said["peers_count"], said["links_live"]) == ("degraded", True, 2, 0)
        assert said["why"][0] == "none of 2 known peers is connected"
        assert any("refused" in reason.lower() for reason in said["why"])
        assert any("no address is known" in reason for reason in said["why"])


async def test_health_follows_the_links() -> None:
    async with mesh("a", "b", "c") as (a, b, c):
        assert (a.health()["status"], a.health()["peers_count"], a.health()["links_live"]) == ("healthy", 2, 2)
        await b.stop()
        await until(lambda: not a.peers["b"].is_linked, a)
        assert (a.health()["status"], a.health()["peers_count"], a.health()["links_live"]) == ("healthy", 2, 1)
        await c.stop()
        await until(lambda: not a.peers["c"].is_linked, a)
        assert (a.health()["status"], a.health()["links_live"]) == ("degraded", 0)
    assert a.health() == {"status": "stopped", "peer_id": "a", "peers_count": 0, "running": False}


async def test_a_clock_that_was_ahead_at_the_start_and_is_right_now_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    a, real = client("a"), time.time
    with monkeypatch.context() as ahead:
        ahead.setattr(time, "time", lambda: real() + 3600.0)
        await a.start()
        assert a.health()["status"] == "healthy"
    said = a.health()
    assert (said["status"], len(said["why"])) == ("degraded", 1)
    assert re.search(r"was set back by 3[56]\d\d s after this node was started", said["why"][0])
    await a.stop()
    async with a:
        assert a.health()["status"] == "healthy"


async def test_a_node_whose_key_a_later_one_uses_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two minutes later nobody takes what it says, though all its links are up."""
    seed, real = "11" * 32, time.time
    second = client("first", private_key=seed)
    async with mesh("a", "b") as (a, b), client("first", private_key=seed) as first:
        introduce(b, first)
        with monkeypatch.context() as later:
            later.setattr(time, "time", lambda: real() + 2.0)
            await second.start()
        introduce(a, second)
        await linked(a, b, first, second)
        await second.broadcast(MessageType.GOSSIP, {"n": 1})
        await until(lambda: first.health()["status"] == "degraded", first)
        assert first.health()["why"] == [TWIN]
        assert second.health()["status"] == "healthy"
        await second.stop()


async def test_the_front_door_serves_metrics_and_nothing_unasked() -> None:
    async with mesh("a", "b") as (a, b):
        inbox = Inbox(b, MessageType.GOSSIP)
        await a.broadcast(MessageType.GOSSIP, {})
        await inbox.next()
        status, kind, body = await http_get(b.listen_port, "/metrics")
        assert (status, kind.split(";")[0]) == (200, "text/plain")
        for line in (
            "zmesh_peers 1",
            "zmesh_links_live 1",
            "zmesh_direct_pending 0",
            "zmesh_handler_queue 0",
            'zmesh_handler_events_total{event="queued"} 1',
        ):
            assert line in body.splitlines()
        assert not [line for line in body.splitlines() if "registry_age" in line or "delegation_left" in line]
        # How many these are is the machine's affair.
        assert "\nzmesh_late_wakes_total " in body
        assert "\nzmesh_messages_wanted " in body
        assert b.public_key not in body
        for path in ("/", "/peers", "/health/../metrics/x"):
            status, _, body = await http_get(b.listen_port, path)
            assert (status, json.loads(body)) == (404, {"error": "Not Found"})


async def test_a_chain_that_does_not_answer_is_one_warning_and_no_reason_to_stop(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("WARNING")
    async with client("a", blockchain_rpc="ws://127.0.0.1:9") as a:
        assert await a.discover_peers() == []
        assert (a.health()["status"], a.health()["why"]) == (
            "degraded",
            ["the chain's RPC endpoint at 127.0.0.1:9 cannot be reached: Connection refused"],
        )
    warnings = [record.getMessage() for record in caplog.records if "cannot be reached" in record.getMessage()]
    assert len(warnings) == 1


# ---------------------------------------------------------------- what is kept


async def test_a_stop_does_not_wait_for_threads_that_the_application_keeps_busy() -> None:
    done = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        async with client("a") as a:
            asyncio.get_running_loop().set_default_executor(threads)
            busy = asyncio.create_task(asyncio.to_thread(done.wait, PATIENCE))
            await settle()
            await a.stop()
            assert not busy.done()
        done.set()
        await busy


async def test_headers_without_end_are_refused_while_they_come() -> None:
    async with client("a") as a:
        reader, writer = await asyncio.open_connection("127.0.0.1", a.listen_port)
        writer.write(b"GET /health HTTP/1.1\r\n")
        line = b"x: " + b"a" * 900 + b"\r\n"
        sent = 0
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                while sent < 16 * 1024 * 1024 and not reader.at_eof():
                    writer.write(line * 64)
                    await writer.drain()
                    sent += 64 * len(line)
                assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
        writer.close()
        assert sent < 16 * 1024 * 1024
        assert a.health()["running"]


async def test_waiting_for_links_ends_with_the_last_of_them() -> None:
    a, b, c = client("a"), client("b"), client("c")
    async with a, b, c:
        await a.wait_for_links(0)
        waiting = asyncio.create_task(a.wait_for_links(2, None))
        introduce(a, b)
        await a.wait_for_links()
        assert a.peers["b"].is_linked
        assert not waiting.done()
        introduce(a, c)
        await waiting
        assert {peer.peer_id for peer in a.peers.values() if peer.is_linked} == {"b", "c"}
        await a.wait_for_links(2, 0.0)


async def test_links_that_do_not_come_are_said_with_the_reason() -> None:
    a, b = client("a"), client("b")
    async with a:
        with pytest.raises(TimeoutError, match=r"^a waited 0 s for links: 0 of 1 are up$"):
            await a.wait_for_links(1, 0.0)
        a.peers["b"] = card(b)
        await until(lambda: "no address is known" in str(a.health()), a)
        with pytest.raises(
            TimeoutError, match=r"0 of 3 are up; none of 1 known peers is connected; 1 peer.+no address"
        ):
            await a.wait_for_links(3, 0.0)


async def test_who_waits_for_links_of_a_node_that_stops_is_told() -> None:
    a = client("a")
    with pytest.raises(NotRunningError, match="call start"):
        await a.wait_for_links()
    await a.start()
    waiting = asyncio.create_task(a.wait_for_links())
    await settle()
    await a.stop()
    with pytest.raises(NotRunningError, match="call start"):
        await waiting


async def test_who_waits_for_links_of_a_node_whose_start_fails_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        a = client("a", listen_port=taken.getsockname()[1])
        starting = asyncio.create_task(a.start())
        while not a.is_running:
            await settle()
        waiting = asyncio.create_task(a.wait_for_links(1, None))
        with pytest.raises(ConfigError):
            await starting
        with pytest.raises(NotRunningError):
            await waiting
