"""A chain that cannot be had skips its tests, and fails them where CI is set and node and npm are there."""

from __future__ import annotations

import pytest

from tests.chain.installing import installed_or_skipped
from zmesh.demo import npm

MISSING = npm.NoNodeError("npm is not installed")
FAILED = npm.NoChainError("`npm install` failed: network")


@pytest.mark.parametrize(
    "error,ci,outcome",
    [
        (MISSING, "", pytest.skip.Exception),
        (MISSING, "true", pytest.skip.Exception),
        (FAILED, "", pytest.skip.Exception),
        (FAILED, "true", pytest.fail.Exception),
    ],
    ids=["nothing there", "nothing there in CI", "a failure", "a failure in CI"],
)
def test_only_a_missing_program_skips_in_ci(
    error: Exception, ci: str, outcome: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def install() -> npm.Installed:
        raise error

    monkeypatch.setattr(npm, "install", install)
    monkeypatch.setenv("CI", ci)
    with pytest.raises((pytest.skip.Exception, pytest.fail.Exception)) as told:
        installed_or_skipped()
    # Looked at here: an outcome that nobody expects would end this test, too, as skipped.
    assert (told.type, str(told.value)) == (outcome, str(error))
