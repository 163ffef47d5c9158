"""Votes: one account, one vote, in whatever order messages come."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.handlers_support import NOON, Said, Someone, later, take, verify
from zmesh.core import wire
from zmesh.core.now import Now
from zmesh.core.types import Member, MessageType, Verdict
from zmesh.handlers import Tally, Votes
from zmesh.handlers import votes as module

ALICE, BOB, CAROL = Someone(1, "alice", 10), Someone(2, "bob", 20), Someone(3, "carol", 40)
ALICE_AGAIN = Someone(4, "alice", 10)
PROPOSE, VOTE = MessageType.CONSENSUS_PROPOSE, MessageType.CONSENSUS_VOTE


def everybody() -> list[Member]:
    """The members of a node that knows all three."""
    return [ALICE.member, BOB.member, CAROL.member]


def vote(of: Someone, choice: Any, proposal: str = "p", now: Now = NOON, **extra: Any) -> Said:
    return of.says(VOTE, {"proposal_id": proposal, "choice": choice} | extra, now)


def propose(of: Someone, proposal: str = "p", **extra: Any) -> Said:
    return of.says(PROPOSE, {"proposal_id": proposal} | extra)


def test_votes_are_counted_by_account_and_by_stake() -> None:
    held = Votes(everybody)
    for said in (vote(ALICE, "yes"), propose(BOB), vote(BOB, "no"), vote(CAROL, "yes")):
        assert take(held, said) is Verdict.ACCEPT

    assert held.tally("p") == Tally(
        "p", {"no": 1, "yes": 2}, {"no": 20, "yes": 50}, ("alice", "bob", "carol"), (), ("bob",)
    )
    assert held.open == ("p",)


def test_a_payload_cannot_name_another_voter() -> None:
    held = Votes(everybody)
    take(held, vote(ALICE, "yes", voter="bob", account="bob", sender_id="bob"))

    assert held.tally("p").voters == ("alice",)


def test_a_repetition_is_relayed_and_counts_once() -> None:
    held = Votes(everybody)

    assert [take(held, vote(ALICE, "yes")) for _ in range(3)] == [
        Verdict.ACCEPT,
        Verdict.RELAY,
        Verdict.RELAY,
    ]
    assert held.tally("p").counts == {"yes": 1}


@pytest.mark.parametrize("second", [ALICE, ALICE_AGAIN])
def test_two_choices_void_the_vote_in_any_order_and_leave_proof(second: Someone) -> None:
    tallies = []
    for order in permutations([vote(ALICE, "yes"), vote(second, "no"), vote(BOB, "yes")]):
        held = Votes(everybody)
        verdicts = {id(said): take(held, said) for said in order}
        of_alice = [verdicts[id(said)] for said in order if said.sender.account == "alice"]
        assert of_alice == [Verdict.ACCEPT, Verdict.RELAY]
        tallies.append(held.tally("p"))
        (proof,) = held.equivocations("p")
        assert (proof.account, proof.proposal_id) == ("alice", "p")
        choices = set()
        for signed in (proof.first, proof.second):
            assert verify(signed.key, wire.signing_input(wire.message_id(signed.body)), signed.signature)
            choices.add(wire.decode_payload(wire.decode_body(signed.body).payload)["choice"])
        assert choices == {"yes", "no"}

    assert tallies == [Tally("p", {"yes": 1}, {"yes": 20}, ("bob",), ("alice",), ())] * 6


def test_void_stays_void_and_further_votes_are_ignored() -> None:
    held = Votes(everybody)
    verdicts = [take(held, vote(ALICE, choice)) for choice in ("yes", "no", "yes", "maybe")]

    assert verdicts == [Verdict.ACCEPT, Verdict.RELAY, Verdict.IGNORE, Verdict.IGNORE]
    assert held.tally("p") == Tally("p", {}, {}, (), ("alice",), ())


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=6), st.randoms())
def test_nodes_in_a_chain_agree_whatever_order_each_heard(choices: list[str], shuffler: Any) -> None:
    """Every node passes on what its validator lets through; the last in the chain agrees with the first."""
    messages = [vote(ALICE, choice) for choice in choices]
    tallies = []
    for _ in range(4):
        shuffler.shuffle(messages)
        held = Votes(everybody)
        messages = [said for said in messages if take(held, said) in {Verdict.ACCEPT, Verdict.RELAY}]
        tallies.append(held.tally("p"))
    assert tallies == [tallies[0]] * 4
    assert (tallies[0].equivocators == ("alice",)) == (len(set(choices)) > 1)


@pytest.mark.parametrize(
    "payload,verdict",
    [
        ({"proposal_id": "p", "choice": "yes", "reason": "because"}, Verdict.ACCEPT),
        ({"proposal_id": "p", "choice": True}, Verdict.ACCEPT),
        ({"proposal_id": "p", "choice": -3}, Verdict.ACCEPT),
        ({"proposal_id": "p"}, Verdict.REJECT),
        ({"choice": "yes"}, Verdict.REJECT),
        ({"proposal_id": "p", "choice": ""}, Verdict.REJECT),
        ({"proposal_id": "p", "choice": None}, Verdict.REJECT),
        ({"proposal_id": "p", "choice": 0.5}, Verdict.REJECT),
        ({"proposal_id": "p", "choice": ["yes"]}, Verdict.REJECT),
        ({"proposal_id": 1, "choice": "yes"}, Verdict.REJECT),
        ({"proposal_id": "p", "choice": "yes", "padding": "x" * 1000}, Verdict.REJECT),
    ],
)
def test_a_vote_must_fit(payload: dict[str, Any], verdict: Verdict) -> None:
    assert take(Votes(everybody), ALICE.says(VOTE, payload)) is verdict


def test_choices_are_compared_as_text() -> None:
    held = Votes(everybody)
    take(held, vote(ALICE, True))
    take(held, vote(BOB, 1))
    take(held, vote(CAROL, "true"))

    assert held.tally("p").counts == {"1": 1, "true": 2}
    assert take(held, vote(ALICE, "true")) is Verdict.RELAY
    assert held.tally("p").equivocators == ()


def test_a_contested_proposal_names_everybody_who_claims_it() -> None:
    held = Votes(everybody)
    assert take(held, propose(BOB, plan=1)) is Verdict.ACCEPT
    assert take(held, propose(ALICE, plan=2)) is Verdict.ACCEPT
    assert take(held, propose(BOB, plan=1)) is Verdict.RELAY
    assert take(held, propose(BOB, plan=3)) is Verdict.RELAY
    assert take(held, propose(BOB, plan=4)) is Verdict.IGNORE

    assert held.tally("p").proposers == ("alice", "bob")
    assert [(each.account, each.contradicted) for each in held.proposals("p")] == [
        ("alice", False),
        ("bob", True),
    ]
    assert take(held, ALICE.says(PROPOSE, {"plan": 1})) is Verdict.REJECT


def test_an_account_pushes_out_only_its_own_votes_once_they_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VOTES_PER_ACCOUNT", 3)
    held = Votes(everybody)
    take(held, vote(BOB, "yes", "p0"))
    for period in range(4):
        for number in range(2):
            take(held, vote(ALICE, "yes", f"p{period}{number}", now=later(period * 600)))
        assert take(held, vote(ALICE, "yes", "p0", now=later(period * 600))) in {Verdict.ACCEPT, Verdict.RELAY}

    assert {name: held.tally(name).voters for name in held.open} == {
        "p0": ("alice", "bob"),
        "p20": ("alice",),
        "p21": ("alice",),
        "p30": ("alice",),
        "p31": ("alice",),
    }


def test_whoever_votes_seldom_keeps_its_votes() -> None:
    held = Votes(everybody)
    for number in range(256):
        assert take(held, vote(ALICE, "yes", f"p{number}", now=later(number * 3600))) is Verdict.ACCEPT

    assert [held.tally(f"p{number}").counts for number in range(256)] == [{"yes": 1}] * 256


def test_an_account_floods_only_its_own_votes_and_none_of_them_counts_until_that_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "VOTES_PER_ACCOUNT", 3)
    held = Votes(everybody)
    take(held, vote(BOB, "yes", "p"))
    take(held, vote(ALICE, "yes", "p", now=later(-600)))
    verdicts = [take(held, vote(ALICE, "yes", f"p{number}")) for number in range(5)]

    assert verdicts == [Verdict.ACCEPT] * 3 + [Verdict.RELAY, Verdict.IGNORE]
    assert (held.open, held.tally("p").voters) == (("p",), ("bob",))
    take(held, vote(ALICE, "no", "q", now=later(1200)))
    assert (held.tally("p").voters, held.tally("q").voters) == (("bob",), ("alice",))


def test_an_account_floods_only_its_own_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROPOSALS_PER_ACCOUNT", 2)
    held = Votes(everybody)
    take(held, propose(BOB, "p0"))
    take(held, vote(CAROL, "yes", "a0"))
    for number in range(4):
        take(held, propose(ALICE, f"a{number}"))

    assert [(name, held.tally(name).proposers) for name in held.open] == [("a0", ()), ("p0", ("bob",))]


def harm(held: Votes, said: Said) -> str:
    return held.harm(said.envelope, said.sender, said.payload)


@pytest.mark.parametrize(
    "first, second, why",
    [
        (vote(ALICE, "yes"), vote(ALICE, "no"), "its account has already voted 'yes' on 'p'"),
        (vote(ALICE, "yes"), vote(ALICE_AGAIN, "no", now=later(3600)), "its account has already voted 'yes' on 'p'"),
        (propose(ALICE, terms=1), propose(ALICE, terms=2), "its account has already proposed 'p'"),
        (propose(ALICE, a=1, b=1), propose(ALICE, b=1, a=1), "its account has already proposed 'p'"),
        (vote(ALICE, "yes"), vote(ALICE, "yes"), ""),
        (vote(ALICE, True), vote(ALICE, "true"), ""),
        (vote(ALICE, "yes"), vote(ALICE, "no", "q"), ""),
        (vote(ALICE, "yes"), vote(BOB, "no"), ""),
        (vote(ALICE, "yes"), propose(ALICE), ""),
        (propose(ALICE, terms=1), propose(ALICE, terms=1), ""),
    ],
)
def test_who_would_contradict_itself_is_told_before(first: Said, second: Said, why: str) -> None:
    held = Votes(everybody)
    take(held, first)

    assert harm(held, second).partition(",")[0] == why


def test_who_would_flood_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VOTES_PER_ACCOUNT", 3)
    held = Votes(everybody)
    for number in range(3):
        assert harm(held, vote(ALICE, "yes", f"p{number}")) == ""
        take(held, vote(ALICE, "yes", f"p{number}"))
    why = "its account would speak of more than 3 proposals in ten minutes, and then none of that counts"

    assert harm(held, vote(ALICE, "yes", "p3")) == why
    assert harm(held, vote(ALICE, "yes", "p2")) == harm(held, vote(ALICE, "yes", "p3", now=later(600))) == ""
    assert harm(held, vote(BOB, "yes", "p3")) == harm(held, propose(ALICE, "p3")) == ""


def test_it_never_speaks_by_itself() -> None:
    held = Votes(everybody)
    assert held.deadline is None
    assert held.wake(later(1)) == ()
    assert held.tally("unheard of") == Tally("unheard of", {}, {}, (), (), ())
    assert (held.equivocations("unheard of"), held.proposals("unheard of"), NOON.mono) == ((), (), 1000.0)
