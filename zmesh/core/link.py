"""One link to a neighbour, as the engine sees it: its state and records. ``links.py`` drives it.

State of a link::

                 Dial                LinkOpened             HELLO of theirs
       AWAY  ----------> DIALLING ----------------> OPEN ------------------> LIVE
        ^                    | LinkClosed             | hello_timeout          | LinkClosed (last direction), LEAVE,
        |   redial later     |                        |                        | or silence
        +--------------------+------------------------+------------------------+
"""

from __future__ import annotations

from enum import Enum, unique

from zmesh.core.bounds import Bounds
from zmesh.core.limits import TokenBucket
from zmesh.core.timers import NEVER
from zmesh.core.types import MessageId, PeerKey


@unique
class LinkState(Enum):
    """See the diagram above."""

    AWAY = "away"
    DIALLING = "dialling"
    OPEN = "open"
    LIVE = "live"


class Holder:
    """A neighbour as one that offers us messages, and how well it keeps its offers. ``wants.py`` writes here."""

    __slots__ = ("asked", "blamed_at", "offered", "queue", "served_at", "silences", "silent_at", "unsent_at")

    def __init__(self) -> None:
        self.offered: dict[bytes, None] = {}
        """Short ids that this link offered and that we still lack, oldest first."""
        self.asked = 0
        """How many of those we asked this link for and still await."""
        self.queue: dict[bytes, None] = {}
        """Those still to ask this link for, as answers come in."""
        self.unsent_at = float("-inf")
        """When our own queue to it last refused a control frame: it does not owe what it may not have been asked."""
        self.served_at = float("-inf")
        """When it last sent a message that we had asked it for."""
        self.silences = 0
        """How many times in a row offers of this link ended in silence."""
        self.silent_at = float("-inf")
        """When they last did."""
        self.blamed_at = float("-inf")
        """When this link was last blamed for a broken offer, in monotonic seconds."""

    def reset(self) -> None:
        """Void its offers; how well it kept earlier ones stays known."""
        self.offered.clear()
        self.queue.clear()
        self.asked = 0


class Link:
    """One neighbour. Monotonic seconds throughout."""

    __slots__ = (
        "awaits_answer",
        "bucket",
        "dialling",
        "differed",
        "digests",
        "failures",
        "heard_at",
        "greeted_at",
        "hello_at",
        "hello_id",
        "holder",
        "hurried_at",
        "idle_at",
        "inbound",
        "is_live",
        "key",
        "lists",
        "opened_at",
        "outbound",
        "outbound_at",
        "redial_at",
        "refusals",
        "rtt",
        "skew",
        "want_bucket",
        "wanted",
        "why",
    )

    def __init__(self, key: PeerKey, bounds: Bounds) -> None:
        self.key = key
        self.wanted = False
        """Whether this node chose it as a neighbour. Only those are dialled again and again."""
        self.is_live = False
        """Whether messages flow: their HELLO was verified since the first of its connections opened."""
        self.inbound = False
        self.outbound = False
        self.outbound_at = float("-inf")
        """When the connection that we dialled last opened."""
        self.dialling = False
        """Whether a dial of ours is in progress. There is never more than one."""
        self.failures = 0
        """Consecutive connections of ours that failed or did not last: the exponent of the backoff."""
        self.redial_at = NEVER
        """When the next dial is due; ``NEVER`` while none is planned."""
        self.hurried_at = float("-inf")
        """When it was last dialled out of turn."""
        self.why = "not dialled yet"
        """Why it is not live, human-readable."""
        self.opened_at = float("-inf")
        """When it last became OPEN."""
        self.heard_at = float("-inf")
        """When a frame last came, or a connection opened."""
        self.hello_id: MessageId | None = None
        """Our last HELLO, until an answer to it is verified."""
        self.awaits_answer = False
        """Whether nothing that looks like its answer has come yet."""
        self.hello_at = float("-inf")
        """When our last HELLO left."""
        self.greeted_at = float("-inf")
        """When a HELLO that was no answer to ours was last let through to verification."""
        self.rtt = 0.0
        """Seconds from the last HELLO answered in time to its answer; 0 if not measured. The far end can prolong it."""
        self.skew = 0.0
        """Seconds by which their clock is ahead of ours."""
        self.idle_at: float | None = None
        """For a link kept only for direct sends: when it may be closed."""
        self.bucket = TokenBucket(bounds.link_rate, bounds.link_burst)
        self.refusals = TokenBucket(bounds.direct_rate, bounds.direct_burst)
        """Direct messages refused with an answer before they were verified: each answer costs a signature."""
        self.digests = TokenBucket(bounds.compare_rate, bounds.compare_burst)
        """DIGESTs that are compared."""
        self.lists = TokenBucket(bounds.compare_rate, bounds.compare_burst)
        """LISTs that are answered."""
        self.want_bucket = TokenBucket(bounds.want_bytes_rate, bounds.want_bytes_burst)
        """Bytes that it may make us serve and list."""
        self.holder = Holder()
        self.differed: dict[tuple[int, bool], int] = {}
        """How many digests of this link differed from ours, by slot and by whether it had fewer messages than we do."""

    @property
    def state(self) -> LinkState:
        """See the diagram above."""
        if self.is_live:
            return LinkState.LIVE
        if self.is_open:
            return LinkState.OPEN
        return LinkState.DIALLING if self.dialling else LinkState.AWAY

    @property
    def is_open(self) -> bool:
        """Whether frames can be sent."""
        return self.outbound or self.inbound

    def reset(self) -> None:
        """Forget what was agreed with the far end: it is gone, or it is a new process."""
        self.holder.reset()
        self.differed.clear()

    def backoff(self, bounds: Bounds, chance: float) -> float:
        """Seconds until the next dial: doubling, bounded, and spread by ``chance`` in [0, 1) against stampedes."""
        doubled = bounds.redial_first * 2.0 ** min(self.failures, 16)
        return min(bounds.redial_max, doubled) * (0.5 + chance)
