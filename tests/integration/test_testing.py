"""``zmesh.testing``, which applications test their services with."""

from __future__ import annotations

import doctest
from pathlib import Path

import pytest

from tests.support import Inbox, client, until
from zmesh import ConfigError, MessageType, SendResult, testing
from zmesh.arguments import SettingsArguments
from zmesh.testing import Nodes, Validators, mesh


async def test_all_are_linked_and_known_with_their_stakes_and_stop_in_the_end() -> None:
    async with mesh(3, stakes=[60, 30, 10]) as nodes:
        assert [node.peer_id for node in nodes] == ["validator_001", "validator_002", "validator_003"]
        assert len({node.public_key for node in nodes}) == len({node.listen_port for node in nodes}) == 3
        assert all(peer.is_linked for node in nodes for peer in node.peers.values())
        assert [node.health()["status"] for node in nodes] == ["healthy"] * 3
        first, *_, third = nodes
        known = {name: (peer.account_id, peer.stake_amount) for name, peer in third.peers.items()}
        assert known == {"validator_001": ("validator_001", 60), "validator_002": ("validator_002", 30)}
        for node, choice in zip(nodes, ("yes", "no", "yes"), strict=True):
            await node.broadcast(MessageType.CONSENSUS_VOTE, {"proposal_id": "p", "choice": choice})
        await until(lambda: all(len(node.handlers.votes.tally("p").voters) == 3 for node in nodes), *nodes)
        assert [node.handlers.votes.tally("p").stake for node in nodes] == [{"no": 30, "yes": 70}] * 3
        assert await first.send("validator_002", MessageType.GOSSIP, {}) is SendResult.DELIVERED
    assert not any(node.is_running for node in nodes)


async def test_names_and_settings_reach_the_clients() -> None:
    async with mesh(["a", "b"], heartbeat_interval=7, network="test") as (a, b):
        assert (list(a.peers), list(b.peers)) == (["b"], ["a"])
        assert [(one.settings.heartbeat_interval, one.settings.network) for one in (a, b)] == [(7, "test")] * 2


@pytest.mark.parametrize("by_environment", [False, True])
async def test_each_has_a_folder_of_its_own_and_leaves_that_of_a_real_node_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool
) -> None:
    (tmp_path / "pledges.json").write_text("of a validator on this machine")
    settings: SettingsArguments = {} if by_environment else {"state_dir": tmp_path}
    if by_environment:
        monkeypatch.setenv("MESH_STATE_DIR", str(tmp_path))
    async with mesh(["a", "b"], **settings) as (a, b):
        for node, choice in ((a, "yes"), (b, "no")):
            await node.broadcast(MessageType.CONSENSUS_VOTE, {"proposal_id": "p", "choice": choice})
    for name, word in (("a", '"word": "yes"'), ("b", '"word": "no"')):
        assert word in (tmp_path / name / "pledges.json").read_text()
    assert (tmp_path / "pledges.json").read_text() == "of a validator on this machine"


async def test_they_stop_whatever_the_test_raises() -> None:
    kept: list[Nodes] = []

    async def failing() -> None:
        async with mesh(1) as nodes:
            kept.append(nodes)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await failing()
    assert not kept[0][0].is_running


async def test_members_can_leave_return_and_join_meanwhile() -> None:
    async with mesh(2) as nodes:
        first, second = nodes
        nodes.validators.remove(second)
        assert len(first.peers) == 0
        nodes.validators.add(second, stake=7, account="another", is_validator=False)
        await until(lambda: all(peer.is_linked for node in nodes for peer in node.peers.values()), *nodes)
        known = first.peers["validator_002"]
        assert (known.stake_amount, known.account_id, known.is_validator) == (7, "another", False)
        late = client("late", registry=nodes.validators.registry())
        heard = Inbox(late, MessageType.GOSSIP)
        async with late:
            nodes.validators.add(late)
            await late.wait_for_links(2)
            await first.broadcast(MessageType.GOSSIP, {"n": 1})
            assert (await heard.next()).payload == {"n": 1}
        nodes.validators.remove(late)
        assert [*first.peers] == ["validator_002"]


def test_a_set_with_one_account_twice_is_refused_and_changes_nothing() -> None:
    validators = Validators()
    validators.add(client("a"))
    before = validators.current
    with pytest.raises(ValueError, match="two members share the account a: each must be unique"):
        validators.add(client("b"), account="a")
    assert validators.current is before


@pytest.mark.parametrize(
    "nodes, stakes, sentence",
    [
        (0, None, "nodes must be 1 to 50, not 0"),
        (51, None, "nodes must be 1 to 50, not 51"),
        (3, [1, 2], "stakes must be one for each of 3 nodes, not 2"),
        (2, [1, -1], r"stakes must not be negative, as in \[1, -1\]"),
        (["a", "a"], None, r"nodes must have names of their own, not \['a', 'a'\]"),
        (["a", ""], None, "peer_id"),
    ],
)
async def test_what_makes_no_mesh_is_refused(nodes: int | list[str], stakes: list[int] | None, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        async with mesh(nodes, stakes=stakes):
            raise AssertionError


async def test_links_that_do_not_come_up_are_told() -> None:
    with pytest.raises(TimeoutError, match=r"^validator_00\d waited 0\.01 s for links: [01] of 2 are up"):
        async with mesh(3, timeout=0.01, max_peers=1):
            raise AssertionError


def test_the_example_in_the_documentation_runs() -> None:
    failed, tried = doctest.testmod(testing)
    assert (failed, tried > 0) == (0, True)
