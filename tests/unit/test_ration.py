"""Log lines that others cause: as many as an operator can read, and none lost without a count."""

from __future__ import annotations

from zmesh.ration import BURST, MAX_KINDS, PAUSE, Ration


def test_a_kind_has_a_burst_then_one_line_a_pause_and_each_says_how_many_were_held_back() -> None:
    ration = Ration()
    assert [ration.take(("offence", "a"), 0.0) for _ in range(8)] == [0] * int(BURST) + [None] * 3
    assert ration.take(("offence", "a"), PAUSE - 0.001) is None
    assert ration.take(("offence", "a"), PAUSE) == 4
    assert ration.take(("offence", "a"), PAUSE) is None


def test_kinds_do_not_share() -> None:
    ration = Ration()
    for _ in range(100):
        ration.take(("offence", "a"), 0.0)
    assert ration.take(("offence", "b"), 0.0) == 0
    assert ration.take(("link_down", "a"), 0.0) == 0


def test_what_is_remembered_is_bounded_and_ends_with_its_trouble() -> None:
    ration = Ration()
    lines = [ration.take(("offence", str(number)), 0.0) for number in range(2 * MAX_KINDS)]
    written = MAX_KINDS + int(BURST)
    assert [line == 0 for line in lines] == [True] * written + [False] * (2 * MAX_KINDS - written)
    assert len(ration._shares) == MAX_KINDS + 1
    assert ration.take(("offence", "new"), BURST * PAUSE) == 0
    assert len(ration._shares) <= 2
