"""Votes of one account in any order: what nodes remember of them is the same, and bounded."""

from __future__ import annotations

import random
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from zmesh.core.types import Verdict
from zmesh.handlers.ledger import PERIOD_MS, Ledger

MOST = 3


class Said(NamedTuple):
    word: str
    timestamp_ms: int
    proposal: str


Held = tuple[bool, dict[str, frozenset[str]]]


def hear(order: list[Said]) -> tuple[Held, list[Said]]:
    """What a node remembers that hears these, and what it passes on."""
    ledger: Ledger[Said] = Ledger(MOST)
    passed = []
    for said in order:
        if ledger.judge("x", said.proposal, said.timestamp_ms) is not Verdict.IGNORE:
            ledger.note("x", said.proposal, said)
            passed.append(said)
            assert len(list(ledger)) <= 2 * MOST
    return (ledger.has_flooded("x"), {name: frozenset(map(_word, ledger.of(name)["x"])) for name in ledger}), passed


def _word(said: Said) -> str:
    return said.word


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=True))
def test_nodes_that_heard_the_same_remember_the_same_however_it_was_mixed_up(chance: random.Random) -> None:
    """Each passes on to the next only what is worth it, and each hears it in another order."""
    periods = chance.choice((1, 3, 6))
    said = [
        Said(chance.choice("ab"), PERIOD_MS * chance.randrange(periods), chance.choice("PQRSTU"))
        for _ in range(chance.randrange(25))
    ]
    every = []
    for _ in range(4):
        held, said = hear(said)
        every.append(held)
        chance.shuffle(said)

    assert every == every[:1] * 4
