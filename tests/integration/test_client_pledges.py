"""Validators that restart: with a state folder, no restart makes one contradict what it said before."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.contract.peers import settle
from tests.support import PATIENCE, Inbox, card, client, introduce, linked
from zmesh import (
    ConfigError,
    MeshNetworkClient,
    MessageType,
    NotPledgedError,
    NotRunningError,
    PayloadError,
    SelfHarmError,
)
from zmesh import node as node_module
from zmesh.core.now import Now
from zmesh.handlers import votes as module
from zmesh.handlers.ledger import PERIOD_MS
from zmesh.handlers.pledges import Pledges
from zmesh.identity import create_key_file
from zmesh.state import PLEDGES_FILE, State

ROOT = Path(__file__).parents[2]
VOTE, PROPOSE = MessageType.CONSENSUS_VOTE, MessageType.CONSENSUS_PROPOSE
VOTED = "its account has already voted 'true' on 'p'"


@pytest.fixture
def _amid_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever time it is: votes that are counted together belong to the same ten minutes."""
    read_clocks, period = node_module.read_clocks, PERIOD_MS / 1000
    shift = (period / 2 - read_clocks().wall) % period  # never back: the epoch of a start must not be ahead

    def shifted() -> Now:
        now = read_clocks()
        return Now(now.mono, now.wall + shift)

    monkeypatch.setattr(node_module, "read_clocks", shifted)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    create_key_file(tmp_path / "a.key")
    return tmp_path / "a.key"


def validator(key: Path, **settings: Any) -> MeshNetworkClient:
    """Each call is another process, as far as memory goes."""
    return client("a", **{"private_key": key, "state_dir": key.parent / "state", **settings})


def says(proposal: str = "p", **more: Any) -> dict[str, Any]:
    return {"proposal_id": proposal, **more}


class Gate:
    """A disk that writes pledges only while it is open."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.began = threading.Event(), threading.Event()
        pledge = State.pledge

        def wait_and_pledge(state: State, pledges: Pledges) -> None:
            self.began.set()
            assert self.open.wait(PATIENCE)
            pledge(state, pledges)

        monkeypatch.setattr(State, "pledge", wait_and_pledge)

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.began.wait, PATIENCE)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    made = Gate(monkeypatch)
    yield made
    made.open.set()


@pytest.mark.usefixtures("_amid_ten_minutes")
async def test_a_restarted_validator_says_nothing_else(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VOTES_PER_ACCOUNT", 3)
    async with validator(key) as a:
        for proposal in "pqr":
            await a.broadcast(VOTE, says(proposal, choice=True))
        await a.broadcast(PROPOSE, says(terms=1))
    async with validator(key) as a:
        with pytest.raises(SelfHarmError, match=VOTED):
            await a.broadcast(VOTE, says(choice=False))
        with pytest.raises(SelfHarmError, match="has already proposed 'p', with other bytes"):
            await a.broadcast(PROPOSE, says(terms=2))
        with pytest.raises(SelfHarmError, match="would speak of more than 3 proposals in ten minutes"):
            await a.broadcast(VOTE, says("s", choice=True))
        assert a.handlers.votes.open == ()
        await a.broadcast(VOTE, says(choice=True, reason="once more"))
        await a.broadcast(PROPOSE, says(terms=1))
        assert a.handlers.votes.tally("p").counts == {"true": 1}


async def test_two_nodes_on_one_folder_would_forget_each_others_votes_so_the_second_does_not_start(key: Path) -> None:
    async with validator(key) as a:
        with pytest.raises(ConfigError, match="another node runs on state_dir"):
            await validator(key).start()
        await a.broadcast(VOTE, {"proposal_id": "p", "choice": True})
    async with validator(key) as again:
        with pytest.raises(SelfHarmError, match=VOTED):
            await again.broadcast(VOTE, {"proposal_id": "p", "choice": False})


async def test_without_a_folder_nothing_is_kept(key: Path) -> None:
    for choice in (True, False):
        async with validator(key, state_dir=None) as a:
            await a.broadcast(VOTE, says(choice=choice))
    assert [path.name for path in key.parent.iterdir()] == ["a.key"]


async def test_the_peers_of_a_restarted_validator_count_its_vote(key: Path) -> None:
    b = client("b")
    async with b:
        heard = Inbox(b, VOTE)
        for choice in (True, False):
            a = validator(key)
            async with a:
                introduce(a, b)
                await linked(a, b)
                if choice:
                    await a.broadcast(VOTE, says(choice=True))
                    await heard.next()
                else:
                    with pytest.raises(SelfHarmError, match=VOTED):
                        await a.broadcast(VOTE, says(choice=False))
                del b.peers["a"]
        b.peers["a"] = card(a)
        tally = b.handlers.votes.tally("p")
        assert (tally.counts, tally.equivocators) == ({"true": 1}, ())


async def test_the_loop_goes_on_while_the_disk_writes_and_of_two_votes_one_leaves(key: Path, gate: Gate) -> None:
    async with validator(key) as a:
        both = [asyncio.create_task(a.broadcast(VOTE, says(choice=choice))) for choice in (True, False)]
        await gate.reached()
        said = await a.broadcast(MessageType.GOSSIP, {"n": 1})
        assert (said.message_id in a.seen_messages, [each.done() for each in both]) == (True, [False, False])
        assert a.handlers.votes.open == ()
        gate.open.set()
        outcome = await asyncio.gather(*both, return_exceptions=True)
        assert isinstance(outcome[1], SelfHarmError)
        assert a.handlers.votes.tally("p").counts == {"true": 1}


async def test_a_vote_that_a_stop_or_its_caller_ends_leaves_no_pledge(key: Path, gate: Gate) -> None:
    a = validator(key)
    await a.start()
    votes = [asyncio.create_task(a.broadcast(VOTE, says(proposal, choice=True))) for proposal in "pq"]
    await gate.reached()
    stopping = asyncio.create_task(a.stop())
    votes[0].cancel()
    await settle()
    gate.open.set()
    await stopping
    outcome = await asyncio.gather(*votes, return_exceptions=True)
    assert [type(each) for each in outcome] == [asyncio.CancelledError, NotRunningError]
    async with a, asyncio.timeout(PATIENCE):
        await a.broadcast(VOTE, says("p", choice=False))
        await a.broadcast(VOTE, says("q", choice=False))


async def test_what_is_refused_leaves_no_pledge(key: Path) -> None:
    async with validator(key) as a:
        with pytest.raises(PayloadError):
            await a.broadcast(VOTE, says())
        assert not (key.parent / "state" / PLEDGES_FILE).exists()
        await a.broadcast(VOTE, says(choice=True))
        content = (key.parent / "state" / PLEDGES_FILE).read_bytes()
        with pytest.raises(SelfHarmError):
            await a.broadcast(VOTE, says(choice=False))
        assert (key.parent / "state" / PLEDGES_FILE).read_bytes() == content


async def test_a_disk_that_fails_refuses_votes_and_nothing_else(key: Path) -> None:
    folder = key.parent / "state"
    async with validator(key) as a:
        folder.rename(key.parent / "away")
        folder.write_text("no folder", encoding="utf-8")
        with pytest.raises(NotPledgedError) as refused:
            await a.broadcast(VOTE, says(choice=True))
        assert str(refused.value) == (
            "nothing was sent, because a restart would forget it: "
            f"{folder / PLEDGES_FILE} cannot be written: Not a directory"
        )
        assert a.handlers.votes.open == ()
        await a.broadcast(MessageType.GOSSIP, {"n": 1})
        folder.unlink()
        (key.parent / "away").rename(folder)
        await a.broadcast(VOTE, says(choice=False))
        assert a.handlers.votes.tally("p").counts == {"false": 1}


async def test_a_node_does_not_start_on_pledges_that_it_cannot_read(key: Path) -> None:
    async with validator(key) as a:
        await a.broadcast(VOTE, says(choice=True))
    path = key.parent / "state" / PLEDGES_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])
    b = validator(key)
    with pytest.raises(ConfigError, match="must say what this node has pledged, but it is no JSON"):
        await b.start()
    assert (b.is_running, path.read_bytes()) == (False, whole[:-10])
    path.write_bytes(whole)
    async with b:
        with pytest.raises(SelfHarmError, match=VOTED):
            await b.broadcast(VOTE, says(choice=False))


# ---------------------------------------------------------------- processes


async def obey(key: Path, *orders: tuple[MessageType, Mapping[str, Any]], die: bool = False) -> list[str]:
    """What a process answers that is killed after its last order, or by itself."""
    arguments = [str(key), str(key.parent / "state"), *(["die"] if die else [])]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.integration.voting_process", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    answers = []
    try:
        async with asyncio.timeout(PATIENCE):
            for kind, payload in orders:
                process.stdin.write(json.dumps([kind.value, payload]).encode() + b"\n")
                answer = await process.stdout.readline()
                answers.append(json.loads(answer) if answer else "died")
    finally:
        if process.returncode is None and not die:
            process.kill()
        process.stdin.close()
        await process.wait()
    return answers


async def test_a_killed_validator_says_nothing_else(key: Path) -> None:
    vote, contrary = (VOTE, says(choice=True)), (VOTE, says(choice=False))
    propose, otherwise = (PROPOSE, says(terms=1)), (PROPOSE, says(terms=2))
    assert await obey(key, vote, propose) == ["sent", "sent"]
    assert await obey(key, contrary, otherwise, vote, propose) == ["SelfHarmError", "SelfHarmError", "sent", "sent"]


async def test_a_validator_killed_between_disk_and_mesh_may_say_the_same_and_nothing_else(key: Path) -> None:
    vote, contrary = (VOTE, says(choice=True)), (VOTE, says(choice=False))
    assert await obey(key, vote, die=True) == ["died"]
    assert await obey(key, contrary, vote) == ["SelfHarmError", "sent"]
