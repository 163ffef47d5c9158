"""The XPUB: one topic for every subscriber, so that each is served, and refused, alone.

Theory
    A publisher drops what a slow subscriber cannot take, or waits for the slowest. With one topic for each
    destination a message goes to exactly one subscriber, and "full" is that one's alone.
    A topic is ``d/<key in hex>/<nonce in hex>``. The nonce is fresh for every connection, so what is published to the
    newest never waits behind a dead twin of it.
Rules
 1. A subscription counts only if the ``User-Id`` of its connection owns the topic; everything else a subscriber
    may send ends its connection.
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
from zmesh.transports.readiness import (
    NOBLOCK,
    NOBLOCK_MORE,
    Drain,
    bare_receive,
    bare_send,
)
from zmesh.transports.sockets import Bound, SocketBounds

NONCE = 32
"""Hexadecimal digits: 128 bits, so that nobody guesses another's topic."""
TOPIC = 2 + 64 + 1 + NONCE
"""Bytes of a topic, exactly: none is ever the beginning of another."""
UNSUBSCRIBE, SUBSCRIBE = 0, 1


def topic_of(user_id: str, nonce: str) -> bytes:
    """The topic on which the key ``user_id`` (64 hexadecimal digits) listens."""
    return f"d/{user_id}/{nonce}".encode()


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
        send = self._send
        try:
            send(lane.topic, NOBLOCK_MORE)
            for frame in frames[:-1]:
                send(frame, NOBLOCK_MORE)
            send(frames[-1], NOBLOCK)
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
        why = self._refusal(topic, frame, connection)
        if why is not None or connection is None:
            self.connections.cut(connection, why or "after_end")
            return
        user_id = topic[2:66].decode()
        key = self._admission.by_user_id[user_id]
        self.socket.set(zmq.SUBSCRIBE, topic)
        lane = Lane(key, topic, connection)
        connection.owner = lane
        connection.spoke = True
        older = self._lanes.get(key)
        if older is not None:
            self.connections.cut(older.connection, "superseded")
        self._lanes[key] = lane
        self._counters["gossip_subscribed"] += 1

    def _refusal(self, topic: bytes, frame: zmq.Frame, connection: Connection | None) -> str | None:
        """Why a subscription is not accepted, or None."""
        try:
            user_id = frame.get("User-Id")
        except zmq.ZMQError:
            return "no_user_id"
        if user_id not in self._admission.by_user_id:
            return "not_admitted"
        if len(topic) != TOPIC or not topic.startswith(topic_of(user_id, "")):
            return "topic_not_owned"
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
