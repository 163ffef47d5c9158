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

from zmesh import forked
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


@dataclass(frozen=True, slots=True)
class Neighbour:
    """The peer that a dial is for, and what every connection to it needs."""

    key: PeerKey
    image: bytes
    """32 bytes: the X25519 image of ``key``, whose secret the far end must prove to hold."""
    sockets: Sockets
    links: Links
    counters: Counter[str]


class Client:
    """One connecting socket and its monitor, from the first packet to the end."""

    def __init__(
        self,
        neighbour: Neighbour,
        socket: ZmqSocket,
        *,
        skip: int,
        opened: Callable[[], None],
        ended: Callable[[str], None],
    ) -> None:
        """``opened()`` is called after the handshake, and ``ended(why)`` once, unless it is closed before.

        ``skip``: bytes in front of each message. Raises ``zmq.ZMQError``, with the socket closed, if it cannot be
        watched.
        """
        self.socket = socket
        self.up = False
        self.connection: Connection | None = None
        """Its TCP connection, once that is established."""
        self._key = neighbour.key
        self._bounds = neighbour.sockets.bounds
        self._links = neighbour.links
        self._counters = counters = neighbour.counters
        self._skip = skip
        self._opened = opened
        self._ended = ended
        self._closed = False
        try:
            neighbour.sockets.as_client(socket, neighbour.image)
            self._monitor = neighbour.sockets.monitored(socket)
        except zmq.ZMQError:
            socket.close(0)
            raise
        self._receive = bare_receive(socket)
        self._receive_event = bare_receive(self._monitor)
        flush = self._links.flush
        self._watch = Drain(self._monitor, self._read_event, flush, counters)
        self.drain = Drain(socket, self._read, flush, counters)

    def connect(self, endpoint: Endpoint) -> None:
        """Begin to connect. Raises ``zmq.ZMQError`` if even that is impossible."""
        self._port = endpoint.port
        self.socket.connect(address_of(endpoint))

    def look(self) -> None:
        """Called once per tick: end a connection whose far end fills our memory with messages that never end."""
        if self.connection is not None and not self._closed and self.connection.is_endless(self._bounds.unread):
            self._counters["dialled_endless"] += 1
            self._end("sent a message without end")

    def read_rest(self) -> None:
        """Rule 3: read what has already arrived, at most twice what the queue holds."""
        with contextlib.suppress(zmq.Again):
            for _ in range(2 * self._bounds.inbound if self.up else 0):
                self._read()

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
        frame = self._receive(NOBLOCK, False)
        if self.connection is not None:
            self.connection.spoke = True
        if frame.more:
            self._counters["too_many_frames"] += 1
            self._end("sent a message of too many frames")
            raise zmq.Again
        return self._links.received(self._key, unpack(frame.bytes, self._skip))

    def _read_event(self) -> None:
        event, value = EVENT.unpack(self._receive_event(NOBLOCK))
        self._receive_event(NOBLOCK)
        if event == zmq.Event.CONNECTED:
            handle = second_handle(value, lambda stream: stream.getpeername()[1] == self._port)
            if handle is not None:
                forked.connections.add(handle)
                self.connection = Connection(value, handle)
        elif event == zmq.Event.HANDSHAKE_SUCCEEDED:
            # Reading the events makes the socket notice its connection; without that the first send finds none.
            if has_input(self.socket):
                self.drain.touch()
            self.up = True
            self._opened()
        elif event in WHY:
            why = WHY_LOST if self.up else WHY[event]
            self.read_rest()
            self._end(why)

    def _end(self, why: str) -> None:
        if not self._closed:  # as it is if the rest was too much
            self.close()
            self._ended(why)


class Dial:
    """One dial to one key, from the first packet to the last."""

    def __init__(self, neighbour: Neighbour) -> None:
        self._neighbour = neighbour
        self._sockets = neighbour.sockets
        self._counters = neighbour.counters
        self._loop = asyncio.get_running_loop()
        self._dealer: Client | None = None
        self._feed: Feed | None = None
        self._gossip: Endpoint | None = None
        self._spare: Endpoint | None = None
        """The route that is left to try; None once the peer has answered."""
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def up(self) -> bool:
        """True while frames can be sent."""
        return self._dealer is not None and self._dealer.up

    def start(self, routes: Routes) -> None:
        """Connect. A failure here is reported as the end of the dial, not raised."""
        self._gossip, self._spare = routes.gossip, routes.spare
        timeout = self._sockets.bounds.dial_timeout
        self._deadline = self._loop.call_later(timeout, self._ended, f"no answer within {timeout:g} s")
        try:
            socket = self._sockets.dealer(routes.direct.host)
            self._send = bare_send(socket)
            self._dealer = Client(self._neighbour, socket, skip=0, opened=self._opened, ended=self._ended)
            self._dealer.connect(routes.direct)
        except zmq.ZMQError as error:
            self._counters["dial_impossible"] += 1
            self._ended(f"cannot dial {routes.direct}: {error.strerror}")

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
        """As ``Client.look``, for both sockets."""
        for each in (self._dealer, self._feed):
            if each is not None:
                each.look()

    def close(self, linger: int = 0) -> None:
        """Close both sockets without reporting it. Safe to call twice."""
        if self._deadline is not None:
            self._deadline.cancel()
        if self._feed is not None:
            self._feed.close()
        if self._dealer is not None:
            self._dealer.close(linger)

    def _opened(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._spare = None
        self._neighbour.links.opened(self._neighbour.key, inbound=False)
        if self._gossip is not None:
            self._feed = Feed(self._neighbour, self._gossip)
            self._feed.start()

    def _ended(self, why: str) -> None:
        if why == WHY_LOST and self._feed is not None:
            self._feed.read_rest()
        self.close()
        if self._spare is None or why == WHY_REFUSED:
            self._neighbour.links.closed(self._neighbour.key, why, inbound=False)
        else:
            self._counters["dialled_spare"] += 1
            self.start(Routes(self._spare))


class Feed:
    """Our subscription to one neighbour's publisher: it reconnects on its own while the dial is up."""

    def __init__(self, neighbour: Neighbour, endpoint: Endpoint) -> None:
        self._neighbour = neighbour
        self._sockets = neighbour.sockets
        self._endpoint = endpoint
        self._client: Client | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._delay = self._sockets.bounds.feed_first_retry

    def start(self) -> None:
        """Subscribe, each time under a new topic; after a failure, retry later."""
        self._retry = None
        try:
            socket = self._sockets.subscriber(self._endpoint.host)
            socket.set(zmq.SUBSCRIBE, secrets.token_bytes(TOPIC))
            self._client = Client(self._neighbour, socket, skip=TOPIC, opened=self._opened, ended=self._ended)
            self._client.connect(self._endpoint)
        except zmq.ZMQError as error:
            self._ended(f"cannot dial {self._endpoint}: {error.strerror}")

    def look(self) -> None:
        """As ``Client.look``."""
        if self._client is not None:
            self._client.look()

    def read_rest(self) -> None:
        """As ``Client.read_rest``."""
        if self._client is not None:
            self._client.read_rest()

    def close(self) -> None:
        """Stop listening. Safe to call twice."""
        if self._retry is not None:
            self._retry.cancel()
        if self._client is not None:
            self._client.close()

    def _opened(self) -> None:
        self._delay = self._sockets.bounds.feed_first_retry

    def _ended(self, why: str) -> None:
        del why  # the direct lane carries the link; only the number of losses matters
        self._neighbour.counters["feed_lost"] += 1
        self.close()
        self._retry = asyncio.get_running_loop().call_later(self._delay, self.start)
        self._delay = min(2 * self._delay, self._sockets.bounds.feed_max_retry)
