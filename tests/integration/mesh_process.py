"""A node in a process of its own, for tests of what only processes show. It obeys lines on stdin, and reports in JSON.

``python -m tests.integration.mesh_process NAME KEYFILE PORT REGISTRY``; orders are ``meet``, ``publish COUNT`` and
``expect COUNT``. It counts how often each FL round was handed to its handler.

What ``start`` would import comes in with the rest, so that from the report ``starting`` on time is the node's: how long
an interpreter takes to start and to import is the machine's affair.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from typing import Any

import aiohttp.web  # noqa: F401 - see above

import zmesh.transports.zeromq  # noqa: F401 - see above
from tests.support import client, linked
from zmesh import MeshMessage, MeshNetworkClient, MessageType


def report(event: str, **fields: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, "at": time.monotonic(), **fields}) + "\n")
    sys.stdout.flush()


class Subject:
    def __init__(self, mesh: MeshNetworkClient) -> None:
        self.mesh = mesh
        self.handled: Counter[str] = Counter()
        self.expected = 0
        mesh.register_handler(MessageType.FL_ROUND_START, self.count)

    def count(self, message: MeshMessage) -> None:
        self.handled[message.payload["round_id"]] += 1
        self.look()

    def look(self) -> None:
        if self.expected and len(self.handled) >= self.expected:
            self.expected = 0
            report("complete", handled=self.handled)

    async def obey(self, order: str, number: int) -> None:
        if order == "meet":
            # Twice: a change of the registry counts once two looks found the same.
            for _ in range(2):
                await self.mesh.discover_peers()
            await linked(self.mesh)
            report("linked")
        elif order == "publish":
            for n in range(number):
                await self.mesh.announce_fl_round(f"round_{n}", "corpus", 10, 3600)
            report("published")
        else:
            self.expected = number
            self.look()


async def main(name: str, key: str, port: str, registry: str) -> None:
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    mesh = client(name, private_key=key, listen_port=int(port), registry=registry)
    subject = Subject(mesh)
    report("starting")
    async with mesh:
        report("listening", port=mesh.listen_port, pid=os.getpid())
        async for line in orders:
            order, _, number = line.decode().strip().partition(" ")
            await subject.obey(order, int(number or 0))
        report("stopping", handled=subject.handled)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
