"""The registry file under arbitrary content: a roster, or one declared error of one line."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scalecodec.utils.ss58 import ss58_encode

from zmesh.core.errors import ConfigError
from zmesh.identity import Identity
from zmesh.registry.roster_file import parse_roster
from zmesh.ss58 import _BASE58

KEYS = [Identity.from_seed(bytes([n]) * 32).public.hex() for n in range(3)]
VALUES = st.one_of(
    st.sampled_from(["3", "-1", "true", "[]", "[[]]", "{}", '""', "1.5", "nan", "1979-05-27", '["/dns/a/tcp/1"]']),
    st.sampled_from([f'"{key}"' for key in KEYS]),
    st.sampled_from(['"/ip4/1.2.3.4/tcp/9090"', '"/ip6/::1/tcp/1"', '"validator"', '"other"']),
    st.text(alphabet=st.characters(codec="ascii"), max_size=10).map(lambda text: f"'{text}'"),
)
FIELDS = st.sampled_from(["peer_id", "account", "public_key", "address", "stake", "capabilities", "is_validator", "x"])
ENTRIES = st.lists(st.dictionaries(FIELDS, VALUES, max_size=8), max_size=3)


def accepts_or_says_why(content: bytes) -> None:
    try:
        roster = parse_roster(content, "f")
    except ConfigError as refusal:
        assert str(refusal).startswith("f")
        assert "\n" not in str(refusal)
    else:
        assert len(roster) > 0


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_a_roster_or_one_sentence(content: bytes) -> None:
    accepts_or_says_why(content)


@given(ENTRIES)
def test_nearly_right_entries_are_a_roster_or_one_sentence(entries: list[dict[str, str]]) -> None:
    lines = ["[[validator]]\n" + "".join(f"{name} = {value}\n" for name, value in entry.items()) for entry in entries]
    accepts_or_says_why("".join(lines).encode())


def with_account(account: str) -> bytes:
    lines = ["[[validator]]", 'peer_id = "a"', f'account = "{account}"', f'public_key = "{KEYS[0]}"', "address = []"]
    return "\n".join(lines).encode()


PREFIXES = st.integers(0, 16_383).filter(lambda prefix: prefix not in (46, 47))  # reserved


@given(st.binary(min_size=32, max_size=32), PREFIXES)
def test_an_account_of_any_chain_is_taken(account: bytes, prefix: int) -> None:
    written = str(ss58_encode(account, prefix))
    (member,) = parse_roster(with_account(written), "f").members
    assert member.account == written


@given(st.binary(min_size=32, max_size=32), PREFIXES.filter(bool), st.integers(0, 48), st.sampled_from(_BASE58))
def test_an_account_with_one_letter_wrong_is_refused(account: bytes, prefix: int, at: int, letter: str) -> None:
    written = str(ss58_encode(account, prefix))
    at %= len(written)
    assume(written[at] != letter)
    with pytest.raises(
        ConfigError, match=r"^f, validator 1: account .* looks like SS58, but its checksum is wrong: copy it again"
    ):
        parse_roster(with_account(written[:at] + letter + written[at + 1 :]), "f")


@pytest.mark.parametrize("account", ["account of a", "peer_001", KEYS[0], "0x" + KEYS[0], "l" * 48, "5Grw"])
def test_an_account_that_is_a_name_or_a_key_is_taken_where_there_is_no_chain(account: str) -> None:
    (member,) = parse_roster(with_account(account), "f").members
    assert member.account == account
