"""What the demo measured, gathered from the reports of its validators.

Rules
 1. Nothing is assumed to have arrived: a delivery counts when the process that received it says so.
 2. A copy is a frame of gossip that reached a node: the first of each message, and every duplicate.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from zmesh.demo.digits import Model, from_bytes

ENOUGH = 0.9
"""The accuracy that has to be exceeded, 0 to 1."""
RESULT = "result"
"""The name under which the last model is announced, after the last round."""


@dataclass(slots=True)
class Announcement:
    """One gossip message of the coordinator, and what came of it."""

    name: str
    announced_at: float = math.nan
    """Monotonic seconds; NaN while a report of hearing it was read sooner than the coordinator's own."""
    heard_at: dict[str, float] = field(default_factory=dict)
    """By validator, monotonic seconds."""
    deltas: list[str] = field(default_factory=list)
    """Validators whose delta reached the coordinator, in order of arrival."""
    accuracy: float | None = None
    """Of the averaged model, on the held-out digits."""
    messages: int = 0
    """Gossip messages that validators received from this announcement on, until the next."""
    duplicates: int = 0
    """Further copies that they received meanwhile."""

    @property
    def delays(self) -> list[float]:
        """Seconds from the announcement to each validator's handler, ascending."""
        return sorted(at - self.announced_at for at in self.heard_at.values())

    @property
    def copies(self) -> float | None:
        """Copies per message; None until the next announcement shows how many there were."""
        return None if not self.messages else 1 + self.duplicates / self.messages


@dataclass(frozen=True, slots=True)
class _Count:
    """The counters of one validator when it heard ``announcement``."""

    announcement: Announcement
    seen: int
    duplicates: int


class Score:
    """The score of one run. The first validator coordinates."""

    def __init__(self, validators: Sequence[str], rounds: int) -> None:
        self.validators = tuple(validators)
        self.coordinator, *others = self.validators
        self.others = tuple(others)
        """All but the coordinator, which need not send to itself."""
        self.rounds = rounds
        self.ports: dict[str, int] = {}
        self.linked: dict[str, int] = {}
        self.stopped: set[str] = set()
        self.announcements: list[Announcement] = []
        self.alone = 0.0
        """Mean accuracy of validators that learn only from their own pictures."""
        self.judge: Callable[[Model], float] = lambda model: 0.0
        """Returns the accuracy of a model, 0 to 1; the stage knows the held-out digits."""
        self._counted: dict[str, _Count] = {}

    # ------------------------------------------------------------ gathering

    def take(self, validator: str, report: Mapping[str, Any]) -> None:
        """Process one report."""
        take = getattr(self, f"_{report['event']}", None)
        if take is not None:
            take(validator, report)

    def _listening(self, validator: str, report: Mapping[str, Any]) -> None:
        self.ports[validator] = report["port"]

    def _linked(self, validator: str, report: Mapping[str, Any]) -> None:
        self.linked[validator] = report["peers"]

    def _announced(self, validator: str, report: Mapping[str, Any]) -> None:
        self._named(report["round"]).announced_at = report["at"]

    def _heard(self, validator: str, report: Mapping[str, Any]) -> None:
        announcement = self._named(report["round"])
        announcement.heard_at[validator] = report["at"]
        self._count(validator, report, last=False)
        self._counted[validator] = _Count(announcement, report["seen"], report["duplicates"])

    def _count(self, validator: str, report: Mapping[str, Any], *, last: bool) -> None:
        """Credit what came since the previous announcement to that one. Its own message was counted then; the one heard
        now stands in for it, unless this is the ``last`` report."""
        before = self._counted.get(validator)
        if before is not None:
            before.announcement.messages += report["seen"] - before.seen + last
            before.announcement.duplicates += report["duplicates"] - before.duplicates

    def _delta(self, validator: str, report: Mapping[str, Any]) -> None:
        self._named(report["round"]).deltas.append(report["sender"])

    def _averaged(self, validator: str, report: Mapping[str, Any]) -> None:
        self._named(report["round"]).accuracy = self.judge(from_bytes(base64.b64decode(report["model"])))

    def _stopped(self, validator: str, report: Mapping[str, Any]) -> None:
        self.stopped.add(validator)
        self._count(validator, report, last=True)

    def _named(self, name: str) -> Announcement:
        for announcement in self.announcements:
            if announcement.name == name:
                return announcement
        # Pipes are read in no fixed order: a report about an announcement may be read before the announcement's own.
        self.announcements.append(Announcement(name))
        return self.announcements[-1]

    # ------------------------------------------------------------ how far it is

    def all_linked(self) -> bool:
        """Whether every link is live, as both its ends see it."""
        return len(self.linked) == len(self.validators)

    def all_heard(self) -> bool:
        """Whether all validators heard of the last model."""
        last = self.announcements[-1] if self.announcements else None
        return last is not None and last.name == RESULT and len(last.heard_at) == len(self.others)

    # ------------------------------------------------------------ the result

    @property
    def accuracy(self) -> float:
        """Of the last averaged model, 0 to 1; 0 if there is none."""
        return next((one.accuracy for one in reversed(self.announcements) if one.accuracy is not None), 0.0)

    @property
    def gossiped(self) -> tuple[int, int]:
        """Announcements heard, and how many should have been."""
        return sum(len(one.heard_at) for one in self.announcements), (self.rounds + 1) * len(self.others)

    @property
    def sent_back(self) -> tuple[int, int]:
        """Deltas that reached the coordinator, and how many should have."""
        return sum(len(one.deltas) for one in self.announcements), self.rounds * len(self.others)

    @property
    def copies(self) -> float:
        """Copies per message of gossip over the whole run."""
        messages = sum(one.messages for one in self.announcements)
        return 1 + sum(one.duplicates for one in self.announcements) / messages if messages else 0.0

    def delay(self, percent: float) -> float:
        """Seconds from announcement to handler that ``percent`` of all deliveries did not exceed; NaN without any."""
        delays = sorted(delay for one in self.announcements for delay in one.delays)
        return delays[math.ceil(percent / 100 * len(delays)) - 1] if delays else math.nan

    @property
    def problems(self) -> list[str]:
        """What went wrong, one sentence each; empty if all is well."""
        found = []
        for one in self.announcements:
            deaf = [name for name in self.others if name not in one.heard_at]
            if deaf:
                found.append(f"{one.name} was not heard by {', '.join(deaf)}")
            silent = [name for name in self.others if name not in one.deltas] if one.name != RESULT else []
            if silent:
                found.append(f"in {one.name} no delta came from {', '.join(silent)}")
        if len(self.announcements) < self.rounds + 1:
            found.append(f"{self.rounds + 1 - len(self.announcements)} announcements were not made")
        if self.accuracy <= ENOUGH:
            found.append(f"the accuracy {self.accuracy:.3f} is not above {ENOUGH}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain JSON values; times in milliseconds."""
        heard, should_hear = self.gossiped
        sent, should_send = self.sent_back
        return {
            "ok": not self.problems,
            "problems": self.problems,
            "validators": len(self.validators),
            "accuracy": self.accuracy,
            "accuracy_alone": self.alone,
            "announcements": {"delivered": heard, "expected": should_hear},
            "deltas": {"delivered": sent, "expected": should_send},
            "propagation_ms": {f"p{percent}": _ms(self.delay(percent)) for percent in (50, 99)},
            "copies_per_delivery": round(self.copies, 2),
            "rounds": [
                {
                    "round": one.name,
                    "heard": len(one.heard_at),
                    "last_ms": _ms(one.delays[-1]) if one.delays else None,
                    "copies": None if one.copies is None else round(one.copies, 2),
                    "deltas": one.deltas,
                    "accuracy": one.accuracy,
                }
                for one in self.announcements
            ],
        }


def _ms(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds * 1000, 2)
