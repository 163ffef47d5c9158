"""Names in ``mesh.peers`` that several claim: nobody is hidden, and nobody is taken for somebody else."""

from __future__ import annotations

import pytest

from zmesh.core.bounds import Bounds
from zmesh.core.errors import ConfigError
from zmesh.core.link import Link
from zmesh.core.now import Now
from zmesh.core.peers import Peers
from zmesh.core.types import Member, PeerKey, Roster
from zmesh.identity import Identity
from zmesh.peer_table import PeerTable

ME, ALICE, BOB, EVE = (Identity.from_seed(bytes([number]) * 32).public for number in range(1, 5))


class Engine:
    """As much of an engine as the table reads."""

    def __init__(self, *members: Member) -> None:
        self.peers = Peers(ME, Bounds())
        self.peers.roster = Roster.of(members)
        self.links: dict[PeerKey, Link] = {}


def table(*members: Member) -> PeerTable:
    made = PeerTable(ME, "me", Bounds(), lambda: Now(0.0, 0.0))
    made.attach(Engine(*members), lambda event: None)
    return made


def test_a_name_that_two_claim_means_neither_and_each_is_listed_under_its_account() -> None:
    peers = table(Member(ALICE, "5Alice", "alice"), Member(BOB, "5Bob", "bob"), Member(EVE, "5Eve", "alice"))

    assert sorted(peers) == ["5Alice", "5Eve", "bob"]
    assert (peers["5Alice"].public_key, peers["5Eve"].public_key) == (ALICE.hex(), EVE.hex())
    assert len(peers) == 3
    assert "alice" not in peers
    with pytest.raises(KeyError):
        peers["alice"]
    with pytest.raises(ConfigError, match="is in the registry"):
        del peers["5Eve"]


def test_nobody_passes_for_this_node_by_its_name() -> None:
    peers = table(Member(EVE, "5Eve", "me"))

    assert list(peers) == ["5Eve"]
    assert peers["5Eve"].peer_id == "me"


def test_the_table_prints_as_what_it_holds() -> None:
    peers = table(Member(BOB, "5Bob", "bob"))

    assert repr(peers) == f"<PeerTable {dict(peers)}>"
    assert "account_id='5Bob'" in repr(peers)
