"""``mesh.peers``: all known peers, as a mapping that can be written to.

Rules
 1. Reading returns a fresh ``PeerInfo`` each time, a snapshot that cannot be changed: nothing stored here goes stale.
 2. Assigning vouches for a peer by hand and connects; deleting takes that back. Neither can override the registry.
 3. A bad entry is refused before anything changes.
 4. A name that several peers claim, or that is another's account, stands for none of them: each is listed under its
    account. No peer is hidden, and none is mistaken for another.
 5. A peer that was silent for ``bounds.forget`` seconds is no longer listed. It still belongs, and is listed again as
    soon as it speaks.
 6. Names are worked out when the membership changes, not for each lookup.
 7. This node is never listed. Assigning an entry with its own key gives it its account and stake, for as long as the
    registry does not list it: in a mesh of peers added by hand, all nodes then count its vote alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, ItemsView, Iterator, MutableMapping, ValuesView
from typing import Protocol

from zmesh.core.bounds import Bounds
from zmesh.core.errors import ConfigError
from zmesh.core.events import AddPeer, Event, RemovePeer
from zmesh.core.link import Link
from zmesh.core.now import Now
from zmesh.core.peers import Peers
from zmesh.core.types import EMPTY_ROSTER, Member, PeerKey, Roster
from zmesh.identity import curve_image
from zmesh.messages import PeerInfo


class Running(Protocol):
    """What the table needs from a started engine."""

    peers: Peers
    links: dict[PeerKey, Link]


class PeerTable(MutableMapping[str, PeerInfo]):
    """``mesh.peers``: a mapping from names to ``PeerInfo``, of all peers but this node.

    Entries may be assigned and deleted before the start, too, and outlive a restart. While the node runs, only its own
    event loop may change the table.
    """

    def __init__(self, own_key: PeerKey, own_name: str, bounds: Bounds, clocks: Callable[[], Now]) -> None:
        self._own_key = own_key
        self._own_name = own_name
        self._bounds = bounds
        self._clocks = clocks
        self._manual: dict[str, tuple[Member, float]] = {}
        self._card: Member | None = None
        """This node itself, as the operator describes it."""
        self._engine: Running | None = None
        self._submit: Callable[[Event], None] | None = None
        self._refuse_elsewhere: Callable[[], None] = _anywhere
        self._since = 0.0
        self._named: dict[str, Member] = {}
        self._named_for: tuple[Roster, tuple[Member, ...], str] | None = None
        """The roster, the manual members and the own account that ``_named`` was made from."""

    def attach(self, engine: Running, submit: Callable[[Event], None], refuse_elsewhere: Callable[[], None]) -> None:
        """The node runs: hand over the peers that the operator added, and from now on every change.

        ``refuse_elsewhere`` raises where a change must not come from.
        """
        self._engine = engine
        self._submit = submit
        self._refuse_elsewhere = refuse_elsewhere
        self._since = self._clocks().mono
        for member in self._by_hand():
            submit(AddPeer(member))

    def detach(self) -> None:
        """The node stopped."""
        self._engine = self._submit = None
        self._refuse_elsewhere = _anywhere

    # ------------------------------------------------------------ the mapping

    def __getitem__(self, peer_id: str) -> PeerInfo:
        """What is known about a peer now. Raises ``KeyError`` if none is listed under that name."""
        member = self._names().get(peer_id)
        if member is None or not self._is_listed()(member):
            raise KeyError(peer_id)
        return self.describe(member)

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self.entries()])

    def __len__(self) -> int:
        return sum(map(self._is_listed(), self._names().values()))

    def __repr__(self) -> str:
        return f"<PeerTable {dict(self.items())}>"

    def items(self) -> ItemsView[str, PeerInfo]:
        """All peers with their names, as of when the iteration begins; each is described when its turn comes."""
        return _Items(self)

    def values(self) -> ValuesView[PeerInfo]:
        """All peers, likewise."""
        return _Values(self)

    def __setitem__(self, peer_id: str, info: PeerInfo) -> None:
        """Vouch for a peer by hand and connect to it, or replace what was said about it.

        An entry with this node's own key and name gives this node its account, its stake and its right to vote, unless
        the registry lists it. It is not listed here.

        Raises ``ConfigError`` for an entry that is malformed, stored under another name than its ``peer_id``, or shares
        its name, key, account or CURVE key with another peer, and ``NotRunningError`` on another event loop than the
        node's. Nothing has changed then.
        """
        self._refuse_elsewhere()
        where = f"peers[{peer_id!r}]"
        if not isinstance(info, PeerInfo):
            raise ConfigError(f"{where} must be a PeerInfo, not a value of type {type(info).__name__}")
        if info.peer_id != peer_id:
            raise ConfigError(f"{where}: peer_id must be the name it is stored under, not {info.peer_id!r}")
        member = info.member(where)
        self._refuse_clash(where, member)
        if member.key == self._own_key:
            self._card = member
            self._tell(AddPeer(member))
            return
        previous = self._manual.get(peer_id)
        self._manual[peer_id] = (member, info.last_seen)
        if previous is not None and previous[0].key != member.key:
            self._tell(RemovePeer(previous[0].key))
        self._tell(AddPeer(member))

    def __delitem__(self, peer_id: str) -> None:
        """Take back what was assigned under that name; the peer is cut off unless the registry lists it.

        Raises ``KeyError`` for an unknown name, ``ConfigError`` for a peer that only the registry can remove, and
        ``NotRunningError`` on another event loop than the node's.
        """
        self._refuse_elsewhere()
        if peer_id == self._own_name and self._card is not None:
            self._card = None
            self._tell(RemovePeer(self._own_key))
            return
        if peer_id not in self._manual:
            if peer_id in self:
                raise ConfigError(f"peers[{peer_id!r}] is in the registry: only the registry can remove it")
            raise KeyError(peer_id)
        member, _ = self._manual.pop(peer_id)
        self._tell(RemovePeer(member.key))

    def _tell(self, event: Event) -> None:
        """Tell the engine, if there is one; the next one is told by ``attach``."""
        if self._submit is not None:
            self._submit(event)

    def _refuse_clash(self, where: str, member: Member) -> None:
        """One name, one key, one account, one CURVE image: each must stand for one peer."""
        is_own = member.key == self._own_key
        if is_own and member.peer_id != self._own_name:
            raise ConfigError(f"{where}: public_key is this node's own, so peer_id must be {self._own_name!r}")
        if member.peer_id == self._own_name and not is_own:
            raise ConfigError(f"{where}: this node has the same peer_id, which must be unique")
        if member.account == self._own_account() and not is_own:
            raise ConfigError(f"{where}: this node has the same account, which must be unique")
        # Any member may call itself what this node is called, and must not keep it from its own account by that.
        unique = ("account",) if is_own else ("peer_id", "key", "account")
        image = curve_image(member.key)
        for other in self._everybody():
            by_hand = other.peer_id in self._manual and self._manual[other.peer_id][0].key == other.key
            if by_hand and other.peer_id == member.peer_id:
                continue  # replaced by this assignment
            for name in unique:
                if getattr(other, name) == getattr(member, name) and (name != "key" or other.peer_id != member.peer_id):
                    raise ConfigError(f"{where}: {other.peer_id!r} has the same {name}, which must be unique")
            if other.key != member.key and curve_image(other.key) == image:
                raise ConfigError(
                    f"{where}: public_key is the negative of that of {other.peer_id!r} and shares its CURVE key: "
                    "only one of the two can be admitted"
                )

    # ------------------------------------------------------------ behind it

    def _everybody(self) -> list[Member]:
        if self._engine is not None:
            return list(self._engine.peers)
        return [member for member, _ in self._manual.values()]

    def _own_account(self) -> str:
        if self._engine is not None:
            return self._engine.peers.myself.account
        return self._own_key.hex() if self._card is None else self._card.account

    def _by_hand(self) -> list[Member]:
        """All that the operator added, this node included."""
        return [*([] if self._card is None else [self._card]), *(member for member, _ in self._manual.values())]

    def _is_listed(self) -> Callable[[Member], bool]:
        """A test of whether a member was heard from, or could have been, within ``bounds.forget`` seconds."""
        horizon = self._clocks().mono - self._bounds.forget
        if self._engine is None or self._since >= horizon:
            return lambda member: True
        heard = self._engine.peers.last_heard
        return lambda member: (heard(member.key) or self._since) >= horizon

    def _names(self) -> dict[str, Member]:
        """All members, by the names they are listed under."""
        roster, manual = EMPTY_ROSTER, tuple(member for member, _ in self._manual.values())
        if self._engine is not None:
            roster, manual = self._engine.peers.roster, tuple(self._engine.peers.manual.values())
        mine = self._own_account()
        if self._named_for is None or self._named_for[0] is not roster or self._named_for[1:] != (manual, mine):
            everybody = self._everybody()
            own = {self._own_name, mine}
            claimed = Counter([*own, *(name for each in everybody for name in {each.peer_id, each.account})])
            self._named = {(m.peer_id if claimed[m.peer_id] == 1 else m.account): m for m in everybody}
            self._named_for = roster, manual, mine
        return self._named

    def entries(self) -> Iterator[tuple[str, Member]]:
        """All listed members, with the names they are listed under."""
        is_listed = self._is_listed()
        return ((name, member) for name, member in self._names().items() if is_listed(member))

    def describe(self, member: Member) -> PeerInfo:
        """All that is known about a member now."""
        now, alive = self._clocks(), self._bounds.alive
        manual = self._manual.get(member.peer_id)
        last_seen = 0.0 if manual is None or manual[0].key != member.key else manual[1]
        if self._engine is None:
            return PeerInfo.of(
                member,
                member.endpoints,
                last_seen=last_seen,
                reputation=member.reputation,
                is_linked=False,
                alive_for=alive,
            )
        peers, link = self._engine.peers, self._engine.links.get(member.key)
        heard = peers.last_heard(member.key)
        return PeerInfo.of(
            member,
            peers.endpoints(member),
            last_seen=last_seen if heard is None else now.wall - (now.mono - heard),
            reputation=peers.reputation.score(member, now.mono),
            is_linked=link is not None and link.is_live,
            alive_for=alive,
        )


def _anywhere() -> None:
    """While no node runs, a change may come from any thread."""


class _Items(ItemsView[str, PeerInfo]):
    """``items()`` of a table, in one pass."""

    def __init__(self, table: PeerTable) -> None:
        super().__init__(table)
        self._table = table

    def __iter__(self) -> Iterator[tuple[str, PeerInfo]]:
        return ((name, self._table.describe(member)) for name, member in self._table.entries())


class _Values(ValuesView[PeerInfo]):
    """``values()`` of a table, in one pass."""

    def __init__(self, table: PeerTable) -> None:
        super().__init__(table)
        self._table = table

    def __iter__(self) -> Iterator[PeerInfo]:
        return (self._table.describe(member) for _, member in self._table.entries())

    def __contains__(self, value: object) -> bool:
        return any(info == value for info in self)
