"""The TCP connections that a bound ZeroMQ socket accepted: who hung up and why, and how to cut one.

Theory
    A ZeroMQ monitor reports that a descriptor was accepted or is gone, but not why; ZAP guards only the handshake, and
    closing our own sockets leaves the far end's connection to us standing. So this module keeps a second handle
    (``dup``) of every accepted connection. It makes three things exact: cutting one connection (a handle cannot have
    been reused for another connection, as a descriptor number can), telling who hung up first (the kernel's state of
    the connection outlives ZeroMQ's own handle), and seeing bytes arrive that never complete a message.
Rules
 1. The end of a connection is counted under one name, ``<port>_<why>``; ``Connections`` lists the names.
 2. A connection that proved its key and then says nothing is cut after ``bounds.silence``.
 3. A connection that sends without ever completing a message is cut: high-water marks count only whole messages.
 4. Time is counted in ticks of the event loop, so a stalled loop blames no peer for its own stall.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket as network
import struct
import time
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import zmq

from zmesh.core.limits import OWN, Limits, machine
from zmesh.transports.readiness import NOBLOCK, Drain, ZmqSocket, bare_receive, has_input
from zmesh.transports.sockets import Bound, SocketBounds

TICK = 0.5
"""Seconds between two reads of the kernel's counters; one read costs 5 us per connection."""
TRICKLE = 256
"""Bytes per tick that are ignored: the heartbeats that other implementations send are a third of that."""
PATIENCE = 2
"""Ticks that a message may lie unread here before its bytes count against its sender."""
MONITOR_QUEUE = 2000
"""Events that a monitor can queue. When it is full, the monitored socket blocks while holding what closing it needs, so
the monitor is read first."""
BACKLOG = 32 * 1024 * 1024
"""Bytes by which no honest sender gets ahead of us: the receive queue and the kernel's buffer hold half of that."""
GREETING = 64
"""Bytes of a ZMTP greeting. If we sent more, we had begun a handshake with a peer that speaks CURVE; if we received
fewer, its greeting was incomplete."""
WELCOMED = GREETING + 170
"""A greeting and a CURVE WELCOME. If we sent more, we had accepted the handshake."""

ESTABLISHED, CLOSED = 1, 7
"""``TCP_ESTABLISHED``: the far end has not hung up. ``TCP_CLOSE``: it was reset, by the far end or by our kernel."""
TCP_INFO = getattr(network, "TCP_INFO", None)
"""Linux only. Elsewhere an end that only the kernel can explain is counted as ``left``, or as ``handshake_abandoned``
during the handshake, and rule 3 does not hold."""
INFO = struct.Struct("=B 55x I 68x Q 64x Q")
"""``struct tcp_info``: state at 0, last_ack_recv (ms) at 56, bytes_received at 128, bytes_sent at 200."""
AT_ONCE = struct.pack("ii", 1, 0)
"""``struct linger``: on, with a timeout of zero."""
EVENT = struct.Struct("=hi")
"""A monitor's first frame: the event and its value, in the machine's byte order."""


class TcpInfo(NamedTuple):
    """The kernel's view of a connection."""

    state: int
    unanswered: int
    """Milliseconds since the far end's kernel last acknowledged anything."""
    received: int
    sent: int


class Connection:
    """One of ZeroMQ's TCP connections, accepted or dialled."""

    __slots__ = ("cut", "descriptor", "excess", "handle", "known", "owner", "quiet", "spoke")

    def __init__(self, descriptor: int, handle: network.socket) -> None:
        self.descriptor = descriptor
        """ZeroMQ's own descriptor number."""
        self.handle = handle
        """Our own handle to the same connection."""
        self.owner: object | None = None
        """The proven peer behind it, as its reader represents it; None until its first message."""
        self.spoke = False
        """A whole message was read from it since the last tick; set by the reader."""
        self.cut = False
        self.quiet = 0
        """Ticks since it last spoke."""
        self.known = 0
        """Bytes received from it up to the last tick."""
        self.excess = 0
        """Bytes received from it since it last spoke."""

    def info(self) -> TcpInfo | None:
        """The kernel's view of it; None where the kernel does not provide one."""
        if TCP_INFO is None:
            return None
        try:
            raw = self.handle.getsockopt(network.IPPROTO_TCP, TCP_INFO, INFO.size)
        except OSError:
            return None
        if len(raw) < INFO.size:
            return None
        return TcpInfo(*INFO.unpack(raw))

    def is_endless(self, limit: int) -> bool:
        """True if it sent more than ``limit`` bytes without completing a message. Call once per tick."""
        info = self.info()
        received = self.known if info is None else info.received
        came = received - self.known
        self.known = received
        if self.spoke:
            self.spoke = False
            self.quiet = self.excess = 0
            return False
        self.quiet += 1
        if came > TRICKLE:
            self.excess += came
        return self.excess > (limit if self.quiet > PATIENCE else BACKLOG)


class Connections:
    """All connections that one bound socket accepted.

    Ends are counted as ``refused_key`` (ZAP refused it), ``not_zmtp`` (random bytes, HTTP, TLS, ZMTP without CURVE, or
    gone before we looked), ``no_greeting`` (not a byte before its timeout), ``half_greeting`` (it stopped within the
    greeting), ``handshake_timeout`` (it stopped after the greeting), ``handshake_abandoned``, ``bad_handshake``,
    ``frame_refused`` (too large or garbled), ``vanished`` (its host does not answer), ``left`` (the far end hung up),
    ``cut`` (we hung up; the reason was counted then). Also counted: ``accepted``, ``full``, ``too_often``, ``silent``,
    ``endless``.

    Causes that share a name cannot be told apart: ZeroMQ read the bytes, discarded them, and reports only that it hung
    up. The one event that carries a reason is not safe to subscribe to (``sockets.MONITORED``).
    """

    def __init__(
        self,
        port: str,
        bound: Bound,
        bounds: SocketBounds,
        counters: Counter[str],
        gone: Callable[[Connection, str], None],
    ) -> None:
        """``gone(connection, why)`` is called once when a connection that had an owner ends."""
        self._port = port
        self._monitor = bound.monitor
        self._local_port = bound.endpoint.port
        self._bounds = bounds
        self._counters = counters
        self._gone = gone
        self._open: dict[int, Connection] = {}
        self._arrivals = Limits(bounds.arrivals, bounds.arrivals_burst)
        self._receive = bare_receive(bound.monitor)
        self._refused = 0
        self._unfinished = False
        self._endless = bounds.unread if port == "direct" else 64 * bounds.max_subscription
        self._drain = Drain(bound.monitor, self._read, lambda: None, counters)
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(TICK, self._tick)

    def __len__(self) -> int:
        return len(self._open)

    def of(self, frame: zmq.Frame) -> Connection | None:
        """The connection that ``frame`` came over, or None if it is gone already."""
        try:
            descriptor = int(frame.get("__fd"))
        except zmq.ZMQError:
            return None
        self.refresh()
        return self._open.get(descriptor)

    def refresh(self) -> None:
        """Read the monitor now: its events precede any message of the same connection."""
        for _ in range(MONITOR_QUEUE):
            if not has_input(self._monitor):
                return
            self._read()
        self._drain.touch()

    def cut(self, connection: Connection | None, why: str) -> None:
        """End a connection now, in both directions, and count ``why``."""
        self._counters[why] += 1
        if connection is not None and not connection.cut:
            connection.cut = True
            with contextlib.suppress(OSError):  # it ended on its own a moment ago
                # Closing sends a reset: a far end that is busy sending does not read, and would not notice a mere FIN.
                connection.handle.setsockopt(network.SOL_SOCKET, network.SO_LINGER, AT_ONCE)
                connection.handle.shutdown(network.SHUT_RDWR)

    def close(self, monitored: ZmqSocket) -> None:
        """Stop watching and forget everything; the ``monitored`` socket stays for its owner to close."""
        self._timer.cancel()
        self._drain.close()
        self.refresh()
        monitored.disable_monitor()
        self._monitor.close(0)
        for connection in self._open.values():
            connection.handle.close()
        self._open.clear()

    def _count(self, why: str) -> None:
        self._counters[f"{self._port}_{why}"] += 1

    def _read(self) -> None:
        event, value = EVENT.unpack(self._receive(NOBLOCK))
        self._receive(NOBLOCK)
        if event == zmq.Event.ACCEPTED:
            self._accepted(value)
        elif event == zmq.Event.DISCONNECTED:
            self._ended(value)
        elif event == zmq.Event.HANDSHAKE_FAILED_NO_DETAIL:
            # Arrives right before the DISCONNECTED event that it explains.
            self._unfinished = True
        elif event == zmq.Event.HANDSHAKE_FAILED_AUTH:
            self._refused += 1
            self._count("refused_key")

    def _accepted(self, descriptor: int) -> None:
        self._discard(descriptor)
        self._count("accepted")
        handle = second_handle(descriptor, lambda stream: stream.getsockname()[1] == self._local_port)
        if handle is None:
            return
        connection = self._open[descriptor] = Connection(descriptor, handle)
        if not self._may_arrive(handle):
            self.cut(connection, f"{self._port}_too_often")
        elif self._is_full():
            # Cut the oldest unproven connection: a flood then evicts its own and not those that arrive meanwhile.
            unproven = (each for each in self._open.values() if each.owner is None and not each.cut)
            self.cut(next(unproven, connection), f"{self._port}_full")

    def _is_full(self) -> bool:
        """Those that are cut, and whose end ZeroMQ has not reported yet, take no place."""
        most = self._bounds.max_connections
        return len(self._open) > most and sum(not each.cut for each in self._open.values()) > most

    def _may_arrive(self, handle: network.socket) -> bool:
        """Is its address within its rate? What comes through the front door, from this machine, was counted there."""
        try:
            address = machine(handle.getpeername()[0])
        except OSError:
            return True  # gone already: its end is counted by its own name
        return address in OWN or self._arrivals.take(address, time.monotonic())

    def _ended(self, descriptor: int) -> None:
        connection = self._open.pop(descriptor, None)
        unfinished, self._unfinished = self._unfinished, False
        why = self._why(connection, unfinished)
        if why is not None:
            self._count(why)
        if connection is None:
            return
        connection.handle.close()
        if connection.owner is not None:
            self._gone(connection, WORDS.get(why or "left", "closed the connection"))

    def _discard(self, descriptor: int) -> None:
        """A descriptor number was reused although its end was never reported: forget the old connection."""
        stale = self._open.pop(descriptor, None)
        if stale is not None:
            stale.handle.close()
            if stale.owner is not None:
                self._gone(stale, "closed the connection")

    def _why(self, connection: Connection | None, unfinished: bool) -> str | None:
        """The counter name of this end; None if it was counted when the key was refused.

        ``connection`` is None if it was gone before we looked, so it never proved anything.
        """
        if connection is not None and connection.cut:
            return "cut"
        info = None if connection is None else connection.info()
        ours = info is not None and info.state == ESTABLISHED
        if unfinished:
            return stopped_at(info.received) if info is not None and ours else "handshake_abandoned"
        if (connection is None or connection.owner is None) and self._refused:
            self._refused -= 1
            return None
        if connection is None:
            return "not_zmtp"
        if info is None:
            return "left"
        if not ours:
            quiet = info.state == CLOSED and info.unanswered >= self._bounds.vanished * 1000
            return "vanished" if quiet else "left"
        if connection.owner is None and info.sent <= WELCOMED:
            return "not_zmtp" if info.sent <= GREETING else "bad_handshake"
        return "frame_refused"

    def _tick(self) -> None:
        self._timer = self._loop.call_later(TICK, self._tick)
        for connection in list(self._open.values()):
            if connection.cut:
                continue
            if connection.is_endless(self._endless):
                self.cut(connection, f"{self._port}_endless")
            elif connection.owner is None and connection.quiet * TICK > self._bounds.silence:
                self.cut(connection, f"{self._port}_silent")


def stopped_at(received: int) -> str:
    """The counter name of a peer that sent ``received`` bytes and then nothing until its handshake timed out."""
    if received == 0:
        return "no_greeting"
    return "half_greeting" if received < GREETING else "handshake_timeout"


def second_handle(descriptor: int, is_it: Callable[[network.socket], bool]) -> network.socket | None:
    """Our own handle to a connection; None if it is already gone.

    The descriptor number may have been reused by now: ``is_it`` checks the addresses, and may raise ``OSError`` or
    ``IndexError`` where there are none.
    """
    try:
        copy = os.dup(descriptor)
    except OSError:
        return None
    try:
        handle = network.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return None
    try:
        if is_it(handle):
            return handle
    except (OSError, IndexError):
        pass  # not, or no longer, a connection: treat it as a reused number
    handle.close()
    return None


WORDS = {
    "cut": "we cut the connection",
    "frame_refused": "sent a frame that is too large or garbled",
    "vanished": "its host does not answer",
}
"""Human-readable reasons why a link ended, where the far end did not simply hang up."""
