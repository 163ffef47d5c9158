"""The guide's code, run between real clients: ``snippets.md`` has it word for word, ``guide.py`` all that is changed.

Each test runs one snippet and then looks whether what the guide says around it came true. Comments that only describe
(heartbeats, forwarding ...) are run too, and what they say is tested.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import zmesh.client
from tests.guide.guide import (
    CID,
    run,
    runs,
)
from tests.support import Inbox, card, client, engine, linked, mesh, registry_file, until
from zmesh import MeshMessage, MeshNetworkClient, MessageType, PeerInfo, SendResult
from zmesh.core import wire
from zmesh.core.actions import Composed
from zmesh.core.events import Compose
from zmesh.core.now import Now
from zmesh.core.types import DropReason, Fault
from zmesh.identity import verify
from zmesh.node import read_clocks


@pytest.fixture
async def pair() -> AsyncIterator[tuple[MeshNetworkClient, MeshNetworkClient]]:
    """The reader's client, and the validator it talks with."""
    async with mesh("validator_001", "validator_002") as (reader, other):
        yield reader, other


# ---------------------------------------------------------------- configuration


@runs("Python Configuration")
async def test_python_configuration() -> None:
    made = (await run("Python Configuration"))["mesh"]
    assert (made.peer_id, made.listen_port) == ("validator_001", 9090)
    assert made.settings.blockchain_rpc == "ws://localhost:9944"
    assert len(bytes.fromhex(made.public_key)) == 32  # generated


# ---------------------------------------------------------------- message types


@runs("FL Round Announcement")
async def test_fl_round_announcement(pair: tuple[MeshNetworkClient, MeshNetworkClient]) -> None:
    reader, other = pair
    inbox = Inbox(other, MessageType.FL_ROUND_START)
    await run("FL Round Announcement", mesh=reader)
    message = await inbox.next()
    assert message.sender_id == "validator_001"
    assert {**message.payload, "deadline": message.timestamp + 3600} == {
        "round_id": "round_20260213_001",
        "dataset_name": "belize_corpus",
        "target_participants": 10,
        "deadline": message.timestamp + 3600,
        "deadline_seconds": 3600,
        "min_stake": 1000,
        "reward_pool": 50000,
        "model_hash": CID,
    }
    assert abs(message.payload["deadline"] - message.timestamp - 3600) < 1


@runs("Model Delta Transfer")
async def test_model_delta_transfer() -> None:
    """To the specified peer only."""
    async with mesh("validator_001", "validator_002", "validator_003") as (reader, meant, bystander):
        inbox = Inbox(meant, MessageType.MODEL_DELTA_TRANSFER)
        not_meant = Inbox(bystander, MessageType.MODEL_DELTA_TRANSFER)
        success = (await run("Model Delta Transfer", mesh=reader))["success"]
        assert success
        assert success is SendResult.DELIVERED
        assert (await inbox.next()).payload == {"round_id": "round_001", "model_cid": CID, "quality_score": 95.5}
        assert not_meant.is_empty


@runs("Heartbeat")
async def test_heartbeat() -> None:
    """Every 60 seconds without being asked, and first right after the start."""
    reader, other = client("validator_001"), client("validator_002")
    inbox = Inbox(other, MessageType.HEARTBEAT)
    async with reader, other:
        reader.peers["validator_002"], other.peers["validator_001"] = card(other), card(reader)
        await run("Heartbeat")
        message = await inbox.next()
        assert (message.message_type, message.sender_id) == (MessageType.HEARTBEAT, "validator_001")
        assert reader.settings.heartbeat_interval == 60
        assert other.peers["validator_001"].is_alive()


@runs("Gossip Messages")
async def test_gossip_messages(pair: tuple[MeshNetworkClient, MeshNetworkClient]) -> None:
    reader, other = pair
    inbox = Inbox(other, MessageType.GOSSIP)
    await run("Gossip Messages", mesh=reader, MessageType=MessageType)
    message = await inbox.next()
    assert (message.payload, message.ttl) == ({"custom": "data"}, 5)


# ---------------------------------------------------------------- peer discovery


@runs("Automatic Discovery")
async def test_automatic_discovery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = tmp_path / "registry.toml"
    reader, other = (client(name, registry=registry) for name in ("validator_001", "validator_002"))
    registry_file(registry, reader, other)
    async with other:
        registry_file(registry, reader, other)
        async with reader:
            await run("Automatic Discovery", mesh=reader)
            await linked(reader, other)
    assert capsys.readouterr().out.splitlines() == [
        "Peer: validator_002",
        f"  Address: /ip4/127.0.0.1/tcp/{other_port(registry)}",
        "  Stake: 50000.0 DALLA",
        "  Validator: True",
    ]


def other_port(registry: Path) -> str:
    """The only address in the file."""
    return registry.read_text(encoding="utf-8").partition("/tcp/")[2].partition('"')[0]


@runs("Manual Peer Addition")
async def test_manual_peer_addition() -> None:
    async with client("validator_001") as reader, client("peer_002") as other:
        other.peers["validator_001"] = card(reader)
        await run("Manual Peer Addition", {"PORT": other.listen_port, "KEY": other.public_key}, mesh=reader)
        known = reader.peers["peer_002"]
        assert known.account_id == "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
        assert (known.stake_amount, known.is_validator, known.is_alive()) == (5_000_000_000_000, True, True)
        await linked(reader, other)
        there, back = Inbox(other, MessageType.GOSSIP), Inbox(reader, MessageType.GOSSIP)
        await reader.broadcast(MessageType.GOSSIP, {"hello": "peer_002"})
        assert (await there.next()).payload == {"hello": "peer_002"}
        await other.broadcast(MessageType.GOSSIP, {"hello": "validator_001"})
        message = await back.next()
        assert (message.sender_id, message.account_id) == ("peer_002", known.account_id)


# ---------------------------------------------------------------- security


@runs("Message Signing")
async def test_message_signing(
    pair: tuple[MeshNetworkClient, MeshNetworkClient], capsys: pytest.CaptureFixture[str]
) -> None:
    reader, _ = pair
    defined = await run("Message Signing", mesh=reader, MessageType=MessageType)
    message = defined["message"]
    assert capsys.readouterr().out == f"Signature: {message.signature[:32]}...\n"
    signed = wire.signing_input(bytes.fromhex(message.message_id))
    assert verify(bytes.fromhex(reader.public_key), signed, bytes.fromhex(message.signature))


@runs("Signature Verification")
async def test_signature_verification(pair: tuple[MeshNetworkClient, MeshNetworkClient]) -> None:
    """A message with one bit of its signature changed is rejected, and does not keep the good one out."""
    reader, other = pair
    await run("Signature Verification")
    inbox = Inbox(other, MessageType.GOSSIP)
    node = reader._running().node
    composed = node.ask(Compose(MessageType.GOSSIP, {"n": 1}))[0]
    assert isinstance(composed, Composed)
    head, body, signature = composed.envelope.frames(5, 0)
    forged = bytes([signature[0] ^ 1]) + signature[1:]
    to = bytes.fromhex(other.public_key)
    assert node.transport.send(to, (head, body, forged), gossip=True)
    await until(lambda: engine(other).drops[DropReason.BAD_SIGNATURE] == 1, other)
    assert inbox.is_empty
    assert other.peers["validator_001"].reputation < 100
    assert node.transport.send(to, (head, body, signature), gossip=True)
    message = await inbox.next()
    assert (message.message_id, message.payload) == (composed.envelope.id.hex(), {"n": 1})


@runs("Byzantine Resistance")
async def test_byzantine_resistance(capsys: pytest.CaptureFixture[str]) -> None:
    async with mesh("validator_001", "validator_002", "validator_003") as (reader, bad, other):
        await run("Byzantine Resistance", peer=reader.peers["validator_002"])
        assert capsys.readouterr().out == ""
        book = engine(reader).peers
        (member,) = book.named("validator_002")
        for _ in range(6):
            book.charge(member, Fault.INVALID_MESSAGE, read_clocks().mono)
        await run("Byzantine Resistance", peer=reader.peers["validator_002"])
        assert capsys.readouterr().out == "⚠️ Low reputation peer detected\n"
        heard, elsewhere = Inbox(reader, MessageType.GOSSIP), Inbox(other, MessageType.GOSSIP)
        await bad.broadcast(MessageType.GOSSIP, {"from": "the bad one"})
        assert (await elsewhere.next()).payload == {"from": "the bad one"}
        await until(lambda: engine(reader).drops[DropReason.LOW_REPUTATION] >= 1, reader)
        await other.broadcast(MessageType.GOSSIP, {"from": "the other"})
        assert (await heard.next()).payload == {"from": "the other"}
        assert heard.is_empty


# ---------------------------------------------------------------- monitoring


@runs("Peer Status")
async def test_peer_status(
    pair: tuple[MeshNetworkClient, MeshNetworkClient], capsys: pytest.CaptureFixture[str]
) -> None:
    reader, _ = pair
    reader.peers["never_seen"] = PeerInfo("never_seen", public_key=client("x").public_key)
    await run("Peer Status", mesh=reader)
    assert capsys.readouterr().out.splitlines() == ["validator_002: 🟢 Alive", "never_seen: 🔴 Dead"]


@runs("Message Statistics")
async def test_message_statistics(
    pair: tuple[MeshNetworkClient, MeshNetworkClient], capsys: pytest.CaptureFixture[str]
) -> None:
    reader, other = pair
    inbox = Inbox(other, MessageType.GOSSIP)
    sent = await reader.broadcast(MessageType.GOSSIP, {})
    await inbox.next()
    await run("Message Statistics", mesh=other)
    processed, active = capsys.readouterr().out.splitlines()
    assert sent.message_id in other.seen_messages
    assert processed == f"Messages processed: {len(other.seen_messages)}"
    assert active == "Active peers: 1"


# ---------------------------------------------------------------- advanced usage


@runs("Custom Message Handlers")
async def test_custom_message_handlers(pair: tuple[MeshNetworkClient, MeshNetworkClient]) -> None:
    reader, other = pair

    async def upload_model() -> str:
        return "QmUploaded"

    await run(
        "Custom Message Handlers",
        mesh=reader,
        MeshMessage=MeshMessage,
        MessageType=MessageType,
        upload_model=upload_model,
    )
    inbox = Inbox(other, MessageType.MODEL_DELTA_TRANSFER)
    request = {"action": "request_model", "round_id": "round_001"}
    assert await other.send("validator_001", MessageType.MODEL_DELTA_REQUEST, request)
    message = await inbox.next()
    assert message.sender_id == "validator_001"
    assert message.payload == {"round_id": "round_001", "model_cid": "QmUploaded", "quality_score": 98.5}


@runs("Gossip Forwarding")
async def test_gossip_forwarding(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a line, the one in the middle forwards with one hop less; what has none left it does not push on."""
    # The ends learn each other's records, and must not find each other by them: nobody listens where they say they do.
    nowhere = {"advertise": "127.0.0.1:1"}
    a, b, c = (client(f"validator_00{n}", **settings) for n, settings in ((1, nowhere), (2, {}), (3, nowhere)))
    async with a, b, c:
        for one, other in ((a, b), (b, a), (b, c), (c, b)):
            one.peers[other.peer_id] = card(other)
        a.peers[c.peer_id], c.peers[a.peer_id] = card(c, multiaddr=""), card(a, multiaddr="")
        await until(lambda: all(peer.is_linked for peer in b.peers.values()), a, b, c)
        await run("Gossip Forwarding")
        node = b._running().node
        send, hops = node.transport.send, defaultdict(list)

        def watch(key: bytes, frames: tuple[bytes, ...], *, gossip: bool) -> bool:
            if key.hex() == c.public_key and len(frames) == 3:
                hops[wire.message_id(frames[1]).hex()].append(frames[0][1])
            return send(key, frames, gossip=gossip)

        monkeypatch.setattr(node.transport, "send", watch)
        inbox = Inbox(c, MessageType.GOSSIP)
        # A small one may be asked for before it is passed on, which is not at once in a mesh as small as this.
        message = await a.broadcast(MessageType.GOSSIP, {"n": 1, "pad": bytes(17 * 1024)}, ttl=3)
        assert (await inbox.next()).message_id == message.message_id
        assert hops[message.message_id][0] == 2
        # With one hop allowed nothing is pushed on: the far end asks for it when it is offered (with a fresh ttl).
        message = await a.broadcast(MessageType.GOSSIP, {"n": 2}, ttl=1)
        assert (await inbox.next()).message_id == message.message_id
        assert set(hops[message.message_id]) == {1}


@runs("Peer Cleanup")
async def test_peer_cleanup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is silent for ten minutes is no longer listed; the clock is set, nobody waits."""
    later = 0.0
    monkeypatch.setattr(
        zmesh.client, "read_clocks", lambda: Now(read_clocks().mono + later, read_clocks().wall + later)
    )
    async with mesh("validator_001", "validator_002") as (reader, other):
        await run("Peer Cleanup")
        await other.stop()
        await until(lambda: not reader.peers["validator_002"].is_linked, reader)
        later = 590
        assert list(reader.peers) == ["validator_002"]
        later = 610
        assert list(reader.peers) == []
        later = 0
        assert list(reader.peers) == ["validator_002"]


# ---------------------------------------------------------------- troubleshooting


@runs("Messages Not Received")
async def test_messages_not_received(
    pair: tuple[MeshNetworkClient, MeshNetworkClient],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader, other = pair

    def handler(message: MeshMessage) -> None:
        """Hear nothing."""

    reader.register_handler(MessageType.GOSSIP, handler)
    root = logging.getLogger()
    before = root.level
    try:
        await run("Messages Not Received", mesh=reader)
    finally:
        root.setLevel(before)
    queue, handlers = capsys.readouterr().out.splitlines()
    assert queue == "Queue size: 0"
    assert handlers == f"Handlers: { ({MessageType.GOSSIP: (handler,)}) }"
    # What DEBUG shows: a message that was dropped, and why.
    with caplog.at_level(logging.DEBUG, "zmesh"):
        await other.stop()
        await until(lambda: not reader.peers["validator_002"].is_linked, reader)
    assert any(record.name.startswith("zmesh.") for record in caplog.records)
