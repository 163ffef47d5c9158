"""Stake as a relay chain's ``Staking`` has it, down to what ``discover_peers`` tells.

No public runtime has BelizeChain's map of validators: tests/unit/test_registry_readers.py decodes SCALE bytes of its
declared types instead.
"""

from __future__ import annotations

from collections.abc import Callable

from scalecodec.utils.ss58 import ss58_encode

from tests.chain.mesh_support import GENESIS, node
from tests.support import until
from zmesh import MeshNetworkClient
from zmesh.demo.accounts import DevAccount
from zmesh.demo.chopsticks import Chopsticks

STAKE = 5_000_000_000_000
BONDED = 7_000_000_000_000


async def told(one: MeshNetworkClient) -> None:
    """Wait until the chain has answered: a start gives it some seconds, and a busy machine may need more."""
    await until(lambda: one.health()["registry"]["members"] == 3, one)


async def test_stake_from_exposures_and_from_ledgers_reaches_whoever_asks_for_peers(
    run_chain: Callable[..., Chopsticks], accounts: list[DevAccount]
) -> None:
    chain = run_chain({}, staking=True)
    alice, bob, charlie = (one.address for one in accounts[:3])
    ledger = {"stash": bob, "total": BONDED, "active": BONDED, "unlocking": [], "lastReward": None}
    await chain.set_storage(
        {
            "Session": {"Validators": [alice, bob, charlie], "QueuedKeys": []},
            "Staking": {
                "CurrentEra": 3,
                "ActiveEra": {"index": 3, "start": None},
                "ErasStakers": [[[3, alice], {"total": STAKE, "own": STAKE, "others": []}]],
                "Bonded": [[[bob], bob]],
                "Ledger": [[[bob], ledger]],
            },
        }
    )
    await chain.new_block()
    async with node(chain, accounts[0]) as one:
        await told(one)
        found = {peer.account_id: peer for peer in await one.discover_peers()}
        stakes = {address: peer.stake_amount for address, peer in found.items()}
        # Its own prefix, 0, and not 42; a node does not list itself.
        assert stakes == {ss58_encode(accounts[1].id, 0): BONDED, ss58_encode(accounts[2].id, 0): 0}
        assert all(peer.is_validator for peer in found.values())
        assert one.health()["registry"]["source"].endswith("(session)")
    other = node(chain, accounts[1])
    async with other:
        await told(other)
        stakes = {peer.account_id: peer.stake_amount for peer in await other.discover_peers()}
        assert stakes[ss58_encode(accounts[0].id, 0)] == STAKE
    assert await chain.genesis() == GENESIS
