"""The worker process as the registry sees it: orders in, frames out, and an end that is certain.

Rules
 1. It gets none of the node's settings through its environment: the mesh key may be among them. What it needs,
    including the URL with its password, goes through the socket, and never through a command line that others can list.
 2. Its standard input is one end of a socket, used both ways; it has no other stream that it could fill or corrupt.
 3. ``close`` leaves neither a process nor a zombie, and ends only this process's own child.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from zmesh import forked
from zmesh.registry.codec import next_body, packed

COMMAND = (sys.executable, "-m", "zmesh.registry.chain_worker")
SETTINGS = ("MESH_", "BLOCKCHAIN_RPC")
"""Prefixes of the environment variables of a node's settings."""
FAREWELL = 1.0
"""Seconds in which a worker exits on its own once its pipe ends; one that is stopped or hangs is then killed."""


class Child:
    """A running worker. Make one with ``Child.start``."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, command: Sequence[str]) -> Child:
        """Start a worker. Raises ``OSError`` if no process can be started."""
        ours, theirs = socket.socketpair()
        forked.connections.add(ours)  # its end is what ends the worker
        try:
            # A session of its own: Ctrl-C is for the node, which ends its worker itself.
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, *await asyncio.open_connection(sock=ours))

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def say(self, frame: Mapping[str, Any]) -> None:
        """Send a small frame; does nothing if the worker is gone already."""
        if not self._writer.is_closing():
            self._writer.write(packed(frame))

    async def hear(self, patience: float) -> bytes:
        """The body of its next frame.

        Raises ``TimeoutError`` after ``patience`` seconds of silence, ``EOFError`` or ``OSError`` if it is gone, and
        ``ValueError`` for a frame that is too large.
        """
        async with asyncio.timeout(patience):
            return await next_body(self._reader)

    async def close(self) -> None:
        """End it, by force if need be."""
        # Not ``close``, which would wait for a stopped worker to read what is still buffered.
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()
        try:
            async with asyncio.timeout(FAREWELL):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def _environment() -> dict[str, str]:
    """This process's environment, without the node's settings, and with the place that zmesh was imported from."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    root = str(Path(__file__).parents[2])
    path = [*filter(None, kept.get("PYTHONPATH", "").split(os.pathsep)), root]
    return {**kept, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}
