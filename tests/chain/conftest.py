"""What the tests on a real chain share: the chain itself, one process for most of them, and accounts on it.

Where node or npm is missing these tests skip, and say in one sentence why (``installing``); the first of them ever
installs what it needs (``zmesh.demo.npm``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.chain.installing import installed_or_skipped
from zmesh.demo.accounts import DevAccount, dev_account
from zmesh.demo.chopsticks import Chopsticks, session
from zmesh.demo.npm import Installed


@pytest.fixture(scope="session")
def installed() -> Installed:
    """chopsticks and its chains."""
    return installed_or_skipped()


@pytest.fixture(scope="session")
def run_chain(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Chopsticks]]:
    """Starts chains that end with the tests."""
    with ExitStack() as stack:

        def run(storage: dict[str, Any], staking: bool = False) -> Chopsticks:
            folder = tmp_path_factory.mktemp("chain")
            return stack.enter_context(Chopsticks(storage, folder, staking=staking))

        yield run


@pytest.fixture(scope="session")
def accounts() -> list[DevAccount]:
    """Alice, Bob, Charlie, Dave, Eve and Ferdie."""
    return [dev_account(f"//{name}") for name in ("Alice", "Bob", "Charlie", "Dave", "Eve", "Ferdie")]


@pytest.fixture(scope="session")
def chain(run_chain: Callable[..., Chopsticks], accounts: list[DevAccount]) -> Chopsticks:
    """The chain that most tests change as they like, and so each first says who validates."""
    return run_chain(session([one.address for one in accounts]))
