"""Who belongs, with real clients: a registry that is told what to say, accounts that delegate, and real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support import Inbox, client, counted, engine, introduce, linked, until
from tests.unit.delegation_support import Signer, signer
from zmesh import ConfigError, MeshNetworkClient, MessageType
from zmesh.core import wire
from zmesh.core.types import Member, Roster
from zmesh.delegation import DAY, Delegation, Scheme, Statement, encode_delegation
from zmesh.identity import Identity
from zmesh.registry import Account, OnChange, RegistryStatus, ValidatorSet

GENESIS = bytes([7]) * 32
FAR = 4_000_000_000
"""Unix seconds: the year 2096."""
ACCOUNTS = {name: signer(number, Scheme.ED25519) for number, name in enumerate("abc", 1)}


def accounts(names: Sequence[str], **changes: Any) -> ValidatorSet:
    """The set of a chain that names these."""
    listed = [Account(ACCOUNTS[name].account, f"account of {name}", stake=5)._replace(**changes) for name in names]
    return ValidatorSet(accounts={account.id: account for account in listed}, genesis=GENESIS, block=1)


class Told:
    """A registry (port: ``zmesh.registry.port``) that says what it was told to."""

    def __init__(self, found: ValidatorSet | None = None) -> None:
        self.found = found or ValidatorSet()
        self._on_change: OnChange | None = None

    def tell(self, found: ValidatorSet) -> None:
        self.found = found
        if self._on_change is not None:
            self._on_change(found)

    async def start(self, on_change: OnChange) -> None:
        self._on_change = on_change
        on_change(self.found)

    async def read(self) -> ValidatorSet:
        return self.found

    async def stop(self) -> None:
        self._on_change = None

    def status(self) -> RegistryStatus:
        return RegistryStatus(
            "what it was told", len(self.found), 0.0, None, self.found.block, {"subscription_ended": 3}
        )


def key(name: str) -> Identity:
    """The mesh key of ``name``."""
    return Identity.from_seed(name.encode() * 32)


def delegation(name: str, by: Signer | None = None, **changes: Any) -> Delegation:
    """The account of ``name`` lets the mesh key of ``name`` speak for it."""
    account, now = by or ACCOUNTS[name], int(time.time())
    said = Statement("zmesh", GENESIS, account.account, key(name).public, now - 60, now + DAY, 1)._replace(**changes)
    return encode_delegation(said, account.scheme, account.sign(said.text), key(name).sign)


def delegated(name: str, registry: Told, *seeds: MeshNetworkClient, **settings: Any) -> MeshNetworkClient:
    """A node that speaks for an account, not started."""
    usual = {"private_key": name.encode() * 32, "delegation": delegation(name).encoded.hex()}
    bootstrap = ",".join(f"127.0.0.1:{seed.listen_port}" for seed in seeds)
    return client(name, registry=registry, bootstrap=bootstrap, **{**usual, **settings})


def members(of: MeshNetworkClient) -> set[str]:
    """Names of those whom this node takes for members, itself not."""
    return {member.peer_id for member in engine(of).peers}


async def test_accounts_that_delegate_meet_and_are_out_once_the_registry_names_them_no_more() -> None:
    told = {name: Told(accounts("abc")) for name in "abc"}
    async with (
        delegated("a", told["a"]) as a,
        delegated("b", told["b"], a) as b,
        delegated("c", told["c"], a) as c,
    ):
        everybody = (a, b, c)
        await until(lambda: all(len(members(one)) == 2 for one in everybody), *everybody)
        await linked(*everybody)
        assert {(peer.peer_id, peer.account_id, peer.stake_amount) for peer in await a.discover_peers()} == {
            ("b", "account of b", 5),
            ("c", "account of c", 5),
        }
        for name in "ab":
            told[name].tell(accounts("ab"))
        assert members(a) == {"b"}, "within the same turn"
        heard = Inbox(a, MessageType.GOSSIP)
        await c.broadcast(MessageType.GOSSIP, {"from": "c"})
        await b.broadcast(MessageType.GOSSIP, {"from": "b"})
        assert (await heard.next()).payload == {"from": "b"}
        assert [(peer.peer_id, peer.public_key) for peer in await a.discover_peers()] == [("b", b.public_key)]
        assert heard.is_empty

        for name in "ab":
            told[name].tell(accounts("abc"))
        await until(lambda: all(len(members(one)) == 2 for one in everybody), *everybody)
        await linked(*everybody)


@pytest.mark.parametrize(
    "peer_id, is_warned",
    [("another", True), ("a", False), ("account of a", False)],
    ids=["another name", "its name", "its account"],
)
async def test_a_node_that_the_registry_calls_by_another_name_says_which(
    peer_id: str, is_warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    me = client("a", private_key=bytes(32))
    told = Told(ValidatorSet(Roster.of([Member(bytes.fromhex(me.public_key), "account of a", peer_id)])))
    sentence = "the registry calls this node another, not a: set MESH_PEER_ID=another"
    async with client("a", private_key=bytes(32), registry=told) as a:
        assert a.health().get("warnings") == ([sentence] if is_warned else None)
        told.tell(ValidatorSet(told.found.roster, block=2))
        logged = [vars(record)["zmesh"] for record in caplog.records if "peer_id_differs" in record.getMessage()]
        assert logged == [{"event": "peer_id_differs", "problem": sentence}] * is_warned, "once"
        told.tell(accounts("a"))
        assert "warnings" not in a.health(), "a chain names accounts and not nodes"


class Mute(Told):
    """A registry of an application that has a fault."""

    def status(self) -> RegistryStatus:
        raise RuntimeError("a fault of the application")


async def test_a_registry_whose_status_raises_is_told_by_health_and_stops_no_heartbeat() -> None:
    sentence = "its status() raised RuntimeError('a fault of the application')"
    a, b = delegated("a", Told(accounts("ab"))), Mute(accounts("ab"))
    async with a, delegated("b", b, a, heartbeat_interval=0.5) as mute:
        heard = Inbox(a, MessageType.HEARTBEAT)
        assert [(await heard.next()).payload["status"] for _ in range(2)] == ["degraded"] * 2
        assert mute.health()["why"] == [sentence]
        assert counted(mute, "node", "registry_status_failed") >= 3
        assert counted(mute, "node", "internal_error") == 0


async def test_a_renewed_delegation_is_taken_by_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "mesh.delegation"
    made = [delegation("a", sequence=sequence) for sequence in (1, 2)]
    file.write_text(made[0].encoded.hex())
    a = delegated("a", Told(accounts("ab")), delegation=file)
    taken = []
    for now in made:
        file.write_text(now.encoded.hex())
        async with a:
            own = a.handlers.records.own
            assert own is not None
            taken.append(own.delegation)
    assert taken == [one.encoded for one in made]

    file.write_text(delegation("a", genesis=bytes([8]) * 32).encoded.hex())
    with pytest.raises(ConfigError, match="for another chain than before: make a new client"):
        await a.start()
    assert not a.is_running


async def test_a_validator_that_nobody_met_is_discovered_by_its_account_alone() -> None:
    async with delegated("a", Told(accounts("ab"))) as a:
        (peer,) = await a.discover_peers()
        assert (peer.peer_id, peer.public_key, peer.is_validator, peer.multiaddr) == ("account of b", "", True, "")


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"by": ACCOUNTS["c"]}, "unknown_account"),
        ({"not_before": 1, "not_after": 2}, "expired"),
        ({"not_before": FAR - DAY, "not_after": FAR}, "not_yet"),
        ({"genesis": bytes([8]) * 32}, "other_chain"),
    ],
)
async def test_a_delegation_that_does_not_hold_lets_nobody_in(changes: dict[str, Any], reason: str) -> None:
    async with delegated("a", Told(accounts("ab"))) as a:
        bad = delegation("b", **changes).encoded.hex()
        async with delegated("b", Told(accounts("ab")), a, delegation=bad) as b:
            await until(lambda: counted(a, "admission", reason) > 0, a, b)
            assert (members(a), a.peers.get("b")) == (set(), None)


async def test_what_the_registry_counts_and_what_time_is_left_is_among_the_metrics() -> None:
    async with delegated("a", Told(accounts("a"))) as a:
        said = dict(line.rsplit(" ", 1) for line in a.metrics().splitlines() if line[0] != "#")
        assert said['zmesh_registry_events_total{event="subscription_ended"}'] == "3"
        assert said["zmesh_registry_members"] == "1"
        assert float(said["zmesh_registry_age_seconds"]) >= 0.0
        assert DAY - 60 < float(said["zmesh_delegation_left_seconds"]) <= DAY + 1


async def test_a_delegation_ends_by_itself() -> None:
    async with delegated("a", Told(accounts("ab"))) as a:
        soon = delegation("b", not_after=int(time.time()) + 3).encoded.hex()
        async with delegated("b", Told(accounts("ab")), a, delegation=soon) as b:
            await until(lambda: members(a) == {"b"}, a, b)
            await until(lambda: members(a) == set(), a, b)


async def test_a_node_that_learns_its_chain_late_moves_over_to_its_mesh() -> None:
    told = {name: Told() for name in "ab"}
    async with client("a", registry=told["a"]) as a, client("b", registry=told["b"]) as b:
        introduce(a, b)
        await linked(a, b)
        assert engine(a).network == wire.network_id("zmesh")
        for registry in told.values():
            registry.tell(accounts("c"))
        assert engine(a).network == engine(b).network == wire.network_id("zmesh", GENESIS)
        heard = Inbox(b, MessageType.GOSSIP)
        await a.broadcast(MessageType.GOSSIP, {"n": 1})
        assert (await heard.next()).payload == {"n": 1}
        own = a.handlers.records.own
        assert own is not None
        assert own.network == engine(a).network


async def test_a_node_is_at_the_door_of_its_seed_once_its_registry_named_somebody_and_not_before(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("zmesh.bootstrap.FIRST_PAUSE", 3600.0)  # only news makes it try again
    told = Told()
    async with delegated("a", Told(accounts("ab"))) as a, delegated("b", told, a) as b:
        ports = b._running()._bootstrap._ports
        assert (b.handlers.records.own is not None, ports.own()) == (True, b"")
        await asyncio.sleep(0)  # now its bootstrap, a task that was scheduled before, has begun to wait
        told.tell(accounts("ab"))
        own = b.handlers.records.own
        assert own is not None
        assert ports.own() == own.encoded
        await until(lambda: (members(a), members(b)) == ({"b"}, {"a"}), a, b)
        await linked(a, b)
    assert "seed_problem" not in caplog.text


async def test_who_restarts_while_its_seed_is_away_finds_everybody_again(tmp_path: Path) -> None:
    told = Told(accounts("abc"))
    settings = {"state_dir": tmp_path / "c"}
    async with delegated("b", Told(accounts("abc"))) as b:
        async with delegated("a", Told(accounts("abc")), b) as a, delegated("c", told, a, **settings) as c:
            await until(lambda: members(c) == {"a", "b"} and len(c.handlers.records.records) == 3, a, b, c)
        # The seed is gone, and with it the only address that c was given.
        async with delegated("c", told, **settings) as c:
            await until(lambda: "b" in c.peers and c.peers["b"].is_linked, b, c)
