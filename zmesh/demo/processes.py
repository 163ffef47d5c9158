"""Real processes that live as long as the parent wants, and not a moment longer than the parent.

Rules
 1. Each gets its orders from the parent on stdin. When that ends, because the parent closed it, crashed or was killed,
    the process ends on its own. One that has not ended after ``STOP_SECONDS`` is killed, by its own id.
 2. They run in sessions of their own: Ctrl-C reaches only the parent, which then ends them in an orderly way.
 3. A report is a line of JSON on stdout; one that cannot be processed is a failure, like an early end. Error output
    goes to a file, whose last line is the reason given for an early end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from zmesh.core.errors import ZmeshError

STOP_SECONDS = 5.0
"""Seconds that all processes together have to say goodbye."""
MAX_REPORT = 64 * 1024
"""Bytes of one report: a model of 2,600 bytes in base64, and room to spare."""

OnReport = Callable[[str, Mapping[str, Any]], None]


class DemoError(ZmeshError):
    """The demo could not go on; the sentence says why."""


class Processes:
    """Starts one ``python -m module ARGUMENTS`` for each name, and passes reports to ``on_report(name, report)``.

    ``commands`` are started on entry, others by ``start``.
    """

    def __init__(self, module: str, commands: Mapping[str, Sequence[str]], logs: Path, on_report: OnReport) -> None:
        self._module = module
        self._commands = commands
        self._logs = logs
        self._on_report = on_report
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._readers: list[asyncio.Task[None]] = []
        self._news = asyncio.Event()
        self._stopping = False
        self._failure: tuple[str, Exception | None] | None = None

    async def __aenter__(self) -> Self:
        try:
            for name, arguments in self._commands.items():
                await self.start(name, arguments)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self, name: str, arguments: Sequence[str]) -> None:
        """Start one more."""
        with (self._logs / f"{name}.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                self._module,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=_environment(),
                limit=MAX_REPORT,
                start_new_session=True,
            )
        self._running[name] = process
        self._readers.append(asyncio.create_task(self._read(name, process), name=f"reports of {name}"))

    async def _read(self, name: str, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # a pipe was asked for
        try:
            async for line in process.stdout:
                self._on_report(name, json.loads(line))
                self._news.set()
        except Exception as error:  # noqa: BLE001 - raised by ``until``, which would wait in vain for what was in it
            self._fail(f"a report of {name} cannot be taken: {type(error).__name__}: {error}", error)
            while await process.stdout.read(MAX_REPORT):
                pass  # a process whose output is not read could not end
        if not self._stopping:
            self._fail(f"{name} ended early{self._reason(name)}")

    def _fail(self, why: str, cause: Exception | None = None) -> None:
        """Keep the first failure, which is what went wrong; others follow from it."""
        self._failure = self._failure or (why, cause)
        self._news.set()

    def _reason(self, name: str) -> str:
        said = (self._logs / f"{name}.log").read_text(errors="replace").strip()
        return f": {said.splitlines()[-1]}" if said else ""

    def tell(self, name: str, order: str) -> None:
        """Give one process an order."""
        stdin = self._running[name].stdin
        assert stdin is not None  # a pipe was asked for
        stdin.write(order.encode() + b"\n")

    async def until(self, reached: Callable[[], bool], seconds: float, what: str) -> bool:
        """Wait for reports until ``reached`` holds; False if ``seconds`` were not enough.

        Raises ``DemoError`` if a process ends early, or sends a report that cannot be processed.
        """
        try:
            async with asyncio.timeout(seconds):
                while not reached():
                    if self._failure is not None:
                        why, cause = self._failure
                        raise DemoError(f"{why} (while {what})") from cause
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> None:
        """End all of them: let them say goodbye, then kill. Safe to call twice."""
        self._stopping = True
        processes = list(self._running.values())
        for process in processes:
            if process.stdin is not None:
                process.stdin.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.gather(*self._readers)
                await asyncio.gather(*(process.wait() for process in processes))
        except TimeoutError:
            pass  # killed below
        finally:
            for process in processes:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
            await asyncio.gather(*(process.wait() for process in processes))
            for reader in self._readers:
                reader.cancel()
            await asyncio.gather(*self._readers, return_exceptions=True)


def _environment() -> dict[str, str]:
    """The parent's environment, without the settings that would make a demo validator one of the operator's, and with
    one thread for each process."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("MESH_")}
    ours.pop("BLOCKCHAIN_RPC", None)
    return {**ours, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")}
