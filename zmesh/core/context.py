"""What the parts of one engine share.

Rules
 1. The engine creates it and hands it to its parts; nothing outside the core holds one.
 2. Parts act on the world only through ``out``. They report every dropped frame through ``drop`` and every fault
    through ``blame``, so that nothing is lost silently.
 3. What nobody waits for goes into ``rest``. It is done before the next event, so none meets work half done. Whatever
    depends on it within the same event calls ``finish`` first.
"""

from __future__ import annotations

from collections.abc import Callable

from zmesh.core.actions import Action, Dropped, Failed, Offence
from zmesh.core.bounds import Bounds
from zmesh.core.envelope import Composer
from zmesh.core.link import Link
from zmesh.core.now import Now
from zmesh.core.peers import Peers, Rng
from zmesh.core.rates import AuthorRates
from zmesh.core.seen import SeenStore
from zmesh.core.timers import Timers
from zmesh.core.types import DropReason, Fault, MessageId, PeerKey, VerifySignature


class Context:
    """The state that gossip, links and direct messages have in common."""

    __slots__ = (
        "banned",
        "bounds",
        "composer",
        "drops",
        "faults",
        "late_at",
        "links",
        "live",
        "out",
        "outlived",
        "peers",
        "rates",
        "rest",
        "rng",
        "seen",
        "started_ms",
        "timers",
        "verify",
    )

    def __init__(
        self, composer: Composer, peer_id: str | None, bounds: Bounds, rng: Rng, verify: VerifySignature | None
    ) -> None:
        self.composer = composer
        self.started_ms = 0
        """Unix milliseconds at the start of this node."""
        self.bounds = bounds
        self.rng = rng
        self.verify = verify
        self.timers = Timers()
        self.peers = Peers(composer.public, bounds, peer_id)
        self.rates = AuthorRates(bounds)
        self.seen = SeenStore(bounds)
        self.links: dict[PeerKey, Link] = {}
        self.live: tuple[PeerKey, ...] = ()
        """Links that carry messages, ascending by key."""
        self.late_at = float("-inf")
        """When this node last fell behind its own timers, in monotonic seconds: what it lacks may have lain unread."""
        self.outlived = False
        """Whether a message came that was signed with our key in a later life than this one."""
        self.out: list[Action] = []
        self.rest: list[Callable[[], None]] = []
        """What is left to do of this event once its actions are carried out."""
        self.drops: dict[DropReason, int] = dict.fromkeys(DropReason, 0)
        self.faults: dict[Fault, int] = dict.fromkeys(Fault, 0)
        self.banned: list[PeerKey] = []
        """Peers whose reputation just fell below ``drop_below``: their links must still be cut."""

    def finish(self) -> None:
        """Do the rest of the last event."""
        while self.rest:
            rest, self.rest = self.rest, []
            for part in rest:
                try:
                    part()
                except Exception as error:  # noqa: BLE001 - reported; whoever waited has had the event's actions
                    self.failed("rest", error)

    def drop(self, reason: DropReason, link: PeerKey, identifier: MessageId | None = None) -> None:
        """Count and report a frame that ends here; ``link`` as in ``Dropped``."""
        self.drops[reason] += 1
        self.out.append(Dropped(reason, link, identifier))

    def failed(self, what: str, error: Exception) -> None:
        """Report a part that raised where nothing should, so that the rest of the step goes on."""
        self.out.append(Failed(what, error))

    def blame(self, key: PeerKey, fault: Fault, now: Now) -> None:
        """Charge the culprit's account. Strangers have none, and are not let in anyway."""
        member = self.peers.get(key)
        if member is None:
            return
        self.faults[fault] += 1
        left = self.peers.charge(member, fault, now.mono)
        self.out.append(Offence(key, fault, left))
        if left < self.bounds.drop_below:
            self.banned.append(key)
