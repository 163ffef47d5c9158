"""A registry that watches a chain, and the sets it gives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support import PATIENCE
from zmesh.registry.chain import ChainRegistry, Patience
from zmesh.registry.port import OnChange, RegistryStatus, ValidatorSet

BRISK = Patience(first=60.0, read=30.0, call=4.0, poll=0.5, silence=30.0, backoff_min=0.1, backoff_max=0.2)
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

    async def problem(self, words: str = "") -> str:
        """What the registry says is wrong, once it does so in these words."""
        await self.until(lambda: (said := self.registry.status().problem) is not None and words in said)
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


class Shared:
    """One registry for several nodes of a test: what it costs to decode a runtime is paid once."""

    def __init__(self, url: str) -> None:
        self._registry = ChainRegistry([url], patience=BRISK)
        self._takers: list[OnChange] = []
        self._found = ValidatorSet()
        self._starting = asyncio.Lock()
        self._started = False

    async def start(self, on_change: OnChange) -> None:
        """Hand over the set that there is by now."""
        self._takers.append(on_change)
        async with self._starting:
            if not self._started:
                self._started = True
                await self._registry.start(self._take)
            else:
                on_change(self._found)

    def _take(self, found: ValidatorSet) -> None:
        self._found = found
        for take in self._takers:
            take(found)

    async def read(self) -> ValidatorSet:
        """As the chain says now."""
        return await self._registry.read()

    async def stop(self) -> None:
        """With the first node that stops, as they all do then."""
        await self._registry.stop()

    def status(self) -> RegistryStatus:
        """Of the chain."""
        return self._registry.status()
