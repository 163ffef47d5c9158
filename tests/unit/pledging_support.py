"""What the tests of pledging share: a disk that fails as told, and a node without sockets."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

from tests.unit.core_support import ME, NETWORK, NOON
from zmesh import ConfigError, MessageType
from zmesh.core.actions import Action, Published
from zmesh.core.engine import Engine
from zmesh.core.envelope import Composer, Envelope
from zmesh.core.events import Broadcast, Event, RosterChanged, Start
from zmesh.core.types import Member, Roster
from zmesh.handlers import Votes
from zmesh.handlers.pledges import Pledges
from zmesh.node import Node
from zmesh.pledging import Pledging
from zmesh.state import State


class PowerCutError(BaseException):
    """The process ends here, and with it all that is not on disk."""


class Disk(State):
    """Keeps what ``pledge`` wrote, as JSON. ``fault`` says how the next write ends."""

    def __init__(self) -> None:
        super().__init__(None)
        self.content = "[]"
        self.writes = 0
        self.fault = ""
        self.open = threading.Event()
        """Cleared, writes wait until it is set."""
        self.open.set()
        self.during: Callable[[], None] = lambda: None
        """Called while it writes."""

    def pledges(self) -> Pledges:
        return Pledges.restored(json.loads(self.content))

    def pledge(self, pledges: Pledges) -> None:
        assert self.open.wait(60)
        self.during()
        fault, self.fault = self.fault, ""
        if fault == "full":
            raise ConfigError("the disk is full")
        self.content = json.dumps(pledges.export())
        self.writes += 1
        if fault == "unsettled":
            raise ConfigError("the folder cannot be synced")
        if fault == "power":
            raise PowerCutError

    def words(self) -> list[str]:
        return [f"{pledge.proposal_id} {pledge.word}" for pledge in self.pledges()]


class Life:
    """One process of a node, which knows only what is on disk."""

    def __init__(self, disk: Disk, epoch: int = 1, member: Member | None = ME.member) -> None:
        self.now = NOON
        self.disk = disk
        self.sent: list[Envelope] = []
        self.votes = Votes(lambda: [self.engine.peers.myself])
        self.votes.pledges = disk.pledges()
        self.engine = Engine(Composer(ME, NETWORK, epoch), random.Random(0), handlers=[self.votes])
        self.engine.handle(Start(), self.now)
        if member is not None:
            self.become(member)
        self.pledging = Pledging(disk, self.votes, cast("Node", self))

    def ask(self, event: Event) -> list[Action]:
        actions = [*self.engine.handle(event, self.now), *self.engine.finish(self.now)]
        self.sent += [action.envelope for action in actions if isinstance(action, Published)]
        return actions

    def become(self, member: Member) -> None:
        """The registry lists this node as that member."""
        self.engine.handle(RosterChanged(Roster.of([member])), self.now)

    async def says(self, kind: MessageType, payload: Mapping[str, Any]) -> None:
        await self.pledging.publish(Broadcast(kind, payload))

    async def vote(self, choice: Any, proposal: str = "p") -> None:
        await self.says(MessageType.CONSENSUS_VOTE, {"proposal_id": proposal, "choice": choice})

    async def propose(self, proposal: str, terms: int) -> None:
        await self.says(MessageType.CONSENSUS_PROPOSE, {"proposal_id": proposal, "terms": terms})
