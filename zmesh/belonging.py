"""Keeps true who belongs: what the registry says, what records prove and what time ends, joined into one roster.

Rules
 1. Whichever of the three changes something, the engine has the new roster within the same turn, or, where many records
    come at once, a moment later; and the records of those who left are forgotten.
 2. Which mesh this is follows from the chain: a node that learns the genesis only after its start moves over then.
 3. What a node knows of others is kept on disk, and judged anew when it is read: nothing is trusted for its place.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from zmesh.core import wire
from zmesh.core.engine import Engine
from zmesh.core.errors import ConfigError, WireError
from zmesh.core.events import Event, HandlersChanged, JoinNetwork, Located, RosterChanged
from zmesh.core.now import Now
from zmesh.core.types import EMPTY_ROSTER, Endpoint, PeerKey
from zmesh.handlers import Record, Records
from zmesh.log import get_logger
from zmesh.node import read_clocks
from zmesh.registry.membership import Admission, Membership
from zmesh.registry.port import Account, ValidatorSet
from zmesh.registry.standing import Standing, own_trouble, statement_of
from zmesh.state import DELEGATIONS_FILE, RECORDS_FILE, State

MAX_SLEEP = 60.0
"""Seconds until the wall clock is looked at again: it may be set, and a machine may sleep, while a timer runs."""
NOTICE = 3 * 86_400.0
"""Seconds before the own delegation ends in which that is warned about: a weekend."""
RENEW = "have the account sign a new one (`zmesh key delegate`), and restart the node with it"
SETTLE = 0.05
"""Seconds between two rosters that records make, at least: a roster costs 15 us for each member."""
SHARE = 10.0
"""Times that a roster took to make and to follow until records may make another: a tenth of a core at most."""

_log = get_logger(__name__)


class Belonging:
    """``name``: of the mesh. ``genesis``: of its chain where the operator says so, else empty. ``me``: the own key."""

    def __init__(self, name: str, genesis: bytes, me: PeerKey, admission: Admission) -> None:
        self._name = name
        self._genesis = genesis
        self._me = me
        self._membership = Membership(name, admission, lambda: self._records is not None and self._records.takes_local)
        self._is_open = admission == "open"
        self._found = ValidatorSet(genesis=genesis)
        self._roster = EMPTY_ROSTER
        self._saved: bytes | None = None
        self._own: Record | None = None
        self._refused: Standing | None = None
        self._is_warned = False
        self._timer: asyncio.TimerHandle | None = None
        self._applied_at = float("-inf")
        self._pause = SETTLE
        self._is_soon = False
        self._found_at: dict[PeerKey, tuple[Endpoint, ...]] = {}
        self._engine: Engine | None = None
        self._is_over = False
        self._records: Records | None = None
        self._submit: Callable[[Event], None] = _nobody
        self._changed: Callable[[], None] = _nothing
        self._membership.registered(self._found, read_clocks())

    @property
    def network(self) -> bytes:
        """32 bytes: which mesh this is, as far as this node knows."""
        return wire.network_id(self._name, self._genesis)

    @property
    def is_told(self) -> bool:
        """Did the registry ever name anybody? Before, this node could but refuse everybody it meets."""
        return len(self._found) > 0 or self._is_open

    @property
    def counters(self) -> dict[str, int]:
        """Judgements by their outcome."""
        return dict(self._membership.counters)

    def troubles(self) -> list[str]:
        """What keeps this node from others, in one sentence each."""
        found = []
        if self._own is not None and self._refused is not None:
            found.append(own_trouble(self._own, self._refused, read_clocks().wall))
        strangers = self.strangers()
        if strangers and not self._roster.keys - {self._me}:
            found.append(f"none of {len(strangers)} other accounts in the registry has shown its mesh key yet")
        return found

    def warnings(self) -> list[str]:
        """What will keep this node from others before long, in one sentence each."""
        left = self.ends_in()
        if left is None or not 0 < left < NOTICE:
            return []
        return [f"this node's delegation ends in {left / 3600:.1f} h: {RENEW}"]

    def ends_in(self) -> float | None:
        """Seconds until the own delegation ends, below 0 once it did; None without one."""
        said = None if self._own is None else statement_of(self._own)
        return None if said is None else said.not_after + 1 - read_clocks().wall

    def strangers(self) -> list[Account]:
        """Those whom the registry names and whose mesh keys nobody has shown yet."""
        met = {member.account for member in self._roster.members}
        said = None if self._own is None else statement_of(self._own)
        mine = b"" if said is None else said.account
        return [one for one in self._found.accounts.values() if one.address not in met and one.id != mine]

    # ------------------------------------------------------------ starting and stopping

    def restore(self, state: State) -> None:
        """Before the registry is read: sequences of delegations now, records once somebody belongs. Blocking."""
        self._saved = state.learnt(RECORDS_FILE)
        sequences = state.learnt(DELEGATIONS_FILE)
        if sequences is None:
            return
        try:
            self._membership.restore(json.loads(sequences))
        except (ConfigError, ValueError, RecursionError) as error:
            _log.warning("delegations_not_restored", why=str(error))

    def attach(
        self, engine: Engine, records: Records, submit: Callable[[Event], None], changed: Callable[[], None]
    ) -> None:
        """The node runs: from now on its engine is told, and ``changed`` called when the registry gave another set.

        The own record stands in ``records`` already.
        """
        self._engine, self._records, self._submit, self._changed = engine, records, submit, changed
        self._refresh(ValidatorSet())

    def detach(self) -> None:
        """The node stops."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._submit, self._changed = None, _nobody, _nothing
        self._is_over = True

    def learnt(self) -> dict[str, bytes]:
        """What to keep of others, by the file's name; for ``restore`` of the next life."""
        kept = {DELEGATIONS_FILE: json.dumps(self._membership.export()).encode()}
        return kept if self._records is None else {RECORDS_FILE: self._records.export(), **kept}

    # ------------------------------------------------------------ what comes in

    def registered(self, found: ValidatorSet) -> None:
        """The registry gave a set."""
        if found is self._found:
            return
        before, self._found = self._found, found
        if found.genesis:
            self._genesis = found.genesis
        self._membership.registered(found, read_clocks())
        if self._engine is not None:
            self._refresh(before)

    def _refresh(self, before: ValidatorSet) -> None:
        """Let everything that depends on the set follow it."""
        assert self._engine is not None
        assert self._records is not None
        now, records = read_clocks(), self._records
        if self._engine.network != self.network:
            self._submit(JoinNetwork(self.network))
            records.join(self.network)
            self._submit(HandlersChanged())  # now the own record is signed for the new mesh
        if records.own is not None:
            self._membership.took(records.own, now)
        self._apply(now)
        if len(self._found) and self._saved is not None:
            self._read_saved(self._saved)
        if self._found.accounts.keys() - before.accounts.keys():
            records.ask_soon(now)
        # Handlers have more to say now than the engine knows.
        self._submit(HandlersChanged())
        self._changed()

    def _read_saved(self, saved: bytes) -> None:
        assert self._records is not None
        self._saved = None
        try:
            located = self._records.restore(saved)
        except WireError as error:
            _log.warning("records_not_restored", why=error.detail)
            return
        for command in located:
            self._submit(command)

    def judge(self, record: Record) -> str | None:
        """For ``Records``: why the key of this record may not take part, or None if it may."""
        by_hand = self._engine is not None and record.key in self._engine.peers.manual
        standing = self._membership.judge(record, read_clocks(), by_hand=by_hand)
        if self._membership.deadline == 0.0 and not self._is_soon:
            # The delegation counts from now on, also if the record is not taken: it may end somebody else's.
            self._is_soon = True
            self._sleep(SETTLE)
        return None if standing is Standing.ADMITTED else standing.value

    def took(self, record: Record) -> bool:
        """For ``Records``: this is the newest record of its key now; does it bring its account another key?"""
        now = read_clocks()
        succeeds = self._membership.took(record, now)
        if record.endpoints:
            self._found_at[record.key] = record.endpoints
        self._apply_soon(now)
        return succeeds

    # ------------------------------------------------------------ what goes out

    def _apply_soon(self, now: Now) -> None:
        """At once, or a moment after the last time: a thousand who come together cost a few rosters, not a thousand."""
        if now.mono - self._applied_at >= self._pause:
            self._apply(now)
        elif not self._is_soon:
            self._is_soon = True
            self._sleep(self._pause)

    def _apply(self, now: Now) -> None:
        """Tell the engine if somebody came or left, and be back when the next delegation begins or ends."""
        self._applied_at, self._is_soon = now.mono, False
        self._membership.wake(now)
        roster = self._membership.roster
        if roster is not self._roster:
            self._roster = roster
            self._submit(RosterChanged(roster))
            if self._records is not None and self._engine is not None:
                self._records.retain(roster.keys | self._engine.peers.manual.keys())
        # The engine takes an address of members only, and may hear of these just now.
        found_at, self._found_at = self._found_at, {}
        for key, endpoints in found_at.items():
            self._submit(Located(key, endpoints))
        self._look_at_itself(now)
        self._pause = max(SETTLE, SHARE * (read_clocks().mono - now.mono))
        due = self._membership.deadline
        self._sleep(MAX_SLEEP if due is None else min(MAX_SLEEP, max(0.0, due - now.wall)))

    def _sleep(self, delay: float | None) -> None:
        """Wake in so many seconds and not before, or never."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if delay is not None and not self._is_over:
            self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        self._timer = None
        try:
            self._apply(read_clocks())
        except Exception as error:  # noqa: BLE001 - a fault of ours, logged whole; nobody else would end a delegation
            _log.error("roster_not_applied", exc_info=error)
            self._sleep(MAX_SLEEP)

    def _look_at_itself(self, now: Now) -> None:
        """Others judge this node as it can judge itself: say what is wrong, once each time that this changes."""
        self._own = own = None if self._records is None else self._records.own
        refused = None
        if own is not None and len(self._found) and self._me not in self._roster.keys:
            standing = self._membership.standing_of(own, now)
            refused = None if standing is Standing.ADMITTED else standing
            if refused is not None and refused is not self._refused:
                why = own_trouble(own, refused, now.wall)
                _log.warning("not_admitted", public_key=self._me.hex(), why=why, effect="other nodes refuse this one")
        self._refused = refused
        left = self.ends_in() or 0.0
        is_short = 0 < left < NOTICE
        if is_short and not self._is_warned:
            _log.warning("delegation_ends_soon", seconds=round(left), hint=RENEW)
        self._is_warned = is_short


def _nobody(_event: Event) -> None:
    """Before the node runs, and after it."""


def _nothing() -> None:
    """The same, for ``changed``."""
