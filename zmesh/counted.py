"""The names of the events that /metrics counts, so that each is exposed as 0 before it happens.

Why: a rate needs two samples, so a counter that first appears as 1 raises no alert for its first event.

Rules
 1. One table per layer. Names that an enumeration defines are taken from it.
 2. A name that is missing here is exposed nevertheless, from its first event on; a registry defines its own names.
"""

from __future__ import annotations

from collections.abc import Mapping

from zmesh.handlers import RecordOutcome
from zmesh.handlers.standing import Standing

_ENDS = ("accepted", "refused_key", "not_zmtp", "no_greeting", "half_greeting")
_HANDSHAKES = ("bad_handshake", "handshake_timeout", "handshake_abandoned")
_MORE_ENDS = ("frame_refused", "vanished", "left", "cut", "full", "too_often", "silent", "endless")
"""How a connection to a bound socket ends, and what else happens to one; see ``Connections``."""
_LIMITED = ("over_limit_of_address", "over_limit_of_everybody")

EVENTS: Mapping[str, tuple[str, ...]] = {
    "transport": (
        *(f"{port}_{why}" for port in ("direct", "gossip") for why in (*_ENDS, *_HANDSHAKES, *_MORE_ENDS)),
        *("zap_malformed", "zap_stranger", "key_unusable", "image_collision"),
        *("direct_lane_full", "direct_lane_gone", "gossip_lane_full", "gossip_lane_lost", "gossip_unsent"),
        *("gossip_subscribed", "gossip_unasked", "gossip_out_of_step", "topic_malformed", "topic_taken", "topic_twice"),
        *("dial_impossible", "dialled_endless", "dialled_spare", "feed_lost", "too_many_frames", "no_user_id"),
        *("routing_id_claimed", "not_admitted", "superseded", "removed", "hung_up", "after_cut", "after_end"),
        *("sink_error", "reader_error", "stop_deadline"),
    ),
    "front_door": (
        *("door_http", "door_zmtp", "door_tls", "door_not_zmtp_nor_http"),
        *("door_silent", "door_left", "door_backend_down"),
        *("door_too_often", "door_too_many_from_address", "door_crowded", "door_full"),
        *("door_http_slow", "door_http_expired", "door_http_too_much", "door_http_made_way"),
        *("http_malformed", "http_broken_off", "http_posts_broken_off"),
        *(f"http_{kind}_{limit}" for kind in ("gets", "posts") for limit in _LIMITED),
    ),
    "handler": (
        *("queued", "unhandled", "handled", "handler_raised", "handler_timeout", "handler_blocked"),
        *("missed_queue_full", "refused_queue_full", "refused_closed"),
        *("lost_at_stop", "cancelled_at_stop", "left_running"),
    ),
    "record": (
        *(outcome.value for outcome in RecordOutcome),
        *(standing.value for standing in Standing if standing is not Standing.ADMITTED),
        *("introduced", "introduction_limited", "introduction_dropped", "news_limited", "answer_unasked"),
    ),
    "admission": (*(standing.value for standing in Standing), "name_contested", "delegation_equivocation"),
    "node": ("internal_error", "registry_status_failed", "background_ended"),
}
