"""The XPUB: one topic for every subscriber, so that each is served, and refused, alone.

Theory
    A publisher drops what a slow subscriber cannot take, or waits for the slowest. With one topic for each
    destination a message goes to exactly one subscriber, and "full" is that one's alone.
    A topic is ``TOPIC`` random bytes that the subscriber drew for this one connection. Nobody else can name it, and
    what is published to the newest connection never waits behind a dead twin of it.
Rules
 1. A topic belongs to the ``User-Id`` of the connection that named it first; everything else a subscriber may send ends
    its connection.
 2. One subscription for each connection, one connection for each key: the newest.
 3. ZeroMQ hands a manual subscription to "the connection of the message read last", and loses count when
    a subscriber sends an ordinary message: the next ones would be accepted for the wrong connection. After such a
    message nothing is accepted until everything that waited has been read, which sets the count right again.
"""

from __future__ import annotations

from collections import Counter

import zmq

from zmesh.core.types import Frames, PeerKey
from zmesh.transports.admission import Admission
from zmesh.transports.connections import Connection, Connections
from zmesh.transports.packing import pack
from zmesh.transports.readiness import NOBLOCK, Drain, bare_receive, bare_send
from zmesh.transports.sockets import Bound, SocketBounds

TOPIC = 16
"""Bytes of a topic, exactly, so that none is the beginning of another: 128 bits, so that nobody guesses another's."""
UNSUBSCRIBE, SUBSCRIBE = 0, 1


class Lane:
    """One accepted subscription."""

    __slots__ = ("connection", "key", "topic")

    def __init__(self, key: PeerKey, topic: bytes, connection: Connection) -> None:
        self.key = key
        self.topic = topic
        self.connection = connection


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
        self._out_of_step = False
        self._send = bare_send(publisher.socket)
        self._receive = bare_receive(publisher.socket)
        self.connections = Connections("gossip", publisher, bounds, counters, self._gone)
        self._drain = Drain(publisher.socket, self._read, lambda: None, counters, idle=self._in_step)

    def send(self, key: PeerKey, frames: Frames) -> bool:
        """Publish to the subscription of ``key``; False if there is none or it is full."""
        lane = self._lanes.get(key)
        if lane is None:
            return False
        try:
            self._send(lane.topic + pack(frames), NOBLOCK)
        except zmq.Again:
            self._counters["gossip_lane_full"] += 1
            return False
        finally:
            self._drain.touch()
        return True

    def bar(self, key: PeerKey, why: str) -> None:
        """Cut the subscription of ``key``, now."""
        lane = self._lanes.pop(key, None)
        if lane is not None:
            self.connections.cut(lane.connection, why)

    def close(self, linger: int) -> None:
        """Stop and close; ``linger`` in milliseconds for what is still to be sent."""
        self._drain.close()
        self.connections.close(self.socket)
        self.socket.close(linger)
        self._lanes.clear()

    def _read(self) -> None:
        frame = self._receive(NOBLOCK, False)
        data = frame.bytes
        if not data or data[0] > SUBSCRIBE:
            self._out_of_step = True
            self.connections.cut(self.connections.of(frame), "gossip_unasked")
        elif data[0] == SUBSCRIBE:
            self._subscribed(data[1:], frame)
        # An unsubscription says nothing of who sent it, and is not needed: the end of a connection is known from
        # its monitor.

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
            self.connections.cut(older.connection, "superseded")
        self._lanes[key] = lane
        self._counters["gossip_subscribed"] += 1

    def _key(self, frame: zmq.Frame) -> PeerKey | None:
        """Whose handshake the connection of ``frame`` passed; None for one that is not admitted (any more)."""
        try:
            return self._admission.by_user_id.get(str(frame.get("User-Id")))
        except zmq.ZMQError:
            return None  # every frame of a CURVE connection that passed ZAP has one; never guess for one that has not

    def _refusal(self, key: PeerKey | None, topic: bytes, connection: Connection | None) -> str | None:
        """Why a subscription is not accepted, or None."""
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
            self._counters["gossip_lane_lost"] += 1
