"""Keeps the roster current: combines the registry's set, what records prove, and the time limits of delegations.

Rules
 1. When any of the three changes the roster, the engine gets the new one within the same turn or, if many records
    arrive at once, a moment later. The records of those who left are then forgotten, as are those of peers that the
    operator takes back.
 2. The chain determines which mesh this is: a node that learns the genesis only after its start moves over then.
 3. What a node knows of others is kept on disk and judged again when it is read: being on disk earns no trust.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

from zmesh.core import wire
from zmesh.core.engine import Engine
from zmesh.core.errors import ConfigError, WireError
from zmesh.core.events import AddPeer, Event, HandlersChanged, JoinNetwork, Located, RemovePeer, RosterChanged
from zmesh.core.now import Now
from zmesh.core.types import EMPTY_ROSTER, PeerKey
from zmesh.handlers import Record, Records
from zmesh.handlers.standing import Standing
from zmesh.log import get_logger
from zmesh.node import read_clocks
from zmesh.registry.membership import AdmissionMode, Membership
from zmesh.registry.port import Account, ValidatorSet
from zmesh.registry.refusals import own_trouble, statement_of
from zmesh.state import DELEGATIONS_FILE, RECORDS_FILE, State

MAX_SLEEP = 60.0
"""Seconds until the wall clock is checked again: while a timer runs, the clock may be set and the machine may sleep."""
NOTICE = 3 * 86_400.0
"""Seconds before the end of this node's delegation from which a warning is given: a weekend."""
RENEW = "have the account sign a new one (`zmesh key delegate`), and restart the node with it"
REFUSED = "other nodes refuse this one"
SETTLE = 0.05
"""Minimum seconds between two rosters caused by records: a roster costs 15 us per member."""
SHARE = 10.0
"""Pause before records may cause another roster, as a multiple of the time that making and applying the last one took:
a tenth of a core at most."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Ports:
    """What belonging needs from its node."""

    engine: Engine
    records: Records
    """With this node's own record."""
    submit: Callable[[Event], None]
    changed: Callable[[], None]
    """Called when the registry gives another set."""


class Belonging:
    """``name``: the mesh's. ``genesis``: its chain's genesis hash if the operator gives it, else empty. ``me``: our own
    key."""

    def __init__(self, name: str, genesis: bytes, me: PeerKey, admission: AdmissionMode) -> None:
        self._name = name
        self._genesis = genesis
        self._me = me
        self._membership = Membership(
            name, admission, lambda: self._node is not None and self._node.records.takes_local
        )
        self._is_open = admission == "open"
        self._found = ValidatorSet(genesis=genesis)
        self._roster = EMPTY_ROSTER
        self._saved: bytes | None = None
        self._own: Record | None = None
        self._refused: Standing | None = None
        self._is_warned = False
        self._misnamed: str | None = None
        """The sentence about a registry that gives this node's key a name other than its own."""
        self._timer: asyncio.TimerHandle | None = None
        self._applied_at = float("-inf")
        self._pause = SETTLE
        self._is_soon = False
        self._node: Ports | None = None
        """Only while the node runs: its door is open before, and the registry goes on after."""
        self._membership.registered(self._found)

    @property
    def network(self) -> bytes:
        """32 bytes: the id of this mesh, as far as this node knows it."""
        return wire.network_id(self._name, self._genesis)

    @property
    def is_told(self) -> bool:
        """Whether the registry has named anybody yet; always true in an open mesh. Until then, this node would refuse
        every peer it meets."""
        return len(self._found) > 0 or self._is_open

    @property
    def counters(self) -> dict[str, int]:
        """Judgements, by outcome."""
        return dict(self._membership.counters)

    def troubles(self) -> list[str]:
        """What keeps this node from others now, one sentence each."""
        found = []
        if self._own is not None and self._refused is not None:
            found.append(f"{REFUSED}: {own_trouble(self._own, self._refused, read_clocks().wall)}")
        strangers = self.strangers()
        if strangers and not self._roster.keys - {self._me}:
            found.append(f"none of {len(strangers)} other accounts in the registry has shown its mesh key yet")
        return found

    def warnings(self) -> list[str]:
        """What will soon keep this node from others, and that others know it by another name, one sentence each."""
        found = [] if self._misnamed is None else [self._misnamed]
        left = self.ends_in()
        if left is not None and 0 < left < NOTICE:
            found.append(f"this node's delegation ends in {left / 3600:.1f} h: {RENEW}")
        return found

    def ends_in(self) -> float | None:
        """Seconds until this node's delegation ends, negative once it has ended; None without one."""
        said = None if self._own is None else statement_of(self._own)
        return None if said is None else said.not_after + 1 - read_clocks().wall

    def strangers(self) -> list[Account]:
        """Accounts other than ours that the registry names and whose mesh keys are not known yet."""
        met = {member.account for member in self._roster.members}
        said = None if self._own is None else statement_of(self._own)
        mine = b"" if said is None else said.account
        return [one for one in self._found.accounts.values() if one.address not in met and one.id != mine]

    # ------------------------------------------------------------ starting and stopping

    def restore(self, state: State) -> None:
        """Load saved state before the registry is read: sequences of delegations now, records once the registry has
        named members. Blocking."""
        self._saved = state.learnt(RECORDS_FILE)
        sequences = state.learnt(DELEGATIONS_FILE)
        if sequences is None:
            return
        try:
            self._membership.restore(json.loads(sequences))
        except (ConfigError, ValueError, RecursionError) as error:
            _log.warning("delegations_not_restored", why=str(error))

    def attach(self, node: Ports) -> None:
        """The node runs: from now on its engine is kept up to date."""
        self._node = node
        self._refresh(node, ValidatorSet())

    def detach(self) -> None:
        """The node stops."""
        self._node = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def learnt(self) -> dict[str, bytes]:
        """What to save about others, by file name; ``restore`` reads it in the next life.

        No records while the saved ones still wait for a registry that names members: they would be lost.
        """
        kept = {DELEGATIONS_FILE: json.dumps(self._membership.export()).encode()}
        if self._node is None or self._saved is not None:
            return kept
        return {RECORDS_FILE: self._node.records.export(), **kept}

    # ------------------------------------------------------------ what comes in

    def registered(self, found: ValidatorSet) -> None:
        """Take a new set from the registry."""
        if found is self._found:
            return
        before, self._found = self._found, found
        if found.genesis:
            self._genesis = found.genesis
        self._membership.registered(found)
        if self._node is not None:
            self._refresh(self._node, before)

    def _refresh(self, node: Ports, before: ValidatorSet) -> None:
        """Update everything that depends on the set."""
        now, records = read_clocks(), node.records
        if node.engine.network != self.network:
            node.submit(JoinNetwork(self.network))
            records.join(self.network)
            node.submit(HandlersChanged())  # makes ``records`` sign our own record for the new mesh
        if records.own is not None:
            self._membership.accepted(records.own, now)
        self._apply(now)
        if len(self._found) and self._saved is not None:
            saved, self._saved = self._saved, None
            try:
                records.restore(saved)
            except WireError as error:
                _log.warning("records_not_restored", why=error.detail)
        if self._found.accounts.keys() - before.accounts.keys():
            records.ask_soon(now)
        # Handlers may now have work that the engine does not know of.
        node.submit(HandlersChanged())
        node.changed()

    def judge(self, record: Record) -> Standing:
        """For ``Records``: whether the key of this record may take part."""
        by_hand = self._node is not None and record.key in self._node.engine.peers.manual
        standing = self._membership.judge(record, read_clocks(), by_hand=by_hand)
        if self._membership.is_stale and not self._is_soon:
            # The delegation counts from now on, even if the record is refused: it may end another one.
            self._is_soon = True
            self._sleep(SETTLE)
        return standing

    def accepted(self, record: Record) -> bool:
        """For ``Records``: this is now the newest record of its key. Returns whether it gives its account another
        key."""
        now = read_clocks()
        succeeds = self._membership.accepted(record, now)
        self._locate(record)
        self._apply_soon(now)
        return succeeds

    def vouched(self, event: Event) -> None:
        """The operator added a peer by hand, or took it back: ask for its record, or forget it.

        The engine forgets where the peer was. A record that stayed here would be no news when it comes again, and
        the engine would not be told.
        """
        node = self._node
        if node is None:
            return  # the first questions are still to be asked
        held = node.records.records
        if isinstance(event, AddPeer) and event.member.key not in held:
            node.records.ask_soon(read_clocks())
            node.submit(HandlersChanged())
        elif isinstance(event, RemovePeer) and event.key not in self._roster.keys:
            node.records.retain(held.keys() - {event.key})

    # ------------------------------------------------------------ what goes out

    def _apply_soon(self, now: Now) -> None:
        """Apply now, or a moment after the last time: a thousand peers that arrive together cost a few rosters, not a
        thousand."""
        if now.mono - self._applied_at >= self._pause:
            self._apply(now)
        elif not self._is_soon:
            self._is_soon = True
            self._sleep(self._pause)

    def _apply(self, now: Now) -> None:
        """Tell the engine if members came or left, and set the timer for the next delegation that begins or ends."""
        node = self._node
        if node is None:
            return  # ``attach`` will
        self._applied_at, self._is_soon = now.mono, False
        roster = self._membership.roster_at(now)
        if roster is not self._roster:
            before, self._roster = self._roster, roster
            node.submit(RosterChanged(roster))
            node.records.retain(roster.keys | node.engine.peers.manual.keys())
            for key in sorted((roster.keys - before.keys) & node.records.records.keys()):
                self._locate(node.records.records[key])
        self._look_at_itself(now)
        self._pause = max(SETTLE, SHARE * (read_clocks().mono - now.mono))
        due = self._membership.deadline
        self._sleep(MAX_SLEEP if due is None else min(MAX_SLEEP, max(0.0, due - now.wall)))

    def _locate(self, record: Record) -> None:
        """Tell the engine where a peer is by its own word; one without an address stays where it was met.

        The engine takes this of members only, so it is said of each new record and of each new member of the roster; of
        a peer that is new by hand, no record is held.
        """
        if self._node is not None and record.endpoints:
            self._node.submit(Located(record.key, record.endpoints))

    def _sleep(self, delay: float) -> None:
        """Set the timer to ``delay`` seconds from now, in place of the previous one."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._node is not None:
            self._timer = asyncio.get_running_loop().call_later(delay, self._wake)

    def _wake(self) -> None:
        self._timer = None
        try:
            self._apply(read_clocks())
        except Exception as error:  # noqa: BLE001 - our own bug, logged in full; nothing else would end a delegation
            _log.error("roster_not_applied", exc_info=error)
            self._sleep(MAX_SLEEP)

    def _look_at_itself(self, now: Now) -> None:
        """Judge this node as others judge it, and log each change of the verdict once."""
        self._own = own = None if self._node is None else self._node.records.own
        refused = None
        if own is not None and len(self._found) and self._me not in self._roster.keys:
            standing = self._membership.standing_of(own, now)
            refused = None if standing is Standing.ADMITTED else standing
            if refused is not None and refused is not self._refused:
                why = own_trouble(own, refused, now.wall)
                _log.warning("not_admitted", public_key=self._me.hex(), why=why, effect=REFUSED)
        self._refused = refused
        left = self.ends_in() or 0.0
        is_short = 0 < left < NOTICE
        if is_short and not self._is_warned:
            _log.warning("delegation_ends_soon", seconds=round(left), hint=RENEW)
        self._is_warned = is_short
        misnamed = self._other_name()
        if misnamed is not None and misnamed != self._misnamed:
            _log.warning("peer_id_differs", problem=misnamed)
        self._misnamed = misnamed

    def _other_name(self) -> str | None:
        """One sentence if the registry names this node's key differently, else None.

        A registry that names members by their accounts gives no names to compare with.
        """
        member = self._found.roster.by_key.get(self._me)
        if member is None or self._own is None or member.peer_id in (self._own.peer_id, member.account):
            return None
        name = member.peer_id
        return f"the registry calls this node {name}, not {self._own.peer_id}: set MESH_PEER_ID={name}"
