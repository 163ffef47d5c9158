"""Belonging against a peer whom the operator vouched for, and who means harm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.unit.delegation_support import END, GENESIS, NETWORK, delegation
from tests.unit.test_belonging import NODES, SIGNERS, Told, record
from zmesh import belonging as module
from zmesh.core.now import Now
from zmesh.core.types import Roster
from zmesh.core.wire import network_id
from zmesh.handlers import Description, encode_record
from zmesh.handlers.standing import Standing


@pytest.mark.parametrize(
    "carrying, verdict",
    [(None, Standing.ADMITTED), ("a stranger's", Standing.ADMITTED), ("another key's", Standing.NOT_HELD)],
)
async def test_whom_the_operator_vouches_for_cannot_have_us_pass_on_what_is_false(
    monkeypatch: pytest.MonkeyPatch, carrying: str | None, verdict: Standing
) -> None:
    """It would be introduced to everybody, who would all blame this node."""
    told = Told(monkeypatch)
    by_hand = NODES[0]
    cast(Any, told.belonging)._node.engine.peers.manual[by_hand.public] = None
    made = (
        delegation(SIGNERS[0], NODES[1])
        if carrying == "another key's"
        else delegation(SIGNERS[0], by_hand, network="x")
    )
    described = Description("by hand", delegation=None if carrying is None else made.encoded)
    offered = encode_record(described, network_id(NETWORK, GENESIS), by_hand.public, 1, 0, by_hand.sign)

    assert told.belonging.judge(offered) is verdict
    told.belonging.detach()


async def test_a_fault_of_ours_does_not_keep_in_whose_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SLEEP", 0.01)
    told = Told(monkeypatch)
    told.offer(record(SIGNERS[0], NODES[0]))
    await told.rest(1)
    membership = cast(Any, told.belonging)._membership
    roster_at: Callable[[Now], Roster] = membership.roster_at
    faults = [RuntimeError("what nobody thought of")]

    def broken(now: Now) -> Roster:
        if faults:
            raise faults.pop()
        return roster_at(now)

    monkeypatch.setattr(membership, "roster_at", broken)
    told.wall = END + 1.0
    await told.rest(2)
    assert told.rosters() == [{NODES[0].public}, set()]
    told.belonging.detach()


async def test_a_clock_that_is_set_right_is_noticed_where_nothing_else_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SLEEP", 0.01)
    told = Told(monkeypatch)
    told.offer(record(SIGNERS[0], NODES[0]))
    await told.rest(1)
    told.wall = END + 1.0
    await told.rest(2)
    told.wall = END - 100.0
    await told.rest(3)
    assert told.rosters() == [{NODES[0].public}, set(), {NODES[0].public}]
    told.belonging.detach()


async def test_a_mesh_in_which_rosters_take_long_makes_fewer_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one member that comes again and again under other names could keep everybody busy."""
    told = Told(monkeypatch)
    loop, membership, lost = asyncio.get_running_loop(), cast(Any, told.belonging)._membership, [0.0]
    monkeypatch.setattr(module, "read_clocks", lambda: Now(loop.time() + lost[0], told.wall))
    roster_at: Callable[[Now], Roster] = membership.roster_at

    def slow(now: Now) -> Roster:
        lost[0] += 3.0
        return roster_at(now)

    monkeypatch.setattr(membership, "roster_at", slow)
    told.offer(record(SIGNERS[0], NODES[0]))
    await told.rest(1)
    told.belonging.accepted(record(SIGNERS[0], NODES[0], 2))
    timer = cast(Any, told.belonging)._timer

    assert 3.0 * module.SHARE - 1 < timer.when() - loop.time() < 3.0 * module.SHARE + 1
    told.belonging.detach()
