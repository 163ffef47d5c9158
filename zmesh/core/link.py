"""One connection to a neighbour, as the engine sees it: a state and its books. ``links.py`` moves it.

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
    """See the picture above."""

    AWAY = "away"
    DIALLING = "dialling"
    OPEN = "open"
    LIVE = "live"


class Holder:
    """A neighbour as one who offers us messages, and how it keeps its word. ``wants.py`` writes here."""

    __slots__ = ("asked", "blamed_at", "offered", "queue", "served_at", "silences", "silent_at", "unsent_at")

    def __init__(self) -> None:
        self.offered: dict[bytes, None] = {}
        """Short ids that this link offered and that we still lack, oldest first."""
        self.asked = 0
        """Of those, how many we asked this link for and still wait for."""
        self.queue: dict[bytes, None] = {}
        """Of those, what to ask this link for as answers come in."""
        self.unsent_at = float("-inf")
        """When our own queue to it last refused a control frame: what it may not have been asked, it does not owe."""
        self.served_at = float("-inf")
        """When it last sent a message that we had asked it for."""
        self.silences = 0
        """How often in a row offers of this link ended in its silence."""
        self.silent_at = float("-inf")
        """When they last did."""
        self.blamed_at = float("-inf")
        """When this link was last blamed for a broken offer."""

    def reset(self) -> None:
        """Its offers are void; how it kept its word stays known."""
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
        "key",
        "lists",
        "opened_at",
        "outbound",
        "outbound_at",
        "redial_at",
        "refusals",
        "rtt",
        "skew",
        "state",
        "want_bucket",
        "wanted",
        "why",
    )

    def __init__(self, key: PeerKey, bounds: Bounds, now: float, *, wanted: bool) -> None:
        self.key = key
        self.wanted = wanted
        """Is it one of the neighbours that this node chose? Only those are dialled again and again."""
        self.state = LinkState.AWAY
        self.inbound = False
        self.outbound = False
        self.outbound_at = now
        """When the connection that we dialled last opened."""
        self.dialling = False
        """Is a dial of ours not answered yet? There is never more than one."""
        self.failures = 0
        """Connections of ours in a row that did not come to stand or did not last: the exponent of the backoff."""
        self.redial_at = NEVER
        """When the next dial is due; infinite while none is planned."""
        self.hurried_at = float("-inf")
        """When it was last dialled out of turn."""
        self.why = "not dialled yet"
        """Why it is not live, for people."""
        self.opened_at = now
        self.heard_at = now
        self.hello_id: MessageId | None = None
        """Of our last HELLO, as long as no answer to it was verified."""
        self.awaits_answer = False
        """Did nothing come yet that seems to be its answer?"""
        self.hello_at = now
        """When our last HELLO left."""
        self.greeted_at = float("-inf")
        """When the last HELLO came that was no answer and was looked at."""
        self.rtt = 0.0
        """Seconds, of the last HELLO and its answer in time; 0 if not measured. The far end can make it longer."""
        self.skew = 0.0
        """Seconds by which their clock is ahead of ours."""
        self.idle_at: float | None = None
        """For a link dialled only to send directly: when it may be closed."""
        self.bucket = TokenBucket(bounds.link_rate, bounds.link_burst, now)
        self.refusals = TokenBucket(bounds.direct_rate, bounds.direct_burst, now)
        """Direct messages refused with an answer before they were verified: each answer costs a signature."""
        self.digests = TokenBucket(bounds.compare_rate, bounds.compare_burst, now)
        """DIGESTs that are compared."""
        self.lists = TokenBucket(bounds.compare_rate, bounds.compare_burst, now)
        """LISTs that are answered."""
        self.want_bucket = TokenBucket(bounds.want_bytes_rate, bounds.want_bytes_burst, now)
        """Bytes that it may have us serve and list."""
        self.holder = Holder()
        self.differed: dict[tuple[int, bool], int] = {}
        """Digests of this link that showed a slot other than ours, by whether it had fewer messages than we had."""

    @property
    def is_open(self) -> bool:
        """Can frames be sent?"""
        return self.outbound or self.inbound

    def reset(self) -> None:
        """Forget what was agreed with the far end: it is gone, or it is a new process."""
        self.holder.reset()
        self.differed.clear()

    def backoff(self, bounds: Bounds, chance: float) -> float:
        """Seconds until the next dial: doubling, bounded, and spread by ``chance`` in [0, 1) against stampedes."""
        doubled = bounds.redial_first * 2.0 ** min(self.failures, 16)
        return min(bounds.redial_max, doubled) * (0.5 + chance)
