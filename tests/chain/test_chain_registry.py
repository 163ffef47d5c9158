"""What a real runtime says of its validators, and what becomes of that when the chain changes, lies, hangs or dies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from scalecodec.utils.ss58 import ss58_encode

from tests.chain.registry_support import watched
from zmesh.demo.accounts import DevAccount
from zmesh.demo.chopsticks import Chopsticks


@pytest.fixture
async def everybody(chain: Chopsticks, accounts: list[DevAccount]) -> list[DevAccount]:
    """All six are validators when a test begins."""
    await chain.set_validators([one.address for one in accounts])
    return accounts


def addresses(*accounts: DevAccount) -> list[str]:
    return [one.address for one in accounts]


def ids(*accounts: DevAccount) -> set[bytes]:
    return {one.id for one in accounts}


async def test_the_set_comes_with_genesis_and_block_and_addresses_in_the_chains_own_prefix(
    chain: Chopsticks, everybody: list[DevAccount]
) -> None:
    async with watched(chain.url) as one:
        assert one.ids == ids(*everybody)
        number, _ = await chain.head()
        assert (one.found.genesis, one.found.block) == (await chain.genesis(), number)
        told = {account.id: account.address for account in one.found.accounts.values()}
        assert told == {account.id: ss58_encode(account.id, 2) for account in everybody}
        assert all(account.is_validator for account in one.found.accounts.values())
        status = one.registry.status()
        assert (status.members, status.block, status.problem) == (6, number, None)
        assert status.source == f"chain ws://{chain.url.removeprefix('ws://')} (session)"


async def test_a_change_of_the_set_comes_by_itself_with_its_block(
    chain: Chopsticks, everybody: list[DevAccount]
) -> None:
    async with watched(chain.url) as one:
        await chain.set_validators(addresses(*everybody[:5]))
        await one.until(lambda: one.ids == ids(*everybody[:5]))
        await chain.set_validators(addresses(*everybody))
        await one.until(lambda: one.ids == ids(*everybody))
        assert one.found.block == (await chain.head())[0]


async def test_a_set_that_shrinks_by_more_than_a_third_waits_for_a_second_block(
    chain: Chopsticks, everybody: list[DevAccount]
) -> None:
    async with watched(chain.url) as one:
        await chain.set_validators(addresses(*everybody[:2]))
        await one.problem("4 of 6 validators are missing")
        assert one.ids == ids(*everybody)
        await chain.new_block()
        await one.until(lambda: one.ids == ids(*everybody[:2]))
        await one.well()


async def test_an_empty_set_is_never_taken_nor_one_with_an_account_twice(
    chain: Chopsticks, everybody: list[DevAccount]
) -> None:
    async with watched(chain.url) as one:
        for wrong, said in (([], "names no validator"), (addresses(*everybody, everybody[0]), "twice")):
            await chain.set_validators(wrong)
            await chain.new_block(2)
            await one.problem(said)
            assert one.ids == ids(*everybody)
            await chain.set_validators(addresses(*everybody))
            await one.well()


async def test_a_reader_that_the_chain_has_no_storage_for_says_what_there_is(chain: Chopsticks) -> None:
    async with watched(chain.url, "substrate:belize") as one:
        said = await one.problem("Staking.Validators")
        assert "Session.Validators (substrate:session)" in said
        assert "CollatorSelection.Invulnerables (substrate:collators)" in said
        assert len(one.found) == 0


async def test_a_chain_that_hangs_or_dies_leaves_the_set_as_it_was_and_is_heard_again_when_it_is_back(
    chain: Chopsticks, everybody: list[DevAccount]
) -> None:
    async with watched(chain.url) as one:
        chain.hang()
        try:
            assert await one.problem()
            assert one.ids == ids(*everybody)
        finally:
            chain.resume()
        await chain.set_validators(addresses(*everybody[:5]))
        await one.until(lambda: one.ids == ids(*everybody[:5]))
        await asyncio.to_thread(chain.kill)
        try:
            assert await one.problem()
            assert one.ids == ids(*everybody[:5])
        finally:
            await asyncio.to_thread(chain.start)
        await chain.set_validators(addresses(*everybody[1:]))
        await one.until(lambda: one.ids == ids(*everybody[1:]))
        # Back at block 2: whoever remembers higher numbers takes what the chain says now.
        assert (await chain.head())[0] == 2
        await one.until(lambda: one.registry.status().block == 2)
        await chain.set_validators(addresses(*everybody))
        await one.until(lambda: one.ids == ids(*everybody))
        await one.well()


async def test_blocks_that_are_rolled_back_never_were(chain: Chopsticks, everybody: list[DevAccount]) -> None:
    async with watched(chain.url) as one:
        _, before = await chain.head()
        await chain.new_block()
        await chain.set_validators(addresses(*everybody[:5]))
        await one.until(lambda: one.ids == ids(*everybody[:5]))
        await chain.set_head(before)
        await one.until(lambda: one.ids == ids(*everybody))
        await chain.new_block()
        await chain.set_validators(addresses(*everybody[1:]))
        await one.until(lambda: one.ids == ids(*everybody[1:]))


async def test_without_its_chain_a_node_begins_with_the_last_set(
    chain: Chopsticks, everybody: list[DevAccount], tmp_path: Path
) -> None:
    async with watched(chain.url, folder=tmp_path) as one:
        block = one.found.block
    async with watched("ws://127.0.0.1:1", folder=tmp_path) as one:
        assert (one.ids, one.found.block, one.found.genesis) == (ids(*everybody), block, await chain.genesis())
        status = one.registry.status()
        assert status.problem is not None
        assert status.age is not None
        assert status.age < 60


async def test_another_chain_is_refused_when_the_operator_said_which(
    chain: Chopsticks, everybody: list[DevAccount]
) -> None:
    async with watched(chain.url, genesis=b"\x11" * 32) as one:
        await one.problem("is a different chain")
        assert len(one.found) == 0
