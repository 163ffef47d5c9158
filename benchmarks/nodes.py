"""Mesh nodes for the benchmarks: each in a process of its own, started and joined as a service would do it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgpack

from benchmarks.harness import BenchmarkError, Line, Worker
from zmesh import Identity, MeshNetworkClient
from zmesh.core.types import Endpoint, Member, Roster
from zmesh.registry.port import OnChange, RegistryStatus, ValidatorSet

JOINING = 30.0
"""Seconds in which all links of a benchmark's mesh must stand."""
NO_LIMIT = 1e9
"""Messages a second, or at once: what a benchmark sets where it measures the speed and not the limit."""
PAYLOAD = 256
"""Bytes of a payload as it travels, unless a benchmark says otherwise."""

UNLIMITED: dict[str, float] = {
    "author_rate": NO_LIMIT,
    "author_burst": NO_LIMIT,
    "link_rate": NO_LIMIT,
    "link_burst": NO_LIMIT,
}


def payload(number: int, size: int = PAYLOAD) -> dict[str, Any]:
    """A payload of ``size`` bytes as it travels, with its number.

    Whoever measures a latency writes the moment of its call to zmesh into ``sent`` (monotonic seconds).
    """
    bare = {"n": number, "sent": 0.0, "pad": b""}
    lacking = size - len(msgpack.packb(bare, use_bin_type=True))
    if lacking < 0:
        raise BenchmarkError(f"a payload of {size} bytes is too small for a number and a time")
    return {**bare, "pad": bytes(lacking)}


class Introductions:
    """The registry of a benchmark (port: ``zmesh.registry.port``): whoever was introduced to this node so far."""

    def __init__(self, me: Member) -> None:
        self._roster = Roster.of([me])
        self._on_change: OnChange = lambda found: None

    def introduce(self, members: Sequence[Member]) -> None:
        """From now on exactly these belong."""
        self._roster = Roster.of(members)
        self._on_change(ValidatorSet(self._roster))

    async def start(self, on_change: OnChange) -> None:
        """Begin with the node itself."""
        self._on_change = on_change
        on_change(ValidatorSet(self._roster))

    async def read(self) -> ValidatorSet:
        """As it is."""
        return ValidatorSet(self._roster)

    async def stop(self) -> None:
        """Nothing runs."""

    def describe(self) -> str:
        """For people."""
        return "whoever the benchmark introduced"

    def status(self) -> RegistryStatus:
        """Always fresh."""
        return RegistryStatus(self.describe(), len(self._roster), 0.0, None)


@dataclass
class Node:
    """A running node of a benchmark."""

    mesh: MeshNetworkClient
    me: Member
    registry: Introductions


@asynccontextmanager
async def started(name: str, **settings: Any) -> AsyncIterator[Node]:
    """A node on loopback, on ports of its own, that knows nobody yet."""
    seed = os.urandom(32)
    key = Identity.from_seed(seed).public
    me = Member(key, key.hex(), name)
    registry = Introductions(me)
    mesh = MeshNetworkClient(name, 0, private_key=seed, registry=registry, listen_host="127.0.0.1", **settings)
    async with mesh:
        yield Node(mesh, me._replace(endpoints=(Endpoint("127.0.0.1", mesh.listen_port),)), registry)


@asynccontextmanager
async def joined(line: Line, name: str, **settings: Any) -> AsyncIterator[MeshNetworkClient]:
    """A node that is linked with everybody whom the parent introduces (see ``introduce``)."""
    async with started(name, **settings) as node:
        line.tell(node.me)
        members = await line.hear()
        node.registry.introduce(members)
        await node.mesh.wait_for_links(len(members) - 1, JOINING)
        line.tell("joined")
        await line.hear()
        yield node.mesh


def introduce(workers: Sequence[Worker]) -> None:
    """Make all workers, which run ``joined``, known to each other; returns when every link stands."""
    members = [worker.hear() for worker in workers]
    for worker in workers:
        worker.tell(members)
    for worker in workers:
        worker.hear()
    for worker in workers:
        worker.tell("go")


def metric(mesh: MeshNetworkClient, name: str) -> int:
    """One number of ``mesh.metrics()``; 0 if it is not there."""
    for row in mesh.metrics().splitlines():
        if row.startswith(f"{name} "):
            return int(row.rpartition(" ")[2])
    return 0
