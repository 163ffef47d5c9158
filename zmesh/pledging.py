"""Writes down what this node is about to vote or propose before it leaves, so that no restart makes it say otherwise.

Rules
 1. First the disk, then the mesh: what leaves is among the pledges on disk, exactly as it leaves.
 2. One at a time, and what waits is judged when its turn comes: of two contradicting votes, the second is refused.
 3. A message that is refused after all, or whose caller gives up, takes its pledge back. A crash leaves the pledge.
 4. The event loop never waits for the disk. The caller does, even if it is cancelled, and so does ``close``: a write
    that is under way must not land on top of a later one.
 5. Each write has a thread of its own (``aside``): the application may have all others wait for its votes to leave.
"""

from __future__ import annotations

import asyncio

from zmesh.aside import aside
from zmesh.core import wire
from zmesh.core.actions import Action, Composed
from zmesh.core.errors import ConfigError, NotPledgedError, NotRunningError, PayloadError, SelfHarmError
from zmesh.core.events import Broadcast, Rehearse
from zmesh.handlers import Votes
from zmesh.handlers.pledges import Pledge, Pledges
from zmesh.log import get_logger
from zmesh.node import Node
from zmesh.state import State

_REFUSED = (ConfigError, PayloadError, NotRunningError, asyncio.CancelledError)
"""What is raised only before the message leaves."""

_log = get_logger(__name__)


class Pledging:
    """Of one life of a node. ``votes`` must hold what ``state`` has."""

    def __init__(self, state: State, votes: Votes, node: Node) -> None:
        self._state = state
        self._votes = votes
        self._node = node
        self._turn = asyncio.Lock()
        self._is_over = False
        self._is_abandoned = False
        """The disk was so slow that the node stopped without waiting for it."""

    async def publish(self, event: Broadcast) -> list[Action]:
        """Write it down, then broadcast it; returns what the node did. Raises what a broadcast raises, and
        ``NotPledgedError``; nothing was sent then."""
        async with self._turn:
            before, is_written = self._votes.pledges, False
            try:
                # Again after each write: meanwhile time passed, news may have come, and the payload may have changed.
                while (pledge := self._rehearse(event)) not in self._votes.pledges:
                    more = self._with(pledge)
                    is_written = True
                    await self._write(more)
                    self._votes.pledges = more
                return self._node.ask(event)
            except _REFUSED as error:
                if is_written:
                    await self._take_back(before)
                if isinstance(error, ConfigError):
                    raise NotPledgedError(f"nothing was sent, because a restart would forget it: {error}") from None
                raise

    async def close(self, timeout: float) -> None:  # noqa: ASYNC109 - what is waited for must go on
        """Refuse what waits, and wait for what is being written, ``timeout`` seconds at most."""
        self._is_over = True
        try:
            async with asyncio.timeout(timeout), self._turn:
                pass
        except TimeoutError:
            self._is_abandoned = True
            _log.error("pledges_not_written", why=f"the disk took more than {timeout:g} s")

    def _rehearse(self, event: Broadcast) -> Pledge:
        """What would leave now. Raises as sending it would."""
        if self._is_over:
            raise NotRunningError(f"the node was stopped before this {event.kind.value} could be sent")
        composed = next(action for action in self._node.ask(Rehearse(event)) if isinstance(action, Composed))
        envelope = composed.envelope
        payload = wire.decode_payload(envelope.payload)
        return self._votes.pledge(envelope, self._node.engine.peers.myself, payload)

    def _with(self, pledge: Pledge) -> Pledges:
        """All pledges and this one. Raises ``SelfHarmError``."""
        more = self._votes.pledges_with(pledge)
        if pledge not in more:
            hint = "set the clock, or delete the pledges if it was wrong when they were made"
            raise SelfHarmError(f"this {pledge.kind.value} is older than what its account said before: {hint}")
        return more

    async def _take_back(self, before: Pledges) -> None:
        self._votes.pledges = before
        if self._is_abandoned:
            return  # the next life may have pledged more
        try:
            await self._write(before)
        except ConfigError as error:
            _log.warning("pledge_not_taken_back", why=str(error), effect="after a restart, it may forbid another vote")

    async def _write(self, pledges: Pledges) -> None:
        """Not cancelled by what cancels its caller, see rule 4. Raises ``ConfigError``."""
        # A future and not a task: whoever ends all tasks of the loop would leave the thread behind.
        writing = aside(lambda: self._state.pledge(pledges), "zmesh pledges")
        cancelled: asyncio.CancelledError | None = None
        while not writing.done():
            try:
                await asyncio.wait([writing])
            except asyncio.CancelledError as error:
                cancelled = error
        failed = writing.exception()
        if cancelled is not None:
            raise cancelled
        if failed is not None:
            raise failed
