"""What each kind of chain says about its validators, and that what is malformed is refused with a reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from tests.unit.registry_support import (
    ACCOUNT,
    ACCOUNTS,
    METADATA,
    VALIDATOR,
    Node,
    account,
    address,
    served,
    validator,
)
from zmesh.core.errors import ConfigError
from zmesh.core.types import Endpoint
from zmesh.registry.chains import READERS, choose, port, read_all, reader_name
from zmesh.registry.chains.port import ChainError, Found
from zmesh.registry.substrate import SubstrateChain
from zmesh.ss58 import to_ss58

ALICE, BOB, CAROL, DAVE = (account(number) for number in range(4))
SCORES = {"compliance_score": 90, "quality_score": 80, "timeliness_score": 70, "honesty_score": 60}


def named(one: bytes) -> str:
    """An account as a chain gives it."""
    return "0x" + one.hex()


class Words:
    """A chain that says what it is told; a map is a dict, by account or by (era, account)."""

    def __init__(self, **items: Any) -> None:
        """``Pallet__Item``: its value."""
        self.items = {tuple(name.split("__")): value for name, value in items.items()}

    def offers(self, pallet: str, item: str) -> bool:
        return (pallet, item) in self.items

    def fields(self, pallet: str, item: str) -> frozenset[str]:
        entries = self.items.get((pallet, item), {})
        return frozenset(next(iter(entries.values()), {})) if isinstance(entries, dict) else frozenset()

    def value(self, pallet: str, item: str, *keys: Any) -> Any:
        return self.items[pallet, item]

    def entries(self, pallet: str, item: str, *keys: Any) -> Iterator[tuple[bytes, Any]]:
        for name, value in self.items[pallet, item].items():
            if isinstance(name, bytes):
                yield name, value
            elif name[:-1] == keys:
                yield name[-1], value

    def values(self, pallet: str, item: str, accounts: Sequence[bytes], *keys: Any) -> Mapping[bytes, Any]:
        held = self.items[pallet, item]
        names = {one: (*keys, one) if keys else one for one in accounts}
        return {one: held[name] for one, name in names.items() if name in held}


def read(chain: Words, name: str = "") -> list[Found]:
    return read_all(choose(chain, name), chain)


# ---------------------------------------------------------------- each kind


def test_a_session_names_those_who_validate_and_those_who_will() -> None:
    queued = [[named(BOB), {}], [named(CAROL), {}]]
    chain = Words(Session__Validators=[named(ALICE), named(BOB)], Session__QueuedKeys=queued)
    assert read(chain) == [Found(ALICE), Found(BOB), Found(CAROL, is_validator=False)]


def test_stake_comes_from_whatever_map_the_staking_pallet_has() -> None:
    chain = Words(
        Session__Validators=[named(one) for one in (ALICE, BOB, CAROL, DAVE)],
        Staking__ActiveEra={"index": 7, "start": None},
        Staking__ErasStakersOverview={(7, ALICE): {"total": 5}, (6, BOB): {"total": 99}},
        Staking__ErasStakers={(7, BOB): {"total": 4}, (7, ALICE): {"total": 99}},
        Staking__Bonded={CAROL: named(DAVE)},
        Staking__Ledger={DAVE: {"total": 99, "active": 3}},
    )
    assert [one.stake for one in read(chain)] == [5, 4, 3, 0]


def test_an_era_that_has_not_begun_gives_no_stake() -> None:
    session = [named(ALICE)]
    none = Words(Session__Validators=session, Staking__ActiveEra=None, Staking__ErasStakers={})
    current = Words(Session__Validators=session, Staking__CurrentEra=2, Staking__ErasStakers={(2, ALICE): {"total": 8}})
    assert (read(none)[0].stake, read(current)[0].stake) == (0, 8)


def test_the_least_of_a_validators_scores_is_its_reputation() -> None:
    chain = Words(Staking__Validators={ALICE: {"stake": 5, **SCORES}}, Session__Validators=[named(BOB)])
    assert read(chain) == [Found(ALICE, 5, reputation=60.0)]


@pytest.mark.parametrize("told, taken", [(101, 60.0), (255, 60.0), (-5, 0.0), (0, 0.0)])
def test_a_score_outside_its_range_is_bounded(told: int, taken: float) -> None:
    chain = Words(Staking__Validators={ALICE: {"stake": 5, **SCORES, "quality_score": told}})
    assert read(chain)[0].reputation == taken


def test_preferences_of_ordinary_staking_are_not_taken_for_scores() -> None:
    chain = Words(Staking__Validators={ALICE: {"commission": 5, "blocked": False}}, Session__Validators=[named(BOB)])
    assert choose(chain, "").name == "session"


def test_a_metadata_map_adds_addresses_to_the_sessions_set() -> None:
    chain = Words(
        Session__Validators=[named(ALICE), named(BOB), named(CAROL)],
        Staking__ValidatorMetadata={
            ALICE: {"network_address": "/ip4/192.0.2.1/tcp/9090", "public_key": "0x00", "stake": 9},
            BOB: {"network_address": "anywhere", "public_key": "0x00", "stake": 8},
            DAVE: {"network_address": "192.0.2.4:9090", "public_key": "0x00", "stake": 7},
        },
    )
    assert read(chain) == [Found(ALICE, 9, endpoints=(Endpoint("192.0.2.1", 9090),)), Found(BOB, 8), Found(CAROL)]


def test_a_metadata_map_alone_names_everybody() -> None:
    entry = {"network_address": "192.0.2.4:9090", "public_key": "0x00", "stake": 7}
    assert read(Words(Staking__ValidatorMetadata={DAVE: entry})) == [
        Found(DAVE, 7, endpoints=(Endpoint("192.0.2.4", 9090),))
    ]


@pytest.mark.parametrize("item", ["CandidateList", "Candidates"])
def test_collators_are_the_invulnerable_and_the_candidates(item: str) -> None:
    candidates = [{"who": named(BOB), "deposit": 5}, {"who": named(CAROL), "deposit": 4}]
    chain = Words(
        CollatorSelection__Invulnerables=[named(ALICE)],
        Session__Validators=[named(ALICE), named(BOB)],
        **{f"CollatorSelection__{item}": candidates},
    )
    assert read(chain, "collators") == [Found(ALICE), Found(BOB, 5), Found(CAROL, 4, False)]


def test_the_new_chain_in_the_design_document_works() -> None:
    section = (
        (Path(__file__).parents[2] / "DESIGN.md").read_text(encoding="utf-8").partition("## A new chain in 40 lines")[2]
    )
    code = section.partition("```python\n")[2].partition("```")[0]
    assert code.count("\n") <= 40
    written: dict[str, Any] = {}
    exec(compile(code, "DESIGN.md", "exec"), written)
    reader = written["GuildReader"]()
    chain = Words(Guild__Members={ALICE: {"bond": 5, "rating": 875, "paused": False}})
    assert reader.suits(chain)
    assert not reader.suits(Words(Guild__Members={ALICE: {"since": 5}}))
    assert read_all(reader, chain) == [Found(ALICE, 5, True, 87.5)]


def test_a_reader_is_a_small_file() -> None:
    """What the document promises holds for those that are built in."""
    folder = Path(port.__file__).parent
    helpers = {"__init__.py", "port.py", "stakes.py"}
    lines = {path.name: path.read_text().count("\n") for path in folder.glob("*.py") if path.name not in helpers}
    assert {name: count for name, count in lines.items() if count > 40} == {}


# ---------------------------------------------------------------- the choice


def test_the_setting_chooses_a_reader_or_leaves_it_to_the_metadata() -> None:
    assert [reader_name("substrate"), *(reader_name(f"substrate:{one.name}") for one in READERS)] == [
        *("", "belize", "metadata", "session", "collators")
    ]


@pytest.mark.parametrize("setting", ["substrate:", "substrate:babe", "bitcoin", "", "substrate:session:x"])
def test_a_kind_of_chain_that_nobody_reads_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"must be a file or one of substrate, substrate:belize, .*, not '.*'$"):
        reader_name(setting)


def test_an_unknown_pallet_is_answered_with_what_the_chain_offers() -> None:
    with pytest.raises(ChainError) as refused:
        choose(Words(Session__Validators=[]), "belize")
    assert str(refused.value) == (
        "the chain has no Staking.Validators with stake and scores to read validators from: "
        "of what zmesh can read, it offers Session.Validators (substrate:session)"
    )
    with pytest.raises(ChainError, match=r"it offers nothing$"):
        choose(Words(Timestamp__Now=5), "")


# ---------------------------------------------------------------- malformed answers


@pytest.mark.parametrize(
    "chain, reason",
    [
        (Words(Session__Validators=[named(ALICE), named(ALICE)]), "names the account 0x0000.* twice"),
        (Words(Session__Validators=[], Session__QueuedKeys=[[named(BOB), {}], [named(BOB), {}]]), "twice"),
        (Words(Session__Validators=None), "gives None where a list of accounts is expected"),
        (Words(Session__Validators=["0x" + "11" * 20]), "an account of 20 bytes"),
        (Words(Session__Validators=["nobody"]), "gives 'nobody' where an account is expected"),
        (Words(Session__Validators=[5]), "gives 5 where an account is expected"),
        (Words(Staking__Validators={ALICE: {"stake": 2**128, **SCORES}}), "must be a whole number of at most 128 bits"),
        (Words(Staking__Validators={ALICE: {"stake": -1, **SCORES}}), "must be a whole number of at most 128 bits"),
        (Words(Staking__Validators={ALICE: {"stake": 1, **SCORES, "quality_score": None}}), "gives the score None"),
        (
            Words(Staking__Validators={ALICE: {"stake": 1, **SCORES}, b"x": {"stake": 1, **SCORES}}),
            "account of 1 bytes",
        ),
        (Words(CollatorSelection__Invulnerables=[], CollatorSelection__Candidates=[5]), "a struct with the field who"),
        (
            Words(
                CollatorSelection__Invulnerables=[named(ALICE)],
                CollatorSelection__Candidates=[{"who": named(ALICE), "deposit": 1}],
            ),
            "twice",
        ),
    ],
)
def test_a_malformed_answer_is_refused_with_its_reason(chain: Words, reason: str) -> None:
    with pytest.raises(ChainError, match=reason):
        read(chain)


def test_more_accounts_than_any_chain_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "MAX_ACCOUNTS", 2)
    with pytest.raises(ChainError, match="names 3 accounts: there must be at most 2"):
        read(Words(Session__Validators=[named(one) for one in (ALICE, BOB, CAROL)]))


# ---------------------------------------------------------------- real SCALE


def asked(node: Node, name: str = "") -> tuple[list[Found], SubstrateChain]:
    """What is read from the node by the library that reads real ones."""
    with served(node) as url:
        chain = SubstrateChain(url, 5.0, lambda: None)
        chain.at(chain.finalized())
        return read_all(choose(chain, name), chain), chain


def test_belizechains_map_is_read_from_its_own_scale_bytes() -> None:
    """No public runtime has this map: the bytes are made from the types that BelizeChain declares."""
    node = Node({"Staking.Validators": (ACCOUNT, VALIDATOR), "Session.Validators": ACCOUNTS})
    node.put("Staking.Validators", {1: validator(1, 5 * 10**30, quality_score=40), 2: validator(2, honesty_score=200)})
    found, _ = asked(node)
    assert sorted(found) == [Found(account(1), 5 * 10**30, reputation=40.0), Found(account(2), 0, reputation=100.0)]


def test_a_metadata_map_is_read_from_scale_bytes() -> None:
    node = Node({"Session.Validators": ACCOUNTS, "Staking.ValidatorMetadata": (ACCOUNT, METADATA)})
    node.put("Session.Validators", [named(ALICE), named(BOB)])
    there = {"network_address": "/dns/a.org/tcp/1", "public_key": named(CAROL), "stake": 3}
    node.put("Staking.ValidatorMetadata", {0: there})
    assert asked(node)[0] == [Found(ALICE, 3, endpoints=(Endpoint("a.org", 1),)), Found(BOB)]


def test_a_thousand_entries_are_read_in_pages_and_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    node = Node({"Staking.Validators": (ACCOUNT, VALIDATOR)})
    node.put("Staking.Validators", {number: validator(number, number) for number in range(1100)})
    with served(node) as url:
        chain = SubstrateChain(url, 5.0, lambda: None)
        chain.at(chain.finalized())
        reader = choose(chain, "")
        first = read_all(reader, chain)
        node.asked.clear()
        chain.at(chain.finalized())
        config = chain._client.runtime_config
        decode = Mock(wraps=config.create_scale_object)
        monkeypatch.setattr(config, "create_scale_object", decode)
        again = read_all(reader, chain)
    assert {one.id: one.stake for one in first} == {account(number): number for number in range(1100)}
    assert again == first
    # The same bytes are not decoded a second time.
    assert f"scale_info::{VALIDATOR}" not in {call.args[0] for call in decode.call_args_list if call.args}
    # Three pages, and nothing for each account.
    assert (node.asked.count("state_getKeysPaged"), node.asked.count("state_queryStorageAt")) == (3, 3)


@pytest.mark.parametrize(
    "properties, constant, prefix",
    [
        ({"ss58Format": 77}, 5, 77),
        ({"ss58Format": 46}, 5, 5),
        ({"ss58Format": [1, 2]}, 5, 5),
        ({"ss58Format": -1}, None, 42),
        ({}, 16_384, 42),
        (None, None, 42),
    ],
)
def test_addresses_are_written_in_the_prefix_that_the_chain_says(properties: Any, constant: int, prefix: int) -> None:
    node = Node({"Session.Validators": ACCOUNTS}, constant)
    node.properties = properties
    node.put("Session.Validators", [named(ALICE)])
    with served(node) as url:
        chain = SubstrateChain(url, 5.0, lambda: None)
        chain.at(chain.finalized())
        assert chain.prefix() == prefix
        assert [to_ss58(one.id, prefix) for one in read_all(choose(chain, ""), chain)] == [address(0, prefix)]


def test_an_item_that_the_chain_lacks_is_said_by_its_name() -> None:
    node = Node({"Session.Validators": ACCOUNTS})
    node.put("Session.Validators", [])
    with served(node) as url:
        chain = SubstrateChain(url, 5.0, lambda: None)
        chain.at(chain.finalized())
        with pytest.raises(ChainError, match=r"^the chain has no Babe\.Epoch$"):
            chain.value("Babe", "Epoch")
        with pytest.raises(ChainError, match=r"^the chain has no Session\.Nothing$"):
            list(chain.entries("Session", "Nothing"))
