"""The registry file under arbitrary content: a roster, or one declared error of one line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zmesh.core.errors import ConfigError
from zmesh.identity import Identity
from zmesh.registry.roster_file import parse_roster

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
