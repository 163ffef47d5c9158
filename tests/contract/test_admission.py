"""Who may connect: the table, and the answers to ZAP whatever is asked."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmesh.identity import Identity, curve_image
from zmesh.transports.admission import Admission

FRIEND = Identity(bytes(31) + b"\x01")
OWNER = Identity(bytes(31) + b"\x02")
REQUEST = (b"1.0", b"7", b"zmesh", b"127.0.0.1", b"", b"CURVE", FRIEND.curve_public)


def admission(*keys: bytes) -> tuple[Admission, Counter[str]]:
    """A table with these keys, and what it counted."""
    counters: Counter[str] = Counter()
    table = Admission(OWNER, counters)
    table.replace(frozenset(keys))
    return table, counters


def test_an_admitted_key_is_named() -> None:
    table, counters = admission(FRIEND.public)
    assert table.answer(REQUEST) == (b"1.0", b"7", b"200", b"OK", FRIEND.public.hex().encode(), b"")
    assert table.by_user_id == {FRIEND.public.hex(): FRIEND.public}
    assert counters == {}


def test_a_stranger_is_refused() -> None:
    table, counters = admission()
    assert table.answer(REQUEST) == (b"1.0", b"7", b"400", b"not admitted", b"", b"")
    assert counters == {"zap_stranger": 1}


@pytest.mark.parametrize(
    "index, value",
    [
        (0, b"2.0"),
        (2, b"another"),
        (2, b""),
        (5, b"NULL"),
        (5, b"PLAIN"),
        (6, FRIEND.curve_public[:31]),
        (6, FRIEND.curve_public + b"x"),
    ],
)
def test_another_kind_of_request_is_refused(index: int, value: bytes) -> None:
    table, counters = admission(FRIEND.public)
    request = [*REQUEST[:index], value, *REQUEST[index + 1 :]]
    assert table.answer(request) == (b"1.0", b"7", b"400", b"not admitted", b"", b"")
    assert counters == {"zap_malformed": 1}


@given(st.lists(st.binary(max_size=300), max_size=10))
def test_whatever_is_asked_is_answered(request: list[bytes]) -> None:
    table, counters = admission(FRIEND.public)
    answer = table.answer(request)
    assert len(answer) == 6
    assert answer[2:] == (b"400", b"not admitted", b"", b"")
    assert all(len(frame) <= 255 for frame in answer)
    assert counters.total() == 1


def test_the_table_is_replaced_whole() -> None:
    table, _ = admission(FRIEND.public)
    other = Identity(bytes(31) + b"\x03")
    assert table.replace(frozenset({other.public})) == {FRIEND.public}
    assert FRIEND.public not in table
    assert other.public in table
    assert table.image(other.public) == curve_image(other.public)
    assert table.answer(REQUEST)[2] == b"400"
    assert table.replace(frozenset({other.public})) == frozenset()


def test_of_two_keys_with_one_image_the_one_admitted_first_stays() -> None:
    twin = FRIEND.public[:31] + bytes([FRIEND.public[31] ^ 0x80])
    assert curve_image(twin) == FRIEND.curve_public
    table, counters = admission(twin)
    both = frozenset({twin, FRIEND.public})
    table.replace(both)
    table.replace(both)
    assert FRIEND.public not in table
    assert table.answer(REQUEST)[4] == twin.hex().encode()
    assert counters == {"image_collision": 1}
    assert table.replace(frozenset({FRIEND.public})) == {twin}
    assert table.answer(REQUEST)[4] == FRIEND.public.hex().encode()


def test_of_two_new_keys_with_one_image_the_same_one_stays_always() -> None:
    twin = FRIEND.public[:31] + bytes([FRIEND.public[31] ^ 0x80])
    table, counters = admission(twin, FRIEND.public)
    assert [key for key in (twin, FRIEND.public) if key in table] == [min(twin, FRIEND.public)]
    assert counters == {"image_collision": 1}


@pytest.mark.parametrize("key", [b"", bytes(32), b"\x01" + bytes(31), b"\xff" * 32, bytes(33)])
def test_what_is_no_key_is_refused(key: bytes) -> None:
    """The identity point and others of small order among them: their secret is everybody's."""
    table, counters = admission(key)
    assert table.by_user_id == {}
    assert counters == {"key_unusable": 1}
