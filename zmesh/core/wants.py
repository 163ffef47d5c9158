"""Pulling what is missing: asks the links that offered a message, one after the other, until it comes.

State of one want::

                 IHAVE            a holder's window is free            the message came, or no holder is left
      (absent) --------> WANTED ---------------------------> ASKED ---------------------------------------> (absent)
                                                              |  ^
                                                              +--+ no answer in time: the next holder, or the same again

Rules
 1. A want ends with the message, or when no holder is left.
 2. A holder that offered a message, did not send it for ``want_offence`` seconds and kept talking meanwhile is to
    blame. One that said nothing at all may be overloaded, and so may we: what it sent can lie unread here. It is to
    blame from the ``SILENCES``-th time in a row. A node that is behind its own timers blames nobody.
    What is found within ``want_offence`` is one fault: a single stall, or a bad line, breaks many offers at once.
 3. At most ``WANT_WINDOW`` messages are asked of one link and not yet here; the rest wait, and are asked of another
    holder if there is one.
"""

from __future__ import annotations

from collections.abc import Iterable

from zmesh.core import wire
from zmesh.core.actions import Send
from zmesh.core.context import Context
from zmesh.core.link import Link
from zmesh.core.now import Now
from zmesh.core.types import DropReason, Fault, PeerKey

WANT_WINDOW = 256
"""Messages asked of one link and not yet received: at 64 KiB each, this bounds the size of a burst of answers."""
SILENCES = 3
"""How many times in a row offers must end in a link's silence for it to be blamed: the third is no accident."""


class _Want:
    """A message that was offered and has not arrived yet."""

    __slots__ = ("asked", "due", "holders")

    def __init__(self) -> None:
        self.due = 0.0
        """When it is checked next. A check that comes earlier was planned before something changed, and is void:
        otherwise a link that withdraws its offers and repeats them would add a chain of checks each time."""
        self.holders: list[PeerKey] = []
        """Links that offered it, in the order of their offers."""
        self.asked: dict[PeerKey, tuple[float, int]] = {}
        """Those we asked: when first, and how often."""


class Wants:
    """The messages that this node knows it lacks, and whom it asks. Each link's own state is in its ``holder``."""

    __slots__ = ("_bounds", "_context", "_out", "_seen", "_wants")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._bounds = context.bounds
        self._seen = context.seen
        self._out = context.out
        self._wants: dict[bytes, _Want] = {}
        """By short id."""

    def __len__(self) -> int:
        return len(self._wants)

    # ------------------------------------------------------------ what others say

    def offered(self, link: Link, ids: list[bytes], now: Now) -> None:
        """An IHAVE came: note the holder, and ask for what no link is asked for yet."""
        offered = link.holder.offered
        ask: list[bytes] = []
        for short in ids:
            entry = self._seen.get(short)
            if entry is not None:
                entry.held_by(link.key)
            elif short not in offered:
                if len(offered) >= self._bounds.offers_per_link:
                    self._context.drop(DropReason.OFFER_OVERFLOW, link.key, short)
                    continue
                offered[short] = None
                want = self._wants.get(short)
                if want is None:
                    want = self._wants[short] = _Want()
                # What only waits in the queue of another link is asked for here too: that link may be in no hurry.
                if not want.asked:
                    ask.append(short)
                want.holders.append(link.key)
        self._ask(link, ask, now)

    def answers(self, short: bytes, link: PeerKey, now: Now) -> bool:
        """Whether we asked this link for this message and still lack it. If so, it serves us, at its own pace."""
        want = self._wants.get(short)
        if want is None or link not in want.asked:
            return False
        holder = self._context.links[link].holder
        holder.served_at = now.mono
        holder.silences = 0
        return True

    def arrived(self, short: bytes, now: Now) -> None:
        """The message is here, or no copy of it can be taken: no link need send it any more."""
        want = self._wants.pop(short, None)
        if want is None:
            return
        entry = self._seen.get(short)
        for key in list(want.holders):
            if entry is not None:
                entry.held_by(key)
            self._unhold(short, want, key)
            self._pump(key, now)

    def unsent(self, link: Link, now: Now) -> None:
        """Our own queue to the link refused a control frame: it does not owe what it was not asked."""
        link.holder.unsent_at = now.mono

    def lost(self, link: Link, now: Now) -> None:
        """The link is down, or its far end is new: it holds nothing for us any more, and others are asked instead."""
        orphans = []
        for short in list(link.holder.offered):
            want = self._wants.get(short)
            if want is not None and link.key in want.holders:
                self._unhold(short, want, link.key)
                if not want.asked:  # else another link was asked, and has time left to answer
                    orphans.append(short)
        link.reset()
        # Now, and not by a timer: a link that offers them again at once would be asked before any other was.
        for short in orphans:
            self._wants[short].due = now.mono
        self._check(orphans, now)

    # ------------------------------------------------------------ asking

    def _ask(self, link: Link, ids: Iterable[bytes], now: Now) -> None:
        """Ask a link for messages, as far as its window allows; the rest waits in its queue."""
        holder = link.holder
        asking: list[bytes] = []
        for short in ids:
            want = self._wants.get(short)
            if want is None:
                continue
            first, times = want.asked.get(link.key, (now.mono, 0))
            if times == 0:
                if holder.asked >= WANT_WINDOW:
                    holder.queue[short] = None
                    continue
                holder.asked += 1
                holder.queue.pop(short, None)
            want.asked[link.key] = (first, times + 1)
            asking.append(short)
        if not asking:
            return
        self._out.append(Send((link.key,), wire.control(wire.IWANT, wire.encode_ids(asking)), None, False))
        # Never later than the offence: the far end can make the round trip as long as it likes.
        timeout = min(max(self._bounds.want_timeout, 2 * link.rtt), self._bounds.want_offence)
        self._check_at(now.mono + timeout, asking)

    def _pump(self, key: PeerKey, now: Now) -> None:
        """Ask a link for what waits in its queue, once half of its window is free."""
        link = self._context.links.get(key)
        if link is None or not link.holder.queue or link.holder.asked > WANT_WINDOW // 2:
            return
        holder = link.holder
        passed, ask = [], []
        for short in holder.queue:
            passed.append(short)
            if (want := self._wants.get(short)) is not None and not want.asked:  # else another link was asked
                ask.append(short)
                if len(ask) == WANT_WINDOW - holder.asked:
                    break
        for short in passed:
            del holder.queue[short]
        self._ask(link, ask, now)

    # ------------------------------------------------------------ when no answer comes

    def _check_at(self, moment: float, ids: list[bytes]) -> None:
        """Check these at ``moment``, and not before."""
        for short in ids:
            if (want := self._wants.get(short)) is not None:
                want.due = moment
        self._context.timers.note(moment, self._check, ids)

    def _check(self, ids: list[bytes], now: Now) -> None:
        """An answer is due: turn to other holders, and let go of those that kept us waiting too long."""
        ask: dict[PeerKey, list[bytes]] = {}
        waiting: list[bytes] = []
        overdue: dict[PeerKey, list[float]] = {}
        for short in ids:
            want = self._wants.get(short)
            if want is None or want.due > now.mono:
                continue
            for key, asked_at in self._overdue(want, now):
                overdue.setdefault(key, []).append(asked_at)
                self._unhold(short, want, key)
            if not want.holders:
                del self._wants[short]
            elif (next_one := self._next_holder(want)) is not None:
                ask.setdefault(next_one, []).append(short)
            else:
                waiting.append(short)
        for key, wanted in ask.items():
            link = self._context.links[key]
            self._ask(link, wanted, now)
            waiting += [short for short in wanted if short in link.holder.queue]
        for key in sorted(overdue):
            self._judge(self._context.links[key], overdue[key], now)
            self._pump(key, now)
        if waiting:
            self._check_at(now.mono + self._bounds.want_offence / 4, waiting)

    def _overdue(self, want: _Want, now: Now) -> list[tuple[PeerKey, float]]:
        """The holders that had ``want_offence`` seconds to send it, and when each was first asked."""
        patience = self._bounds.want_offence
        return [(key, first) for key, (first, _) in want.asked.items() if now.mono - first >= patience]

    def _judge(self, link: Link, asked_at: list[float], now: Now) -> None:
        """Apply rule 2 to a link that did not send what it was first asked for at these times."""
        holder, patience = link.holder, self._bounds.want_offence
        # It may not have been asked, or serve us as fast as its budget or our own reading allows.
        excused = max(holder.unsent_at, holder.served_at, self._context.late_at)
        owed = [first for first in asked_at if first > excused]
        if not owed:
            return
        if link.heard_at < min(owed) + patience / 2:  # it said nothing at all
            if now.mono - holder.silent_at >= patience:
                holder.silent_at = now.mono
                holder.silences += 1
            if holder.silences < SILENCES:
                return
        if now.mono - holder.blamed_at >= patience:  # else the same stall broke these
            holder.blamed_at = now.mono
            self._context.blame(link.key, Fault.BROKEN_OFFER, now)

    def _next_holder(self, want: _Want) -> PeerKey | None:
        """A holder not asked yet; else, as an answer may have been lost, the one asked least; None means wait."""
        links = self._context.links
        for key in want.holders:
            if key not in want.asked and links[key].holder.asked < WANT_WINDOW:
                return key
        if not want.asked:
            return None
        key, (_, times) = min(want.asked.items(), key=lambda item: item[1][1])
        return key if times < self._bounds.want_answers else None

    def _unhold(self, short: bytes, want: _Want, key: PeerKey) -> None:
        """This link no longer counts as a holder."""
        want.holders.remove(key)
        asked = want.asked.pop(key, None) is not None
        if (link := self._context.links.get(key)) is not None:
            link.holder.asked -= asked
            link.holder.offered.pop(short, None)
            link.holder.queue.pop(short, None)
