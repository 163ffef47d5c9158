"""PROTOCOL.md says what the code does: its tables, numbers, examples, links and the tests it cites."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest
import zmq

from zmesh import bootstrap, delegation, dialer, http_limits
from zmesh.core import bounds, gossip, intake, links, rates, reputation, seen, wants, wire
from zmesh.core.types import AckStatus, DropReason, MessageType
from zmesh.delegation import Scheme
from zmesh.handlers import introductions, questions, record
from zmesh.handlers.standing import Standing
from zmesh.http import STATUSES
from zmesh.identity import Identity
from zmesh.transports.front_door import DoorBounds
from zmesh.transports.sockets import SocketBounds, Sockets

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "PROTOCOL.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """What stands under a heading, up to the next one of the same or a higher level."""
    found = re.search(rf"^(#+) {re.escape(title)}[^\n]*\n(.*?)(?=^#{{1,6}} |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, f"PROTOCOL.md has no section {title}"
    return found[2]


def rows(text: str) -> list[list[str]]:
    """The cells of every row of every table, without heads and rules."""
    cells = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in text.split("\n") if line[:1] == "|"
    ]
    rules = [number for number, row in enumerate(cells) if set(row[0]) <= {"-"} and row[0]]
    return [row for number, row in enumerate(cells) if number not in rules and number + 1 not in rules]


def test_agreed_bounds_are_those_of_the_code() -> None:
    told = {name: int(value) for name, value, _ in rows(section("14.1 Agreed"))}
    derived = {"PAST_MS", "AHEAD_MS"}
    constants = {name for name in vars(bounds) if name.isupper()} - derived
    assert constants <= set(told)
    for name, value in told.items():
        assert value == getattr(bounds if name in constants else wire, name), name


def test_local_bounds_are_those_of_the_code() -> None:
    told = {name: float(value) for name, value, _ in rows(section("14.2 Local"))}

    defaults = bounds.Bounds()
    assert told == {field.name: float(getattr(defaults, field.name)) for field in fields(defaults)}


def test_numbers_fixed_in_the_code_are_those_of_the_code() -> None:
    told = dict(re.findall(r"`([A-Z_]+)` ([0-9.]+)", section("14.2 Local")))
    modules = (gossip, intake, links, rates, seen, wants)
    meant = {name: getattr(module, name) for module in modules for name in told if hasattr(module, name)}

    assert {name: float(value) for name, value in told.items()} == meant
    assert len(told) == 12


def test_every_drop_reason_is_explained_in_the_order_of_the_checks() -> None:
    assert [row[0] for row in rows(section("7.1 Drop reasons"))] == [reason.value for reason in DropReason]


def test_every_fault_is_explained_with_its_price() -> None:
    assert {row[0]: float(row[2]) for row in rows(section("7.2 Faults"))} == {
        fault.value: cost for fault, cost in reputation.COST.items()
    }


def test_drop_reasons_in_capitals_exist() -> None:
    known = {reason.name for reason in DropReason} | set(vars(wire)) | set(vars(bounds))
    known |= {"WANT_WINDOW", "LIST_COST", "MIN_TTL", "SPARE_TTL", "SETTLED", "SILENCE", "CAPITALS"}
    known |= {"HELLO_AGAIN", "HELLO_GAP", "AFTER_LEAVE", "HURRY", "CONTROL_UNIT", "AUTHOR_UNIT", "ZMQ_MAXMSGSIZE"}

    assert set(re.findall(r"`([A-Z][A-Z_]+)`", TEXT)) <= known


def test_kinds_have_their_numbers() -> None:
    numbers = re.findall(r"\| (\d+) \| ([a-zA-Z_]+) ", section("5.6 Kinds"))
    expected = {kind.value: code for kind, code in wire.KIND_CODES.items()}

    assert {name: int(number) for number, name in numbers} == expected | {"HELLO": 64, "ACK": 65}
    assert (wire.HELLO_CODE, wire.ACK_CODE) == (64, 65)
    assert all(f"**{kind.value}**" in section("12 Payloads") for kind in MessageType)


def test_frame_types_have_their_numbers() -> None:
    told = {name: int(code, 16) for code, name, _ in rows(section("5.1 Messages"))}

    assert told == {name: getattr(wire, name) for name in told}
    assert set(told) == {"ENVELOPE", "IHAVE", "IWANT", "DIGEST", "LIST", "LEAVE", "BATCH", "BLOB"}


def test_fields_stand_in_wire_order() -> None:
    assert [row[1] for row in rows(section("5.2 Body"))] == [name.removesuffix("_ms") for name in wire.Body._fields]
    assert [row[1] for row in rows(section("11 Peer records"))] == [
        name.removesuffix("_ms") for name, _ in record._LAYOUT
    ]


def test_a_delegation_is_spelt_out_as_it_is() -> None:
    told = section("11.1 Delegations")
    fields, reasons = ([row for row in rows(told) if row[0].isdigit() is digits] for digits in (True, False))
    vectors = json.loads((ROOT / "tests/vectors/delegations.json").read_text(encoding="utf-8"))

    assert [row[1] for row in fields] == ["version", *vectors[0]["fields"], "account_signature", "key_signature"]
    assert {row[0] for row in reasons} == set(Standing) - {Standing.ADMITTED}
    assert {row[0] for row in reasons if row[2] == "yes"} == {standing for standing in Standing if standing.is_false}
    (written,) = re.findall(r"^```\n(zmesh delegation 1.*?)\n```", told, re.MULTILINE | re.DOTALL)
    assert written in [vector["text"] for vector in vectors if vector["fields"]["scheme"] == Scheme.SR25519]
    assert f"at most {delegation.MAX_DAYS} days" in told
    assert f"{delegation.USUAL_DAYS} days are usual" in told
    assert f"at most {bounds.MAX_DELEGATION} bytes" in told


def test_answers_have_their_numbers() -> None:
    told = re.search(r"`status` \| int: ([^|]+) \|", section("10.1 ACK"))
    assert told is not None

    assert told[1] == ", ".join(f"{status.value} {status.name.lower()}" for status in AckStatus)


def test_what_becomes_of_a_posted_record_has_its_status() -> None:
    told = {
        name: int(row[1])
        for row in rows(section("4.6 HTTP"))
        if row[1].isdigit() or row[1].partition(",")[0].isdigit()
        for name in row[0].replace("`", "").split(", ")
    }
    assert told == {taken.value: status for taken, status in STATUSES.items()}


def test_the_numbers_of_dialling_bootstrap_and_introducing_are_those_of_the_code() -> None:
    every = 1 / introductions.INTRODUCED_RATE
    sentences = (
        f"`GET /record` within {dialer.FETCH_SECONDS:g} s",
        f"at most {dialer.MAX_ADDRESSES} of one name",
        f"remembered is bounded ({dialer.MAX_SILENT})",
        f"post {http_limits.POST_BURST:g} times at once and {http_limits.POST_RATE:g} times a second",
        f"all together {http_limits.POST_BURST_OF_ALL:g} and {http_limits.POST_RATE_OF_ALL:g} times",
        f"ask otherwise {http_limits.GET_BURST:g} times at once and {http_limits.GET_RATE:g} times a second",
        f"all together {http_limits.GET_BURST_OF_ALL:g} and {http_limits.GET_RATE_OF_ALL:g} times",
        f"that sends nothing for {DoorBounds().first_byte:g} s is closed",
        f"may connect {DoorBounds().burst:g} times at once and {DoorBounds().rate:g} times a second",
        f"has {DoorBounds().http_time:g} s for request and answer",
        f"closed if it sends more than {DoorBounds().http_bytes // 1024} KiB",
        f"introduce {introductions.INTRODUCER_BURST:g} at once and {introductions.INTRODUCER_RATE:g} a second",
        f"introduced {introductions.INTRODUCED_BURST:g} times at once and once in {every:g} s",
        f"after {bootstrap.FIRST_PAUSE:g} s, doubled up to {bootstrap.LONGEST_PAUSE:g} s, "
        f"+-{100 * bootstrap.JITTER:g} %",
        f"no link has been live for {bootstrap.LONELY:g} s",
        f"at most {bootstrap.MAX_PER_NAME} addresses of one",
        f"is asked {bootstrap.MAX_ASKS} times",
        f"within {questions.ANSWERED_WITHIN:g} s of one",
        f"at most {questions.MAX_FOLLOW_UPS} times",
    )
    told = " ".join(TEXT.split())
    assert [sentence for sentence in sentences if sentence not in told] == []


def test_options_of_sockets_are_those_that_are_set() -> None:
    told = {
        line[:22].strip(): re.findall(r"([A-Z_]{5,}) (\d+|zmesh)", line[22:])
        for line in re.sub(r"\n {23}", " | ", section("4.3 Rules")).splitlines()
        if re.match(r" [A-Za-z ]{21} [A-Z]", line)
    }
    assert list(told) == ["every socket", "bound", "ROUTER", "XPUB", "DEALER", "dialled"]
    assert sum(map(len, told.values())) == 21
    made = Sockets(Identity.from_seed(bytes(32)), SocketBounds())
    router, publisher = (made.bound(kind, "127.0.0.1", 0, "") for kind in (zmq.ROUTER, zmq.XPUB))
    dealer, subscriber = (made.as_client(one("127.0.0.1"), bytes(32)) for one in (made.dealer, made.subscriber))
    try:
        for socket, kinds in (
            (router.socket, ("every socket", "bound", "ROUTER")),
            (publisher.socket, ("every socket", "bound", "XPUB")),
            (dealer, ("every socket", "DEALER", "dialled")),
            (subscriber, ("every socket", "dialled")),
        ):
            meant = dict(option for kind in kinds for option in told[kind])
            # ZeroMQ does not tell what these were set to.
            readable = {name: value for name, value in meant.items() if not name.startswith(("XPUB_", "ROUTER_"))}
            found = {name: socket.get(getattr(zmq, name)) for name in readable}
            assert {
                name: one.decode() if isinstance(one, bytes) else str(one) for name, one in found.items()
            } == readable
    finally:
        for bound in (router, publisher):
            bound.close()
        dealer.close()
        subscriber.close()
        made.context.term()


def test_tags_are_those_of_the_code() -> None:
    for tag in (wire.SIGN_TAG, wire.NETWORK_TAG, record.SIGN_TAG, delegation.SIGN_TAG):
        assert f'"{tag.decode()}"' in TEXT


def test_the_written_out_envelope_is_the_first_vector() -> None:
    vector = json.loads((ROOT / "tests/vectors/envelopes.json").read_text(encoding="utf-8"))[0]
    told = re.search(r"^(frame 2.*?)^frame 3", section("5.8 An envelope"), re.MULTILINE | re.DOTALL)
    assert told is not None
    spelt = "".join(line[10:50].strip().replace(" ", "") for line in told[1].splitlines())
    pattern = re.escape(spelt).replace(re.escape("..."), "[0-9a-f]*")

    assert re.fullmatch(pattern, vector["body"]), spelt
    assert vector["id"] in section("5.8 An envelope")


CITED = re.findall(r"`((?:unit|property|simulation|contract|integration|vectors)/\w+\.py)::(\w+)`", TEXT)


@cache
def names_in(path: str) -> set[str]:
    return set(
        re.findall(r"^(?:async )?def (test_\w+)", (ROOT / "tests" / path).read_text(encoding="utf-8"), re.MULTILINE)
    )


@pytest.mark.parametrize("path, name", CITED)
def test_every_cited_test_exists(path: str, name: str) -> None:
    assert name in names_in(path)


def test_every_attack_has_a_test() -> None:
    attacks = rows(section("16 Attacks"))

    assert len(attacks) == len(CITED) > 30
    assert all("::" in row[-1] for row in attacks)


def test_every_link_leads_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors


def test_every_vector_file_is_named() -> None:
    files = {path.name for path in (ROOT / "tests/vectors").glob("*.json")}

    assert {row[0] for row in rows(section("18 Test vectors"))} == files
