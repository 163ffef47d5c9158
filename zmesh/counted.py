"""What each event that /metrics counts means, by layer; ``docs/metrics.md`` is made from this file.

Why: a rate needs two samples, so a counter that first appears as 1 raises no alert for its first event. Every name that
is known here is exposed as 0 before it happens.

Rules
 1. One sentence for each name. The names of an enumeration must all have one; the tests see to it.
 2. A name that is missing here is exposed nevertheless, from its first event on: a registry of the application's own
    has its own names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zmesh.handlers import RecordOutcome
from zmesh.handlers.standing import Standing


class Layer(NamedTuple):
    """The counters of one part of a node, ``zmesh_<layer>_events_total``."""

    help: str
    """The metric's HELP text."""
    events: Mapping[str, str]
    """What each event means, by name."""


_CONNECTIONS = {
    "accepted": "A connection was accepted.",
    "refused_key": "Its key is no member's, so the handshake was refused.",
    "not_zmtp": "It did not speak ZMTP with CURVE (random bytes, HTTP, TLS), or was gone before this node looked.",
    "no_greeting": "It sent nothing until its handshake timed out.",
    "half_greeting": "It stopped within the ZMTP greeting until its handshake timed out.",
    "handshake_timeout": "It stopped after the ZMTP greeting until its handshake timed out.",
    "handshake_abandoned": "It left before its handshake was complete.",
    "bad_handshake": "Its CURVE handshake was malformed.",
    "frame_refused": "It sent a frame that is too large or garbled, and was closed.",
    "vanished": "Its host stopped answering.",
    "left": "The far end hung up.",
    "cut": "This node hung up; the reason is counted under its own name.",
    "full": "Too many connections were open, so the oldest one that had proven no key was cut.",
    "too_often": "It was cut because its address connects faster than is accepted.",
    "silent": "It was cut because its first message did not come in time.",
    "endless": "It was cut because it sent a message without end.",
}
"""How a connection to a bound socket ends, and what else happens to one; see ``Connections``."""

_TRANSPORT = {
    **{f"{port}_{name}": meaning for name, meaning in _CONNECTIONS.items() for port in ("direct", "gossip")},
    "zap_stranger": "A key that is no member's asked to connect, and was refused.",
    "zap_malformed": "ZeroMQ's authentication request was malformed, and was refused.",
    "key_unusable": "A member was not admitted because no CURVE key can be derived from its key.",
    "image_collision": "A member was not admitted because its CURVE key is also another member's or this node's.",
    "direct_lane_full": "A direct message was refused because the queue to its peer is full: it reads too slowly.",
    "direct_lane_gone": "A direct message was refused because the connection to its peer had just ended.",
    "gossip_lane_full": "A gossip message was refused because the queue to its peer is full: it reads too slowly.",
    "gossip_lane_lost": "A peer's subscription to this node's gossip ended with its connection.",
    "gossip_unsent": "A gossip message that waited for its bundle was dropped because the subscription ended.",
    "gossip_subscribed": "A peer's subscription to this node's gossip was accepted.",
    "gossip_unasked": "A subscriber sent something other than a subscription, and was cut.",
    "gossip_out_of_step": "A subscription was refused because ZeroMQ might assign it to another connection.",
    "topic_malformed": "A subscription was refused because its topic does not have 16 bytes.",
    "topic_taken": "A subscription was refused because another connection has its topic.",
    "topic_twice": "A subscription was refused because its connection already has one.",
    "dial_impossible": "ZeroMQ could not even begin to dial an address.",
    "dialled_endless": "A peer that this node dialled sent a message without end, and was cut.",
    "dialled_spare": "A peer did not answer at its ROUTER's own port, so its front door was dialled.",
    "feed_lost": "This node's subscription to a peer's gossip failed or ended; it is made again.",
    "too_many_frames": "A peer sent a message of more than one ZMTP frame, and was cut.",
    "no_user_id": "A frame came without the key that its connection had proven, and the connection was cut.",
    "routing_id_claimed": "A connection was cut because it chose its own routing id.",
    "not_admitted": "A connection was cut because its key is not, or no longer, a member's.",
    "superseded": "A connection was cut because the same peer has a newer one.",
    "removed": "A connection was cut because its peer no longer belongs.",
    "hung_up": "A connection was cut because the node ended the link.",
    "after_cut": "A message was dropped because its connection had been cut.",
    "after_end": "A connection's first message was dropped because the connection had ended.",
    "sink_error": "The node raised while it handled what had arrived: a bug, logged as `transport_sink_failed`.",
    "reader_error": "Reading a socket raised: a bug, logged as `transport_reader_failed`.",
    "stop_deadline": "The sockets did not close in time at a stop, which is logged as `transport_stop_deadline`.",
}

_FRONT_DOOR = {
    "door_http": "A connection speaks HTTP.",
    "door_zmtp": "A connection speaks ZMTP, and is passed through to the ROUTER.",
    "door_tls": "A connection tried TLS; the front door speaks plain HTTP, and answers with 400.",
    "door_not_zmtp_nor_http": "A connection speaks something else, and is answered with 400.",
    "door_silent": "A connection was closed because it sent nothing in time.",
    "door_left": "A connection left without having sent anything.",
    "door_backend_down": "A ZMTP connection was closed because the ROUTER did not answer.",
    "door_too_often": "A connection was refused because its address connects faster than is accepted.",
    "door_too_many_from_address": "A connection was refused because its address has too many open or waiting ones.",
    "door_crowded": "A connection was refused because too many wait for their first byte.",
    "door_full": "A connection was refused because all places are taken.",
    "door_http_slow": "An HTTP connection was closed because its request and the answer took too long.",
    "door_http_too_much": "An HTTP connection was closed because it sent more bytes than a request may have.",
    "door_http_made_way": "The oldest HTTP connection was closed to make room for a new connection.",
    "http_malformed": "An HTTP request or its body was malformed.",
    "http_posts_broken_off": "The body of a POST did not arrive, or was malformed.",
    "http_gets_over_limit_of_address": "A request, not a POST, was answered with 429: its address sends too many.",
    "http_gets_over_limit_of_everybody": "A request, not a POST, was answered with 429: all together send too many.",
    "http_posts_over_limit_of_address": "A POST was answered with 429: its address sends too many.",
    "http_posts_over_limit_of_everybody": "A POST was answered with 503: all addresses together send too many.",
}

_HANDLER = {
    "queued": "A message was queued for at least one handler or iterator.",
    "handled": "A handler finished with a message.",
    "unhandled": "No handler and no iterator wanted a message, which is of a type that zmesh itself does not send.",
    "handler_raised": "A handler raised, which is logged under the same name.",
    "handler_timeout": "A handler was cancelled after `handler_timeout`, which is logged as `handler_timed_out`.",
    "handler_blocked": "A plain handler held up the event loop, which is logged as `handler_blocked_the_loop`.",
    "refused_queue_full": "No listener had room for a message: gossip is lost here, a direct message is sent again.",
    "missed_queue_full": "One of several listeners had no room for a message that another one took.",
    "refused_closed": "A message came after the handlers had begun to stop, and was refused as busy.",
    "lost_at_stop": "A message was still queued when a stop ran out of time; see `messages_lost_at_stop` in the log.",
    "cancelled_at_stop": "A handler was cancelled because a stop ran out of time; logged likewise.",
    "left_running": "A handler went on although it was cancelled, which is logged as `handlers_left_running`.",
}

_REFUSED = {standing.value: standing.why for standing in Standing if standing is not Standing.ADMITTED}

_RECORD = {
    **{name: f"A record was refused: {why}." for name, why in _REFUSED.items()},
    RecordOutcome.NEW.value: "A record became the newest of its key.",
    RecordOutcome.KNOWN.value: "A record was already held.",
    RecordOutcome.OLDER.value: (
        "A record was ignored because a newer one of its key is held, or proof that it contradicts one."
    ),
    RecordOutcome.EQUIVOCATION.value: "A key signed two records with one sequence; the proof is kept.",
    RecordOutcome.OTHER_NETWORK.value: "A record, or the delegation in it, is for another mesh.",
    RecordOutcome.LOCAL_ADDRESS.value: (
        "A record of another node was ignored because it names an address on one machine only."
    ),
    RecordOutcome.BAD_SIGNATURE.value: "A record was not signed by its key.",
    RecordOutcome.MALFORMED.value: "A record, or the delegation in it, is malformed.",
    RecordOutcome.FULL.value: "A record was ignored because too many are held, or an open mesh has all its guests.",
    "introduced": "This node introduced a newcomer, or an account's new key, to the mesh.",
    "introduction_limited": "An introduction was ignored: its introducer, or the key it introduces, was at its limit.",
    "introduction_dropped": "A newcomer was not introduced because too many introductions wait.",
    "news_limited": "A new record was ignored because its key sends too many.",
    "answer_unasked": "An answer with records was ignored because its sender was not asked.",
}

_ADMISSION = {
    Standing.ADMITTED.value: "A key may take part.",
    **{name: f"A key was refused: {why}." for name, why in _REFUSED.items()},
    "name_contested": "Several members claim one name, which then stands for none of them.",
    "delegation_equivocation": "An account signed two delegations with one sequence; the log has both.",
}

_NODE = {
    "internal_error": "A part of zmesh raised where none should: a bug, logged under the same name.",
    "registry_status_failed": "The `status()` of the application's own registry raised; /health says what.",
    "background_ended": "A background task ended with an error, which is logged under the same name: restart the node.",
}

LAYERS: Mapping[str, Layer] = {
    "transport": Layer(
        "Events of connections, lanes and dials; direct_ is the ROUTER's port, gossip_ the publisher's.", _TRANSPORT
    ),
    "front_door": Layer("Connections and HTTP requests at the front door, by what became of them.", _FRONT_DOOR),
    "handler": Layer("Messages for the application's handlers and iterators, by what became of them.", _HANDLER),
    "record": Layer("Peer records that this node was offered, by outcome, and introductions.", _RECORD),
    "admission": Layer("Verdicts on keys that ask to take part: admitted, or why not.", _ADMISSION),
    "registry": Layer(
        "Events of the registry that are no problems.",
        {"subscription_ended": "The chain ended a subscription; its head is polled until there is a new one."},
    ),
    "node": Layer("Faults of zmesh itself, or of the application's own registry.", _NODE),
}
"""By layer, in the order of /metrics."""
