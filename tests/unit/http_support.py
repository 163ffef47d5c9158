"""What the tests of HTTP share: an application that is served, and requests as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from zmesh.core.types import Endpoint
from zmesh.handlers import Offer, RecordOutcome
from zmesh.http import Answers, App, make_app, make_runner
from zmesh.http_limits import HttpLimits

HEALTH: Mapping[str, Any] = {"status": "healthy", "peer_id": "validator_001", "peers_count": 5, "running": True}
NEW = Offer(RecordOutcome.NEW)
ANSWERS = Answers(lambda: HEALTH, lambda: "zmesh_peers 5\n", lambda: b"\x93record", lambda _: NEW)


def make(answers: Answers = ANSWERS, limits: HttpLimits | None = None) -> App:
    """The application of a node that gives these answers."""
    return make_app(answers, limits or HttpLimits())


@asynccontextmanager
async def serving(app: App, limits: HttpLimits | None = None) -> AsyncIterator[Endpoint]:
    runner = make_runner(app, limits or HttpLimits())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with asyncio.timeout(20):
            yield Endpoint(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


async def exchange(endpoint: Endpoint, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes as they are, then read one answer: status, headers in lower case, body."""
    reader, writer = await asyncio.open_connection(*endpoint)
    writer.write(request)
    head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    writer.close()
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def get(path: str, method: str = "GET", extra: str = "") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{extra}\r\n".encode()


def taking(*outcomes: Offer, limits: HttpLimits | None = None) -> tuple[App, list[bytes]]:
    """An application that has these outcomes for what is posted, and what that was."""
    posted: list[bytes] = []
    left = list(outcomes)

    def post(encoded: bytes) -> Offer:
        posted.append(encoded)
        return left.pop(0) if len(left) > 1 else left[0]

    return make(ANSWERS._replace(post=post), limits), posted
