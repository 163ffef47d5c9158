"""A mesh for the tests of your service: real clients on loopback, linked and ready.

>>> import asyncio
>>> from zmesh import MessageType
>>> from zmesh.testing import mesh
>>> async def test_a_vote_counts_with_its_stake():
...     async with mesh(3, stakes=[60, 30, 10]) as nodes:
...         first, *others = nodes
...         await first.broadcast(MessageType.CONSENSUS_VOTE, {"proposal_id": "p", "choice": "yes"})
...         return first.handlers.votes.tally("p").stake
>>> asyncio.run(test_a_vote_counts_with_its_stake())
{'yes': 60}

Rules
 1. Nothing is faked but the registry, which is in memory: keys are fresh, and sockets, encryption and signatures real.
 2. Ports are free ones of 127.0.0.1, so that tests may run side by side.
 3. Nodes keep their state apart: each has a folder of its own name in ``state_dir``, and none touches that of a node
    which runs on this machine with the same environment.
 4. Any test framework will do: nothing here imports one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_bytes
from typing import TYPE_CHECKING, Unpack

from zmesh.client import LINKS_SECONDS, MeshNetworkClient
from zmesh.config import PREFIX
from zmesh.core.errors import ConfigError
from zmesh.registry import Endpoint, Member, OnChange, Registry, RegistryStatus, Roster, ValidatorSet

if TYPE_CHECKING:
    from zmesh.arguments import SettingsArguments

__all__ = ["Nodes", "Validators", "mesh"]

LOOPBACK = "127.0.0.1"
MAX_NODES = 50
"""Nodes of one mesh: all are linked with all in one process, at 14 file handles a link."""


class Validators:
    """Who belongs to a mesh under test. All its nodes share one, which tells them of every change at once.

    Use it on the event loop that the nodes run on.
    """

    def __init__(self) -> None:
        self._members: dict[bytes, Member] = {}
        self._watchers: list[_MemoryRegistry] = []
        self.current = ValidatorSet()
        """The set in force."""

    def add(self, *clients: MeshNetworkClient, stake: int = 1, account: str = "", is_validator: bool = True) -> None:
        """Let these clients belong, or change what is said about them; where they listen is known if they run.

        ``stake``: in the smallest unit. ``account``: by default the client's peer_id. Raises ``ValueError`` if two
        members would share an account.
        """
        changed = dict(self._members)
        for client in clients:
            key, name = bytes.fromhex(client.public_key), client.peer_id
            places = (Endpoint(client.settings.listen_host, client.listen_port),) if client.is_running else ()
            changed[key] = Member(key, account or name, name, places, stake, is_validator)
        self._replace(changed)

    def remove(self, *clients: MeshNetworkClient) -> None:
        """Let these clients no longer belong: the others cut them off."""
        gone = {bytes.fromhex(client.public_key) for client in clients}
        self._replace({key: member for key, member in self._members.items() if key not in gone})

    def registry(self) -> Registry:
        """A registry for one more client: ``MeshNetworkClient("late", registry=validators.registry(), ...)``."""
        return _MemoryRegistry(self, self._watchers)

    def _replace(self, members: dict[bytes, Member]) -> None:
        self.current = ValidatorSet(Roster.of(members.values()))
        self._members = members
        for watcher in list(self._watchers):
            watcher.tell()


class _MemoryRegistry:
    """What one client sees of ``Validators``."""

    def __init__(self, validators: Validators, watchers: list[_MemoryRegistry]) -> None:
        self._validators = validators
        self._watchers = watchers
        self._on_change: OnChange | None = None

    async def start(self, on_change: OnChange) -> None:
        self._on_change = on_change
        self._watchers.append(self)
        self.tell()

    async def read(self) -> ValidatorSet:
        return self._validators.current

    async def stop(self) -> None:
        if self._on_change is not None:
            self._on_change = None
            self._watchers.remove(self)

    def status(self) -> RegistryStatus:
        return RegistryStatus("memory", len(self._validators.current), 0.0, None)

    def tell(self) -> None:
        if self._on_change is not None:
            self._on_change(self._validators.current)


class Nodes(tuple[MeshNetworkClient, ...]):
    """The started clients of a mesh, in order: a tuple, so it can be unpacked."""

    validators: Validators
    """Who belongs to the mesh; change it to see how your service takes it."""

    @classmethod
    def of(cls, clients: Iterable[MeshNetworkClient], validators: Validators) -> Nodes:
        """These clients, which share ``validators``."""
        made = cls(clients)
        made.validators = validators
        return made


@asynccontextmanager
async def mesh(
    nodes: int | Sequence[str] = 3,
    *,
    stakes: Sequence[int] | None = None,
    timeout: float = LINKS_SECONDS,  # noqa: ASYNC109  # of the start alone, not of the block
    **settings: Unpack[SettingsArguments],
) -> AsyncIterator[Nodes]:
    """Started clients on loopback, each linked with every other; they are stopped when the block is left.

    Args:
        nodes: how many, 1 to 50, which are then called ``validator_001`` and so on; or their names. The account of each
            has the same name.
        stakes: one for each node, in the smallest unit; 1 each if not given.
        timeout: seconds to wait for the links.
        settings: for every client, see docs/settings.md; environment variables count as usual. Each node has a folder
            of its own name in ``state_dir``, if that is given.

    Raises ``ConfigError`` for anything unusable, and ``TimeoutError``, which says why, if a link does not come up.
    """
    names = [f"validator_{number:03}" for number in range(1, nodes + 1)] if isinstance(nodes, int) else list(nodes)
    if not 1 <= len(names) <= MAX_NODES:
        raise ConfigError(f"nodes must be 1 to {MAX_NODES}, not {len(names)}")
    if len(set(names)) != len(names):
        raise ConfigError(f"nodes must have names of their own, not {names}")
    if stakes is not None and len(stakes) != len(names):
        raise ConfigError(f"stakes must be one for each of {len(names)} nodes, not {len(stakes)}")
    if stakes is not None and min(stakes) < 0:
        raise ConfigError(f"stakes must not be negative, as in {list(stakes)}")
    settings.setdefault("listen_host", LOOPBACK)
    validators = Validators()
    clients = [_client(name, validators.registry(), settings) for name in names]
    try:
        shares = dict(zip(clients, stakes or [1] * len(clients), strict=True))
        for client, stake in shares.items():
            validators.add(client, stake=stake)
        for client, stake in shares.items():
            await client.start()
            validators.add(client, stake=stake)  # with the port that it found
        await asyncio.gather(*(client.wait_for_links(len(clients) - 1, timeout) for client in clients))
        yield Nodes.of(clients, validators)
    finally:
        await asyncio.gather(*(client.stop() for client in clients))


def _client(name: str, registry: Registry, settings: SettingsArguments) -> MeshNetworkClient:
    own, state_dir = settings.copy(), settings.get("state_dir") or os.environ.get(f"{PREFIX}STATE_DIR")
    if state_dir:
        own["state_dir"] = Path(state_dir) / name
    return MeshNetworkClient(name, 0, private_key=token_bytes(32), registry=registry, **own)
