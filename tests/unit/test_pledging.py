"""A vote is on disk before it leaves: whatever comes between, no restart makes a node contradict itself."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.contract.peers import settle
from tests.unit.core_support import ME, Person, later
from tests.unit.pledging_support import Disk, Life, PowerCutError
from zmesh import MessageType, NotPledgedError, NotRunningError, PayloadError, SelfHarmError
from zmesh.core import wire
from zmesh.handlers import votes as module

MY_OTHER_NODE = Person(9, account=ME.member.account)
VOTED = "its account has already voted 'yes' on 'p'"


async def test_a_vote_leaves_once_it_is_on_disk_and_a_repetition_writes_nothing() -> None:
    disk = Disk()
    life = Life(disk)
    disk.during = lambda: seen.append(len(life.sent))
    seen: list[int] = []
    await life.vote("yes")
    await life.vote("yes")

    assert (seen, len(life.sent), disk.words()) == ([0], 2, ["p yes"])


async def test_a_vote_leaves_even_if_all_threads_of_the_loop_wait_for_it() -> None:
    loop, life = asyncio.get_running_loop(), Life(Disk())
    with ThreadPoolExecutor(1) as threads:
        loop.set_default_executor(threads)
        await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(life.vote("yes"), loop).result(30))

    assert len(life.sent) == 1


async def test_a_restart_changes_nothing_of_what_may_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VOTES_PER_ACCOUNT", 3)
    disk = Disk()
    before = Life(disk)
    for proposal in ("p", "q", "r"):
        await before.vote("yes", proposal)
    await before.propose("p", 1)
    after = Life(disk, 2)
    with pytest.raises(SelfHarmError, match=VOTED):
        await after.vote("no")
    with pytest.raises(SelfHarmError, match="has already proposed 'p', with other bytes"):
        await after.propose("p", 2)
    with pytest.raises(SelfHarmError, match="more than 3 proposals in ten minutes"):
        await after.vote("yes", "s")
    assert (after.sent, disk.writes) == ([], 4)
    await after.vote("yes")
    await after.propose("p", 1)
    after.now = later(600)
    await after.vote("yes", "s")
    assert len(after.sent) == 3


async def test_of_two_contradicting_votes_at_once_one_leaves() -> None:
    life = Life(Disk())
    life.disk.open.clear()
    both = [asyncio.create_task(life.vote(choice)) for choice in ("yes", "no")]
    await settle()
    assert life.sent == []
    life.disk.open.set()
    outcome = await asyncio.gather(*both, return_exceptions=True)

    assert [type(each) for each in outcome] == [type(None), SelfHarmError]
    assert (len(life.sent), life.disk.words()) == (1, ["p yes"])


async def test_what_is_refused_at_once_never_reaches_the_disk() -> None:
    life = Life(Disk())
    with pytest.raises(PayloadError, match="'choice' is missing"):
        await life.says(MessageType.CONSENSUS_VOTE, {"proposal_id": "p"})
    assert (life.disk.writes, life.sent) == (0, [])
    await life.vote("yes")
    with pytest.raises(SelfHarmError, match=VOTED):
        await life.vote("no")
    assert (life.disk.writes, len(life.sent)) == (1, 1)


async def test_news_that_comes_while_the_disk_writes_refuses_the_vote_and_takes_its_pledge_back() -> None:
    life = Life(Disk())
    payload = {"proposal_id": "p", "choice": "yes"}
    heard = MY_OTHER_NODE.says(kind=wire.KIND_CODES[MessageType.CONSENSUS_VOTE], content=payload)

    def news() -> None:
        life.votes.received(heard, MY_OTHER_NODE.member, payload, life.now)

    life.disk.during = news
    with pytest.raises(SelfHarmError, match=VOTED):
        await life.vote("no")
    assert (life.disk.words(), len(life.votes.pledges), life.sent) == ([], 0, [])
    await life.vote("yes")
    assert len(life.sent) == 1


@pytest.mark.parametrize("fault, said", [("full", "the disk is full"), ("unsettled", "the folder cannot be synced")])
async def test_a_vote_that_cannot_be_written_does_not_leave_and_forbids_nothing(fault: str, said: str) -> None:
    life = Life(Disk())
    life.disk.fault = fault
    with pytest.raises(NotPledgedError) as refused:
        await life.vote("yes")

    assert str(refused.value) == f"nothing was sent, because a restart would forget it: {said}"
    assert (life.sent, life.disk.words()) == ([], [])
    await life.vote("no")
    assert (len(life.sent), life.disk.words()) == (1, ["p no"])


async def test_a_pledge_that_cannot_be_taken_back_is_said(caplog: pytest.LogCaptureFixture) -> None:
    life = Life(Disk())

    def fail_again() -> None:
        life.disk.fault = "full"

    life.disk.during = fail_again
    with pytest.raises(NotPledgedError):
        await life.vote("yes")
    assert "pledge_not_taken_back" in caplog.text
    life.disk.during = lambda: None
    await life.vote("no")
    assert life.disk.words() == ["p no"]


async def test_a_crash_between_disk_and_mesh_allows_the_same_vote_and_no_other() -> None:
    disk = Disk()
    before = Life(disk)
    disk.fault = "power"
    with pytest.raises(PowerCutError):
        await before.vote("yes")
    assert before.sent == []
    after = Life(disk, 2)
    with pytest.raises(SelfHarmError, match=VOTED):
        await after.vote("no")
    await after.vote("yes")
    assert len(after.sent) == 1


async def test_what_never_left_pushes_out_nothing_that_others_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three crashes as three votes were about to leave: to others this account has said one thing, long ago."""
    monkeypatch.setattr(module, "VOTES_PER_ACCOUNT", 3)
    disk = Disk()
    await Life(disk).vote("yes")
    for proposal in "abc":
        crashing = Life(disk, 2)
        crashing.now, disk.fault = later(600), "power"
        with pytest.raises(PowerCutError):
            await crashing.vote("yes", proposal)
    after = Life(disk, 3)
    after.now = later(1200)
    await after.vote("yes", "d")
    with pytest.raises(SelfHarmError, match=VOTED):
        await after.vote("no")


async def test_a_caller_that_gives_up_sends_nothing_and_leaves_no_pledge() -> None:
    life = Life(Disk())
    life.disk.open.clear()
    voting = asyncio.create_task(life.vote("yes"))
    behind = asyncio.create_task(life.vote("no"))
    await settle()
    for _ in range(3):
        voting.cancel()
        await settle()
        assert not voting.done(), "another write could overtake this one"
    life.disk.open.set()
    await asyncio.wait([voting])
    assert voting.cancelled()
    await behind
    assert (len(life.sent), life.disk.words()) == (1, ["p no"])


async def test_a_stop_waits_for_the_disk_and_what_waited_leaves_no_pledge() -> None:
    life = Life(Disk())
    life.disk.open.clear()
    votes = [asyncio.create_task(life.vote("yes", proposal)) for proposal in "pq"]
    await settle()
    closing = asyncio.create_task(life.pledging.close(60))
    await settle()
    assert not closing.done()
    life.disk.open.set()
    await closing
    for vote in votes:
        assert vote.done()
        with pytest.raises(NotRunningError, match="the node was stopped before this consensus_vote could be sent"):
            await vote
    assert (life.sent, life.disk.words()) == ([], [])


async def test_a_stop_that_did_not_wait_leaves_the_file_to_the_next_life(caplog: pytest.LogCaptureFixture) -> None:
    life = Life(Disk())
    life.disk.open.clear()
    voting = asyncio.create_task(life.vote("yes"))
    await settle()
    await life.pledging.close(0)
    assert "pledges_not_written" in caplog.text
    life.disk.open.set()
    with pytest.raises(NotRunningError):
        await voting
    assert (life.sent, life.disk.words(), life.disk.writes) == ([], ["p yes"], 1)


async def test_what_leaves_is_what_was_pledged_even_if_the_caller_changes_it_meanwhile() -> None:
    life = Life(Disk())
    payload = {"proposal_id": "p", "choice": "yes"}
    life.disk.during = lambda: payload.update(choice="no")
    with pytest.raises(SelfHarmError, match=VOTED):
        await life.says(MessageType.CONSENSUS_VOTE, payload)
    assert (life.sent, life.disk.words()) == ([], [])


async def test_a_vote_that_meets_the_end_of_ten_minutes_is_pledged_for_both() -> None:
    life = Life(Disk())

    def pass_time() -> None:
        life.now = later(600)

    life.disk.during = pass_time
    await life.vote("yes")
    pledges = life.votes.pledges
    assert [pledge.period for pledge in pledges] == [pledge.period for pledge in life.disk.pledges()]
    assert len({pledge.period for pledge in pledges}) == len(pledges) == 2
    (sent,) = life.sent
    assert sent.timestamp_ms // 600_000 == max(pledge.period for pledge in pledges)


async def test_a_vote_of_a_clock_that_was_set_far_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VOTES_PER_ACCOUNT", 1)
    life = Life(Disk())
    for hours in (1, 2):
        life.now = later(3600 * hours)
        await life.vote("yes", f"p{hours}")
    life.now = later(0)
    with pytest.raises(SelfHarmError, match="older than what its account said before: set the clock"):
        await life.vote("yes", "p")
    assert (len(life.sent), life.disk.writes) == (2, 2)


async def test_another_account_of_the_same_key_is_free_and_a_key_that_is_not_listed_is_not() -> None:
    disk = Disk()
    await Life(disk, 1).vote("yes")
    with pytest.raises(SelfHarmError, match=VOTED):
        await Life(disk, 2, None).vote("no")
    other = Life(disk, 3, ME.member._replace(account="another"))
    await other.vote("no")
    assert len(other.sent) == 1
    with pytest.raises(SelfHarmError, match=VOTED):
        await Life(disk, 4).vote("no")
