"""What a node says over HTTP, and the one thing it asks others: GET /health, /metrics and /record.

Rules
 1. HTTP carries nothing secret and changes nothing: a record is signed, so that it needs no trusted transport, and
    every method but GET and HEAD is refused.
 2. A stranger's bytes are bounded on both sides: request line, headers, body, time, and the size of a record.
 3. Answers are JSON, refusals too, but for /metrics (Prometheus text) and /record (the bytes themselves).
 4. A stranger cannot write to the log: what is no HTTP is answered with 400 and not worth a line.
 5. aiohttp is imported where it is needed: it takes longer to import than all the rest of zmesh.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from zmesh.core.types import Endpoint
from zmesh.log import get_logger

if TYPE_CHECKING:
    from aiohttp import web

MAX_RECORD = 8 * 1024
"""Bytes of an answer that is read: twice what a record of this version may have."""
MAX_LINE = 2 * 1024
"""Bytes of a request line or header: the longest of ours is 40."""
MAX_BODY = 1024
"""Bytes of a request body: nothing that is answered has one."""
READ_BUFFER = 16 * 1024
"""Bytes read ahead of one connection."""
KEEPALIVE = 30.0
"""Seconds an idle connection stays: longer than a scraper's or a health check's usual interval of 10 to 15."""
LINGER = 1.0
"""Seconds for which the unread rest of a refused request is taken, so that its sender reads the answer."""
SHUTDOWN = 1.0
"""Seconds a request under way may take when the node stops: each is answered from memory."""

_log = get_logger(__name__)

Health = Callable[[], Mapping[str, Any]]
Metrics = Callable[[], str]
OwnRecord = Callable[[], bytes]


def make_app(health: Health, metrics: Metrics | None = None, record: OwnRecord | None = None) -> web.Application:
    """The application behind the front door; what is None is not served.

    ``health``: what /health says, JSON types only; the status is 200 whatever it says, for the question was
    answered. ``metrics``: text in the Prometheus exposition format. ``record``: the node's own signed record, empty
    while there is none yet.
    """
    from aiohttp import web

    def json_answer(content: Mapping[str, Any], status: int = 200) -> web.Response:
        text = json.dumps(content, separators=(", ", ": ")) + "\n"
        headers = {"Cache-Control": "no-store"}
        return web.Response(text=text, status=status, content_type="application/json", headers=headers)

    async def get_health(_request: web.Request) -> web.Response:
        return json_answer(health())

    async def get_metrics(_request: web.Request) -> web.Response:
        text = "" if metrics is None else metrics()
        return web.Response(body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def get_record(_request: web.Request) -> web.Response:
        encoded = b"" if record is None else record()
        if not encoded:
            return json_answer({"error": "this node has no record yet"}, 503)
        return web.Response(body=encoded, content_type="application/octet-stream")

    @web.middleware
    async def errors_as_json(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as refusal:
            answer = json_answer({"error": refusal.reason}, refusal.status)
            if "Allow" in refusal.headers:
                answer.headers["Allow"] = refusal.headers["Allow"]
            return answer
        except Exception as error:  # noqa: BLE001 - a fault of ours is logged whole and told to strangers as a number
            _log.error("http.request_failed", path=request.path, exc_info=error)
            return json_answer({"error": "Internal Server Error"}, 500)

    app = web.Application(middlewares=[errors_as_json], client_max_size=MAX_BODY)
    app.router.add_get("/health", get_health)
    if metrics is not None:
        app.router.add_get("/metrics", get_metrics)
    if record is not None:
        app.router.add_get("/record", get_record)
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner with this module's bounds; after ``setup()`` its ``server`` makes a protocol for each connection."""
    from aiohttp import web

    logger = logging.getLogger(f"{__name__}.server")
    logger.addFilter(_not_a_strangers_fault)
    return web.AppRunner(
        app,
        logger=logger,
        access_log=None,
        keepalive_timeout=KEEPALIVE,
        lingering_time=LINGER,
        max_line_size=MAX_LINE,
        max_field_size=MAX_LINE,
        read_bufsize=READ_BUFFER,
        shutdown_timeout=SHUTDOWN,
    )


def _not_a_strangers_fault(record: logging.LogRecord) -> bool:
    """aiohttp logs a traceback for each request that does not parse."""
    from aiohttp.http_exceptions import HttpProcessingError

    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


async def fetch_record(endpoint: Endpoint, timeout: float) -> bytes:  # noqa: ASYNC109 - one bound for all of it
    """The bytes that the front door at ``endpoint`` serves as its record, within ``timeout`` seconds in all.

    They are a stranger's: nothing in them is checked but their size. Raises ``ConnectionError`` when nobody is reached
    there, ``TimeoutError``, and ``ValueError`` when somebody answers with something else than a record.
    """
    import aiohttp

    connector = aiohttp.TCPConnector(force_close=True, use_dns_cache=False)
    limit = aiohttp.ClientTimeout(total=None)
    try:
        async with (
            asyncio.timeout(timeout),
            aiohttp.ClientSession(
                connector=connector,
                timeout=limit,
                trust_env=False,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            ) as session,
            session.get(f"http://{endpoint}/record", allow_redirects=False, max_line_size=MAX_LINE) as answer,
        ):
            return await _bounded_body(answer)
    except aiohttp.ClientConnectorError as error:
        number = error.os_error.errno or 0
        reason = os.strerror(number) if number > 0 else str(error.os_error)
        raise ConnectionError(number, reason) from error
    except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError) as error:
        raise ValueError(f"{endpoint} speaks no HTTP: {type(error).__name__}") from error


async def _bounded_body(answer: Any) -> bytes:
    if answer.status != 200:
        raise ValueError(f"/record was answered with status {answer.status}")
    body = bytearray()
    async for piece in answer.content.iter_any():
        body += piece
        if len(body) > MAX_RECORD:
            raise ValueError(f"/record was answered with more than {MAX_RECORD} bytes")
    return bytes(body)
