"""What the tests of membership share: a registry of three, signed records, and a clock."""

from __future__ import annotations

from typing import Any

from tests.unit.delegation_support import BEGIN, GENESIS, NETWORK, Signer, signer
from zmesh.core.now import Now
from zmesh.core.wire import network_id
from zmesh.delegation import Delegation
from zmesh.handlers.record import Description, Record, encode_record
from zmesh.handlers.standing import Standing
from zmesh.identity import Identity
from zmesh.registry.membership import Membership
from zmesh.registry.port import Account, ValidatorSet

NOON = Now(1000.0, BEGIN + 1000.0)
ALICE, BOB, EVE = (signer(number) for number in (1, 2, 3))
NODES = [Identity.from_seed(bytes([number]) * 32) for number in range(101, 109)]
FIRST, SECOND, THIRD = NODES[:3]


def account(who: Signer, name: str, **more: Any) -> Account:
    return Account(who.account, f"5{name}", **more)


SET = ValidatorSet(
    accounts={one.id: one for one in (account(ALICE, "Alice", stake=10, reputation=70.0), account(BOB, "Bob"))},
    genesis=GENESIS,
)


def record(
    of: Identity, carrying: Delegation | bytes | None = None, name: str = "", sequence: int = 1, network: str = NETWORK
) -> Record:
    encoded = carrying.encoded if isinstance(carrying, Delegation) else carrying
    described = Description(name or f"node-{of.public.hex()[:4]}", delegation=encoded, capabilities=("train",))
    return encode_record(described, network_id(network, GENESIS), of.public, sequence, 0, of.sign)


def membership(found: ValidatorSet = SET, **options: Any) -> Membership:
    made = Membership(NETWORK, **options)
    made.registered(found)
    return made


def offer(of: Membership, offered: Record, now: Now = NOON) -> Standing:
    """What a node does with a record whose own signature holds."""
    standing = of.judge(offered, now)
    if standing is Standing.ADMITTED:
        of.accepted(offered, now)
    return standing


def at(seconds: float) -> Now:
    return Now(NOON.mono + seconds, NOON.wall + seconds)
