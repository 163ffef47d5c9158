"""A file of validators, watched for changes: the registry of a mesh without a chain.

Rules
 1. The file is checked every ``interval`` seconds in a worker thread, so that neither a slow disk nor a large file
    delays the event loop.
 2. New content counts once two checks in a row found it the same: an editor that writes in place would otherwise cut
    off every validator below the line it has reached.
 3. If new content is malformed, or the file is gone, the last good set stays in force; each is warned about once.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from zmesh.core.errors import ConfigError
from zmesh.core.wire import digest32
from zmesh.files import read_regular
from zmesh.log import get_logger
from zmesh.registry.port import OnChange, RegistryStatus, ValidatorSet
from zmesh.registry.roster_file import MAX_FILE, parse_roster

INTERVAL = 1.0
"""Seconds between checks: one ``stat`` each, and a removed validator is out within two of them."""
SETTLING = 2.0
"""Seconds after its modification time within which a file may change again without showing it: the coarsest clock of a
file system in use (FAT, 2 s)."""

Signature = tuple[int, int, int]
"""Modification time in ns, size and inode: if all are unchanged, so is the file."""

_log = get_logger(__name__)


class StaticRegistry:
    """The ``Registry`` behind a TOML file, as ``roster_file`` describes it."""

    def __init__(
        self,
        path: Path,
        *,
        interval: float = INTERVAL,
        mono: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``interval`` in seconds; ``mono`` and ``wall`` are the clocks, in seconds."""
        self._path = path
        self._source = f"registry {path}"
        self._interval = interval
        self._mono = mono
        self._wall = wall
        self._set = ValidatorSet()
        self._on_change: OnChange = lambda found: None
        self._watch: asyncio.Task[None] | None = None
        self._look = asyncio.Lock()
        # Digests of the content in force, of what the last check found, and of what was refused, with the reason.
        self._in_force = b""
        self._seen = b""
        self._refused = (b"", "")
        self._problem: str | None = None
        # None while the file may change without showing it, or disagrees with the set in force.
        self._settled: Signature | None = None
        self._agreed_at = mono()

    async def start(self, on_change: OnChange) -> None:
        """Read the file, hand its set to ``on_change``, and watch from then on. Raises ``ConfigError``."""
        self._look = asyncio.Lock()  # a caller that waited for the old lock bound it to another life's event loop
        content, signature = await self._read()
        self._set = await self._parse(content)
        self._in_force = self._seen = digest32(content)
        self._agree(signature)
        self._on_change = on_change
        on_change(self._set)
        self._watch = asyncio.create_task(self._poll_for_ever(), name=f"zmesh registry {self._path}")

    async def stop(self) -> None:
        """Stop watching."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)

    async def read(self) -> ValidatorSet:
        """Check the file now; returns the set then in force."""
        await self.poll()
        return self._set

    def status(self) -> RegistryStatus:
        """The state of the registry: how far the file agrees with the set in force."""
        age = self._mono() - self._agreed_at
        return RegistryStatus(self._source, len(self._set), age, self._problem)

    async def poll(self) -> None:
        """One check of the file, following rules 2 and 3. Raises only what ``on_change`` raises."""
        async with self._look:
            try:
                await self._poll()
            except ConfigError as error:
                self._warn(str(error))

    async def _poll(self) -> None:
        if self._settled is not None and await self._is_settled():
            self._agree(self._settled)
            return
        content, signature = await self._read()
        digest, before = digest32(content), self._seen
        self._seen = digest
        if digest == self._in_force:
            self._agree(signature)
        elif digest == self._refused[0]:
            raise ConfigError(self._refused[1])
        elif digest == before:
            await self._replace(content, digest)
            self._agree(signature)
            self._on_change(self._set)

    async def _replace(self, content: bytes, digest: bytes) -> None:
        try:
            self._set = await self._parse(content)
        except ConfigError as error:
            self._refused = (digest, str(error))
            raise
        self._in_force = digest
        _log.info("registry_changed", source=self._source, members=len(self._set))

    async def _parse(self, content: bytes) -> ValidatorSet:
        return ValidatorSet(await asyncio.to_thread(parse_roster, content, self._source))

    async def _poll_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self.poll()
            except Exception as error:  # noqa: BLE001 - a bug in the callback must not end the watch
                _log.error("registry_change_not_taken", exc_info=error)

    async def _read(self) -> tuple[bytes, Signature]:
        content, status = await asyncio.to_thread(read_regular, self._path, self._source, MAX_FILE + 1)
        return content, _signature(status)

    async def _is_settled(self) -> bool:
        try:
            return _signature(await asyncio.to_thread(self._path.stat)) == self._settled
        except OSError:  # gone or out of reach: reading it says which
            return False

    def _agree(self, signature: Signature) -> None:
        self._agreed_at = self._mono()
        self._problem = None
        old_enough = self._wall() - signature[0] / 1e9 > SETTLING
        self._settled = signature if old_enough else None

    def _warn(self, problem: str) -> None:
        if problem != self._problem:
            _log.warning("registry_kept", problem=problem, members=len(self._set))
        self._problem = problem
        self._settled = None


def _signature(status: os.stat_result) -> Signature:
    return status.st_mtime_ns, status.st_size, status.st_ino
