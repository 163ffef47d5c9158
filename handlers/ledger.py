"""What accounts said about proposals, remembered identically by all nodes that heard the same, in whatever order.

Theory
    What is remembered is a function of the set of messages. Each message belongs for good to a period of signed time,
    its own, and all it can do is add to what its account said in that period. What was said never shrinks, so the order
    of additions cannot matter; and what is forgotten follows from what was said.

Rules
 1. For each account, period and proposal, the first two different words are kept: the second proves a contradiction,
    and a third adds nothing.
 2. An account that speaks of more than ``most`` proposals in one period has flooded it. All that it said in it is
    dropped, since any selection would depend on order. ``has_flooded`` reports this while that period is remembered.
 3. A period is forgotten, together with all before it, once its account has spoken of more than ``most`` proposals
    since it began, and was heard two periods later. Forgotten means as if never said. So no account pushes out what
    others said, and to get rid of its own word an account has to wait at least one whole period.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

from zmesh.core.types import Verdict

PERIOD_MS: Final = 600_000
"""Milliseconds of signed time in a period: far longer than a message may be late, so that no node still hears of a
period that others have forgotten, and short enough that an honest account stays far below ``most``."""
KEPT_WHOLE: Final = 2
"""The newest periods of an account, which are never forgotten: a late message still meets what it contradicts."""


class Word(Protocol):
    """What a message says about a proposal."""

    @property
    def word(self) -> str:
        """Two different ones contradict each other."""
        ...

    @property
    def timestamp_ms(self) -> int:
        """Unix milliseconds, as signed."""
        ...


W = TypeVar("W", bound=Word)


@dataclass(slots=True)
class _Account:
    """The record of one account."""

    periods: dict[int, dict[str, None]] = field(default_factory=dict)
    """The proposals of each remembered period; ``most + 1`` of them if it was flooded."""
    forgotten: int = -1
    """The newest forgotten period; all before it are forgotten, too."""


class Ledger(Generic[W]):
    """``most``: proposals that an account may speak of in one period, and that are remembered of it beyond two."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._accounts: dict[str, _Account] = {}
        # By proposal, account and period: one message, or two that contradict each other.
        self._said: dict[str, dict[str, dict[int, list[W]]]] = {}

    def of(self, proposal_id: str) -> Mapping[str, tuple[W, ...]]:
        """What each account said about it, one message per word and period: accounts in order, messages by time."""
        by_account = self._said.get(proposal_id, {})
        return {
            account: tuple(sorted((word for period in by_account[account].values() for word in period), key=_signed))
            for account in sorted(by_account)
        }

    def by(self, account: str, proposal_id: str) -> list[W]:
        """What this account said about it, including in a period that its next word may make forgotten."""
        said = self._said.get(proposal_id, {}).get(account, {})
        return [word for period in said.values() for word in period]

    def would_flood(self, account: str, proposal_id: str, timestamp_ms: int, also: Iterable[str] = ()) -> bool:
        """True if this, too, would take the account past what it may speak of in that period, having spoken of ``also``
        unheard."""
        known = self._accounts.get(account)
        mine = {} if known is None else known.periods.get(timestamp_ms // PERIOD_MS, {})
        return len(mine) + len({proposal_id, *also} - mine.keys()) > self._most

    def has_flooded(self, account: str) -> bool:
        """True if it spoke of too many proposals in a period that is remembered."""
        known = self._accounts.get(account)
        return known is not None and any(len(period) > self._most for period in known.periods.values())

    def __iter__(self) -> Iterator[str]:
        """The remembered proposals, in the order in which they were first mentioned."""
        return iter(self._said)

    def judge(self, account: str, proposal_id: str, timestamp_ms: int) -> Verdict:
        """ACCEPT the account's first word on it; RELAY anything else that others may need; IGNORE the rest."""
        known, period = self._accounts.get(account), timestamp_ms // PERIOD_MS
        if known is None:
            return Verdict.ACCEPT
        mine = known.periods.get(period, {})
        if period <= known.forgotten or len(mine) > self._most:
            return Verdict.IGNORE
        said = self._said.get(proposal_id, {}).get(account, {})
        if len(said.get(period, ())) > 1:
            return Verdict.IGNORE
        # The one too many proves the flood to others, as two contradicting words prove an equivocation.
        return Verdict.RELAY if said or self.would_flood(account, proposal_id, timestamp_ms) else Verdict.ACCEPT

    def note(self, account: str, proposal_id: str, said: W) -> None:
        """Record it, unless it adds nothing."""
        if self.judge(account, proposal_id, said.timestamp_ms) is Verdict.IGNORE:
            return
        known, period = self._accounts.setdefault(account, _Account()), said.timestamp_ms // PERIOD_MS
        words = self._said.setdefault(proposal_id, {}).setdefault(account, {}).setdefault(period, [])
        if not words or words[0].word != said.word:
            words.append(said)
        mine = known.periods.setdefault(period, {})
        mine[proposal_id] = None
        if len(mine) > self._most:
            self._drop(account, period)
        self._forget(account)

    def _forget(self, account: str) -> None:
        known = self._accounts[account]
        sizes = {period: len(mine) for period, mine in known.periods.items()}
        known.forgotten = max(known.forgotten, newest_forgotten(sizes, self._most))
        for period in [each for each in known.periods if each <= known.forgotten]:
            self._drop(account, period)
            del known.periods[period]

    def _drop(self, account: str, period: int) -> None:
        """Drop all that the account said in that period."""
        for proposal_id in self._accounts[account].periods[period]:
            by_account = self._said.get(proposal_id, {})
            by_period = by_account.get(account, {})
            by_period.pop(period, None)
            if not by_period:
                by_account.pop(account, None)
            if not by_account:
                self._said.pop(proposal_id, None)


def newest_forgotten(sizes: Mapping[int, int], most: int) -> int:
    """Rule 3: the newest period that is forgotten, or -1. ``sizes``: proposals spoken of, by period."""
    newest, spoken_of = max(sizes), 0
    for period in sorted(sizes, reverse=True):
        spoken_of += sizes[period]
        if spoken_of > most and period <= newest - KEPT_WHOLE:
            return period
    return -1


def _signed(word: Word) -> tuple[int, str]:
    return word.timestamp_ms, word.word
