"""A registry that watches a chain, and the sets it gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support import PATIENCE
from zmesh.registry.chain import ChainRegistry, Patience
from zmesh.registry.port import ValidatorSet

BRISK = Patience(first=60.0, read=30.0, call=2.0, poll=0.5, silence=10.0, backoff_min=0.1, backoff_max=0.2)
"""A busy machine may take long to answer first; a chain that hangs is noticed soon."""


class Watched:
    """A started registry; what it gave last, and what it says of itself."""

    def __init__(self, registry: ChainRegistry) -> None:
        self.registry = registry
        self.found = ValidatorSet()

    def take(self, found: ValidatorSet) -> None:
        self.found = found

    @property
    def ids(self) -> set[bytes]:
        return set(self.found.accounts)

    async def until(self, holds: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Look again at each answer of the chain, and at each failure to get one, until ``holds``."""
        try:
            async with asyncio.timeout(seconds):
                while not holds():
                    await self.registry._news.wait()
        except TimeoutError:
            raise AssertionError(f"not within {seconds:g} s; {self.registry.status()}") from None

    async def problem(self) -> str:
        """What the registry says is wrong, once it does."""
        await self.until(lambda: self.registry.status().problem is not None)
        return str(self.registry.status().problem)

    async def well(self) -> None:
        """Wait until nothing is wrong any more."""
        await self.until(lambda: self.registry.status().problem is None)


@asynccontextmanager
async def watched(
    url: str, kind: str = "substrate", folder: Path | None = None, **given: Any
) -> AsyncIterator[Watched]:
    """A registry on the chain at ``url``."""
    registry = ChainRegistry([url], kind, folder, patience=given.pop("patience", BRISK), **given)
    one = Watched(registry)
    await registry.start(one.take)
    try:
        yield one
    finally:
        await registry.stop()
