"""Where a dial leads: to the ports that the peer's own record names, or to its front door, never to somebody else."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import replace
from typing import Any

import pytest

from zmesh.core import wire
from zmesh.core.events import LinkClosed
from zmesh.core.types import Endpoint, PeerKey
from zmesh.dialer import RESOLVE_SECONDS, Dialer, resolve
from zmesh.handlers import Description, decode_record, encode_record
from zmesh.identity import Identity
from zmesh.transport import Routes

NETWORK = wire.network_id("zmesh")
PEER, OTHER = Identity.from_seed(b"p" * 32), Identity.from_seed(b"o" * 32)
DOOR = Endpoint("127.0.0.1", 9090)
PATIENCE = 60.0
PORTS = Routes(Endpoint("127.0.0.1", 1111), Endpoint("127.0.0.1", 2222), spare=DOOR)


def record(by: Identity = PEER, network: bytes = NETWORK, *, router: int | None = 1111) -> bytes:
    """What a front door serves."""
    described = Description("peer", (DOOR,), router, 2222)
    return encode_record(described, network, by.public, 1, 0, by.sign).encoded


class Desk:
    """A dialer, what its peers' doors serve (bytes, or the error that comes instead), and what came of it."""

    def __init__(self, **served: bytes | Exception) -> None:
        self.served = served
        self.offered: list[bytes] = []
        self._outcomes: asyncio.Queue[Routes | LinkClosed] = asyncio.Queue()
        transport: Any = self
        self.takes_local = False
        self.expected = PEER.public
        self.dialer = Dialer(
            transport, NETWORK, self.fetch, self.offered.append, self._outcomes.put_nowait, lambda: self.takes_local
        )

    async def fetch(self, endpoint: Endpoint, timeout: float) -> bytes:  # noqa: ASYNC109  # the dialer's own port
        """Instead of HTTP."""
        assert timeout > 0
        answer = self.served.get(endpoint.host) or self.served[f"at_{endpoint.port}"]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def dial(self, key: PeerKey, routes: Routes) -> None:
        """What the dialer asks of the transport."""
        assert key == self.expected
        self._outcomes.put_nowait(routes)

    async def outcome(self, *doors: Endpoint) -> Routes | str:
        """Dial these front doors; the routes that were taken, or why there are none."""
        self.dialer.dial(self.expected, doors)
        async with asyncio.timeout(20):
            came = await self._outcomes.get()
        assert self._outcomes.empty()
        return came if isinstance(came, Routes) else came.why


async def test_the_record_at_the_door_names_the_ports() -> None:
    desk = Desk(at_9090=record())
    assert await desk.outcome(DOOR) == PORTS
    assert desk.offered == [record()]


@pytest.mark.parametrize(
    "served, why",
    [
        (record(OTHER), f"127.0.0.1:9090: the node there is {OTHER.public.hex()[:12]}..., not the expected one"),
        (record(network=bytes(32)), "127.0.0.1:9090: the node there belongs to another mesh (MESH_NETWORK)"),
        (record()[:-1] + bytes([record()[-1] ^ 1]), "127.0.0.1:9090: its record is not signed by its key"),
        (ConnectionRefusedError(111, "Connection refused"), "127.0.0.1:9090: Connection refused"),
    ],
    ids=["another key", "another mesh", "another signature", "nobody"],
)
async def test_a_door_of_somebody_else_leads_nowhere_and_the_next_one_is_tried(
    served: bytes | Exception, why: str
) -> None:
    desk = Desk(at_9090=served, at_9091=record())
    assert await desk.outcome(DOOR) == why
    assert desk.offered == []
    second = Endpoint("127.0.0.1", 9091)
    assert await desk.outcome(DOOR, second) == replace(PORTS, spare=second)


async def test_bytes_that_are_no_record_lead_nowhere() -> None:
    why = await Desk(at_9090=b"no record").outcome(DOOR)
    assert isinstance(why, str)
    assert why.startswith("127.0.0.1:9090: its record is malformed (")


@pytest.mark.parametrize("served", [TimeoutError(), ValueError("does not speak HTTP"), record(router=None)])
async def test_without_ports_of_its_own_the_door_itself_is_dialled(served: bytes | Exception) -> None:
    assert await Desk(at_9090=served).outcome(DOOR) == Routes(DOOR)


SECOND, THIRD = Endpoint("127.0.0.1", 9091), Endpoint("127.0.0.1", 9092)


async def test_a_place_that_stayed_silent_is_dialled_last_from_then_on() -> None:
    """One address that swallows everything must not keep the others from being tried."""
    desk = Desk(at_9090=TimeoutError(), at_9091=record())
    assert await desk.outcome(DOOR, SECOND) == Routes(DOOR)
    for _ in range(3):
        assert await desk.outcome(DOOR, SECOND) == replace(PORTS, spare=SECOND)
    desk.served["at_9091"] = ConnectionRefusedError(111, "Connection refused")
    assert await desk.outcome(DOOR, SECOND) == Routes(DOOR), "it may be a ROUTER of its own"


async def test_places_that_all_stay_silent_take_turns() -> None:
    desk = Desk(at_9090=TimeoutError(), at_9091=TimeoutError(), at_9092=ValueError("does not speak HTTP"))
    turns = [await desk.outcome(DOOR, SECOND, THIRD) for _ in range(6)]
    assert turns == [Routes(DOOR), Routes(SECOND), Routes(THIRD)] * 2


async def test_a_place_that_serves_a_record_again_is_silent_no_longer() -> None:
    desk = Desk(at_9090=TimeoutError(), at_9091=ConnectionRefusedError(111, "Connection refused"))
    assert await desk.outcome(DOOR, SECOND) == Routes(DOOR)
    desk.served = {"at_9090": record(), "at_9091": record()}
    assert await desk.outcome(DOOR) == PORTS
    assert await desk.outcome(DOOR, SECOND) == PORTS


async def test_a_silent_address_of_a_name_leaves_a_turn_to_its_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPv6 that leads nowhere, as behind many a router, and IPv4 that is well."""

    def lookup(host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in served]

    served: dict[str, bytes | Exception] = {"2001:db8::1": TimeoutError(), "192.0.2.1": record()}
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    desk = Desk(**served)
    name = Endpoint("validator.example", 9090)
    assert await desk.outcome(name) == Routes(Endpoint("2001:db8::1", 9090))
    came = await desk.outcome(name)
    assert isinstance(came, Routes)
    assert came.direct.host == "192.0.2.1"


async def test_silence_is_remembered_of_each_key_and_of_so_many_places_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmesh.dialer.MAX_SILENT", 2)
    desk = Desk(at_9090=TimeoutError(), at_9091=TimeoutError(), at_9092=TimeoutError())
    assert await desk.outcome(DOOR) == Routes(DOOR)
    desk.expected = OTHER.public
    assert await desk.outcome(DOOR, SECOND) == Routes(DOOR), "that was another key"
    assert await desk.outcome(DOOR, SECOND) == Routes(SECOND)
    desk.expected = PEER.public
    assert await desk.outcome(DOOR, SECOND) == Routes(DOOR), "forgotten by now"
    assert len(desk.dialer._silent) == 2


async def test_a_name_that_does_not_resolve_in_time_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(host: str, port: int) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("zmesh.dialer._look_up", never)
    monkeypatch.setattr("zmesh.dialer.RESOLVE_SECONDS", 0.05)
    why = "validator.example:9090: its name did not resolve within 0.05 s"
    assert await Desk().outcome(Endpoint("validator.example", 9090)) == why


async def test_a_dial_without_an_address_ends() -> None:
    assert await Desk().outcome() == "no address is known"


@pytest.mark.parametrize("host", ["a..b", "a" * 64 + ".example", "a" * 253])
async def test_a_name_that_cannot_be_leads_nowhere(host: str) -> None:
    """A record may name it; the dial must still end, or the link would wait for ever."""
    assert await Desk().outcome(Endpoint(host, 9090)) == f"{host}:9090: invalid host name"


async def test_a_name_that_leads_to_this_machine_is_not_followed_unless_the_mesh_is_on_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lookup(host: str, port: int, **_: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (names.get(host, host), port))]

    names = {"rebinding.example": "127.0.0.1", "node.localhost": "127.0.0.1"}
    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    desk = Desk(at_9090=record())
    trap = Endpoint("rebinding.example", 9090)
    assert await desk.outcome(trap) == "rebinding.example:9090: its name resolves to an address of this machine"
    assert await desk.outcome(trap, DOOR) == PORTS, "the operator wrote this one"
    assert await desk.outcome(Endpoint("node.localhost", 9090)) == PORTS, "its name says so"
    desk.takes_local = True
    assert await desk.outcome(trap) == PORTS


async def test_names_that_nobody_answers_for_hold_up_nothing_but_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member may name eight of them in its record; the registry is read in threads, too."""
    given_up = threading.Event()

    def lookup(host: str, port: int, **_: object) -> list[Any]:
        if host != "good.example":
            given_up.wait(PATIENCE)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    slow = [asyncio.ensure_future(resolve(Endpoint(f"slow{number}.example", 1))) for number in range(16)]
    try:
        async with asyncio.timeout(RESOLVE_SECONDS / 2):
            assert await asyncio.to_thread(lambda: "read") == "read"
            assert await resolve(Endpoint("good.example", 9090)) == [Endpoint("192.0.2.1", 9090)]
            assert await resolve(Endpoint("198.51.100.7", 9090)) == [Endpoint("198.51.100.7", 9090)]
    finally:
        given_up.set()
        await asyncio.gather(*slow)


async def test_a_fault_of_ours_ends_the_dial_and_not_the_dialling(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk(at_9090=RuntimeError("what nobody thought of"))
    assert await desk.outcome(DOOR) == "dialling failed: RuntimeError"
    desk.served = {"at_9090": record()}
    assert await desk.outcome(DOOR) == PORTS


async def test_one_place_that_two_keys_claim_is_its_owners_alone() -> None:
    """The claimer's dial fails where the owner's record is served; the owner's own dial is none the worse."""
    desk = Desk(at_9090=record(OTHER))
    assert (
        await desk.outcome(DOOR)
        == f"127.0.0.1:9090: the node there is {OTHER.public.hex()[:12]}..., not the expected one"
    )
    desk.expected = OTHER.public
    assert await desk.outcome(DOOR) == PORTS
    assert [decode_record(known).key for known in desk.offered] == [OTHER.public]


async def test_a_node_that_joined_another_mesh_finds_its_peers_there() -> None:
    chain = wire.network_id("zmesh", bytes(32))
    desk = Desk(at_9090=record(network=chain))
    assert isinstance(await desk.outcome(DOOR), str)
    desk.dialer.join(chain)
    assert await desk.outcome(DOOR) == PORTS
