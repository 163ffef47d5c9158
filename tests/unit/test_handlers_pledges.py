"""Pledges: what a node undertook to say binds its account, for as long as others remember it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.unit.handlers_support import NETWORK, NOON, Said, Someone, later
from zmesh.core import wire
from zmesh.core.now import Now
from zmesh.core.types import MessageType
from zmesh.handlers import Votes
from zmesh.handlers import votes as module
from zmesh.handlers.pledges import MAX_SPEAKERS, Pledge, Pledges

PROPOSE, VOTE = MessageType.CONSENSUS_PROPOSE, MessageType.CONSENSUS_VOTE
ALICE, BOB = Someone(1, "alice"), Someone(2, "bob")
ALICE_AGAIN = Someone(3, "alice")
ALICE_ALONE = Someone(1, ALICE.public.hex())
"""The same key as Alice's, before any registry lists it."""
ALICE_AGAIN_ALONE = Someone(3, ALICE_AGAIN.public.hex())
"""Her next key, before any registry names it."""
ALICE_AS_BOB = Someone(1, "bob")
ELSEWHERE = wire.network_id("another mesh")


def vote(of: Someone, choice: Any = "yes", proposal: str = "p", now: Now = NOON) -> Said:
    return of.says(VOTE, {"proposal_id": proposal, "choice": choice}, now)


def propose(of: Someone, proposal: str = "p", **extra: Any) -> Said:
    return of.says(PROPOSE, {"proposal_id": proposal} | extra)


def pledge(held: Votes, said: Said, **changes: Any) -> Pledge:
    """Pledge it, as if it were on disk."""
    made = replace(held.pledge(said.envelope, said.sender, said.payload), **changes)
    held.pledges = held.pledges_with(made)
    return made


def harm(held: Votes, said: Said) -> str:
    return held.harm(said.envelope, said.sender, said.payload)


VOTED, PROPOSED = "its account has already voted 'yes' on 'p'", "its account has already proposed 'p'"


@pytest.mark.parametrize(
    "pledged, said, why",
    [
        (vote(ALICE), vote(ALICE, "no"), VOTED),
        (vote(ALICE), vote(ALICE, "no", now=later(86_400)), VOTED),
        (vote(ALICE), vote(ALICE_AGAIN, "no"), VOTED),
        (vote(ALICE), vote(ALICE_ALONE, "no"), VOTED),
        (vote(ALICE_ALONE), vote(ALICE, "no"), VOTED),
        (vote(ALICE), vote(ALICE_AGAIN_ALONE, "no"), VOTED),
        (vote(ALICE_ALONE), vote(ALICE_AGAIN, "no"), VOTED),
        (vote(ALICE_ALONE), vote(ALICE_AGAIN_ALONE, "no"), VOTED),
        (propose(ALICE, terms=1), propose(ALICE_AGAIN_ALONE, terms=2), PROPOSED),
        (propose(ALICE, terms=1), propose(ALICE, terms=2), PROPOSED),
        (vote(ALICE), vote(ALICE), ""),
        (vote(ALICE, True), vote(ALICE, "true"), ""),
        (vote(ALICE), vote(ALICE, "no", "q"), ""),
        (vote(ALICE), vote(BOB, "no"), ""),
        (vote(ALICE), vote(ALICE_AS_BOB, "no"), ""),
        (vote(ALICE), propose(ALICE), ""),
        (propose(ALICE, terms=1), propose(ALICE, terms=1), ""),
    ],
)
def test_a_pledge_binds_its_account_and_counts_nowhere(pledged: Said, said: Said, why: str) -> None:
    held = Votes(lambda: [ALICE.member, BOB.member])
    pledge(held, pledged)

    assert harm(held, said).partition(",")[0] == why
    assert (held.open, held.tally("p").voters) == ((), ())


def test_a_pledge_for_another_mesh_binds_nobody_here() -> None:
    held = Votes(list)
    pledge(held, vote(ALICE), network=ELSEWHERE)

    assert harm(held, vote(ALICE, "no")) == ""


def test_what_was_pledged_and_what_was_heard_are_too_many_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heard, for instance, of another node of the same account."""
    monkeypatch.setattr(module, "VOTES_PER_ACCOUNT", 3)
    held = Votes(list)
    pledge(held, vote(ALICE, proposal="p0"))
    pledge(held, vote(ALICE, proposal="p1"))
    for number in (1, 2):
        heard = vote(ALICE_AGAIN, proposal=f"p{number}")
        held.received(heard.envelope, heard.sender, heard.payload, NOON)
    why = "its account would speak of more than 3 proposals in ten minutes, and then none of that counts"

    assert harm(held, vote(ALICE, proposal="p3")) == why
    assert [harm(held, vote(ALICE, proposal=f"p{number}")) for number in range(3)] == ["", "", ""]
    assert harm(held, vote(BOB, proposal="p3")) == harm(held, propose(ALICE, "p3")) == ""
    assert harm(held, vote(ALICE, proposal="p3", now=later(600))) == ""


def test_the_same_vote_is_another_pledge_only_ten_minutes_later() -> None:
    held = Votes(list)
    first = pledge(held, vote(ALICE))

    assert first in held.pledges
    assert replace(first, timestamp_ms=first.timestamp_ms + 1) in held.pledges
    assert replace(first, timestamp_ms=first.timestamp_ms + 600_000) not in held.pledges
    assert replace(first, word="no") not in held.pledges


@pytest.mark.parametrize("each_period, kept", [(1, 6), (2, 6), (3, 6)])
def test_pledges_are_forgotten_after_twice_as_many_others(
    monkeypatch: pytest.MonkeyPatch, each_period: int, kept: int
) -> None:
    monkeypatch.setattr(module, "VOTES_PER_ACCOUNT", 3)
    held, most = Votes(list), 0
    pledge(held, vote(BOB, proposal="b"))
    for period in range(9):
        for number in range(each_period):
            pledge(held, vote(ALICE, proposal=f"p{period}{number}", now=later(600 * period)))
            most = max(most, len(held.pledges))

    assert most == 1 + kept
    assert [len(held.pledges), next(iter(held.pledges)).proposal_id] == [1 + kept, "b"]


def test_a_vote_that_is_older_than_all_that_is_remembered_is_not_pledged(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock was set back: others forgot that time."""
    monkeypatch.setattr(module, "VOTES_PER_ACCOUNT", 1)
    held = Votes(list)
    for period in (8, 9):
        pledge(held, vote(ALICE, proposal=f"p{period}", now=later(600 * period)))

    assert pledge(held, vote(ALICE)) not in held.pledges
    assert len(held.pledges) == 2


def test_of_too_many_speakers_the_one_that_was_silent_for_longest_is_forgotten() -> None:
    held = Votes(list)
    for number in range(MAX_SPEAKERS):
        pledge(held, vote(ALICE, now=later(MAX_SPEAKERS - number)), account=f"account {number}")
    pledge(held, vote(ALICE, proposal="q", now=later(MAX_SPEAKERS)), account="account 0")
    assert len(held.pledges) == MAX_SPEAKERS + 1
    pledge(held, vote(ALICE, now=later(-1)), account="new")

    accounts = {each.account for each in held.pledges}
    assert accounts == {"new", *(f"account {number}" for number in range(MAX_SPEAKERS - 1))}


# ---------------------------------------------------------------- on disk


def saved(**changes: Any) -> dict[str, Any]:
    """As it is in the file."""
    held = Votes(list)
    pledge(held, vote(ALICE))
    return held.pledges.export()[0] | changes


def test_what_is_exported_comes_back() -> None:
    held = Votes(list)
    for said in (vote(ALICE), vote(ALICE, -7, "q"), propose(BOB, "☃", terms=1)):
        pledge(held, said)

    again = Pledges.restored(held.pledges.export())
    assert list(again) == list(held.pledges)
    assert {each.network for each in again} == {NETWORK}


@pytest.mark.parametrize(
    "hostile, why",
    [
        (None, "its pledges are no list"),
        ({"kind": "x"}, "its pledges are no list"),
        ([7], "its pledge 1 is 7 and must be an object"),
        (
            [saved(), saved(kind="gossip")],
            "of its pledge 2, its field 'kind' is 'gossip' and must be consensus_propose",
        ),
        ([saved(kind=["consensus_vote"])], "'kind'"),
        ([saved(network="ab")], "'network' is 'ab' and must be 64 hex digits"),
        ([saved(network="g" * 64)], "'network'"),
        ([saved(key=None)], "'key' is missing"),
        ([saved(account="")], "'account'"),
        ([saved(account=1)], "'account'"),
        ([saved(proposal_id=[])], "'proposal_id'"),
        ([saved(word=True)], "'word'"),
        ([saved(timestamp_ms=True)], "'timestamp_ms'"),
        ([saved(timestamp_ms=1.5)], "'timestamp_ms'"),
        ([saved(timestamp_ms=-1)], "'timestamp_ms'"),
        ([saved(timestamp_ms=10**30)], "'timestamp_ms'"),
        ([saved(), saved(word="no")], "it says two things of one proposal"),
        ([saved(account=f"{n}") for n in range(MAX_SPEAKERS + 1)], "it is about more than 16 speakers"),
    ],
)
def test_what_cannot_have_been_exported_is_refused(hostile: object, why: str) -> None:
    with pytest.raises(ValueError) as refused:
        Pledges.restored(hostile)
    assert why in str(refused.value)
