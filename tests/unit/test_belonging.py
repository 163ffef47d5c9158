"""Who belongs, as the engine is told it: at once, and not a thousand times for a thousand who come together."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit.delegation_support import END, GENESIS, NETWORK, Signer, delegation, signer
from tests.unit.test_bootstrap import World
from tests.unit.virtual_time import in_virtual_time, moment
from zmesh import belonging as module
from zmesh.belonging import RENEW, Belonging, Ports
from zmesh.bootstrap import Bootstrap
from zmesh.core.events import AddPeer, Event, HandlersChanged, Located, RemovePeer, RosterChanged
from zmesh.core.now import Now
from zmesh.core.types import Endpoint, Member, PeerKey
from zmesh.core.wire import network_id
from zmesh.handlers import Description, Record, encode_record
from zmesh.handlers.standing import Standing
from zmesh.identity import Identity
from zmesh.registry.port import Account, ValidatorSet
from zmesh.state import DELEGATIONS_FILE, RECORDS_FILE

NODES = [Identity.from_seed(bytes([number]) * 32) for number in range(101, 105)]
SIGNERS = [signer(number) for number in range(1, 4)]
SET = ValidatorSet(accounts={by.account: Account(by.account, f"5{n}") for n, by in enumerate(SIGNERS)}, genesis=GENESIS)
SECONDS = 20


PLACE = (Endpoint("192.0.2.1", 9090),)


def record(by: Signer, node: Identity, sequence: int = 1, places: tuple[Endpoint, ...] = PLACE) -> Record:
    made = delegation(by, node, sequence).encoded
    described = Description(f"n{node.public.hex()[:4]}", places, delegation=made)
    return encode_record(described, network_id(NETWORK, GENESIS), node.public, sequence, 0, node.sign)


class Told:
    """What the engine is told, and the moment when it is."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        own: Record | None = None,
        found: ValidatorSet = SET,
        early: Sequence[Record] = (),
        saved: bytes | None = None,
    ) -> None:
        """``early``: what is offered before the node runs. ``saved``: the records on its disk."""
        self.wall = END - 100.0
        monkeypatch.setattr(module, "read_clocks", lambda: Now(asyncio.get_running_loop().time(), self.wall))
        self.events: list[Event] = []
        self.came = asyncio.Event()
        self.on_change: list[Callable[[], None]] = []
        engine = SimpleNamespace(network=network_id(NETWORK, GENESIS), peers=SimpleNamespace(manual={}))
        self.held: dict[PeerKey, Record] = {}
        self.retained: list[set[PeerKey]] = []
        self.restored: list[bytes] = []
        self.asked: list[Now] = []
        records = SimpleNamespace(
            own=own,
            records=self.held,
            takes_local=True,
            retain=lambda keys: self.retained.append(set(keys)),
            restore=self.restored.append,
            export=lambda: b"all",
            ask_soon=self.asked.append,
        )
        me = Identity.from_seed(bytes(32)).public if own is None else own.key
        self.belonging = Belonging(NETWORK, GENESIS, me, "registry")
        self.belonging.restore(cast(Any, SimpleNamespace(learnt={RECORDS_FILE: saved}.get)))
        self.belonging.registered(found)
        for offered in early:
            self.offer(offered)
        self.belonging.attach(Ports(cast(Any, engine), cast(Any, records), self._submit, self._changed))
        if not early:
            self.events.clear()

    def _submit(self, event: Event) -> None:
        self.events.append(event)
        self.came.set()

    def _changed(self) -> None:
        for follow in self.on_change:
            follow()

    def offer(self, offered: Record) -> None:
        assert self.belonging.judge(offered) is Standing.ADMITTED
        self.held[offered.key] = offered
        self.belonging.accepted(offered)

    def rosters(self) -> list[set[bytes]]:
        return [set(event.roster.keys) for event in self.events if isinstance(event, RosterChanged)]

    async def rest(self, rosters: int) -> None:
        """Until the engine was told of so many rosters."""
        async with asyncio.timeout(SECONDS):
            while len(self.rosters()) < rosters:
                self.came.clear()
                await self.came.wait()


async def with_a_member(monkeypatch: pytest.MonkeyPatch) -> Told:
    """The first node belongs."""
    told = Told(monkeypatch)
    told.offer(record(SIGNERS[0], NODES[0]))
    await told.rest(1)
    return told


async def test_who_comes_together_is_in_one_roster_and_located_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told(monkeypatch)
    for by, node in zip(SIGNERS, NODES, strict=False):
        told.offer(record(by, node))
    await told.rest(1)

    assert told.rosters() == [{node.public for node in NODES[:3]}]
    after = told.events[[type(event) for event in told.events].index(RosterChanged) + 1 :]
    assert after == [Located(key, PLACE) for key in sorted(node.public for node in NODES[:3])]
    told.belonging.detach()


async def test_a_member_that_moves_is_located_at_once_and_one_without_an_address_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = await with_a_member(monkeypatch)
    told.events.clear()

    moved = (Endpoint("192.0.2.2", 9090),)
    told.offer(record(SIGNERS[0], NODES[0], 2, moved))
    assert told.events == [Located(NODES[0].public, moved)]
    told.offer(record(SIGNERS[0], NODES[0], 3, ()))
    told.offer(record(SIGNERS[1], NODES[1], 1, ()))
    await told.rest(1)
    assert [event for event in told.events[1:] if isinstance(event, Located)] == [], "they stay where they were met"
    told.belonging.detach()


async def test_whoever_is_met_before_the_node_runs_is_in_its_first_roster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its door is open by then, and others that start at the same time leave their records there."""
    told = Told(monkeypatch, early=[record(SIGNERS[0], NODES[0])])

    assert told.rosters() == [{NODES[0].public}]
    assert Located(NODES[0].public, PLACE) in told.events
    told.belonging.detach()


async def test_a_revocation_takes_effect_although_its_record_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    told = await with_a_member(monkeypatch)

    assert told.belonging.judge(record(SIGNERS[0], NODES[1], 2)) is Standing.ADMITTED
    await told.rest(2)
    assert told.rosters() == [{NODES[0].public}, set()]
    assert told.retained[-2:] == [{NODES[0].public}, set()], "with their records"
    told.belonging.detach()


async def test_a_peer_added_by_hand_is_asked_for_and_its_record_forgotten_when_it_is_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = await with_a_member(monkeypatch)
    for by, node in zip(SIGNERS[1:], NODES[1:], strict=False):
        told.held[node.public] = record(by, node)
    told.asked.clear()
    told.events.clear()
    told.retained.clear()

    told.belonging.vouched(AddPeer(Member(NODES[0].public, "5A", "a")))
    assert (told.asked, told.events) == ([], []), "its record is here, and it was located"
    told.belonging.vouched(AddPeer(Member(NODES[3].public, "5D", "d")))
    assert (len(told.asked), told.events) == (1, [HandlersChanged()])

    told.belonging.vouched(RemovePeer(NODES[0].public))
    assert told.retained == [], "the registry lists it"
    told.belonging.vouched(RemovePeer(NODES[1].public))
    assert told.retained == [{NODES[0].public, NODES[2].public}]
    told.belonging.detach()
    told.belonging.vouched(RemovePeer(NODES[2].public))
    assert len(told.retained) == 1


async def test_saved_records_wait_for_a_registry_that_names_somebody_and_are_read_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Told(monkeypatch, found=ValidatorSet(genesis=GENESIS), saved=b"saved")
    assert (told.restored, set(told.belonging.learnt())) == ([], {DELEGATIONS_FILE})

    for block in (1, 2):
        told.belonging.registered(replace(SET, block=block))
        assert (told.restored, told.belonging.learnt()[RECORDS_FILE]) == ([b"saved"], b"all")
    told.belonging.detach()
    assert set(told.belonging.learnt()) == {DELEGATIONS_FILE}


async def test_an_account_may_have_an_address_on_this_machine_where_all_have(monkeypatch: pytest.MonkeyPatch) -> None:
    local = (Endpoint("127.0.0.1", 9090),)
    account = Account(SIGNERS[0].account, "5Local", endpoints=local)
    told = Told(monkeypatch, found=ValidatorSet(accounts={account.id: account}, genesis=GENESIS))
    told.offer(record(SIGNERS[0], NODES[0]))
    await told.rest(1)

    (made,) = (event.roster for event in told.events if isinstance(event, RosterChanged))
    assert [member.endpoints for member in made.members] == [local]
    told.belonging.detach()


def own_record(by: Signer | None, **changed: Any) -> Record:
    """Of the fourth node, with a delegation if ``by`` signs one."""
    node = NODES[3]
    made = None if by is None else delegation(by, node, **changed).encoded
    described = Description("me", (Endpoint("192.0.2.1", 9090),), delegation=made)
    return encode_record(described, network_id(NETWORK, GENESIS), node.public, 1, 0, node.sign)


NOBODY_MET = "none of 2 other accounts in the registry has shown its mesh key yet"
ALL_UNMET = "none of 3 other accounts in the registry has shown its mesh key yet"


@pytest.mark.parametrize(
    "own, troubles",
    [
        (own_record(SIGNERS[0]), [NOBODY_MET]),
        (
            own_record(None),
            [
                "other nodes refuse this one: the registry does not name the key, and its record has no delegation: "
                "list it there or, where the registry names accounts, have one sign for it (`zmesh key delegate`, "
                "MESH_DELEGATION)",
                ALL_UNMET,
            ],
        ),
        (
            own_record(SIGNERS[0], not_after=int(END - 160)),
            [
                "other nodes refuse this one: the delegation has ended, or a clock is wrong by 60 s: have the account "
                "sign a new one (`zmesh key delegate`), or correct the clock",
                NOBODY_MET,
            ],
        ),
        (
            own_record(SIGNERS[0], not_before=int(END - 40)),
            [
                "other nodes refuse this one: the delegation has yet to begin, or a clock is wrong by 60 s: wait, or "
                "correct the clock",
                NOBODY_MET,
            ],
        ),
        (
            own_record(signer(9)),
            [
                "other nodes refuse this one: as of the last finalized block, the registry does not name the account "
                f"0x{signer(9).account.hex()}: register it there, or have one that is sign for the key (`zmesh key "
                "delegate`)",
                ALL_UNMET,
            ],
        ),
        (
            own_record(SIGNERS[0], genesis=bytes(32)),
            [
                "other nodes refuse this one: the delegation is for another chain: have the account sign one for this "
                "chain",
                NOBODY_MET,
            ],
        ),
    ],
    ids=["well", "no delegation", "expired", "not yet", "unknown account", "other chain"],
)
async def test_a_node_says_why_others_refuse_it_and_that_it_met_nobody(
    own: Record, troubles: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(monkeypatch, own)

    assert told.belonging.troubles() == troubles
    warned = [entry.__dict__["zmesh"] for entry in caplog.records if entry.__dict__["zmesh"]["event"] == "not_admitted"]
    assert [f"{entry['effect']}: {entry['why']}" for entry in warned] == troubles[:-1], "once"
    told.belonging.detach()


async def test_the_end_of_the_own_delegation_is_warned_about_before_it_comes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told(monkeypatch, own_record(SIGNERS[0]))
    events = [entry.__dict__["zmesh"]["event"] for entry in caplog.records]
    assert (events, told.belonging.ends_in()) == (["delegation_ends_soon"], 101.0)
    assert told.belonging.warnings() == [f"this node's delegation ends in 0.0 h: {RENEW}"]

    told.wall = END + 1.0
    told.belonging.registered(ValidatorSet(accounts=dict(SET.accounts), genesis=GENESIS, block=2))
    events = [entry.__dict__["zmesh"]["event"] for entry in caplog.records]
    assert (events, told.belonging.ends_in()) == (["delegation_ends_soon", "not_admitted"], 0.0)
    assert told.belonging.warnings() == [], "a trouble by now"
    told.belonging.detach()


def test_a_node_meets_nobody_before_its_registry_named_somebody_and_then_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It could but refuse whomever it meets, and would say of each seed that it is no member."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        told, world = Told(monkeypatch, found=ValidatorSet(genesis=GENESIS)), World(*NODES[:3])
        ports = replace(world.ports(), own=lambda: world.own if told.belonging.is_told else b"")
        bootstrap = Bootstrap(tuple(world.answers), NODES[3].public, ports, random.Random(7), loop.time)
        told.on_change.append(bootstrap.hurry)
        running = asyncio.create_task(bootstrap.run())
        await moment(100.0)
        assert (told.belonging.is_told, world.fetched, bootstrap.status()["problems"]) == (False, [], [])

        told.belonging.registered(SET)
        for _ in range(3):
            await world.arrived.acquire()
        assert (told.belonging.is_told, len(world.fetched), loop.time()) == (True, 3, 100.0)
        assert not running.done()
        told.belonging.detach()

    in_virtual_time(story())


def test_what_the_registry_says_after_the_end_begins_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        told = Told(monkeypatch)
        told.belonging.detach()
        told.events.clear()
        assert told.belonging._timer is None
        assert told.belonging.judge(record(SIGNERS[0], NODES[0])) is Standing.ADMITTED
        told.belonging.registered(ValidatorSet(genesis=GENESIS))

        assert (told.events, told.belonging._timer) == ([], None)

    in_virtual_time(story())


def test_an_open_mesh_needs_nobody_named_to_be_told() -> None:
    assert Belonging(NETWORK, b"", NODES[0].public, "open").is_told
    assert not Belonging(NETWORK, b"", NODES[0].public, "registry").is_told
