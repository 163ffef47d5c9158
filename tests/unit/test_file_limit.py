"""File handles: as many as a node may need, or one warning."""

from __future__ import annotations

import resource

import pytest

from zmesh.transports.sockets import FILES_LEAST, FILES_WANTED, raise_file_limit


@pytest.mark.parametrize(
    "soft, hard, ceiling, left",
    [
        (1024, 1_048_576, 1_048_576, FILES_WANTED),
        (1024, resource.RLIM_INFINITY, 1_048_576, FILES_WANTED),
        (FILES_WANTED + 1, 1_048_576, 1_048_576, FILES_WANTED + 1),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, 1_048_576, resource.RLIM_INFINITY),
        (1024, FILES_LEAST, 1_048_576, FILES_LEAST),
        (1024, 4096, 1_048_576, 4096),
        (256, resource.RLIM_INFINITY, 10_240, 256),
    ],
)
def test_the_limit_is_raised_as_far_as_it_may_and_what_lacks_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, soft: int, hard: int, ceiling: int, left: int
) -> None:
    limits = [(soft, hard)]

    def setrlimit(_which: int, wanted: tuple[int, int]) -> None:
        if wanted[0] > ceiling:
            raise ValueError("current limit exceeds maximum limit")
        limits.append(wanted)

    monkeypatch.setattr(resource, "getrlimit", lambda _which: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    raise_file_limit()
    assert limits[-1] == (left, hard)
    is_short = left != resource.RLIM_INFINITY and left < FILES_LEAST
    assert [f"limit={left} wanted={FILES_LEAST}" in record.getMessage() for record in caplog.records] == [
        True
    ] * is_short
