"""Bootstrap, with real clients on real sockets: a registry says who belongs and nobody where; one address is enough."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support import Inbox, client, counted, engine, http_get, registry_file, until
from zmesh import MeshNetworkClient, MessageType
from zmesh.core import wire
from zmesh.core.types import Endpoint
from zmesh.handlers import Description, Record, encode_record
from zmesh.http_client import Posted, post_record
from zmesh.identity import Identity
from zmesh.state import Scores, State
from zmesh.testing import Validators

NETWORK = wire.network_id("zmesh")


def node(path: Path, name: str, *seeds: Endpoint, **settings: Any) -> MeshNetworkClient:
    """One of those whom the registry at ``path`` names without saying where they are, not started."""
    bootstrap = ",".join(map(str, seeds))
    return client(name, registry=path, private_key=name.encode() * 32, bootstrap=bootstrap, **settings)


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """Names a to e, and no addresses."""
    path = tmp_path / "registry.toml"
    return registry_file(path, *(client(name, private_key=name.encode() * 32) for name in "abcde"))


def are_linked(*clients: MeshNetworkClient) -> bool:
    """Has each a live link to each other?"""
    return all(one.peers[other.peer_id].is_linked for one in clients for other in clients if one is not other)


def record(of: str, *endpoints: Endpoint, network: bytes = NETWORK, sequence: int = 1) -> bytes:
    key = Identity.from_seed(of.encode() * 32)
    return encode_record(Description(of, endpoints), network, key.public, sequence, 0, key.sign).encoded


def door(of: MeshNetworkClient) -> Endpoint:
    return Endpoint("127.0.0.1", of.listen_port)


def own(of: MeshNetworkClient) -> Record:
    found = of.handlers.records.own
    assert found is not None
    return found


async def test_after_one_meeting_everybody_knows_everybody(registry: Path) -> None:
    async with (
        node(registry, "a") as a,
        node(registry, "b", door(a)) as b,
        node(registry, "c", door(a)) as c,
        node(registry, "d", door(b)) as d,
    ):
        everybody = (a, b, c, d)
        await until(lambda: are_linked(*everybody), *everybody)
        inboxes = [Inbox(one, MessageType.FL_ROUND_START) for one in (a, b, c)]
        await d.announce_fl_round("r1", "digits", 3, 60)
        assert [(await inbox.next()).payload["round_id"] for inbox in inboxes] == ["r1"] * 3
        await until(lambda: all(len(one.handlers.records.records) == 4 for one in everybody), *everybody)
        _, _, body = await http_get(c.listen_port, "/health")
        assert json.loads(body)["bootstrap"]["records"] == "3 of 4"
        assert sum(counted(one, "record", "introduced") for one in everybody) >= 2


async def test_who_listens_everywhere_and_advertises_nothing_tells_the_address_it_has_toward_the_seed(
    registry: Path,
) -> None:
    async with (
        node(registry, "a") as a,
        node(registry, "b", door(a), listen_host="0.0.0.0") as b,
        node(registry, "c", door(a), listen_host="0.0.0.0") as c,
    ):
        await until(lambda: are_linked(a, b, c), a, b, c)
        assert [own(one).endpoints for one in (b, c)] == [(door(b),), (door(c),)]


async def test_a_seed_that_does_not_know_its_own_address_is_dialled_where_it_was_met(registry: Path) -> None:
    async with node(registry, "a", listen_host="0.0.0.0") as a, node(registry, "b", door(a)) as b:
        await until(lambda: are_linked(a, b), a, b)
        assert (own(a).endpoints, b.peers["a"].multiaddr) == ((), f"/ip4/127.0.0.1/tcp/{a.listen_port}")


async def test_who_tells_no_address_that_a_seed_takes_is_met_without_one_and_told_what_would_help(
    registry: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        node(registry, "a", listen_host="0.0.0.0") as a,
        node(registry, "b", door(a), listen_host="0.0.0.0") as b,
    ):
        await until(lambda: are_linked(a, b), a, b)
        await until(lambda: b.health()["bootstrap"]["seeds_met"] == "1 of 1", a, b)
        assert (own(a).endpoints, own(b).endpoints) == ((), ())
    assert "set MESH_LISTEN_HOST=127.0.0.1 on every node if the mesh is on one machine" in caplog.text


async def test_a_peer_whose_address_changed_is_dialled_at_its_new_one(registry: Path) -> None:
    async with node(registry, "a") as a, node(registry, "c", door(a)) as c:
        async with node(registry, "b", door(a)) as b:
            await until(lambda: are_linked(a, b, c), a, b, c)
            old = b.listen_port
        await until(lambda: not c.peers["b"].is_linked, c)
        async with node(registry, "b", door(a)) as b:
            assert b.listen_port != old
            await until(lambda: are_linked(a, b, c), a, b, c)
            assert c.peers["b"].multiaddr == f"/ip4/127.0.0.1/tcp/{b.listen_port}"


async def test_a_node_whose_seed_is_gone_finds_the_others_from_its_disk(registry: Path, tmp_path: Path) -> None:
    async with node(registry, "b") as b:
        async with node(registry, "a", door(b)) as a, node(registry, "c", door(a), state_dir=tmp_path) as c:
            seed = door(a)
            await until(lambda: are_linked(a, b, c) and len(c.handlers.records.records) == 3, a, b, c)
        async with node(registry, "c", seed, state_dir=tmp_path) as c:
            await until(lambda: are_linked(b, c), b, c)


async def test_a_life_in_which_the_registry_names_nobody_keeps_what_was_saved_of_others(
    registry: Path, tmp_path: Path
) -> None:
    async with node(registry, "a") as a, node(registry, "b", door(a), state_dir=tmp_path) as b:
        await until(lambda: len(b.handlers.records.records) == 2, a, b)
    saved = (tmp_path / "records.msgpack").read_bytes()
    async with client("b", registry=Validators().registry(), private_key=b"b" * 32, state_dir=tmp_path):
        pass
    assert (tmp_path / "records.msgpack").read_bytes() == saved


async def test_an_address_that_two_claim_costs_only_the_one_who_lies(registry: Path) -> None:
    async with node(registry, "a") as a, node(registry, "b", door(a)) as b:
        await until(lambda: are_linked(a, b), a, b)
        assert await post_record(door(b), record("e", door(a)), 10) == Posted(202, "new")
        liar = Identity.from_seed(b"e" * 32).public
        await until(lambda: engine(b).links[liar].failures > 0, b)
        assert are_linked(a, b)
        assert (b.peers["a"].reputation, b.peers["e"].is_linked) == (100, False)
        inbox = Inbox(a, MessageType.GOSSIP)
        await b.broadcast(MessageType.GOSSIP, {"still": "here"})
        assert (await inbox.next()).payload == {"still": "here"}


async def test_who_leaves_its_record_while_a_node_still_starts_is_among_its_peers(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The door is open a moment before the engine runs, and whoever waits for a seed knocks again and again."""
    loop, met, posted = asyncio.get_running_loop(), record("b", Endpoint("192.0.2.1", 9090)), []

    def knock(_state: State) -> Scores:
        posted.append(asyncio.run_coroutine_threadsafe(post_record(door(a), met, 10), loop).result(10))
        return {}

    monkeypatch.setattr(State, "reputation", knock)
    a = node(registry, "a")
    async with a:
        assert posted == [Posted(202, "new")]
        assert {member.peer_id for member in engine(a).peers} == {"b", "c", "d", "e"}
        key = Identity.from_seed(b"b" * 32).public
        assert engine(a).peers.endpoints(engine(a).peers.roster.by_key[key]) == (Endpoint("192.0.2.1", 9090),)


async def test_what_a_stranger_posts_changes_nothing_and_is_counted_by_its_reason(registry: Path) -> None:
    async with node(registry, "a") as a:
        own = record("b", door(a))
        posts = {
            record("x"): Posted(403, "unknown_key"),
            record("b", network=bytes(32)): Posted(403, "other_network"),
            own[:-1] + bytes([own[-1] ^ 1]): Posted(403, "bad_signature"),
            b"junk": Posted(400, "malformed"),
            bytes(9000): Posted(413, "status_413"),
        }
        assert [await post_record(door(a), posted, 10) for posted in posts] == list(posts.values())
        assert set(a.handlers.records.records) == {bytes.fromhex(a.public_key)}
        for name in ("unknown_key", "other_network", "bad_signature", "malformed"):
            assert counted(a, "record", name) == 1


async def test_the_limit_of_an_address_is_that_of_the_real_one_behind_the_front_door(
    registry: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zmesh.http_limits.POST_BURST", 1.0)
    monkeypatch.setattr("zmesh.http_limits.POST_RATE", 1e-6)
    async with node(registry, "a") as a:
        statuses: list[tuple[int, str | None]] = []
        for source in ("127.0.0.1", "127.0.0.1", "127.0.0.2"):
            connector = aiohttp.TCPConnector(local_addr=(source, 0), force_close=True)
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.post(f"http://{door(a)}/records", data=record("b", sequence=len(statuses))) as answer,
            ):
                statuses.append((answer.status, answer.headers.get("Retry-After")))
        assert statuses == [(202, None), (429, "1"), (202, None)]
        assert counted(a, "front_door", "http_posts_over_limit_of_address") == 1
