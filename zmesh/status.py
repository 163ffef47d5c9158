"""What a node says about itself: /health for machines that decide, /metrics for machines that plot.

Rules
 1. Health tells the truth. A node is "healthy" if it reaches a peer, or knows of none to reach. It is "degraded", and
    says why, if it knows of peers and reaches none, if others refuse it, if its seeds do not answer, or if its registry
    never named anybody. What will keep it from others, but does not yet, is a warning. So is that it expects no peer:
    correct for a first node, and a mistake for any other.
 2. Every counter of every layer is in the metrics, as 0 before its first event if its name is known. No key, payload or
    secret is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from zmesh.core.bounds import AHEAD
from zmesh.core.engine import LATE, Engine
from zmesh.core.link import Link
from zmesh.core.types import MessageType, SendResult
from zmesh.counted import LAYERS
from zmesh.registry.port import RegistryStatus
from zmesh.version import VERSION

MAX_REASONS = 5
"""Reasons that are spelt out: an operator reads the first few."""
NOBODY = (
    "no registry, no bootstrap and no peers: nobody can connect until peers are added by hand or a registry is named"
    " (MESH_REGISTRY)"
)
"""The warning of a node that no peer can ever join as it is."""


class Troubles(NamedTuple):
    """Problems other than with links, seeds and the registry, one sentence each."""

    now: Sequence[str]
    """What keeps this node from others now."""
    soon: Sequence[str]
    """What soon will, or would if the node expected any peer."""


def health(
    peer_id: str,
    engine: Engine,
    known: int,
    registry: RegistryStatus | None,
    bootstrap: Mapping[str, Any] | None,
    troubles: Troubles,
) -> dict[str, Any]:
    """The answer of GET /health. ``known``: peers listed. ``bootstrap``: its progress, if there are seeds to meet."""
    live = [engine.links[key] for key in engine.live]
    skewed = [link for link in live if abs(link.skew) > AHEAD]
    why = [*troubles.now, *([] if live else _isolation(known, engine.links.values(), bootstrap)), *_missing(registry)]
    warnings = [*troubles.soon, *_stale(registry), *_own_clock(len(skewed), len(live))]
    said: dict[str, Any] = {
        "status": "degraded" if why else "healthy",
        "peer_id": peer_id,
        "peers_count": known,
        "running": True,
        "links_live": len(live),
        "links_away": len(engine.links) - len(live),
        "messages_seen": len(engine.seen),
    }
    if why:
        said["why"] = why
    if warnings:
        said["warnings"] = warnings
    if registry is not None:
        said["registry"] = _registry_part(registry)
    if bootstrap is not None:
        said["bootstrap"] = dict(bootstrap)
    if skewed:
        said["clocks_ahead_seconds"] = {_name(engine, link): round(link.skew, 3) for link in skewed}
    return said


def _isolation(known: int, links: Collection[Link], bootstrap: Mapping[str, Any] | None) -> list[str]:
    """Why no link is live, if any peer is known or any seed should have answered."""
    found = []
    if known:
        reasons = Counter(link.why for link in links if link.why)
        found.append(f"none of {known} known peers is connected")
        found += [f"{count} peer(s): {reason}" for reason, count in reasons.most_common(MAX_REASONS)]
    if bootstrap is not None:
        found += bootstrap["problems"][:MAX_REASONS]
    return found


def _missing(registry: RegistryStatus | None) -> list[str]:
    """Why the registry has not named any member yet."""
    if registry is None or registry.age is not None:
        return []
    return [registry.problem or "the registry has not been read yet"]


def _stale(registry: RegistryStatus | None) -> list[str]:
    """Why the set of members in force may be out of date."""
    if registry is None or registry.age is None or registry.problem is None:
        return []
    return [f"the set of members is {registry.age:.0f} s old: {registry.problem}"]


def _own_clock(skewed: int, live: int) -> list[str]:
    """If most clocks differ from this one, this one is probably wrong."""
    if 2 * skewed <= live:
        return []
    return [f"the clocks of {skewed} of {live} peers differ from this one by over {AHEAD:g} s"]


def _registry_part(registry: RegistryStatus) -> dict[str, Any]:
    return {
        "source": registry.source,
        "members": registry.members,
        "age_seconds": None if registry.age is None else round(registry.age, 1),
        "block": registry.block,
        "problem": registry.problem,
    }


def _name(engine: Engine, link: Link) -> str:
    member = engine.peers.get(link.key)
    return link.key.hex() if member is None else member.peer_id


@dataclass(frozen=True, slots=True)
class Gauges:
    """Current values, as opposed to counters; None if there is no such thing."""

    is_healthy: bool
    """Whether /health says so."""
    started: float
    """When this life of the node began, in seconds since 1970."""
    peers: int
    """Peers listed."""
    handler_queue: int
    """Messages that wait for the slowest handler or iterator."""
    registry_members: int | None
    """Members of the set in force, this node included."""
    registry_age: float | None
    """Seconds since the registry was last seen to agree with the set in force."""
    delegation_left: float | None
    """Seconds until this node's delegation ends."""


def metrics(
    engine: Engine,
    gauges: Gauges,
    delivered: Mapping[MessageType, int],
    sends: Mapping[SendResult, int],
    others: Mapping[str, Mapping[str, int]],
) -> str:
    """Prometheus text.

    ``delivered``: messages that the application accepted. ``sends``: how direct sends ended. ``others``: the
    counters of each of ``LAYERS``, by its name.
    """
    lines = [*_gauges(engine, gauges), *_counters(engine, delivered, sends)]
    for name, layer in LAYERS.items():
        counted = {**dict.fromkeys(layer.events, 0), **others.get(name, {})}
        lines += _counter(f"zmesh_{name}_events_total", layer.help, "event", dict(sorted(counted.items())))
    return "\n".join(lines) + "\n"


def _gauges(engine: Engine, gauges: Gauges) -> Iterator[str]:
    yield from _family("zmesh_build_info", "gauge", "The version that runs.", [(f'{{version="{VERSION}"}}', 1)])
    for name, text, value in (
        ("zmesh_start_time_seconds", "Unix time at which this node was started, in seconds.", gauges.started),
        ("zmesh_healthy", "1 if /health says healthy, 0 if it says degraded.", int(gauges.is_healthy)),
        ("zmesh_peers", "Peers listed: members that were heard from within MESH_PEER_FORGET.", gauges.peers),
        ("zmesh_links_live", "Peers that messages flow to and from now.", len(engine.live)),
        ("zmesh_messages_seen", "Ids of messages remembered, for two minutes, own ones included.", len(engine.seen)),
        ("zmesh_messages_wanted", "Messages that peers offered and that have not arrived yet.", engine.wanted),
        ("zmesh_direct_pending", "Own direct messages neither acknowledged nor given up yet.", engine.direct_pending),
        ("zmesh_handler_queue", "Messages that wait in the longest queue of all handlers.", gauges.handler_queue),
        ("zmesh_registry_members", "Members that the registry names, this node included.", gauges.registry_members),
        ("zmesh_registry_age_seconds", "Seconds since the registry confirmed the set in force.", gauges.registry_age),
        ("zmesh_delegation_left_seconds", "Seconds until this node's own delegation expires.", gauges.delegation_left),
    ):
        if value is not None:
            yield from _family(name, "gauge", text, [("", value)])


def _counters(engine: Engine, delivered: Mapping[MessageType, int], sends: Mapping[SendResult, int]) -> Iterator[str]:
    text = f"Times that this node was over {LATE:g} s behind its own timers, because its process was busy."
    yield from _family("zmesh_late_wakes_total", "counter", text, [("", engine.late_wakes)])
    flows = [
        (f'{{direction="{direction}",type="{kind.value}"}}', counts.get(kind, 0))
        for direction, counts in (("sent", engine.sent), ("delivered", delivered))
        for kind in MessageType
    ]
    text = "Own messages that were sent, and messages of others that the application accepted, by type."
    yield from _family("zmesh_messages_total", "counter", text, flows)
    results = {result: sends.get(result, 0) for result in SendResult}
    yield from _counter("zmesh_direct_sends_total", "Own direct messages that are over, by result.", "result", results)
    text = "Frames and offers that led to no delivery, by reason; duplicate is normal in gossip."
    yield from _counter("zmesh_frames_dropped_total", text, "reason", engine.drops)
    text = "Faults charged to peers, by fault: a peer is broken, or hostile."
    yield from _counter("zmesh_offences_total", text, "fault", engine.faults)


def _counter(name: str, text: str, label: str, counts: Mapping[Any, int]) -> Iterator[str]:
    """Counters that differ in one label; its values are strings, or members of an enumeration of strings."""
    rows = [(f'{{{label}="{getattr(key, "value", key)}"}}', count) for key, count in counts.items()]
    yield from _family(name, "counter", text, rows)


def _family(name: str, kind: str, text: str, rows: Iterable[tuple[str, float]]) -> Iterator[str]:
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    yield from (f"{name}{labels} {value}" for labels, value in rows)
