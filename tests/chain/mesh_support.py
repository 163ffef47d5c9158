"""Nodes whose registry is a chain: an account, a delegation by it, and one address to begin with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import blake2b
from typing import Any

from tests.support import PATIENCE, client, until
from zmesh import MeshNetworkClient
from zmesh.demo.accounts import DevAccount
from zmesh.demo.chopsticks import Chopsticks
from zmesh.identity import Identity

GENESIS = b"\x45" * 32
"""Of every chain that chopsticks runs."""


def name(account: DevAccount) -> str:
    """``//Alice`` is alice."""
    return account.uri.strip("/").lower()


def seed_of(who: str) -> bytes:
    """32 bytes: the mesh key of the node by that name, the same in every run."""
    return blake2b(who.encode(), digest_size=32).digest()


def mesh_key(account: DevAccount) -> Identity:
    return Identity.from_seed(seed_of(name(account)))


def delegated(account: DevAccount, **lies: Any) -> str:
    """Hex of the account's delegation for its node, with these fields of the statement changed before it is signed."""
    key = mesh_key(account)
    return account.delegate(key, account.says(key, GENESIS)._replace(**lies)).encoded.hex()


def node(chain: Chopsticks, account: DevAccount, *seeds: MeshNetworkClient, **settings: Any) -> MeshNetworkClient:
    """The account's node, not started, that knows the addresses of ``seeds``, which run."""
    given: dict[str, Any] = {
        "registry": "substrate",
        "blockchain_rpc": chain.url,
        "private_key": seed_of(name(account)),
        "delegation": delegated(account),
        "bootstrap": ",".join(f"127.0.0.1:{seed.listen_port}" for seed in seeds),
    }
    return client(settings.pop("peer_id", name(account)), **{**given, **settings})


@asynccontextmanager
async def mesh(
    chain: Chopsticks, accounts: Sequence[DevAccount], **settings: Any
) -> AsyncIterator[list[MeshNetworkClient]]:
    """Started nodes of these accounts: the first knows nobody, the others know the first."""
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(node(chain, accounts[0], **settings))
        others = [node(chain, account, first, **settings) for account in accounts[1:]]
        # Together: each waits for its chain.
        await asyncio.gather(*(stack.enter_async_context(other) for other in others))
        yield [first, *others]


def are_linked(*clients: MeshNetworkClient) -> bool:
    """Has each a live link to each other?"""
    return all(is_linked(one, other) for one in clients for other in clients if one is not other)


def is_linked(one: MeshNetworkClient, other: MeshNetworkClient) -> bool:
    """Does ``one`` see a live link to ``other``?"""
    return any(peer.public_key == other.public_key and peer.is_linked for peer in one.peers.values())


async def linked(*clients: MeshNetworkClient, seconds: float = PATIENCE) -> None:
    """Wait until everybody is linked with everybody."""
    await until(lambda: are_linked(*clients), *clients, seconds=seconds)
