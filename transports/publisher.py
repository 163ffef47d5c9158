"""The XPUB: one topic per subscriber, so that each is served, and refused, alone.

Theory
    A publisher drops what a slow subscriber cannot take, or waits for the slowest. With one topic per destination, a
    message goes to exactly one subscriber, and "full" concerns that one alone.
    A topic is ``TOPIC`` random bytes that the subscriber drew for this one connection. No other peer can name it, and
    what is published to the newest connection never waits behind a dead twin of it.
    Messages that follow the first one to the same subscriber within one turn of the event loop are held until that turn
    ends, and leave as one bundle: a single message never waits, and a burst costs a fraction (``packing.py``).
Rules
 1. A topic belongs to the ``User-Id`` of the connection that named it first; anything else that a subscriber sends,
    apart from unsubscriptions, ends its connection.
 2. One subscription per connection, one connection per key: the newest.
 3. ZeroMQ assigns a manual subscription to "the connection of the message read last", and loses count when a subscriber
    sends an ordinary message: the next subscriptions would be accepted for the wrong connection. After such a message
    nothing is accepted until everything that was waiting has been read, which corrects the count.
 4. If the queue is full when a bundle is due, the bundle stays held and is retried; until it leaves, no more is
    accepted than fits in it. So whatever ``send`` accepted is on its way, as long as the connection stands.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import zmq

from zmesh.core.types import Frames, PeerKey
from zmesh.transports.admission import Admission
from zmesh.transports.connections import Connection, Connections
from zmesh.transports.packing import MAX_BUNDLE, bundle, pack
from zmesh.transports.readiness import NOBLOCK, Drain, bare_receive, bare_send
from zmesh.transports.sockets import Bound, SocketBounds

TOPIC = 16
"""Bytes of a topic. A fixed length, so that none is a prefix of another; 128 bits, so that none can be guessed."""
SUBSCRIBE = 1
"""First byte of a subscription (ZMTP 3.0); an unsubscription begins with 0, and anything greater is neither."""
BUNDLE_BYTES = 16 * 1024
"""Bytes of messages in one bundle: beyond that, bytes cost more than the number of messages."""
RETRY = 0.05
"""Seconds until a full queue is retried: a peer that reads as fast as it can needs longer to empty it."""


class Lane:
    """One accepted subscription."""

    __slots__ = ("connection", "held", "key", "size", "topic")

    def __init__(self, key: PeerKey, topic: bytes, connection: Connection) -> None:
        self.key = key
        self.topic = topic
        self.connection = connection
        self.held: list[bytes] | None = None
        """Packed messages that leave when the turn ends; None until the first of a turn, which leaves at once."""
        self.size = 0
        """Bytes of the held messages."""

    def has_room(self, size: int) -> bool:
        """True if a message of this size fits in the bundle that is held."""
        return not self.held or (len(self.held) < MAX_BUNDLE and self.size + size <= BUNDLE_BYTES)


class Publisher:
    """Accepts subscriptions and sends to one subscriber at a time."""

    def __init__(
        self,
        publisher: Bound,
        admission: Admission,
        bounds: SocketBounds,
        counters: Counter[str],
    ) -> None:
        self.socket = publisher.socket
        self._admission = admission
        self._counters = counters
        self._lanes: dict[PeerKey, Lane] = {}
        self._holding: list[Lane] = []
        """Lanes that sent in this turn."""
        self._stuck: list[Lane] = []
        """Lanes whose queue was full when the turn ended."""
        self._retry: asyncio.TimerHandle | None = None
        self._out_of_step = False
        self._send = bare_send(publisher.socket)
        self._receive = bare_receive(publisher.socket)
        self.connections = Connections("gossip", publisher, bounds, counters, self._gone)
        self._drain = Drain(publisher.socket, self._read, self._turn_ends, counters, idle=self._in_step)

    def send(self, key: PeerKey, frames: Frames) -> bool | None:
        """Publish to the subscription of ``key``: None if there is none, False if its queue is full."""
        lane = self._lanes.get(key)
        if lane is None:
            return None
        taken = self._take(lane, pack(frames))
        if not taken:
            self._counters["gossip_lane_full"] += 1
        return taken

    def bar(self, key: PeerKey, why: str) -> None:
        """Cut the subscription of ``key`` now."""
        lane = self._lanes.pop(key, None)
        if lane is not None:
            self._give_up(lane)
            self.connections.cut(lane.connection, why)

    def close(self, linger: int) -> None:
        """Stop and close; ``linger`` is the time in milliseconds to send what is queued."""
        if self._retry is not None:
            self._retry.cancel()
        for lane in (*self._holding, *self._stuck):
            if not self._flush(lane):
                self._give_up(lane)
        self._drain.close()
        self.connections.close(self.socket)
        self.socket.close(linger)
        self._lanes.clear()

    def _take(self, lane: Lane, packed: bytes) -> bool:
        if lane.held is None:
            if not self._publish(lane, packed):
                return False
            lane.held = []
            self._holding.append(lane)
            return True
        if not lane.has_room(len(packed)) and not self._flush(lane):
            return False
        lane.held.append(packed)
        lane.size += len(packed)
        return True

    def _publish(self, lane: Lane, data: bytes) -> bool:
        try:
            self._send(lane.topic + data, NOBLOCK)
        except zmq.Again:
            return False
        finally:
            self._drain.touch()
        return True

    def _flush(self, lane: Lane) -> bool:
        """Send what is held; False if the queue is full."""
        if lane.held:
            if not self._publish(lane, bundle(lane.held)):
                return False
            lane.held.clear()
            lane.size = 0
        return True

    def _give_up(self, lane: Lane) -> None:
        """Drop what is held for a lane whose connection ends, and count it."""
        if lane.held:
            self._counters["gossip_unsent"] += len(lane.held)
            lane.held.clear()
            lane.size = 0

    def _turn_ends(self) -> None:
        """Send what this turn held. Every send touches the drain, so the drain calls this in the loop's next turn."""
        holding, self._holding = self._holding, []
        for lane in holding:
            if self._flush(lane):
                lane.held = None
            else:
                self._stuck.append(lane)
        if self._stuck and self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._holding += self._stuck
        self._stuck.clear()
        self._drain.touch()

    def _read(self) -> None:
        frame = self._receive(NOBLOCK, False)
        data = frame.bytes
        if not data or data[0] > SUBSCRIBE:
            self._out_of_step = True
            self.connections.cut(self.connections.of(frame), "gossip_unasked")
        elif data[0] == SUBSCRIBE:
            self._subscribed(data[1:], frame)
        # An unsubscription does not tell who sent it, and is not needed: the monitor reports the end of a connection.

    def _subscribed(self, topic: bytes, frame: zmq.Frame) -> None:
        connection = self.connections.of(frame)
        key = self._key(frame)
        why = self._refusal(key, topic, connection)
        if why is not None or key is None or connection is None:
            self.connections.cut(connection, why or "after_end")
            return
        self.socket.set(zmq.SUBSCRIBE, topic)
        lane = Lane(key, topic, connection)
        connection.owner = lane
        connection.spoke = True
        older = self._lanes.get(key)
        if older is not None:
            self._give_up(older)
            self.connections.cut(older.connection, "superseded")
        self._lanes[key] = lane
        self._counters["gossip_subscribed"] += 1

    def _key(self, frame: zmq.Frame) -> PeerKey | None:
        """The key that the connection of ``frame`` proved; None if it is not, or no longer, admitted."""
        try:
            return self._admission.by_user_id.get(str(frame.get("User-Id")))
        except zmq.ZMQError:
            return None  # every frame of a CURVE connection that passed ZAP has one; never guess for one that has not

    def _refusal(self, key: PeerKey | None, topic: bytes, connection: Connection | None) -> str | None:
        """The reason why a subscription is refused, or None."""
        if key is None:
            return "not_admitted"
        if len(topic) != TOPIC:
            return "topic_malformed"
        if any(lane.topic == topic for lane in self._lanes.values()):
            return "topic_taken"
        if self._out_of_step:
            return "gossip_out_of_step"
        if connection is None or connection.cut:
            return "after_end"
        return "topic_twice" if connection.owner is not None else None

    def _in_step(self) -> None:
        self._out_of_step = False

    def _gone(self, connection: Connection, why: str) -> None:
        lane = connection.owner
        if isinstance(lane, Lane) and self._lanes.get(lane.key) is lane:
            del self._lanes[lane.key]
            self._give_up(lane)
            self._counters["gossip_lane_lost"] += 1
