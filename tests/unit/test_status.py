"""What health says of links: who is reached, why others are not, and whose clock is off."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from zmesh.core.bounds import Bounds
from zmesh.core.link import Link, LinkState
from zmesh.core.types import Member
from zmesh.registry.port import RegistryStatus
from zmesh.status import Troubles, health


def link(number: int, *, why: str = "", skew: float = 0.0) -> Link:
    """A link that is live, or why it is not."""
    made = Link(bytes([number]) * 32, Bounds(), 0.0, wanted=True)
    made.state = LinkState.AWAY if why else LinkState.LIVE
    made.why, made.skew = why, skew
    return made


def engine_with(*links: Link) -> Any:
    """As much of an engine as health looks at; its members are called peer_1, peer_2 ..."""
    named = {one.key: Member(one.key, f"account {one.key[0]}", f"peer_{one.key[0]}") for one in links}
    return SimpleNamespace(links={one.key: one for one in links}, peers=named, seen=[b"one", b"two"])


def test_one_link_is_enough_to_be_healthy() -> None:
    assert health("me", engine_with(link(1), link(2, why="it left")), 2, None) == {
        "status": "healthy",
        "peer_id": "me",
        "peers_count": 2,
        "running": True,
        "links_live": 1,
        "links_away": 1,
        "messages_seen": 2,
    }


def test_who_reaches_nobody_is_degraded_and_names_the_commonest_reasons_first() -> None:
    said = health("me", engine_with(link(1, why="slow"), link(2, why="it left"), link(3, why="it left")), 3, None)
    assert (said["status"], said["running"]) == ("degraded", True)
    assert said["why"] == ["none of 3 known peers is reached", "2 peer(s): it left", "1 peer(s): slow"]


def test_a_clock_is_named_once_it_is_off_by_more_than_messages_may_be() -> None:
    said = health("me", engine_with(link(1, skew=10.0), link(2, skew=12.3456), link(3, skew=-11)), 3, None)
    assert said["status"] == "healthy"
    assert said["clocks_ahead_seconds"] == {"peer_2": 12.346, "peer_3": -11}
    assert "clocks_ahead_seconds" not in health("me", engine_with(link(1, skew=9.9)), 1, None)


def test_a_node_whose_clock_differs_from_most_others_is_warned_of_its_own() -> None:
    two_of_three = [link(1, skew=-3600.0), link(2, skew=-3600.0), link(3)]
    assert health("me", engine_with(*two_of_three), 3, None)["warnings"] == [
        "the clocks of 2 of 3 peers differ from this one by over 10 s"
    ]
    assert "warnings" not in health("me", engine_with(*two_of_three, link(4)), 4, None)


def test_what_ends_soon_is_a_warning_and_no_trouble() -> None:
    said = health("me", engine_with(link(1)), 1, None, None, Troubles([], ["it ends"]))
    assert (said["status"], said["warnings"], "why" in said) == ("healthy", ["it ends"], False)


def test_the_registry_says_how_old_its_word_is_and_what_is_wrong() -> None:
    said = health("me", engine_with(), 0, RegistryStatus("registry x.toml", 3, 12.34, "x.toml is gone"))
    assert (said["status"], said["warnings"]) == ("healthy", ["who belongs is what it was 12 s ago: x.toml is gone"])
    assert said["registry"] == {
        "source": "registry x.toml",
        "members": 3,
        "age_seconds": 12.3,
        "block": None,
        "problem": "x.toml is gone",
    }


def test_seeds_that_do_not_answer_degrade_a_node_that_reaches_nobody() -> None:
    meeting = {"seeds_met": "0 of 1", "records": "0 of 0", "problems": ["127.0.0.1:1: Connection refused"]}
    said = health("me", engine_with(), 0, None, meeting, Troubles(["it is late"], []))
    assert (said["status"], said["why"]) == ("degraded", ["it is late", "127.0.0.1:1: Connection refused"])
    assert health("me", engine_with(link(1)), 1, None, meeting)["status"] == "healthy"
