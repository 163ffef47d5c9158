"""Delegations: what is signed, by whom it is checked, and that nothing else decodes."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial

import msgpack
import pytest
import sr25519

from tests.unit.delegation_support import BEGIN, END, GENESIS, NETWORK, Signer, delegation, signer
from zmesh.core.bounds import MAX_DELEGATION
from zmesh.core.errors import ConfigError, WireError
from zmesh.core.types import DropReason
from zmesh.core.wire import network_id
from zmesh.delegation import (
    DAY,
    MAX_DAYS,
    MAX_TEXT,
    Delegation,
    Scheme,
    Statement,
    decode_delegation,
    parse_text,
    recover_public,
    wrap,
)
from zmesh.handlers.record import Description, decode_record, encode_record
from zmesh.identity import Identity

NODE, OTHER = (Identity.from_seed(bytes([number]) * 32) for number in (101, 102))
SCHEMES = pytest.mark.parametrize("scheme", list(Scheme), ids=lambda scheme: scheme.name.lower())
STATEMENT = Statement(NETWORK, GENESIS, signer().account, NODE.public, BEGIN, END, 7)


def changed(made: Delegation, **fields: object) -> Delegation:
    """The delegation with other fields in its statement, and the signatures it had."""
    return replace(made, statement=made.statement._replace(**fields))  # type: ignore[arg-type]


def test_the_text_is_eight_lines_that_a_person_can_read() -> None:
    assert STATEMENT.text.decode("ascii").split("\n") == [
        "zmesh delegation 1",
        "network: belize",
        f"genesis: {'45' * 32}",
        f"account: {signer().account.hex()}",
        f"mesh key: {NODE.public.hex()}",
        "not before: 1700000000",
        "not after: 1702592000",
        "sequence: 7",
    ]
    assert STATEMENT.network_id == network_id(NETWORK, GENESIS)


def test_names_in_other_scripts_are_written_as_ascii_and_no_two_alike() -> None:
    texts = {name: STATEMENT._replace(network=name).text for name in ("bélize", "a b", "a%20b", "a\nsequence: 9", "a")}

    assert len(set(texts.values())) == len(texts)
    assert texts["bélize"].split(b"\n")[1] == b"network: b%C3%A9lize"
    for name, text in texts.items():
        assert text.count(b"\n") == 7
        assert parse_text(text).network == name


@SCHEMES
@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
def test_what_both_signed_holds_and_travels(scheme: Scheme, wrapped: bool) -> None:
    made = delegation(signer(1, scheme), NODE, wrapped=wrapped)

    again = decode_delegation(made.encoded)
    assert again == made
    assert (again.held_by_key(), again.signed_by_account()) == (True, True)
    assert (again.scheme, again.wrapped, again.statement.key) == (scheme, wrapped, NODE.public)


@SCHEMES
def test_every_field_is_signed_by_both(scheme: Scheme) -> None:
    made = delegation(signer(1, scheme), NODE)
    for fields in (
        {"network": "belize2"},
        {"genesis": b""},
        {"not_before": BEGIN + 1},
        {"not_after": END + 1},
        {"sequence": 2},
    ):
        assert not changed(made, **fields).held_by_key()
        assert not changed(made, **fields).signed_by_account()
    assert not changed(made, key=OTHER.public).held_by_key()
    assert not changed(made, account=signer(2, scheme).account).signed_by_account()
    assert not replace(made, wrapped=True).signed_by_account()


@SCHEMES
def test_a_key_that_is_not_held_cannot_be_claimed(scheme: Scheme) -> None:
    """The account signs for a key of somebody else, and puts a signature of its own beside it."""
    by = signer(1, scheme)
    claimed = delegation(by, OTHER, key=NODE.public)

    assert claimed.signed_by_account()
    assert not claimed.held_by_key()


def test_the_key_agrees_to_one_account_signature_alone() -> None:
    """sr25519 draws a random number: another signature over the text is another claim to agree to."""
    first, second = delegation(signer(), NODE), delegation(signer(), NODE)

    assert first.statement == second.statement
    assert first.account_signature != second.account_signature
    assert not replace(first, account_signature=second.account_signature).held_by_key()


@pytest.mark.parametrize("junk", [bytes(64), b"\xff" * 64, bytes(63) + b"\x80"], ids=["zeros", "ones", "marked"])
@SCHEMES
def test_junk_signatures_and_keys_hold_nothing_and_raise_nothing(scheme: Scheme, junk: bytes) -> None:
    made = delegation(signer(1, scheme), NODE)

    assert not replace(made, account_signature=junk).signed_by_account()
    assert not replace(made, key_signature=junk).held_by_key()
    for account in (bytes(32), b"\xff" * 32):
        assert not changed(made, account=account).signed_by_account()
        assert not changed(made, key=account).held_by_key()
    if scheme is Scheme.ECDSA:
        for public in (bytes(33), b"\x02" + b"\xff" * 32, signer(2, scheme).public):
            assert not replace(made, public=public).signed_by_account()


def test_nobody_signs_as_the_neutral_element() -> None:
    """The account of 32 zero bytes has the secret zero, which everybody knows, and schnorrkel itself takes it."""
    zero = Signer(Scheme.SR25519, bytes(32), partial(sr25519.sign, (bytes(32), bytes(64))))
    forged = delegation(zero, NODE)

    assert sr25519.verify(forged.account_signature, forged.statement.text, bytes(32))
    assert forged.held_by_key()
    assert not forged.signed_by_account()


def test_an_ecdsa_account_is_recovered_from_its_signature() -> None:
    by = signer(1, Scheme.ECDSA)
    made = delegation(by, NODE)
    text = made.statement.text

    assert recover_public(by.account, text, made.account_signature) == by.public
    assert recover_public(by.account, wrap(text), made.account_signature) is None
    for junk in (bytes(64), b"\xff" * 64, b"\x01" * 64):
        assert recover_public(by.account, text, junk) is None


# ---------------------------------------------------------------- bytes


def refusal(encoded: bytes) -> str | None:
    try:
        decode_delegation(encoded)
    except WireError as error:
        assert error.reason is DropReason.MALFORMED
        return error.detail
    return None


@SCHEMES
def test_the_longest_one_fits(scheme: Scheme) -> None:
    most = 2**63 - 1
    begin = most - MAX_DAYS * DAY
    made = delegation(signer(1, scheme), NODE, most, network="é" * 32, not_before=begin, not_after=most)

    assert len(made.encoded) <= 366 < MAX_DELEGATION
    assert len(made.statement.text) == 536 < MAX_TEXT
    assert decode_delegation(made.encoded) == made


@SCHEMES
def test_one_cut_short_or_with_more_behind_is_malformed(scheme: Scheme) -> None:
    encoded = delegation(signer(1, scheme), NODE).encoded

    assert None not in [refusal(encoded[:length]) for length in range(len(encoded))]
    for more in (b"\x00", b"\xc0", encoded, bytes(MAX_DELEGATION)):
        assert refusal(encoded + more) is not None


@pytest.mark.parametrize(
    "position, value",
    [
        (0, 2),
        (0, True),
        (1, 3),
        (1, -1),
        (1, int(Scheme.ECDSA)),
        (2, 0),
        (3, ""),
        (3, "x" * 65),
        (3, b"belize"),
        (4, bytes(31)),
        (5, bytes(33)),
        (6, bytes(31)),
        (7, -1),
        (7, END),
        (7, float(BEGIN)),
        (8, BEGIN),
        (8, BEGIN + MAX_DAYS * DAY + 1),
        (8, 2**63),
        (9, -1),
        (9, 2**63),
        (10, bytes(33)),
        (11, bytes(65)),
        (12, bytes(63)),
        (12, None),
    ],
)
def test_a_field_out_of_bounds_is_malformed(position: int, value: object) -> None:
    fields = msgpack.unpackb(delegation(signer(), NODE).encoded)
    assert refusal(msgpack.packb(fields)) is None

    fields[position] = value
    assert refusal(msgpack.packb(fields)) is not None


def test_fields_cannot_be_added() -> None:
    """No signature covers them: anybody could make further versions of a delegation."""
    fields = msgpack.unpackb(delegation(signer(), NODE).encoded)

    assert refusal(msgpack.packb([*fields, None])) is not None
    assert refusal(msgpack.packb(fields[:-1])) is not None
    assert refusal(msgpack.packb(dict(enumerate(fields)))) is not None


# ---------------------------------------------------------------- text


def test_a_text_is_read_as_it_was_written() -> None:
    assert parse_text(STATEMENT.text) == STATEMENT
    assert parse_text(STATEMENT.text + b"\n") == STATEMENT
    assert parse_text(STATEMENT._replace(genesis=b"").text) == STATEMENT._replace(genesis=b"")


@pytest.mark.parametrize(
    "before, after",
    [
        (b"zmesh delegation 1", b"zmesh delegation 2"),
        (b"network: belize", b"network:belize"),
        (b"network: belize", b"network: b%65lize"),
        (b"network: belize", b"network: b\xc3\xa9lize"),
        (b"genesis: 45", b"genesis: "),
        (b"sequence: 7", b"sequence: 07"),
        (b"sequence: 7", b"sequence: 7\r"),
        (b"sequence: 7", b"sequence: 7 "),
        (b"sequence: 7", b"sequence: seven"),
        (b"sequence: 7", b"sequence: 7\n\n"),
        (b"not before", b"valid from"),
        (b"\n", b"\r\n"),
    ],
)
def test_a_text_that_is_not_byte_for_byte_right_is_refused(before: bytes, after: bytes) -> None:
    assert before in STATEMENT.text
    with pytest.raises(
        ConfigError, match="must be the text of a delegation, as `zmesh key delegate --print` writes it"
    ):
        parse_text(STATEMENT.text.replace(before, after))


def test_a_text_that_nobody_may_sign_is_refused_with_the_reason() -> None:
    for statement, why in (
        (STATEMENT._replace(not_after=BEGIN), "ends before it begins"),
        (STATEMENT._replace(not_after=BEGIN + MAX_DAYS * DAY + 1), "more than 366 days"),
        (STATEMENT._replace(sequence=2**63), "its sequence is not from 0 to"),
        (STATEMENT._replace(network="x" * 65), "is not a name of 1 to 64 bytes"),
    ):
        with pytest.raises(ConfigError, match=why):
            parse_text(statement.text)


def test_checking_signatures_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Not even through the libraries that do it."""
    caplog.set_level(logging.DEBUG)
    for scheme in Scheme:
        made = delegation(signer(1, scheme), NODE)
        assert made.signed_by_account()
        assert not replace(made, account_signature=bytes(64)).signed_by_account()
    assert caplog.records == []


# ---------------------------------------------------------------- in a record


def test_a_record_carries_up_to_512_opaque_bytes_or_none() -> None:
    for carried in (None, b"\x00", bytes(MAX_DELEGATION)):
        described = Description("node", delegation=carried)
        assert encode_record(described, bytes(32), NODE.public, 1, 0, NODE.sign).delegation == carried
    for refused in (b"", bytes(MAX_DELEGATION + 1), "text", 1):
        with pytest.raises(ConfigError, match="own peer record: delegation"):
            Description("node", delegation=refused)  # type: ignore[arg-type]


@pytest.mark.parametrize("slot", [b"", bytes(MAX_DELEGATION + 1), "text", 1, False, [b"x"], {}])
def test_a_record_with_anything_else_in_its_slot_is_malformed(slot: object) -> None:
    whole = encode_record(Description("node"), bytes(32), NODE.public, 1, 0, NODE.sign).encoded
    fields = msgpack.unpackb(whole[:-64])
    fields[11] = slot
    with pytest.raises(WireError, match="delegation is out of bounds"):
        decode_record(msgpack.packb(fields) + whole[-64:])
