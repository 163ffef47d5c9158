"""What health says of links: who is reached, why others are not, whose clock is off; and what metrics begin with."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import zmesh
from zmesh.core.bounds import Bounds
from zmesh.core.link import Link
from zmesh.core.types import Member, SendResult
from zmesh.counted import LAYERS
from zmesh.registry.port import RegistryStatus
from zmesh.status import Gauges, Troubles, metrics
from zmesh.status import health as health_of

ROOT = Path(__file__).parents[2]
NONE = Troubles((), ())


def link(number: int, *, why: str = "", skew: float = 0.0) -> Link:
    """A link that is live, or why it is not."""
    made = Link(bytes([number]) * 32, Bounds())
    made.is_live = not why
    made.why, made.skew = why, skew
    return made


def engine_with(*links: Link) -> Any:
    """As much of an engine as health looks at; its members are called peer_1, peer_2 ..."""
    named = {one.key: Member(one.key, f"account {one.key[0]}", f"peer_{one.key[0]}") for one in links}
    live = tuple(one.key for one in links if one.is_live)
    return SimpleNamespace(links={one.key: one for one in links}, live=live, peers=named, seen=[b"one", b"two"])


def health(
    peer_id: str,
    engine: Any,
    known: int,
    registry: RegistryStatus | None,
    bootstrap: dict[str, Any] | None = None,
    troubles: Troubles = NONE,
) -> dict[str, Any]:
    """What health says of a node without further troubles."""
    return health_of(peer_id, engine, known, registry, bootstrap, troubles)


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
    assert said["why"] == ["none of 3 known peers is connected", "2 peer(s): it left", "1 peer(s): slow"]


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
    assert (said["status"], said["warnings"]) == ("healthy", ["the set of members is 12 s old: x.toml is gone"])
    assert said["registry"] == {
        "source": "registry x.toml",
        "members": 3,
        "age_seconds": 12.3,
        "block": None,
        "problem": "x.toml is gone",
    }


def test_seeds_that_do_not_answer_degrade_a_node_that_reaches_nobody() -> None:
    bootstrap = {"seeds_met": "0 of 1", "records": "0 of 0", "problems": ["127.0.0.1:1: Connection refused"]}
    said = health("me", engine_with(), 0, None, bootstrap, Troubles(["it is late"], []))
    assert (said["status"], said["why"]) == ("degraded", ["it is late", "127.0.0.1:1: Connection refused"])
    assert health("me", engine_with(link(1)), 1, None, bootstrap)["status"] == "healthy"


def samples(is_healthy: bool, sends: dict[SendResult, int], others: dict[str, dict[str, int]]) -> dict[str, str]:
    """What metrics say of an engine without links, by name and labels."""
    counts = {"sent": {}, "drops": {}, "faults": {}, "late_wakes": 0, "wanted": 0, "direct_pending": 0}
    engine: Any = SimpleNamespace(live=(), seen=[], **counts)
    text = metrics(engine, Gauges(is_healthy, 1_700_000_000.5, 0, 0, None, None, None), {}, sends, others)
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


def test_metrics_tell_the_version_the_start_and_whether_all_is_well() -> None:
    said = samples(True, {}, {})
    assert said[f'zmesh_build_info{{version="{zmesh.__version__}"}}'] == "1"
    assert said["zmesh_start_time_seconds"] == "1700000000.5"
    assert (said["zmesh_healthy"], samples(False, {}, {})["zmesh_healthy"]) == ("1", "0")


def test_what_was_never_counted_stands_at_0_so_that_a_rate_sees_the_first() -> None:
    said = samples(True, {SendResult.TIMEOUT: 2}, {"handler": {"queued": 3, "new_here": 1}, "node": {}})
    sends = {result.value: said[f'zmesh_direct_sends_total{{result="{result.value}"}}'] for result in SendResult}
    assert sends == {**dict.fromkeys((result.value for result in SendResult), "0"), "timeout": "2"}
    names = LAYERS["handler"].events
    events = {name: said[f'zmesh_handler_events_total{{event="{name}"}}'] for name in (*names, "new_here")}
    assert events == {**dict.fromkeys(names, "0"), "queued": "3", "new_here": "1"}
    assert said['zmesh_node_events_total{event="background_ended"}'] == "0"


def counted_by_name() -> Iterator[str]:
    """Every name that the library counts under, where the line that counts spells it out."""
    for path in (
        *(ROOT / "zmesh").rglob("*.py"),
        *(ROOT / "transports").glob("*.py"),
        *(ROOT / "handlers").glob("*.py"),
    ):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.AugAssign)
                and isinstance(node.target, ast.Subscript)
                and ast.unparse(node.target.value).endswith("counters")
            ):
                spelt = ast.walk(node.target.slice)
                yield from (
                    each.value for each in spelt if isinstance(each, ast.Constant) and isinstance(each.value, str)
                )


def test_every_name_that_is_counted_is_known_before_it_happens() -> None:
    known = {name for layer in LAYERS.values() for name in layer.events}
    pieces = {"door_", "http_", "_over_limit_of_", "_"}  # of names that are put together
    assert set(counted_by_name()) - known - pieces == set()
    assert len(known & set(counted_by_name())) > 30


def test_the_version_is_that_of_the_package() -> None:
    assert f'version = "{zmesh.__version__}"\n' in (ROOT / "pyproject.toml").read_text()
