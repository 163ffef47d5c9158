"""The ROUTER: the peers that dialled us, told apart by what their handshakes proved.

Rules
 1. The link of a message is the ``User-Id`` that ZAP gave its connection. A routing id is only an address for replies:
    honest peers never choose one, ours are never revealed, and a chosen one ends the connection (one that equals
    ROUTER's next automatic id would abort the process).
 2. A key has one connection to us, the newest; the older one is cut when a newer one speaks.
 3. The end of a connection is reported after the messages that it still delivered.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import zmq

from zmesh.core.types import Frames, PeerKey
from zmesh.transports.admission import Admission
from zmesh.transports.connections import Connection, Connections
from zmesh.transports.links import Links
from zmesh.transports.packing import pack, unpack
from zmesh.transports.readiness import NOBLOCK, NOBLOCK_MORE, Drain, bare_receive, bare_send
from zmesh.transports.sockets import Bound, SocketBounds

AUTOMATIC_ID = 5
"""Bytes of an automatic routing id: a zero and a 32-bit counter."""
LAST_WORDS = 1.0
"""Seconds after the end of a connection during which its last messages are read, however busy the socket is."""
DISCARDED_AT_ONCE = 256
"""Frames of an overlong message that are discarded before other sockets get their turn."""


class Caller:
    """One connection of one key to us."""

    __slots__ = ("barred", "connection", "key", "routing_id", "user_id")

    def __init__(self, key: PeerKey, user_id: str, routing_id: bytes, connection: Connection) -> None:
        self.key = key
        self.user_id = user_id
        self.routing_id = routing_id
        self.connection = connection
        self.barred = False
        """Nothing more is accepted from it; only its end is awaited."""


class Inbound:
    """Reads the ROUTER, and replies over it."""

    def __init__(
        self,
        router: Bound,
        admission: Admission,
        links: Links,
        bounds: SocketBounds,
        counters: Counter[str],
    ) -> None:
        self.socket = router.socket
        self._admission = admission
        self._links = links
        self._counters = counters
        self._callers: dict[bytes, Caller] = {}
        self._newest: dict[PeerKey, Caller] = {}
        self._ended: list[tuple[Caller, str]] = []
        self._discarding = False
        self._send = bare_send(router.socket)
        self._receive = bare_receive(router.socket)
        self.connections = Connections("direct", router, bounds, counters, self._gone)
        self._drain = Drain(router.socket, self._read, links.flush, counters, idle=self._tell_ends)

    def send(self, key: PeerKey, frames: Frames) -> bool:
        """Reply over the connection that ``key`` made to us; False if there is none or its queue is full."""
        caller = self._newest.get(key)
        if caller is None:
            return False
        send = self._send
        try:
            send(caller.routing_id, NOBLOCK_MORE)
            send(pack(frames), NOBLOCK)
        except zmq.Again:
            self._counters["direct_lane_full"] += 1
            return False
        except zmq.ZMQError:
            # EHOSTUNREACH: the connection has ended, and the event that reports it is still to come.
            self._counters["direct_lane_gone"] += 1
            return False
        finally:
            self._drain.touch()
        return True

    def bar(self, key: PeerKey, why: str) -> None:
        """Cut every connection of ``key`` to us now, and drop whatever it still delivered."""
        self._newest.pop(key, None)
        for caller in self._callers.values():
            if caller.key == key and not caller.barred:
                caller.barred = True
                self.connections.cut(caller.connection, why)

    def close(self, linger: int) -> None:
        """Stop reading and close; ``linger`` is the time in milliseconds to send what is queued."""
        self._drain.close()
        self.connections.close(self.socket)
        self.socket.close(linger)
        self._callers.clear()
        self._newest.clear()

    def _read(self) -> int | None:
        """Read a routing id and a ``Frame``: only a ``Frame`` tells its ``User-Id`` and whether more follows."""
        receive = self._receive
        if self._discarding:
            self._discard(receive(NOBLOCK, False))
            return None
        routing_id = receive(NOBLOCK)
        frame = receive(NOBLOCK, False)
        if frame.more:
            self.connections.cut(self.connections.of(frame), "too_many_frames")
            self._discard(frame)
            return None
        try:
            user_id = frame.get(b"User-Id")
        except zmq.ZMQError:
            # Every frame of a CURVE connection that passed ZAP has one; never guess for a frame without.
            self.connections.cut(self.connections.of(frame), "no_user_id")
            return None
        caller = self._callers.get(routing_id)
        if caller is None or caller.user_id != user_id:
            caller = self._meet(routing_id, user_id, frame)
            if caller is None:
                return None
        if caller.barred:
            self._counters["after_cut"] += 1
            return None
        caller.connection.spoke = True
        return self._links.received(caller.key, unpack(frame.bytes))

    def _discard(self, frame: zmq.Frame) -> None:
        """Discard the rest of a message, a part per turn."""
        for _ in range(DISCARDED_AT_ONCE):
            if not frame.more:
                break
            frame = self._receive(NOBLOCK, False)
        self._discarding = frame.more

    def _meet(self, routing_id: bytes, user_id: str, frame: zmq.Frame) -> Caller | None:
        """The ``Caller`` for the first message of a connection; None if it is refused."""
        connection = self.connections.of(frame)
        if len(routing_id) != AUTOMATIC_ID or routing_id[0] != 0 or routing_id in self._callers:
            self.connections.cut(connection, "routing_id_claimed")
            return None
        key = self._admission.by_user_id.get(user_id)
        if key is None:
            self.connections.cut(connection, "not_admitted")
            return None
        if connection is None or connection.cut:
            self._counters["after_end"] += 1
            return None
        if isinstance(connection.owner, Caller):
            # Happens only if a message outlived its connection and the descriptor number was reused since.
            self._gone(connection, "closed the connection")
        caller = Caller(key, user_id, routing_id, connection)
        connection.owner = caller
        self._callers[routing_id] = caller
        self._prefer(caller)
        return caller

    def _prefer(self, caller: Caller) -> None:
        """Replies go to the newest connection of a key; automatic ids count upwards, modulo 2**32."""
        other = self._newest.get(caller.key)
        if other is not None:
            ahead = int.from_bytes(caller.routing_id[1:]) - int.from_bytes(other.routing_id[1:])
            if ahead % 2**32 >= 2**31:
                self.connections.cut(caller.connection, "superseded")
                return
            self.connections.cut(other.connection, "superseded")
        self._newest[caller.key] = caller
        self._links.opened(caller.key, inbound=True)

    def _gone(self, connection: Connection, why: str) -> None:
        caller = connection.owner
        if isinstance(caller, Caller):
            self._ended.append((caller, why))
            self._drain.touch()
            asyncio.get_running_loop().call_later(LAST_WORDS, self._tell_ends)

    def _tell_ends(self) -> None:
        """Report ends: the socket is empty, so their messages have been read, or ``LAST_WORDS`` have passed."""
        ended, self._ended = self._ended, []
        for caller, why in ended:
            self._callers.pop(caller.routing_id, None)
            if self._newest.get(caller.key) is caller:
                del self._newest[caller.key]
                self._links.closed(caller.key, why, inbound=True)
