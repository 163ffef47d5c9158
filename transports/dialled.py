"""Our connection to one neighbour: a DEALER for direct messages and, while that is up, a SUB for gossip.

Theory
    CURVE proves that the far end holds the secret of the key we dialled, so the link of whatever these sockets receive
    is known without parsing it. The DEALER is the link; the SUB is a second, faster lane. When only the SUB is lost, it
    is remade automatically, each time under a fresh topic.
Rules
 1. A dial gets one answer: ``Links.opened``, or ``Links.closed`` with a reason that an operator understands.
 2. ZeroMQ never reconnects here: that would bring stale addresses, dead twins, and queues that no peer reads.
 3. Messages delivered before a connection ended are reported before its end.
 4. If nothing answers as the key that was dialled, the spare route is tried before the dial ends. A peer that refuses
    us did answer, and would answer the same there.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import zmq

from zmesh.core.types import Endpoint, Frames, PeerKey
from zmesh.transport import Routes
from zmesh.transports.connections import EVENT, Connection, second_handle
from zmesh.transports.links import Links
from zmesh.transports.packing import pack, unpack
from zmesh.transports.publisher import TOPIC
from zmesh.transports.readiness import NOBLOCK, Drain, ZmqSocket, bare_receive, bare_send, has_input
from zmesh.transports.sockets import Sockets, address_of

WHY = {
    int(zmq.Event.CLOSED): "could not connect: refused or unreachable",
    int(zmq.Event.HANDSHAKE_FAILED_AUTH): "refused our key",
    int(zmq.Event.HANDSHAKE_FAILED_NO_DETAIL): "ended the handshake: not the expected key, or not a mesh node",
    int(zmq.Event.DISCONNECTED): "closed the connection",
}
"""What a monitor's event means for a dial, in human-readable words."""
WHY_LOST = "connection lost"
WHY_REFUSED = WHY[int(zmq.Event.HANDSHAKE_FAILED_AUTH)]


class Client:
    """One connecting socket and its monitor."""

    def __init__(
        self,
        sockets: Sockets,
        socket: ZmqSocket,
        counters: Counter[str],
        *,
        receive: Callable[[], int],
        changed: Callable[[bool, str], None],
        flush: Callable[[], None],
    ) -> None:
        """``receive`` reads one message; ``changed(up, why)`` is called after the handshake and at the end."""
        self.socket = socket
        self.up = False
        self.connection: Connection | None = None
        """Its TCP connection, once that is established."""
        self._changed = changed
        self._receive_message = receive
        self._closed = False
        try:
            self._monitor = sockets.monitored(socket)
        except zmq.ZMQError:
            socket.close(0)
            raise
        self._receive_event = bare_receive(self._monitor)
        self._watch = Drain(self._monitor, self._read_event, flush, counters)
        self.drain = Drain(socket, self._read, flush, counters)

    def connect(self, endpoint: Endpoint) -> None:
        """Begin to connect. Raises ``zmq.ZMQError`` if even that is impossible."""
        self._port = endpoint.port
        self.socket.connect(address_of(endpoint))

    def is_endless(self, limit: int) -> bool:
        """True if the far end sends bytes that never complete a message. Call once per tick."""
        return self.connection is not None and self.connection.is_endless(limit)

    def close(self, linger: int = 0) -> None:
        """Close without reporting it; ``linger`` is the time in milliseconds to send what is queued."""
        if self._closed:
            return
        self._closed = True
        self.up = False
        self.drain.close()
        self._watch.close()
        self.socket.disable_monitor()
        self._monitor.close(0)
        self.socket.close(linger)
        if self.connection is not None:
            # Otherwise our handle would keep the connection open.
            self.connection.handle.close()

    def _read(self) -> int:
        # The handshake event was sent before the first message: read them in that order.
        if not self.up and has_input(self._monitor):
            self._watch.touch()
            self._read_event()
            if self._closed:
                raise zmq.Again
        count = self._receive_message()
        if self.connection is not None:
            self.connection.spoke = True
        return count

    def _read_event(self) -> None:
        event, value = EVENT.unpack(self._receive_event(NOBLOCK))
        self._receive_event(NOBLOCK)
        if event == zmq.Event.CONNECTED:
            handle = second_handle(value, lambda stream: stream.getpeername()[1] == self._port)
            if handle is not None:
                self.connection = Connection(value, handle)
        elif event == zmq.Event.HANDSHAKE_SUCCEEDED:
            # Reading the events makes the socket notice its connection; without that the first send finds none.
            if has_input(self.socket):
                self.drain.touch()
            self.up = True
            self._changed(True, "")
        elif event in WHY:
            was_up, self.up = self.up, False
            self._changed(False, WHY_LOST if was_up else WHY[event])


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The peer that a dial is for."""

    key: PeerKey
    image: bytes
    """32 bytes: the X25519 image of ``key``, whose secret the far end must prove to hold."""


class Dial:
    """One dial to one key, from the first packet to the last."""

    def __init__(self, sockets: Sockets, links: Links, counters: Counter[str], neighbour: Neighbour) -> None:
        self._neighbour = neighbour
        self._sockets = sockets
        self._links = links
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._dealer: Client | None = None
        self._feed: Feed | None = None
        self._gossip: Endpoint | None = None
        self._spare: Endpoint | None = None
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def up(self) -> bool:
        """True while frames can be sent."""
        return self._dealer is not None and self._dealer.up

    def start(self, routes: Routes) -> None:
        """Connect. A failure here is reported as the end of the dial, not raised."""
        self._gossip, self._spare = routes.gossip, routes.spare
        timeout = self._sockets.bounds.dial_timeout
        self._deadline = self._loop.call_later(timeout, self._missed, f"no answer within {timeout:g} s")
        try:
            socket = self._sockets.dealer(routes.direct.host)
            self._send = bare_send(socket)
            self._receive = bare_receive(socket)
            self._dealer = Client(
                self._sockets,
                socket,
                self._counters,
                receive=self._read,
                changed=self._changed,
                flush=self._links.flush,
            )
            self._sockets.as_client(socket, self._neighbour.image)
            self._dealer.connect(routes.direct)
        except zmq.ZMQError as error:
            self._counters["dial_impossible"] += 1
            self._missed(f"cannot dial {routes.direct}: {error.strerror}")

    def send(self, frames: Frames) -> bool:
        """Queue one message; False if the connection is not up or its queue is full."""
        dealer = self._dealer
        if dealer is None or not dealer.up:
            return False
        try:
            self._send(pack(frames), NOBLOCK)
        except zmq.Again:
            self._counters["direct_lane_full"] += 1
            return False
        finally:
            dealer.drain.touch()
        return True

    def look(self) -> None:
        """Called once per tick: end a dial whose far end fills our memory with messages that never end."""
        limit = self._sockets.bounds.unread
        if self._dealer is not None and self._dealer.is_endless(limit):
            self._counters["dialled_endless"] += 1
            self._end("sent a message without end")
        elif self._feed is not None:
            self._feed.look(limit)

    def close(self, linger: int = 0) -> None:
        """Close both sockets without reporting it. Safe to call twice."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._feed is not None:
            self._feed.close()
        if self._dealer is not None:
            self._dealer.close(linger)

    def _changed(self, up: bool, why: str) -> None:
        if not up:
            if why in (WHY_LOST, WHY_REFUSED):
                self._end(why)
            else:
                self._missed(why)
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._links.opened(self._neighbour.key, inbound=False)
        if self._gossip is not None:
            self._feed = Feed(self._sockets, self._links, self._counters, self._neighbour, self._gossip)
            self._feed.start()

    def _missed(self, why: str) -> None:
        """Nothing answered there as the key that we dialled."""
        if self._spare is None:
            self._end(why)
            return
        self._counters["dialled_spare"] += 1
        self.close()
        self.start(Routes(self._spare))

    def _end(self, why: str) -> None:
        if why == WHY_LOST:
            self._drain_rest()
        self.close()
        self._dealer = self._feed = None  # so that a tick does not end them again
        self._links.closed(self._neighbour.key, why, inbound=False)

    def _drain_rest(self) -> None:
        """Rule 3."""
        bound = 2 * self._sockets.bounds.inbound
        read_rest(self._read, bound)
        if self._feed is not None:
            self._feed.drain_rest(bound)

    def _read(self) -> int:
        frame = self._receive(NOBLOCK, False)
        if frame.more:
            self._counters["too_many_frames"] += 1
            self._end("sent a message of too many frames")
            raise zmq.Again
        return self._links.received(self._neighbour.key, unpack(frame.bytes))


class Feed:
    """Our subscription to one neighbour's publisher: it reconnects on its own while the dial is up."""

    def __init__(
        self, sockets: Sockets, links: Links, counters: Counter[str], neighbour: Neighbour, endpoint: Endpoint
    ) -> None:
        self._sockets = sockets
        self._links = links
        self._counters = counters
        self._neighbour = neighbour
        self._endpoint = endpoint
        self._client: Client | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._delay = sockets.bounds.feed_first_retry

    def start(self) -> None:
        """Subscribe, each time under a new topic; after a failure, retry later."""
        self._retry = None
        try:
            socket = self._sockets.subscriber(self._endpoint.host)
            socket.set(zmq.SUBSCRIBE, secrets.token_bytes(TOPIC))
            self._receive = bare_receive(socket)
            self._client = Client(
                self._sockets,
                socket,
                self._counters,
                receive=self._read,
                changed=self._changed,
                flush=self._links.flush,
            )
            self._sockets.as_client(socket, self._neighbour.image)
            self._client.connect(self._endpoint)
        except zmq.ZMQError as error:
            self._changed(False, f"cannot dial {self._endpoint}: {error.strerror}")

    def look(self, limit: int) -> None:
        """As ``Dial.look``."""
        if self._client is not None and self._client.is_endless(limit):
            self._counters["dialled_endless"] += 1
            self._changed(False, "sent a message without end")

    def drain_rest(self, bound: int) -> None:
        """Read what has already arrived, at most ``bound`` messages."""
        if self._client is not None and self._client.up:
            read_rest(self._read, bound)

    def close(self) -> None:
        """Stop listening. Safe to call twice."""
        if self._retry is not None:
            self._retry.cancel()
        if self._client is not None:
            self._client.close()

    def _changed(self, up: bool, why: str) -> None:
        del why  # the direct lane carries the link; only the number of losses matters
        if up:
            self._delay = self._sockets.bounds.feed_first_retry
            return
        self._counters["feed_lost"] += 1
        if self._client is not None:
            self._client.close()
            self._client = None  # so that a tick before the next start does not end it again
        loop = asyncio.get_running_loop()
        self._retry = loop.call_later(self._delay, self.start)
        self._delay = min(2 * self._delay, self._sockets.bounds.feed_max_retry)

    def _read(self) -> int:
        frame = self._receive(NOBLOCK, False)
        if frame.more:
            self._counters["too_many_frames"] += 1
            self._changed(False, "sent a message of too many frames")
            raise zmq.Again
        return self._links.received(self._neighbour.key, unpack(frame.bytes, TOPIC))


def read_rest(read: Callable[[], int], bound: int) -> None:
    """Read what a socket still holds; ``bound`` is at least the capacity of its queue."""
    with contextlib.suppress(zmq.Again):
        for _ in range(bound):
            read()
