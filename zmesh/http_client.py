"""The HTTP client for the front doors of others: GET /record, and POST /records with our own.

Rules
 1. An answer comes from a stranger: its head, its size and its time are bounded, and nothing in it is trusted here.
 2. No redirects, no proxies, no cookies, no decompression: one connection, one exchange.
 3. aiohttp is imported where it is needed: it takes longer to import than all the rest of zmesh.
"""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from zmesh.core.types import Endpoint
from zmesh.rpc import system_words

if TYPE_CHECKING:
    import aiohttp

MAX_ANSWER = 8 * 1024
"""Bytes read of an answer: twice what a record of this version may have."""
MAX_LINE = 2 * 1024
"""Bytes of a status line or header of an answer: our longest has 60."""
MAX_WIRE = 32 * 1024
"""Bytes of an answer on the wire, of any kind: what an HTTP parser skips, such as interim responses and chunk
extensions, has no bound of its own, and takes a core while it lasts."""
MAX_WHY = 64
"""Characters of a reason that another node gives: it ends up in a log."""


class Posted(NamedTuple):
    """What a front door answered to a posted record."""

    status: int
    """200 and 202: it has the record. 409: it has a newer one. 403: refused. 429 and 503: not now."""
    why: str
    """What became of the record, or the reason against it; at most 64 letters, digits and ``_``."""

    @property
    def is_taken(self) -> bool:
        """Whether it has our record now."""
        return self.status in (200, 202)


async def fetch_record(endpoint: Endpoint, timeout: float) -> bytes:  # noqa: ASYNC109 - one bound for all of it
    """The bytes that the front door at ``endpoint`` serves as its record, within ``timeout`` seconds in all.

    They come from a stranger: nothing but their size is checked. Raises ``ConnectionError`` if nothing is reached
    there, ``TimeoutError``, and ``ValueError`` for an answer that is not a record.
    """
    status, body = await _exchange("GET", endpoint, "/record", None, timeout)
    if status != 200:
        raise ValueError(f"/record was answered with status {status}")
    return body


async def post_record(endpoint: Endpoint, encoded: bytes, timeout: float) -> Posted:  # noqa: ASYNC109 - as above
    """Leave the record ``encoded`` at the front door at ``endpoint``, within ``timeout`` seconds in all.

    Raises ``ConnectionError`` if nothing is reached there, ``TimeoutError``, and ``ValueError`` if what answers is not
    a node of a mesh.
    """
    status, body = await _exchange("POST", endpoint, "/records", encoded, timeout)
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        told = None
    why = told.get("why") if isinstance(told, dict) else None
    if isinstance(why, str) and 0 < len(why) <= MAX_WHY and why.isascii() and why.replace("_", "").isalnum():
        return Posted(status, why)
    if status in (200, 202):
        raise ValueError("/records did not answer with what became of the record")
    return Posted(status, f"status_{status}")


async def _exchange(
    method: str,
    endpoint: Endpoint,
    path: str,
    data: bytes | None,
    timeout: float,  # noqa: ASYNC109 - as above
) -> tuple[int, bytes]:
    """Status and body of one request."""
    import aiohttp

    connector = _bounded_connector()
    try:
        async with (
            asyncio.timeout(timeout),
            aiohttp.ClientSession(
                connector=connector,
                timeout=aiohttp.ClientTimeout(total=None),
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session,
            session.request(
                method, f"http://{endpoint}{path}", data=data, allow_redirects=False, max_line_size=MAX_LINE
            ) as answer,
        ):
            return answer.status, await _bounded_body(answer, path)
    except aiohttp.ClientConnectorError as error:
        reason = system_words(error.os_error) or str(error.os_error)
        raise ConnectionError(error.os_error.errno or 0, reason) from error
    except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError) as error:
        raise ValueError(f"{endpoint} does not speak HTTP: {type(error).__name__}") from error


def _bounded_connector() -> aiohttp.TCPConnector:
    """Makes connections that are cut after ``MAX_WIRE`` bytes of an answer. aiohttp itself bounds lines, and the
    time."""
    import aiohttp
    from aiohttp.client_proto import ResponseHandler

    class Bounded(ResponseHandler):
        taken = 0

        def data_received(self, data: bytes) -> None:
            room = max(0, MAX_WIRE - self.taken)
            self.taken += len(data)
            super().data_received(data[:room])
            if self.taken > MAX_WIRE and self.transport is not None:
                self.transport.abort()

    connector = aiohttp.TCPConnector(force_close=True, use_dns_cache=False)
    connector._factory = cast("partial[ResponseHandler]", partial(Bounded, loop=asyncio.get_running_loop()))
    return connector


async def _bounded_body(answer: Any, path: str) -> bytes:
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > MAX_ANSWER:
            raise ValueError(f"{path} was answered with more than {MAX_ANSWER} bytes")
    return bytes(body)
