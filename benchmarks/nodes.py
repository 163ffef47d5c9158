"""Mesh nodes for the benchmarks, started and joined as a service would do it."""

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
"""Seconds in which all links of a benchmark's mesh must be up."""
NO_LIMIT = 1e9
"""Messages per second, or at once, for benchmarks that measure the speed and not the rate limit."""
PAYLOAD = 256
"""Bytes of an encoded payload, unless a benchmark says otherwise."""

UNLIMITED: dict[str, float] = {
    "author_rate": NO_LIMIT,
    "author_burst": NO_LIMIT,
    "link_rate": NO_LIMIT,
    "link_burst": NO_LIMIT,
}


def payload(number: int, size: int = PAYLOAD) -> dict[str, Any]:
    """A payload of ``size`` bytes when encoded, with its number.

    To measure latency, the caller writes the time of its call to zmesh into ``sent`` (monotonic seconds).
    """
    bare = {"n": number, "sent": 0.0, "pad": b""}
    lacking = size - len(msgpack.packb(bare, use_bin_type=True))
    if lacking < 0:
        raise BenchmarkError(f"a payload of {size} bytes is too small for a number and a time")
    return {**bare, "pad": bytes(lacking)}


class Introductions:
    """The registry of a benchmark (port: ``zmesh.registry.port``): the members introduced to this node last."""

    def __init__(self, me: Member) -> None:
        self._roster = Roster.of([me])
        self._on_change: OnChange = lambda found: None

    def introduce(self, members: Sequence[Member]) -> None:
        """From now on, exactly these belong."""
        self._roster = Roster.of(members)
        self._on_change(ValidatorSet(self._roster))

    async def start(self, on_change: OnChange) -> None:
        """Begin with only the node itself."""
        self._on_change = on_change
        on_change(ValidatorSet(self._roster))

    async def read(self) -> ValidatorSet:
        """The current set."""
        return ValidatorSet(self._roster)

    async def stop(self) -> None:
        """Nothing to stop."""

    def status(self) -> RegistryStatus:
        """Always fresh."""
        return RegistryStatus("whoever the benchmark introduced", len(self._roster), 0.0, None)


@dataclass
class Node:
    """A benchmark's running node."""

    mesh: MeshNetworkClient
    me: Member
    registry: Introductions


@asynccontextmanager
async def started(name: str, **settings: Any) -> AsyncIterator[Node]:
    """A node on loopback, on its own ports, that knows no peer yet."""
    seed = os.urandom(32)
    key = Identity.from_seed(seed).public
    me = Member(key, key.hex(), name)
    registry = Introductions(me)
    mesh = MeshNetworkClient(name, 0, private_key=seed, registry=registry, listen_host="127.0.0.1", **settings)
    async with mesh:
        yield Node(mesh, me._replace(endpoints=(Endpoint("127.0.0.1", mesh.listen_port),)), registry)


@asynccontextmanager
async def joined(line: Line, name: str, **settings: Any) -> AsyncIterator[MeshNetworkClient]:
    """A node that is linked with every peer that the parent introduces (see ``introduce``)."""
    async with started(name, **settings) as node:
        line.tell(node.me)
        members = await line.hear()
        node.registry.introduce(members)
        await node.mesh.wait_for_links(len(members) - 1, JOINING)
        line.tell("joined")
        await line.hear()
        yield node.mesh


def introduce(workers: Sequence[Worker]) -> None:
    """Introduce all workers, which run ``joined``, to each other; returns when every link is up."""
    members = [worker.hear() for worker in workers]
    for worker in workers:
        worker.tell(members)
    for worker in workers:
        worker.hear()
    for worker in workers:
        worker.tell("go")


def metric(mesh: MeshNetworkClient, name: str) -> int:
    """One number from ``mesh.metrics()``; 0 if it is missing."""
    for row in mesh.metrics().splitlines():
        if row.startswith(f"{name} "):
            return int(row.rpartition(" ")[2])
    return 0
