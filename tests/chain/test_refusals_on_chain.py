"""Whoever does not belong, by a real chain: each is refused with a reason of its own, in the answer, in the counter and
in the log; nobody gets in, and nobody who belongs is lost.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import blake2b
from itertools import cycle
from typing import Any

import msgpack
import pytest

from tests.chain.mesh_support import GENESIS, is_linked, linked, mesh, mesh_key, name, node
from tests.chain.registry_support import Shared
from tests.support import Inbox, counted, engine, until
from zmesh import ConfigError, MessageType, SendResult
from zmesh.core import wire
from zmesh.core.types import Endpoint
from zmesh.core.wire import SIGNATURE_SIZE
from zmesh.demo.accounts import DevAccount, dev_account
from zmesh.demo.chopsticks import Chopsticks
from zmesh.handlers import Description, encode_record
from zmesh.handlers.record import SIGN_TAG
from zmesh.http_client import Posted, post_record

STRANGER = "//Stranger"
TEN_MINUTES = 600
DAY = 86_400
ENDPOINTS = 4
"""The place of that field in a record."""


@pytest.fixture
async def four(chain: Chopsticks, accounts: list[DevAccount]) -> list[DevAccount]:
    """Alice to Dave are validators."""
    await chain.set_validators([one.address for one in accounts[:4]])
    return accounts[:4]


def record(of: DevAccount, delegation: bytes | None, **changes: Any) -> bytes:
    """What the account's node would send, with that delegation."""
    key = mesh_key(of)
    network = changes.pop("network", wire.network_id("zmesh", GENESIS))
    sequence = changes.pop("sequence", 1)
    given = {"peer_id": name(of), "endpoints": (), "delegation": delegation, **changes}
    return encode_record(Description(**given), network, key.public, sequence, time.time_ns() // 10**6, key.sign).encoded


def signed(by: DevAccount, pen: DevAccount | None = None, **lies: Any) -> bytes:
    """A delegation by ``by`` for its node, with these fields changed; signed by ``pen`` in its name, if given."""
    key = mesh_key(by)
    statement = by.says(key, GENESIS)._replace(**lies)
    return (pen or by).delegate(key, statement).encoded


async def test_everybody_who_may_not_take_part_is_refused_for_a_reason_of_its_own(
    chain: Chopsticks, four: list[DevAccount], caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob, charlie, dave = four
    stranger = dev_account(STRANGER)
    now = int(time.time())
    refused = {
        "unknown_key": record(dave, None),
        "unknown_account": record(stranger, signed(stranger)),
        "forged": record(dave, signed(dave, pen=stranger)),
        "expired": record(dave, signed(dave, not_before=now - 40 * DAY, not_after=now - 10 * DAY)),
        "not_yet": record(dave, signed(dave, not_before=now + TEN_MINUTES, not_after=now + DAY)),
        "other_chain": record(dave, signed(dave, genesis=b"\x11" * 32)),
        "other_network": record(dave, signed(dave, network="elsewhere")),
        "not_held": record(dave, signed(charlie)),
        "malformed": record(dave, b"\x93\x01\x02\x03"),
    }
    async with mesh(chain, [alice, bob], registry=Shared(chain.url)) as nodes:
        door = Endpoint("127.0.0.1", nodes[0].listen_port)
        await linked(*nodes)
        for reason, posted in refused.items():
            assert await post_record(door, posted, 10) == Posted(403, reason)
            assert counted(nodes[0], "admission", reason) == 1
        # The newer one counts, and ends the older one.
        newer, older = signed(dave, sequence=8), signed(dave, sequence=7, not_after=now + DAY)
        other_key = dave._replace(uri="//Dave again")
        moved = other_key.delegate(mesh_key(other_key), dave.says(mesh_key(other_key), GENESIS)._replace(sequence=9))
        assert await post_record(door, record(dave, newer), 10) == Posted(202, "new")
        assert await post_record(door, record(other_key, moved.encoded), 10) == Posted(202, "new")
        assert await post_record(door, record(dave, older, sequence=2), 10) == Posted(403, "superseded")
        members = {mesh_key(one).public for one in (alice, bob, other_key)}
        await until(lambda: engine(nodes[0]).peers.roster.keys == members, *nodes)
        assert await nodes[1].send("alice", MessageType.GOSSIP, {"still": "here"})
    entries = [record.__dict__["zmesh"] for record in caplog.records if hasattr(record, "zmesh")]
    told = {entry["reason"]: entry for entry in entries if entry["event"] == "membership_refused"}
    assert told.keys() == {*refused, "superseded"}
    assert re.fullmatch(r"the delegation has yet to begin, or a clock is wrong by 5\d\d s", told["not_yet"]["why"])
    assert told["unknown_account"]["account"] == f"0x{stranger.id.hex()}"


async def test_records_that_are_none_of_this_mesh_are_refused(chain: Chopsticks, four: list[DevAccount]) -> None:
    alice, dave = four[0], four[3]
    valid = signed(dave)
    *most, last = record(dave, valid)
    places = tuple(Endpoint("192.0.2.1", 9000 + n) for n in range(9))
    async with node(chain, alice) as one:
        door = Endpoint("127.0.0.1", one.listen_port)
        await until(lambda: one.health()["registry"]["members"] == 4, one)
        with pytest.raises(ConfigError, match="at most 8 endpoints"):
            record(dave, valid, endpoints=places)
        answers = [
            await post_record(door, record(dave, valid, network=wire.network_id("zmesh")), 10),
            await post_record(door, with_endpoints(record(dave, valid), dave, places), 10),
            await post_record(door, bytes([*most, last ^ 1]), 10),
            await post_record(door, bytes(8 * 1024 + 1), 10),
        ]
        assert answers == [
            Posted(403, "other_network"),
            Posted(400, "malformed"),
            Posted(403, "bad_signature"),
            Posted(413, "status_413"),
        ]
        assert engine(one).peers.roster.keys == {mesh_key(alice).public}


def with_endpoints(encoded: bytes, of: DevAccount, endpoints: Sequence[Endpoint]) -> bytes:
    """The record with these endpoints, however many, and signed as it should be."""
    fields = msgpack.unpackb(encoded[:-SIGNATURE_SIZE])
    fields[ENDPOINTS] = [list(one) for one in endpoints]
    body = msgpack.packb(fields)
    return bytes(body) + mesh_key(of).sign(SIGN_TAG + blake2b(body, digest_size=32).digest())


async def test_a_node_without_an_account_is_told_so_and_linked_by_nobody(
    chain: Chopsticks, four: list[DevAccount]
) -> None:
    stranger = dev_account(STRANGER)
    registry = Shared(chain.url)
    async with mesh(chain, four[:2], registry=registry) as nodes:
        await linked(*nodes)
        async with node(chain, stranger, *nodes, registry=registry) as sixth:
            await until(lambda: all(counted(one, "admission", "unknown_account") for one in nodes), *nodes, sixth)
            await until(lambda: says_why(sixth.health(), "unknown_account"), sixth)
            assert not any(is_linked(one, sixth) or is_linked(sixth, one) for one in nodes)


def says_why(health: dict[str, Any], reason: str) -> bool:
    """Is the node degraded, and does it tell what seeds hold against it?"""
    return health["status"] == "degraded" and reason in " ".join(health["bootstrap"]["problems"])


def test_a_delegation_that_is_not_true_does_not_start(chain: Chopsticks, four: list[DevAccount]) -> None:
    alice, bob, *_ = four
    with pytest.raises(ConfigError, match="has an invalid signature: make a new one with `zmesh key delegate`"):
        node(chain, alice, delegation=signed(alice, pen=bob).hex())
    with pytest.raises(ConfigError, match="is for the key"):
        node(chain, alice, delegation=signed(bob).hex())
    with pytest.raises(ConfigError, match="is for the mesh 'elsewhere'"):
        node(chain, alice, delegation=signed(alice, network="elsewhere").hex())


async def test_of_two_accounts_with_one_name_neither_is_lost_and_the_name_means_nobody(
    chain: Chopsticks, four: list[DevAccount]
) -> None:
    alice, bob, charlie, _ = four
    registry = Shared(chain.url)
    async with (
        mesh(chain, [alice, bob], registry=registry) as (a, b),
        node(chain, charlie, a, peer_id="bob", registry=registry) as c,
    ):
        await linked(a, b, c)
        inboxes = [Inbox(one, MessageType.GOSSIP) for one in (b, c)]
        assert await a.send("bob", MessageType.GOSSIP, {"for": "whom"}) is SendResult.AMBIGUOUS
        for one, inbox in zip((b, c), inboxes, strict=True):
            assert await a.send(one.public_key, MessageType.GOSSIP, {"for": "you"})
            assert (await inbox.next()).payload == {"for": "you"}
        assert all(inbox.is_empty for inbox in inboxes)


async def test_three_nodes_behind_one_address_are_told_apart_and_nobody_is_lost(
    chain: Chopsticks, four: list[DevAccount], caplog: pytest.LogCaptureFixture
) -> None:
    *three, dave = four
    registry = Shared(chain.url)
    async with mesh(chain, three, registry=registry) as nodes:
        await linked(*nodes)
        async with (
            balancer([one.listen_port for one in nodes]) as port,
            node(chain, dave, bootstrap=f"127.0.0.1:{port}", registry=registry) as d,
        ):
            await linked(*nodes, d)
            await until(lambda: "answers as" in caplog.text, d)
    assert f"127.0.0.1:{port} answers as" in caplog.text
    assert "MESH_ADVERTISE" in caplog.text


@asynccontextmanager
async def balancer(ports: Sequence[int]) -> AsyncIterator[int]:
    """A port on which each connection leads to the next of ``ports``."""
    turns = cycle(ports)
    open_pairs: set[asyncio.Task[None]] = set()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", next(turns))
        task = asyncio.current_task()
        assert task is not None
        open_pairs.add(task)
        try:
            await asyncio.gather(pipe(reader, there_writer), pipe(there_reader, writer), return_exceptions=True)
        finally:
            writer.close()
            there_writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in open_pairs:
            task.cancel()
        await asyncio.gather(*open_pairs, return_exceptions=True)
        await server.wait_closed()
