"""The TCP connections that a bound ZeroMQ socket accepted: who hung up and why, and how one is cut.

Theory
    ZeroMQ says on a monitor that a descriptor was accepted or is gone, and nothing of why; ZAP guards only the
    handshake, and closing our own sockets leaves the far end's connection to us standing. So a second handle of
    every accepted connection is kept here (``dup``). It makes three things exact: cutting one connection (the handle
    cannot be somebody else's by now, as a descriptor number can), telling who hung up first (the kernel's state of
    the connection outlives ZeroMQ's own handle), and seeing bytes arrive of which no whole message ever comes out.
Rules
 1. A connection ends under one name in the counters, ``<port>_<why>``: the names stand at ``Connections``.
 2. A connection that proved its key and then says nothing is cut after ``bounds.silence``.
 3. A connection that sends without ever ending a message is cut: high-water marks count whole messages only.
 4. Time is counted in ticks of the event loop, so that a loop that stalled blames nobody for it.
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
"""Seconds between two looks at the kernel's counters; one look costs 5 us a connection."""
TRICKLE = 256
"""Bytes in one tick that need no explanation: the heartbeats that other implementations send are a third of that."""
PATIENCE = 2
"""Ticks in which a message may lie unread here before its sender is blamed for the bytes."""
MONITOR_QUEUE = 2000
"""Events that can wait on a monitor. Its socket would wait for room, holding what closing it needs: so read first."""
BACKLOG = 32 * 1024 * 1024
"""Bytes that no honest sender is ahead of us: the receiving queue and the kernel's buffer hold half of that."""
GREETING = 64
"""Bytes of a ZMTP greeting. Having sent more than that, we had begun a handshake with somebody who speaks CURVE; having
received fewer, we still waited for the rest."""
WELCOMED = GREETING + 170
"""Those and a CURVE WELCOME: having sent more than that, we had taken the handshake for good."""

ESTABLISHED, CLOSED = 1, 7
"""``TCP_ESTABLISHED``: the far end has not hung up. ``TCP_CLOSE``: it was reset, by the far end or by our kernel."""
TCP_INFO = getattr(network, "TCP_INFO", None)
"""Linux only. Elsewhere every end is counted as ``left``, and rule 3 does not hold."""
INFO = struct.Struct("=B 55x I 68x Q 64x Q")
"""``struct tcp_info``: state at 0, last_ack_recv (ms) at 56, bytes_received at 128, bytes_sent at 200."""
AT_ONCE = struct.pack("ii", 1, 0)
"""``struct linger``: on, for no time."""
EVENT = struct.Struct("=hi")
"""A monitor's first frame: the event and its value, in the machine's byte order."""


class TcpInfo(NamedTuple):
    """What the kernel knows of a connection."""

    state: int
    unanswered: int
    """Milliseconds since its kernel last acknowledged anything."""
    received: int
    sent: int


class Connection:
    """One TCP connection of ZeroMQ's, accepted or made."""

    __slots__ = ("cut", "descriptor", "excess", "handle", "known", "owner", "quiet", "spoke")

    def __init__(self, descriptor: int, handle: network.socket) -> None:
        self.descriptor = descriptor
        """ZeroMQ's own number for it."""
        self.handle = handle
        """Ours, to the same connection."""
        self.owner: object | None = None
        """Whoever proved to be behind it; None until it said something."""
        self.spoke = False
        """A whole message was read from it since the last tick: the reader sets this."""
        self.cut = False
        self.quiet = 0
        """Ticks since it last spoke."""
        self.known = 0
        """Bytes it had sent at the last tick."""
        self.excess = 0
        """Bytes it sent since it last spoke."""

    def info(self) -> TcpInfo | None:
        """What the kernel knows of it, where it tells."""
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
        """Whether it sent over ``limit`` bytes of which no whole message came. Ask once a tick."""
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

    Ends are counted as ``refused_key`` (ZAP said no), ``not_zmtp`` (random bytes, HTTP, TLS, ZMTP without CURVE, or
    gone before we looked), ``no_greeting`` (not a byte until its time was over), ``half_greeting`` (it stopped within
    the greeting), ``handshake_timeout`` (it stopped after that), ``handshake_abandoned``, ``bad_handshake``,
    ``frame_refused`` (too large or garbled), ``vanished`` (its host does not answer), ``left`` (the far end hung up),
    ``cut`` (we did, and counted why there). Besides: ``accepted``, ``full``, ``too_often``, ``silent``, ``endless``.

    What shares a name cannot be told apart: ZeroMQ read the bytes, threw them away, and says only that it hung up. The
    one event that has a reason is not safe to ask for (``sockets.MONITORED``).
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
        """Read the monitor now: what it says came before any message of that connection."""
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
            with contextlib.suppress(OSError):  # ended by itself a moment ago
                # Reset when it is closed: a far end that is busy sending would not read, and not notice, a mere FIN.
                connection.handle.setsockopt(network.SOL_SOCKET, network.SO_LINGER, AT_ONCE)
                connection.handle.shutdown(network.SHUT_RDWR)

    def close(self, monitored: ZmqSocket) -> None:
        """Stop watching and forget everything; closing the ``monitored`` socket is left to its owner."""
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
            # Comes right before the end that it explains.
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
        if len(self._open) > self._bounds.max_connections:
            # The oldest that proved nothing, so that a flood pushes out itself and not whoever comes meanwhile.
            unproven = (each for each in self._open.values() if each.owner is None and not each.cut)
            self.cut(next(unproven, connection), f"{self._port}_full")

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
        """A number is used again although its end was never told: forget the old connection."""
        stale = self._open.pop(descriptor, None)
        if stale is not None:
            stale.handle.close()
            if stale.owner is not None:
                self._gone(stale, "closed the connection")

    def _why(self, connection: Connection | None, unfinished: bool) -> str | None:
        """The name under which this end is counted; None if that happened when its key was refused.

        ``connection`` is None if it was gone before we looked, so that it never proved anything.
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
    """The name for whoever sent so many bytes and then nothing, until the time for its handshake was over."""
    if received == 0:
        return "no_greeting"
    return "half_greeting" if received < GREETING else "handshake_timeout"


def second_handle(descriptor: int, is_it: Callable[[network.socket], bool]) -> network.socket | None:
    """A handle of our own to a connection; None if it is gone already.

    Its number may have been given to something else by now: ``is_it`` looks at the addresses, and may raise ``OSError``
    or ``IndexError`` where there are none.
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
        pass  # no connection, or none any more: as if it were somebody else's
    handle.close()
    return None


WORDS = {
    "cut": "we cut the connection",
    "frame_refused": "sent a frame that is too large or garbled",
    "vanished": "its host does not answer",
}
"""Why a link ended, for people, where it was not the far end that hung up."""
