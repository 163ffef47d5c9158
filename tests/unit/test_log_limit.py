"""Log lines that others cause: as many as an operator can read, and none lost without a count."""

from __future__ import annotations

from zmesh.log_limit import BURST, MAX_KINDS, PAUSE, LogLimit


def test_a_kind_has_a_burst_then_one_line_a_pause_and_each_says_how_many_were_held_back() -> None:
    limit = LogLimit()
    assert [limit.take(("offence", "a"), 0.0) for _ in range(8)] == [{}] * int(BURST) + [None] * 3
    assert limit.take(("offence", "a"), PAUSE - 0.001) is None
    assert limit.take(("offence", "a"), PAUSE) == {"held_back": 4}
    assert limit.take(("offence", "a"), PAUSE) is None


def test_kinds_do_not_share() -> None:
    limit = LogLimit()
    for _ in range(100):
        limit.take(("offence", "a"), 0.0)
    assert limit.take(("offence", "b"), 0.0) == {}
    assert limit.take(("link_down", "a"), 0.0) == {}


def test_what_is_remembered_is_bounded_and_ends_with_its_trouble() -> None:
    limit = LogLimit()
    lines = [limit.take(("offence", str(number)), 0.0) for number in range(2 * MAX_KINDS)]
    written = MAX_KINDS + int(BURST)
    assert [line == {} for line in lines] == [True] * written + [False] * (2 * MAX_KINDS - written)
    assert len(limit._kinds) == MAX_KINDS + 1
    assert limit.take(("offence", "new"), BURST * PAUSE) == {}
    assert len(limit._kinds) <= 2
