"""What a node says about itself: /health for machines that decide, /metrics for machines that draw.

Rules
 1. Health tells the truth: "healthy" is a node that reaches somebody, or that knows of nobody to reach; one that
    knows of others and reaches none, whom others refuse, whose seeds do not answer, or whose registry never told it of
    anybody, is "degraded", and says why.
 2. Every counter of every layer is in the metrics. No key, no payload, no secret is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zmesh.core.bounds import AHEAD
from zmesh.core.engine import LATE, Engine
from zmesh.core.link import LinkState
from zmesh.registry.port import RegistryStatus

MAX_REASONS = 5
"""Peers whose trouble is spelt out: an operator reads the first few."""


def health(
    peer_id: str,
    engine: Engine,
    known: int,
    registry: RegistryStatus | None,
    meeting: Mapping[str, Any] | None = None,
    troubles: Sequence[str] = (),
) -> dict[str, Any]:
    """The answer of GET /health. ``known``: peers listed. ``meeting``: how it goes, where there are seeds to meet.

    ``troubles``: what else keeps this node from others, in sentences.
    """
    live = [link for link in engine.links.values() if link.state is LinkState.LIVE]
    away = [link for link in engine.links.values() if link.state is not LinkState.LIVE]
    reasons = Counter(link.why for link in away if link.why)
    said: dict[str, Any] = {
        "status": "healthy",
        "peer_id": peer_id,
        "peers_count": known,
        "running": True,
        "links_live": len(live),
        "links_away": len(away),
        "messages_seen": len(engine.seen),
    }
    why = list(troubles)
    if known and not live:
        why.append(f"none of {known} known peers is reached")
        why += [f"{count} peer(s): {reason}" for reason, count in reasons.most_common(MAX_REASONS)]
    if meeting is not None and not live:
        why += meeting["problems"][:MAX_REASONS]
    if registry is not None and registry.age is None:
        why.append(registry.problem or "the registry has not been read yet")
    if why:
        said.update(status="degraded", why=why)
    if registry is not None:
        said["registry"] = {
            "source": registry.source,
            "members": registry.members,
            "age_seconds": None if registry.age is None else round(registry.age, 1),
            "block": registry.block,
            "problem": registry.problem,
        }
    if meeting is not None:
        said["meeting"] = dict(meeting)
    skewed = [link for link in live if abs(link.skew) > AHEAD]
    if skewed:
        named = {link.key: engine.peers.get(link.key) for link in skewed}
        said["clocks_ahead_seconds"] = {
            link.key.hex() if (member := named[link.key]) is None else member.peer_id: round(link.skew, 3)
            for link in skewed
        }
    return said


def metrics(engine: Engine, known: int, others: Mapping[str, Mapping[str, int]]) -> str:
    """Prometheus text. ``others``: the counters of the other layers by the name of the layer."""
    live = sum(link.state is LinkState.LIVE for link in engine.links.values())
    lines = [
        *_family("zmesh_peers", "gauge", "Peers listed.", [("", known)]),
        *_family("zmesh_links_live", "gauge", "Links that messages flow over.", [("", live)]),
        *_family("zmesh_messages_seen", "gauge", "Messages remembered, own ones included.", [("", len(engine.seen))]),
        *_family(
            "zmesh_late_wakes_total",
            "counter",
            f"Times that this node was over {LATE:g} s behind its own timers: its process had no time for it.",
            [("", engine.late_wakes)],
        ),
        *_family(
            "zmesh_frames_dropped_total",
            "counter",
            "Frames that ended without a delivery, by reason.",
            [(f'{{reason="{reason.value}"}}', count) for reason, count in engine.drops.items()],
        ),
        *_family(
            "zmesh_offences_total",
            "counter",
            "Faults charged to peers.",
            [(f'{{fault="{fault.value}"}}', count) for fault, count in engine.faults.items()],
        ),
    ]
    for layer, counters in others.items():
        rows = [(f'{{event="{name}"}}', count) for name, count in sorted(counters.items())]
        lines += _family(f"zmesh_{layer}_events_total", "counter", f"Events of the {layer}, by name.", rows)
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, text: str, rows: Iterable[tuple[str, int]]) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *(f"{name}{labels} {value}" for labels, value in rows)]
