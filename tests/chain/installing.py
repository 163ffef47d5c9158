"""When tests on a real chain may be skipped: for want of node or npm, and nothing else where CI is set.

There a registry that is slow or away would otherwise skip all of them, and nobody would see it.
"""

from __future__ import annotations

import os

import pytest

from zmesh.demo import npm


def installed_or_skipped() -> npm.Installed:
    """What a chain needs. Blocks, for a minute the first time."""
    try:
        return npm.install()
    except npm.NoNodeError as error:
        pytest.skip(str(error))
    except npm.NoChainError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
