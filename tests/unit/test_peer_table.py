"""Names in ``mesh.peers`` that several claim: nobody is hidden, and nobody is taken for somebody else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from zmesh.core.bounds import Bounds
from zmesh.core.errors import ConfigError, NotRunningError
from zmesh.core.events import AddPeer, Event, RemovePeer
from zmesh.core.link import Link
from zmesh.core.now import Now
from zmesh.core.peers import Peers
from zmesh.core.types import Member, PeerKey, Roster
from zmesh.identity import Identity
from zmesh.messages import PeerInfo
from zmesh.peer_table import PeerTable

ME, ALICE, BOB, EVE = (Identity.from_seed(bytes([number]) * 32).public for number in range(1, 5))


class Counted:
    """Peers, and how often everybody is gone through; compiled ones cannot be inherited from."""

    def __init__(self, peers: Peers) -> None:
        self.passes = 0
        self._peers = peers

    def __iter__(self) -> Iterator[Member]:
        self.passes += 1
        return iter(self._peers)

    def __len__(self) -> int:
        return len(self._peers)

    def __contains__(self, key: PeerKey) -> bool:
        return key in self._peers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._peers, name)


class Engine:
    """As much of an engine as the table reads."""

    def __init__(self, *members: Member) -> None:
        peers = Peers(ME, Bounds())
        peers.roster = Roster.of(members)
        self.within, self.counted = peers, Counted(peers)
        self.peers = cast(Peers, self.counted)
        self.links: dict[PeerKey, Link] = {}


def table(*members: Member) -> PeerTable:
    return attached(Engine(*members))


def attached(engine: Engine) -> PeerTable:
    made = PeerTable(ME, "me", Bounds(), lambda: Now(0.0, 0.0))
    made.attach(engine, lambda event: None, lambda: None)
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


def test_nobody_passes_for_another_by_taking_its_account_for_a_name() -> None:
    peers = table(Member(EVE, "5Eve", "5Alice"), Member(ALICE, "5Alice", "alice"), Member(BOB, "5Bob", "alice"))

    assert {name: info.public_key for name, info in peers.items()} == {
        "5Eve": EVE.hex(),
        "5Alice": ALICE.hex(),
        "5Bob": BOB.hex(),
    }


def test_the_own_card_gives_this_node_its_account_and_is_never_listed() -> None:
    told: list[Event] = []
    peers = PeerTable(ME, "me", Bounds(), lambda: Now(0.0, 0.0))
    peers["me"] = PeerInfo("me", account_id="5Me", public_key=ME.hex(), stake_amount=7)
    with pytest.raises(ConfigError, match=r"^peers\['a'\]: this node has the same account, which must be unique$"):
        peers["a"] = PeerInfo("a", account_id="5Me", public_key=ALICE.hex())
    peers.attach(Engine(), told.append, lambda: None)
    assert (list(peers), "me" in peers) == ([], False)
    del peers["me"]

    assert told == [AddPeer(Member(ME, "5Me", "me", stake=7)), RemovePeer(ME)]


def test_a_member_with_the_name_of_this_node_does_not_keep_it_from_its_account() -> None:
    told: list[Event] = []
    peers = PeerTable(ME, "me", Bounds(), lambda: Now(0.0, 0.0))
    peers.attach(Engine(Member(EVE, "5Eve", "me")), told.append, lambda: None)
    peers["me"] = PeerInfo("me", account_id="5Me", public_key=ME.hex())

    assert told == [AddPeer(Member(ME, "5Me", "me"))]


def test_nobody_passes_for_this_node_by_taking_its_account_for_a_name() -> None:
    engine = Engine(Member(EVE, "5Eve", "5Me"))
    engine.within.card = Member(ME, "5Me", "me")

    assert list(attached(engine)) == ["5Eve"]


def test_what_is_said_anew_of_a_peer_keeps_its_link_and_another_key_does_not() -> None:
    told: list[Event] = []
    peers = PeerTable(ME, "me", Bounds(), lambda: Now(0.0, 0.0))
    peers["a"] = PeerInfo("a", public_key=ALICE.hex())
    peers.attach(Engine(), told.append, lambda: None)
    peers["a"] = PeerInfo("a", public_key=ALICE.hex(), stake_amount=7)
    peers["a"] = PeerInfo("a", public_key=BOB.hex())

    first, anew, other = (Member(key, key.hex(), "a", stake=stake) for key, stake in ((ALICE, 0), (ALICE, 7), (BOB, 0)))
    assert told == [AddPeer(first), AddPeer(anew), RemovePeer(ALICE), AddPeer(other)]


@pytest.mark.parametrize(
    "wrong, sentence",
    [
        ({"reputation": "90"}, "reputation must be a number from 0 to 100, not '90'"),
        ({"reputation": float("nan")}, "reputation must be a number from 0 to 100, not nan"),
        ({"account_id": 7}, "account_id must be a string, empty if there is none, not 7"),
        ({"capabilities": 5}, "capabilities must be a tuple of strings, not 5"),
        ({"capabilities": (5,)}, "capabilities must be a tuple of strings, not (5,)"),
    ],
)
def test_a_peer_with_a_wrong_field_is_refused_and_nothing_changes(wrong: dict[str, Any], sentence: str) -> None:
    peers = table()

    with pytest.raises(ConfigError) as caught:
        peers["a"] = PeerInfo("a", public_key=ALICE.hex(), **wrong)
    assert (str(caught.value), len(peers)) == (f"peers['a']: {sentence}", 0)


def test_a_change_from_where_none_may_come_changes_nothing() -> None:
    def refuse() -> None:
        raise NotRunningError("another event loop")

    told: list[Event] = []
    peers = PeerTable(ME, "me", Bounds(), lambda: Now(0.0, 0.0))
    peers["a"] = PeerInfo("a", public_key=ALICE.hex())
    peers.attach(Engine(Member(ALICE, ALICE.hex(), "a")), told.append, refuse)
    told.clear()
    for change in (lambda: peers.update(b=PeerInfo("b", public_key=BOB.hex())), lambda: peers.pop("a")):
        with pytest.raises(NotRunningError):
            change()

    assert (told, set(peers._manual)) == ([], {"a"})


def test_names_are_worked_out_once_for_each_membership_and_not_for_each_question() -> None:
    members = [Member(bytes([number]) * 32, f"5{number}", f"peer-{number}") for number in range(1, 101)]
    engine = Engine(*members)
    peers = attached(engine)
    reads: list[Callable[[], object]] = [
        lambda: dict(peers),
        lambda: [peers[name] for name in peers],
        lambda: sum(info.is_alive() for _, info in peers.items()),
        lambda: "nobody" in peers,
        lambda: len(peers),
        lambda: repr(peers),
    ]
    for read in reads:
        read()
    assert engine.counted.passes == 1

    engine.within.roster = Roster.of(members[:50])
    assert (len(peers), "peer-60" in peers) == (50, False)
    newcomer = Member(ALICE, "5Alice", "peer-60")
    engine.within.manual[ALICE] = newcomer
    assert (len(peers), peers["peer-60"].public_key) == (51, ALICE.hex())
    engine.within.manual[ALICE] = newcomer._replace(peer_id="alice")
    assert ("peer-60" in peers, "alice" in peers) == (False, True)
    assert engine.counted.passes == 4


def test_items_and_values_are_what_each_name_gives() -> None:
    peers = table(Member(ALICE, "5Alice", "alice"), Member(BOB, "5Bob", "bob"), Member(EVE, "5Eve", "alice"))
    each = [(name, peers[name]) for name in peers]

    assert list(peers.items()) == each
    assert list(peers.values()) == [info for _, info in each]
    assert (len(peers.items()), len(peers.values())) == (3, 3)
    assert ("bob", peers["bob"]) in peers.items()
    assert ("alice", peers["bob"]) not in peers.items()
    assert peers["bob"] in peers.values()
    assert PeerInfo("nobody") not in peers.values()


def test_a_peer_who_goes_while_all_are_read_ends_nothing() -> None:
    engine = Engine(Member(ALICE, "5Alice", "alice"), Member(BOB, "5Bob", "bob"))
    reading = iter(attached(engine).items())
    assert next(reading)[0] == "alice"
    engine.within.roster = Roster.of([])

    assert [name for name, _ in reading] == ["bob"]


def test_the_table_prints_as_what_it_holds() -> None:
    peers = table(Member(BOB, "5Bob", "bob"))

    assert repr(peers) == f"<PeerTable {dict(peers)}>"
    assert "account_id='5Bob'" in repr(peers)
