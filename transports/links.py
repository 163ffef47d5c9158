"""Which connections are open, and the one queue through which events reach the sink.

Rules
 1. Every event passes through ``pending`` in the order in which it happened.
 2. The sink is called from the event loop, never from inside a call to the transport, with at most ``MAX_BATCH`` events
    at a time. The rest waits until other callbacks have had their turn, and can still be forgotten until then. What the
    sink raises is logged and counted as ``sink_error``.
 3. Each direction of a key is reported separately. Inbound, opened and closed alternate. A dial is opened or closed,
    and once opened is closed when it is lost; a new dial closes an earlier one silently.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from zmesh.core.events import FrameReceived, LinkClosed, LinkOpened
from zmesh.core.types import Frames, PeerKey
from zmesh.log import get_logger
from zmesh.transport import MAX_BATCH, Sink, TransportEvent

log = get_logger(__name__)


class Links:
    """The open connections of one transport, by key and direction."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sink: Sink, counters: Counter[str]) -> None:
        self.pending: list[TransportEvent] = []
        """Events that the sink has not seen yet."""
        self._inbound: set[PeerKey] = set()
        self._dialled: set[PeerKey] = set()
        self._loop = loop
        self._sink: Sink | None = sink
        self._counters = counters
        self._waiting = False

    def dialled(self, key: PeerKey) -> None:
        """A dial to ``key`` began or was replaced: it is owed one answer."""
        self._dialled.add(key)

    def opened(self, key: PeerKey, *, inbound: bool) -> None:
        """A connection is open; a newer inbound one replaces an older one."""
        if inbound:
            if key in self._inbound:
                self._post(LinkClosed(key, "replaced by a newer connection", inbound=True))
            self._inbound.add(key)
        self._post(LinkOpened(key, inbound=inbound))

    def closed(self, key: PeerKey, why: str, *, inbound: bool) -> None:
        """A connection ended, or a dial failed."""
        known = self._inbound if inbound else self._dialled
        if key in known:
            known.remove(key)
            self._post(LinkClosed(key, why, inbound=inbound))

    def received(self, key: PeerKey, messages: Sequence[Frames]) -> int:
        """Queue messages that arrived over the link; returns how many. The reader calls ``flush`` after its turn."""
        for frames in messages:
            self.pending.append(FrameReceived(key, frames))
        return len(messages)

    def forget(self, key: PeerKey) -> None:
        """Drop ``key`` and its pending events without reporting anything."""
        self._inbound.discard(key)
        self._dialled.discard(key)
        self.pending[:] = [event for event in self.pending if event.link != key]

    def flush(self) -> None:
        """Give the sink the first batch and schedule the rest. Call this only from a callback of the loop."""
        events = self.pending[:MAX_BATCH]
        if not events or self._sink is None:
            return
        del self.pending[:MAX_BATCH]
        if self.pending:
            self._plan()
        try:
            self._sink(events)
        except Exception as error:
            self._counters["sink_error"] += 1
            log.error("transport_sink_failed", exc_info=error)

    def close(self) -> None:
        """Report nothing more to the sink."""
        self._sink = None
        self.pending.clear()
        self._inbound.clear()
        self._dialled.clear()

    def _post(self, event: LinkOpened | LinkClosed) -> None:
        self.pending.append(event)
        self._plan()

    def _plan(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._loop.call_soon(self._planned)

    def _planned(self) -> None:
        self._waiting = False
        self.flush()
