"""What tests of whole clients share: clients on loopback, and waiting for what their engines come to know.

Rules
 1. Nothing polls: everything that a client knows changes only when its engine handles an event, so ``until`` looks
    again after each of those.
 2. Every wait ends: ``PATIENCE`` is far above what a busy machine needs, and what was waited for is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from zmesh import MeshMessage, MeshNetworkClient, MessageType, PeerInfo
from zmesh.core.actions import Action
from zmesh.core.engine import Engine
from zmesh.node import Node

PATIENCE = 60.0
"""Seconds: a wait that takes longer, on however busy a machine, will never end."""


def client(peer_id: str, **settings: Any) -> MeshNetworkClient:
    """A client on loopback, on any free port, not started."""
    return MeshNetworkClient(**{"peer_id": peer_id, "listen_port": 0, "listen_host": "127.0.0.1", **settings})


@asynccontextmanager
async def mesh(*names: str, **settings: Any) -> AsyncIterator[list[MeshNetworkClient]]:
    """Started clients who vouch for each other by hand and are all linked."""
    clients = [client(name, **settings) for name in names]
    try:
        for one in clients:
            await one.start()
        introduce(*clients)
        await linked(*clients)
        yield clients
    finally:
        await asyncio.gather(*(one.stop() for one in clients))


def card(of: MeshNetworkClient, **changes: Any) -> PeerInfo:
    """What another operator would write down about this client."""
    known: dict[str, Any] = {
        "peer_id": of.peer_id,
        "multiaddr": f"/ip4/127.0.0.1/tcp/{of.listen_port}" if of.is_running else "",
        "public_key": of.public_key,
    }
    return PeerInfo(**{**known, **changes})


def introduce(*clients: MeshNetworkClient) -> None:
    """Let each add all others by hand."""
    for one in clients:
        for other in clients:
            if one is not other:
                one.peers[other.peer_id] = card(other)


def registry_file(path: Path, *clients: MeshNetworkClient) -> Path:
    """Write a registry that lists these clients; where they listen too, for those that run."""
    entries = []
    for one in clients:
        address = f'"/ip4/127.0.0.1/tcp/{one.listen_port}"' if one.is_running else "[]"
        entries.append(
            f'[[validator]]\npeer_id = "{one.peer_id}"\naccount = "account of {one.peer_id}"\n'
            f'public_key = "{one.public_key}"\naddress = {address}\nstake = 5000000000000\n'
        )
    path.write_text("\n".join(entries), encoding="utf-8")
    return path


async def linked(*clients: MeshNetworkClient) -> None:
    """Wait until each has a live link to everybody it knows."""
    await until(lambda: all(peer.is_linked for one in clients for peer in one.peers.values()), *clients)


def engine(of: MeshNetworkClient) -> Engine:
    """The engine of a running client."""
    return of._running().engine


async def until(condition: Callable[[], bool], *clients: MeshNetworkClient, seconds: float = PATIENCE) -> None:
    """Wait until ``condition``, which looks at these running clients, holds."""
    news = asyncio.Event()
    nodes = [one._running().node for one in clients]
    for node in nodes:
        _tell_after_each_step(node, news)
    try:
        async with asyncio.timeout(seconds):
            while not condition():
                news.clear()
                await news.wait()
    except TimeoutError:
        raise AssertionError(f"not within {seconds:g} s; {[one.health() for one in clients]}") from None
    finally:
        for node in nodes:
            del node._carry_out


def _tell_after_each_step(node: Node, news: asyncio.Event) -> None:
    carry_out = type(node)._carry_out

    def carry_out_and_tell(actions: list[Action]) -> None:
        carry_out(node, actions)
        news.set()

    node._carry_out = carry_out_and_tell  # type: ignore[method-assign]


class Inbox:
    """A handler that keeps what it is given."""

    def __init__(self, of: MeshNetworkClient, *kinds: MessageType) -> None:
        self.messages: asyncio.Queue[MeshMessage] = asyncio.Queue()
        for kind in kinds:
            of.register_handler(kind, self.put)

    def put(self, message: MeshMessage) -> None:
        """The handler."""
        self.messages.put_nowait(message)

    async def next(self) -> MeshMessage:
        """The next message, in the order of arrival."""
        async with asyncio.timeout(PATIENCE):
            return await self.messages.get()

    async def take(self, count: int) -> list[MeshMessage]:
        """The next ``count`` messages."""
        return [await self.next() for _ in range(count)]

    @property
    def is_empty(self) -> bool:
        """Is nothing left to take?"""
        return self.messages.empty()


def payloads(messages: Sequence[MeshMessage]) -> list[Any]:
    """Only what they say."""
    return [message.payload for message in messages]


async def http_get(port: int, path: str) -> tuple[int, str, str]:
    """GET from a front door: status, content type, body."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    first, *headers = head.split("\r\n")
    kinds = [line.partition(": ")[2] for line in headers if line.lower().startswith("content-type:")]
    return int(first.split()[1]), kinds[0], body


def counted(of: MeshNetworkClient, layer: str, event: str) -> int:
    """One counter out of what GET /metrics says; 0 if it never happened."""
    wanted = f'zmesh_{layer}_events_total{{event="{event}"}} '
    found = [line for line in of.metrics().splitlines() if line.startswith(wanted)]
    return int(found[0].removeprefix(wanted)) if found else 0
