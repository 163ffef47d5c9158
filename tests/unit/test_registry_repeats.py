"""Reports of trouble that come again and again: which of them are logged."""

from __future__ import annotations

from zmesh.registry.repeats import GAP, MAX_KINDS, Repeats


def test_a_report_is_logged_once_until_all_is_well_again() -> None:
    repeats = Repeats()
    assert [repeats.take("a", "it is away", number * GAP) for number in range(5)] == [{}, None, None, None, None]
    assert repeats.end()
    assert repeats.take("a", "it is away", 5 * GAP) == {}


def test_what_comes_and_goes_is_logged_once_in_a_while_with_the_number_that_was_held_back() -> None:
    repeats, taken = Repeats(), []
    for number in range(4):
        taken.append(repeats.take("a", "it is away", number * GAP / 4))
        assert repeats.end() == (number == 0), "what was not logged need not be taken back"
    assert taken == [{}, None, None, None]
    assert repeats.take("a", "it is away", GAP) == {"held_back": 3}


def test_trouble_that_stays_is_logged_although_it_came_soon_after_the_last() -> None:
    repeats = Repeats()
    repeats.take("a", "it is away", 0.0)
    repeats.end()
    assert repeats.take("a", "it is away", 1.0) is None
    assert repeats.take("a", "it is away", GAP) == {"held_back": 1}


def test_reports_that_differ_in_numbers_only_are_one_kind_and_those_of_two_sources_are_two() -> None:
    repeats = Repeats()
    said = ["2 of 3 are missing at block 0x0f", "1 of 3 are missing at block 0xab", "it is away"]
    assert [repeats.take("ws://10.0.0.1", one, 0.0) for one in said] == [{}, None, {}]
    assert repeats.take("ws://10.0.0.2", "it is away", 0.0) == {}


def test_whoever_words_the_reports_gets_no_more_lines_than_kinds_are_remembered() -> None:
    repeats = Repeats()
    for minute in range(3):
        logged = 0
        for number in range(1000):
            logged += repeats.take("a", "x" * (1 + number), minute * GAP) is not None
            repeats.end()
        assert logged == MAX_KINDS
    assert len(repeats._logged) == MAX_KINDS
