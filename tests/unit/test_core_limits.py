"""Token buckets and the timers: how much at once, and what is due when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.core_support import NOON, later
from zmesh.core.limits import MAX_NAMES, Limits, TokenBucket, machine
from zmesh.core.now import Now
from zmesh.core.timers import NEVER, Timers


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    bucket = TokenBucket(rate=2.0, burst=3.0)

    assert [bucket.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(0.5), bucket.take(0.5)] == [True, False]
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False], "no more than a burst is saved up"


@pytest.mark.parametrize("rate", [0.0, 2.0])
def test_a_bucket_is_full_whenever_it_is_first_asked(rate: float) -> None:
    for first in (-7.0, 0.0, 1e9):
        bucket = TokenBucket(rate, burst=2.0)
        assert bucket.has(first, 2.0)
        assert [bucket.take(first) for _ in range(3)] == [True, True, False]
        assert TokenBucket(rate, burst=2.0).owe(first, 1.0) == 0.0


def test_asking_costs_nothing_and_what_is_refused_is_not_taken() -> None:
    bucket = TokenBucket(rate=1.0, burst=10.0)

    assert all(bucket.has(0.0, 10.0) for _ in range(100))
    assert not bucket.take(0.0, 11.0)
    assert bucket.take(0.0, 10.0)


@given(st.lists(st.floats(0, 5), max_size=60), st.floats(0.1, 50), st.floats(1, 50))
def test_no_order_of_takes_gets_more_than_rate_and_burst(gaps: list[float], rate: float, burst: float) -> None:
    bucket = TokenBucket(rate, burst)
    now, taken = 0.0, 0
    for gap in gaps:
        now += gap
        taken += bucket.take(now)

    assert taken <= burst + rate * now + 1e-6


def test_the_agenda_runs_what_is_due_in_order_and_ties_as_they_were_noted() -> None:
    timers = Timers()
    ran: list[tuple[Any, float]] = []

    def note(subject: Any, now: Now) -> None:
        ran.append((subject, now.mono))

    for at, subject in ((3.0, "c"), (1.0, "a"), (2.0, "b1"), (2.0, "b2"), (9.0, "late")):
        timers.note(NOON.mono + at, note, subject)
    now = later(5.0)
    timers.run(now)

    assert ran == [(subject, now.mono) for subject in ("a", "b1", "b2", "c")]
    assert timers.next == NOON.mono + 9.0


def test_what_the_agenda_adds_for_the_past_runs_in_the_same_call() -> None:
    timers = Timers()
    ran: list[str] = []

    def first(subject: str, now: Now) -> None:
        ran.append(subject)
        timers.note(now.mono - 1.0, lambda again, _: ran.append(again), "second")

    timers.note(NOON.mono, first, "first")
    timers.run(NOON)

    assert (ran, timers.next) == (["first", "second"], NEVER)


def test_the_agenda_goes_on_after_a_callback_that_raised() -> None:
    timers = Timers()

    def fails(subject: str, now: Now) -> None:
        raise RuntimeError(subject)

    timers.note(NOON.mono, fails, "broken")
    timers.note(NOON.mono + 1.0, lambda subject, now: None)
    with pytest.raises(RuntimeError, match="broken"):
        timers.run(NOON)

    assert timers.next == NOON.mono + 1.0


@pytest.mark.parametrize(
    "address, counted_as",
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("a socket", "unknown"),
        (None, "unknown"),
    ],
)
def test_an_address_counts_for_the_machine_that_has_it(address: str | None, counted_as: str) -> None:
    assert machine(address) == counted_as


def test_the_count_kept_of_names_is_bounded() -> None:
    limits = Limits(1.0, 1.0)
    assert all(limits.take(name, 0.0) for name in range(MAX_NAMES))
    assert [limits.take(name, 0.0) for name in (0, "new", 0, 1)] == [False, True, False, True], "1 was used longest ago"


def test_what_is_owed_is_paid_off_before_as_much_may_be_taken_again() -> None:
    bucket = TokenBucket(2.0, 10.0)
    assert [bucket.owe(0.0, amount) for amount in (4.0, 4.0, 2.0, 1.0)] == [0.0, 1.0, 1.0, 1.0]
    assert not bucket.has(0.5, 0.5)
    assert bucket.owe(100.0, 20.0) == 10.0, "no more than fits in may be waited for"


def test_asking_about_many_names_forgets_nobody_s_count() -> None:
    limits = Limits(rate=0.1, burst=2.0)
    assert [limits.take("moves", 0.0) for _ in range(3)] == [True, True, False]

    assert all(limits.has(f"stranger {number}", 0.0) for number in range(2 * MAX_NAMES))
    assert not limits.has("moves", 0.0)
    assert not limits.take("moves", 0.0)
