"""``mesh.peers``: assigning connects, deleting disconnects, and what is wrong changes nothing."""

from __future__ import annotations

import time
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import Inbox, card, client, engine, introduce, linked, mesh, registry_file, until
from zmesh import ConfigError, MessageType, PeerInfo, SendResult
from zmesh.identity import Identity


async def test_assigning_connects_and_deleting_disconnects() -> None:
    async with mesh("a", "b") as (a, b):
        assert list(a.peers) == ["b"]
        known = a.peers["b"]
        assert known == PeerInfo(
            peer_id="b",
            account_id=b.public_key,
            multiaddr=f"/ip4/127.0.0.1/tcp/{b.listen_port}",
            public_key=b.public_key,
            last_seen=known.last_seen,
            is_linked=True,
        )
        assert known.is_alive()
        assert abs(time.time() - known.last_seen) < 60
        del a.peers["b"]
        assert list(a.peers) == []
        assert await a.send("b", MessageType.GOSSIP, {}) is SendResult.UNREACHABLE
        await until(lambda: not b.peers["a"].is_linked, b)
        a.peers["b"] = card(b)
        await until(lambda: a.peers["b"].is_linked and b.peers["a"].is_linked, a, b, seconds=60)


async def test_what_a_deleted_peer_says_is_not_heard_and_not_its_fault() -> None:
    async with mesh("a", "b", "c") as (a, b, c):
        heard, at_c = Inbox(a, MessageType.GOSSIP), Inbox(c, MessageType.GOSSIP)
        del a.peers["b"]
        await b.broadcast(MessageType.GOSSIP, {"from": "b"})
        assert (await at_c.next()).payload == {"from": "b"}
        await c.broadcast(MessageType.GOSSIP, {"from": "c"})
        assert (await heard.next()).payload == {"from": "c"}
        assert heard.is_empty
        assert a.peers["c"].reputation == c.peers["b"].reputation == 100


async def test_one_side_that_does_not_know_the_other_never_links() -> None:
    """Vouching takes two: a stranger's connection is refused, whatever it knows."""
    async with client("a") as a, client("b") as b:
        a.peers["b"] = card(b)
        assert await a.send("b", MessageType.GOSSIP, {}, timeout=0.5) is SendResult.UNREACHABLE
        assert not a.peers["b"].is_linked
        b.peers["a"] = card(a)
        await until(lambda: a.peers["b"].is_linked and b.peers["a"].is_linked, a, b)


async def test_peers_can_be_added_before_the_start_and_stay_over_a_restart() -> None:
    a, b = client("a"), client("b")
    async with b:
        a.peers["b"] = card(b, account_id="5Grw", stake_amount=7, last_seen=123.0, is_validator=False)
        assert a.peers["b"].last_seen == 123.0
        assert not a.peers["b"].is_alive()
        for _ in range(2):
            async with a:
                b.peers["a"] = card(a)
                await linked(a)
                known = a.peers["b"]
                assert (known.account_id, known.stake_amount, known.is_validator) == ("5Grw", 7, False)
                assert known.is_alive()
            assert list(a.peers) == ["b"]


def test_what_is_known_of_a_peer_is_a_snapshot() -> None:
    """An assignment to one of its fields would change nothing at the node."""
    a = client("a")
    a.peers["b"] = card(client("b"))
    with pytest.raises(FrozenInstanceError):
        a.peers["b"].reputation = 0  # type: ignore[misc]
    a.peers["b"] = replace(a.peers["b"], stake_amount=7)
    assert a.peers["b"].stake_amount == 7


def test_how_long_a_silent_peer_is_alive_is_a_setting() -> None:
    silent = PeerInfo("b", public_key=client("b").public_key, last_seen=time.time() - 200)
    patient, strict = client("a"), client("c", peer_timeout=150)
    for one in (patient, strict):
        one.peers["b"] = silent
    assert patient.peers["b"].is_alive()
    assert not patient.peers["b"].is_alive(timeout=150)
    assert not strict.peers["b"].is_alive()
    assert strict.peers["b"].is_alive(timeout=300)


async def test_a_peer_that_moves_is_found_at_its_new_address() -> None:
    async with mesh("a", "b") as (a, b):
        await b.stop()
        await until(lambda: not a.peers["b"].is_linked, a)
        await b.start()
        a.peers["b"] = card(b)
        await until(lambda: a.peers["b"].is_linked and b.peers["a"].is_linked, a, b, seconds=60)


async def test_a_peer_without_an_address_can_still_dial_us() -> None:
    async with client("a") as a, client("b") as b:
        a.peers["b"] = card(b, multiaddr="")
        b.peers["a"] = card(a)
        await linked(a, b)
        inbox = Inbox(b, MessageType.GOSSIP)
        assert await a.send("b", MessageType.GOSSIP, {"over": "its own connection"}) is SendResult.DELIVERED
        assert (await inbox.next()).payload == {"over": "its own connection"}


async def test_the_record_of_a_deleted_peer_is_forgotten_and_comes_back_when_it_is_added_again() -> None:
    """It says where the peer is: without it, nobody could dial a peer that was added without an address."""
    async with client("a") as a, client("b") as b:
        a.peers["b"] = card(b)
        for _ in range(2):
            b.peers["a"] = card(a, multiaddr="")
            await until(lambda: b.peers["a"].multiaddr == card(a).multiaddr, a, b, seconds=60)
            del b.peers["a"]
            assert engine(a).me not in b.handlers.records.records


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "another name than its place": ({"peer_id": "c"}, "peer_id must be the name it is stored under, not 'c'"),
    "no key": ({"public_key": ""}, "public_key must be the 64 hex digits of an Ed25519 public key, not ''"),
    "a short key": (
        {"public_key": "abc123..."},
        "public_key must be the 64 hex digits of an Ed25519 public key, not 'abc123...'",
    ),
    "a key that is no point": ({"public_key": "02" + "00" * 31}, "peers['b']: public key 0200"),
    "a key of small order": ({"public_key": "01" + "00" * 31}, "peers['b']: public key 0100"),
    "an unknown protocol": ({"multiaddr": "/unix/tmp/tcp/9"}, "ip4"),
    "a port out of range": ({"multiaddr": "/ip4/192.168.1.100/tcp/70000"}, "65535"),
    "no multiaddr at all": ({"multiaddr": "localhost"}, "localhost"),
    "a negative stake": ({"stake_amount": -1}, "stake_amount must be a whole number"),
    "a stake that is no number": ({"stake_amount": "many"}, "stake_amount must be a whole number"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_bad_entry_is_refused_with_one_sentence_and_nothing_changes(name: str) -> None:
    changes, sentence = WRONG[name]
    async with client("a") as a:
        other = client("b")
        links = dict(engine(a).links)
        with pytest.raises(ConfigError) as refused:
            a.peers["b"] = card(other, **changes)
        said = str(refused.value)
        assert said.startswith("peers['b']")
        assert sentence in said
        assert "\n" not in said
        assert (list(a.peers), engine(a).links) == ([], links)


async def test_what_would_mean_two_peers_is_refused() -> None:
    async with client("a") as a:
        b, c = client("b"), client("c")
        a.peers["b"] = card(b, account_id="5Grw")
        clashes = {
            "public_key is this node's own, so peer_id must be 'a'": card(a, peer_id="x"),
            "this node has the same peer_id": card(c, peer_id="a"),
            "this node has the same account": card(c, account_id=a.public_key),
            "'b' has the same key": card(b, peer_id="x", account_id="5Other"),
            "'b' has the same account": card(c, account_id="5Grw"),
            r"peers\['a'\]: 'b' has the same account": card(a, account_id="5Grw"),
        }
        for sentence, entry in clashes.items():
            with pytest.raises(ConfigError, match=sentence):
                a.peers[entry.peer_id] = entry
        with pytest.raises(ConfigError, match="must be a PeerInfo, not a value of type dict"):
            a.peers["c"] = {"peer_id": "c"}  # type: ignore[assignment]
        assert list(a.peers) == ["b"]
        # The same name again is a correction, not a clash.
        a.peers["b"] = card(b, account_id="5Grw", stake_amount=1)
        a.peers["b"] = card(c, peer_id="b", account_id="5Grw")
        assert (list(a.peers), a.peers["b"].public_key) == (["b"], c.public_key)


async def test_the_negative_of_a_known_key_is_refused() -> None:
    """P and -P share one CURVE key: the second could not be told from the first."""
    async with client("a") as a:
        key = Identity.generate().public
        negative = key[:31] + bytes([key[31] ^ 0x80])
        a.peers["b"] = PeerInfo("b", public_key=key.hex())
        with pytest.raises(ConfigError, match="public_key is the negative of that of 'b' and shares its CURVE key"):
            a.peers["c"] = PeerInfo("c", public_key=negative.hex())
        assert list(a.peers) == ["b"]


async def test_the_table_itself_cannot_be_replaced_and_what_is_not_there_cannot_be_deleted() -> None:
    async with client("a") as a:
        with pytest.raises(ConfigError, match=r"mesh\.peers itself cannot be replaced"):
            a.peers = {}
        with pytest.raises(KeyError):
            del a.peers["nobody"]
        with pytest.raises(KeyError):
            a.peers["nobody"]
        assert "nobody" not in a.peers
        assert a.peers.get("nobody") is None


async def test_nodes_that_know_all_cards_and_their_own_count_votes_alike() -> None:
    """Without its own card, a node would count its own account as its key, without stake."""
    nodes = [client(name) for name in "abc"]
    stakes = {"a": 50, "b": 30, "c": 20}
    nodes[0].peers["a"] = card(nodes[0], account_id="account of a", stake_amount=50)  # before the start, too
    async with nodes[0], nodes[1], nodes[2]:
        for one in nodes:
            for other in nodes:
                name = other.peer_id
                one.peers[name] = card(other, account_id=f"account of {name}", stake_amount=stakes[name])
        await linked(*nodes)
        assert [list(one.peers) for one in nodes] == [["b", "c"], ["a", "c"], ["a", "b"]]
        sent = await nodes[0].broadcast(MessageType.CONSENSUS_PROPOSE, {"proposal_id": "p"})
        assert sent.account_id == "account of a"
        for one, choice in zip(nodes, ("yes", "yes", "no"), strict=True):
            await one.broadcast(MessageType.CONSENSUS_VOTE, {"proposal_id": "p", "choice": choice})
        await until(lambda: all(len(one.handlers.votes.tally("p").voters) == 3 for one in nodes), *nodes)
        tallies = [one.handlers.votes.tally("p") for one in nodes]
        assert [tally.stake for tally in tallies] == [{"no": 20, "yes": 80}] * 3
        assert [(tally.voters, tally.proposers) for tally in tallies] == [
            (("account of a", "account of b", "account of c"), ("account of a",))
        ] * 3


async def test_the_own_card_survives_a_restart_and_can_be_taken_back() -> None:
    a = client("a")
    a.peers["a"] = card(a, account_id="5Grw", stake_amount=7, is_validator=False)
    for _ in range(2):
        async with a:
            me = engine(a).peers.myself
            assert (me.account, me.peer_id, me.stake, me.is_validator) == ("5Grw", "a", 7, False)
            assert (len(a.peers), "a" in a.peers, a.health()["peers_count"]) == (0, False, 0)
    async with a:
        del a.peers["a"]
        assert (engine(a).peers.myself.account, engine(a).peers.myself.stake) == (a.public_key, 0)
        with pytest.raises(KeyError):
            del a.peers["a"]


async def test_the_registry_decides_what_this_node_is_if_it_lists_it(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    a = client("a", registry=path)
    a.peers["a"] = card(a, account_id="5Grw", stake_amount=7)
    registry_file(path, a)
    async with a:
        assert engine(a).peers.myself.account == "account of a"
        registry_file(path, client("b"))
        await until(lambda: engine(a).peers.myself.account == "5Grw", a)


async def test_the_registry_decides_who_it_lists(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    a, b = (client(name, registry=path) for name in "ab")
    registry_file(path, a, b)
    async with a, b:
        registry_file(path, a, b)
        found = await a.discover_peers()
        assert [(peer.peer_id, peer.account_id, peer.stake_amount) for peer in found] == [
            ("b", "account of b", 5_000_000_000_000)
        ]
        with pytest.raises(ConfigError, match=r"peers\['b'\] is in the registry: only the registry can remove it"):
            del a.peers["b"]
        c = client("c")
        with pytest.raises(ConfigError, match="'b' has the same account"):
            a.peers["c"] = card(c, account_id="account of b")
        assert list(a.peers) == ["b"]


async def test_a_change_of_the_registry_takes_effect_while_running(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    a, b, c = (client(name, registry=path) for name in "abc")
    registry_file(path, a, b)
    async with a, b:
        registry_file(path, a, b)
        await linked(a, b)
        registry_file(path, a, b, c)
        await until(lambda: list(a.peers) == ["b", "c"] and list(b.peers) == ["a", "c"], a, b)
        async with c:
            registry_file(path, a, b, c)
            await until(lambda: all(peer.is_linked for peer in c.peers.values()), a, b, c)
            registry_file(path, a, b)
            await until(lambda: list(a.peers) == ["b"] and list(b.peers) == ["a"], a, b)
            await until(lambda: not any(peer.is_linked for peer in c.peers.values()), c)


async def test_a_peer_by_hand_beside_the_registry_is_linked_too(tmp_path: Path) -> None:
    path = tmp_path / "registry.toml"
    a, b = (client(name, registry=path) for name in "ab")
    c = client("c")
    registry_file(path, a, b)
    async with a, b, c:
        registry_file(path, a, b)
        introduce(a, c)
        await until(lambda: a.peers["c"].is_linked and a.peers["b"].is_linked, a)
        assert [peer.peer_id for peer in await a.discover_peers()] == ["b", "c"]
