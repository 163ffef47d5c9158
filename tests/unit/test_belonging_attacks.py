"""Belonging against a peer whom the operator vouched for, and who means harm."""

from __future__ import annotations

from typing import Any, cast

import pytest

from tests.unit.delegation_support import GENESIS, NETWORK, delegation
from tests.unit.test_belonging import NODES, SIGNERS, Told
from zmesh.core.wire import network_id
from zmesh.handlers import Description, encode_record


@pytest.mark.parametrize("carrying, why", [(None, None), ("a stranger's", None), ("another key's", "not_held")])
async def test_whom_the_operator_vouches_for_cannot_have_us_pass_on_what_is_false(
    monkeypatch: pytest.MonkeyPatch, carrying: str | None, why: str | None
) -> None:
    """It would be introduced to everybody, who would all blame this node."""
    told = Told(monkeypatch)
    by_hand = NODES[0]
    cast(Any, told.belonging)._engine.peers.manual[by_hand.public] = None
    made = (
        delegation(SIGNERS[0], NODES[1])
        if carrying == "another key's"
        else delegation(SIGNERS[0], by_hand, network="x")
    )
    described = Description("by hand", delegation=None if carrying is None else made.encoded)
    record = encode_record(described, network_id(NETWORK, GENESIS), by_hand.public, 1, 0, by_hand.sign)

    assert told.belonging.judge(record) == why
    told.belonging.detach()
