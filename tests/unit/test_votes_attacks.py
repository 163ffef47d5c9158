"""Members that vote so that honest nodes would never agree on the count: real engines, virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.core_support import ME, NOON, Bench, people
from zmesh.core import wire
from zmesh.core.actions import Deliver
from zmesh.core.envelope import Envelope
from zmesh.core.events import RosterChanged
from zmesh.core.types import DropReason, Fault, Member, MessageType, Roster
from zmesh.handlers import Votes

ALICE, BOB = people(2)
PROPOSE, VOTE = (wire.KIND_CODES[kind] for kind in (MessageType.CONSENSUS_PROPOSE, MessageType.CONSENSUS_VOTE))


def node() -> tuple[Bench, Votes]:
    """An honest node, linked with Bob; its votes know its members."""
    held = Votes(lambda: (bench.engine.peers.myself, *bench.engine.peers))
    bench = Bench([ALICE, BOB], handlers=[held])
    bench.connect(BOB)
    return bench, held


def vote(choice: str, proposal: str = "p", **fields: Any) -> Envelope:
    """One of Alice's."""
    return ALICE.says(kind=VOTE, content={"proposal_id": proposal, "choice": choice}, **fields)


def become(bench: Bench, alice: Member | None) -> None:
    """The registry says another thing of Alice."""
    others = (ME.member, BOB.member) if alice is None else (ME.member, BOB.member, alice)
    bench.handle(RosterChanged(Roster.of(others)))


@pytest.mark.parametrize("kind", [PROPOSE, VOTE])
def test_what_would_expire_between_two_nodes_counts_at_neither(kind: int) -> None:
    said = ALICE.says(kind=kind, content={"proposal_id": "p", "choice": "yes"}, expiry_ms=NOON.wall_ms)
    (early, first), (late, second) = node(), node()
    early.hear(BOB, said)
    late.advance(0.02)
    late.hear(BOB, said)

    assert (first.open, second.open) == ((), ())
    assert (early.drops(), late.drops()) == ([DropReason.REJECTED], [DropReason.EXPIRED])
    assert early.offences() == [(ALICE.public, Fault.INVALID_MESSAGE)]
    assert (
        first.objection(said, {})
        == "it must have no expiry, or some peers would count it and others receive it too late"
    )


def test_a_vote_weighs_what_its_voter_has_when_it_is_counted() -> None:
    rich = ALICE.member._replace(stake=1000)
    (before, first), (after, second) = node(), node()
    before.hear(BOB, said := vote("yes"))
    become(before, rich)
    become(after, rich)
    after.hear(BOB, said)

    assert first.tally("p") == second.tally("p")
    assert (first.tally("p").stake, first.tally("p").voters) == ({"yes": 1000}, (ALICE.member.account,))
    become(before, None)
    assert (first.tally("p").counts, first.tally("p").voters) == ({}, ())
    become(before, ALICE.member)
    assert (first.tally("p").counts, first.tally("p").stake) == ({"yes": 1}, {"yes": 1})


def test_a_member_that_is_no_validator_has_no_vote() -> None:
    bench, held = node()
    become(bench, ALICE.member._replace(stake=0, is_validator=False))
    bench.hear(BOB, vote("yes"))
    bench.hear(BOB, BOB.says(kind=VOTE, content={"proposal_id": "p", "choice": "no"}))

    tally = held.tally("p")
    assert (tally.counts, tally.voters, tally.equivocators) == ({"no": 1}, (BOB.member.account,), ())


def test_what_an_account_pushes_out_is_the_same_in_every_order() -> None:
    """256 votes of its own between two that contradict each other: they are too many wherever they come."""
    (one, first), (other, second) = node(), node()
    yes, no, fillers = vote("yes"), vote("no"), [vote("yes", f"filler {number}") for number in range(256)]
    for said in (yes, *fillers, no):
        one.hear(BOB, said)
    for said in (yes, *fillers[:-1], no, fillers[-1]):
        other.hear(BOB, said)

    assert first.tally("p") == second.tally("p")
    assert (first.tally("p").voters, first.open, second.open) == ((), (), ())


def test_a_vote_told_to_one_node_alone_counts_at_none() -> None:
    bench, held = node()
    bench.connect(ALICE)
    for kind in (PROPOSE, VOTE):
        bench.hear(ALICE, ALICE.tells(ME.public, kind=kind, content={"proposal_id": "p", "choice": "yes"}))

    assert [told.payload["proposal_id"] for told in bench.of(Deliver)] == ["p", "p"]
    assert held.open == ()
    bench.hear(BOB, vote("no"))
    assert held.tally("p").counts == {"no": 1}
