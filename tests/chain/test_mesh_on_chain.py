"""A mesh whose members a real chain names: they meet through one address, and strangers, leavers and newcomers are told
apart, also while the chain hangs, dies or takes blocks back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.chain.mesh_support import are_linked, is_linked, linked, mesh, node
from tests.chain.registry_support import Shared
from tests.support import Inbox, counted, engine, until
from zmesh import MeshNetworkClient, MessageType
from zmesh.demo.accounts import DevAccount, dev_account
from zmesh.demo.chopsticks import Chopsticks

MESHING = 10.0
"""Seconds in which five nodes with one address between them have to be a full mesh."""
JOINING = 5.0
"""Seconds from a block until whom it names is in the mesh, and whom it names no longer is out."""


@pytest.fixture
async def five(chain: Chopsticks, accounts: list[DevAccount]) -> list[DevAccount]:
    """Alice to Eve are validators when a test begins, and Ferdie is none."""
    await chain.set_validators(addresses(*accounts[:5]))
    return accounts[:5]


def addresses(*accounts: DevAccount) -> list[str]:
    return [one.address for one in accounts]


async def test_five_nodes_with_one_address_between_them_are_a_mesh_and_a_round_reaches_all(
    chain: Chopsticks, five: list[DevAccount]
) -> None:
    async with mesh(chain, five) as nodes:
        # What a runtime's metadata costs to decode, five times on two cores, is the machine's affair.
        await until(lambda: all(one.health()["registry"]["members"] == 5 for one in nodes), *nodes)
        await linked(*nodes, seconds=MESHING)
        alice, *others = nodes
        inboxes = [Inbox(one, MessageType.FL_ROUND_START) for one in others]
        await alice.announce_fl_round("round_001", "digits", 5, 60)
        heard = [await inbox.next() for inbox in inboxes]
        assert [(one.payload["round_id"], one.sender_id) for one in heard] == [("round_001", "alice")] * 4


async def test_a_removed_validator_is_out_a_new_one_is_in_and_nothing_between_those_who_stay_is_lost(
    chain: Chopsticks, five: list[DevAccount], accounts: list[DevAccount]
) -> None:
    ferdie_account = accounts[5]
    async with mesh(chain, five) as nodes:
        *staying, eve = nodes
        async with node(chain, ferdie_account, nodes[0]) as ferdie:
            await linked(*nodes)
            await until(lambda: counted(nodes[0], "admission", "unknown_account") > 0, *nodes)
            assert not any(is_linked(one, ferdie) for one in nodes)
            inboxes = [Inbox(one, MessageType.GOSSIP) for one in staying]
            await publish(staying, range(300))
            publishing = asyncio.create_task(publish(staying, range(300, 700)))
            await chain.set_validators(addresses(*five[:4], ferdie_account))
            await until(lambda: not any(eve.public_key in keys(one) for one in staying), *staying, seconds=JOINING)
            await linked(*staying, ferdie, seconds=JOINING)
            await publishing
            await eve.broadcast(MessageType.GOSSIP, {"n": "late", "by": "eve"})
            await publish(staying, range(700, 1000))
            for one, inbox in zip(staying, inboxes, strict=True):
                messages = await inbox.take(sum(1 for n in range(1000) if staying[n % 4] is not one))
                numbers = [message.payload["n"] for message in messages]
                assert sorted(numbers) == [n for n in range(1000) if staying[n % 4] is not one]
                assert inbox.is_empty
            assert not any(is_linked(one, eve) or is_linked(eve, one) for one in staying)


async def publish(by: list[MeshNetworkClient], numbers: range) -> None:
    """Each in turn broadcasts one of these numbers."""
    for number in numbers:
        author = by[number % len(by)]
        await author.broadcast(MessageType.GOSSIP, {"n": number, "by": author.peer_id})


def keys(of: MeshNetworkClient) -> set[str]:
    """Those whom it admits, in hex."""
    return {key.hex() for key in engine(of).peers.roster.keys}


async def test_the_mesh_goes_on_while_its_chain_hangs_dies_and_goes_back(
    chain: Chopsticks, five: list[DevAccount]
) -> None:
    async with mesh(chain, five[:3], registry=Shared(chain.url)) as nodes:
        alice, bob, charlie = nodes
        await linked(*nodes)
        inbox = Inbox(bob, MessageType.GOSSIP)

        async def still_delivers(what: str) -> None:
            await alice.broadcast(MessageType.GOSSIP, {"while": what})
            assert (await inbox.next()).payload == {"while": what}
            assert are_linked(*nodes)

        chain.hang()
        try:
            await still_delivers("it hangs")
        finally:
            chain.resume()
        await asyncio.to_thread(chain.kill)
        try:
            await until(lambda: all(one.health()["registry"]["problem"] for one in nodes), *nodes)
            await still_delivers("it is dead")
        finally:
            await asyncio.to_thread(chain.start)
        await until(lambda: not any(one.health()["registry"]["problem"] for one in nodes), *nodes)
        await chain.new_block()
        _, before = await chain.head()
        await chain.new_block()
        await chain.set_validators(addresses(five[0], five[1], five[3], five[4]))
        await until(lambda: not any(charlie.public_key in keys(one) for one in (alice, bob)), alice, bob)
        await chain.set_head(before)
        await linked(*nodes)
        await still_delivers("blocks were taken back")


async def test_a_real_rotation_lets_a_candidate_in(run_chain: Callable[..., Chopsticks]) -> None:
    """Signed by the account and executed by the runtime: keys, candidacy, and two sessions."""
    alice, dave = dev_account("//Alice"), dev_account("//Dave")
    chain = run_chain(
        {
            "Session": {
                "Validators": [alice.address],
                "QueuedKeys": [],
                "NextKeys": [[[alice.address], {"aura": f"0x{alice.id.hex()}"}]],
            },
            "CollatorSelection": {"Invulnerables": [alice.address], "DesiredCandidates": 2, "CandidacyBond": 10**9},
            "System": {"Account": [[[dave.address], {"providers": 1, "data": {"free": 10**15}}]]},
        }
    )
    async with node(chain, alice) as a, node(chain, dave, a) as d:
        await until(lambda: counted(a, "admission", "unknown_account") > 0, a, d)
        calls = await asyncio.to_thread(signed_calls, chain.url, dave)
        await chain.new_block(transactions=calls)
        assert not is_linked(a, d)
        await chain.new_block(unsafeBlockHeight=1800)
        await chain.new_block(unsafeBlockHeight=3600)
        await linked(a, d)
        found = {peer.account_id: peer for peer in await a.discover_peers()}
        (peer,) = found.values()
        assert (peer.peer_id, peer.is_validator) == ("dave", True)


def signed_calls(url: str, by: DevAccount) -> list[str]:
    """``Session.set_keys`` and ``CollatorSelection.register_as_candidate``, in hex."""
    from substrateinterface import Keypair, SubstrateInterface

    with SubstrateInterface(url) as chain:
        keypair = Keypair.create_from_uri(by.uri)
        keys = {"keys": {"aura": f"0x{by.id.hex()}"}, "proof": "0x"}
        none: dict[str, str] = {}
        wanted = (("Session", "set_keys", keys), ("CollatorSelection", "register_as_candidate", none))
        signed = []
        for nonce, (pallet, function, arguments) in enumerate(wanted):
            call = chain.compose_call(pallet, function, arguments)
            signed.append(chain.create_signed_extrinsic(call, keypair, nonce=nonce))
        return [str(one.data) for one in signed]
