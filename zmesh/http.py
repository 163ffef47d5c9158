"""What a node serves over HTTP: GET /health, /metrics and /record, and POST /records, where a newcomer leaves its own.

Rules
 1. HTTP carries nothing secret, and changes one thing: a posted record is treated like a gossiped one, since it is
    signed and needs no trusted transport. Everywhere else, every method but GET and HEAD is refused.
 2. What a stranger sends is bounded: request line, headers, body, time; so is how often one address may ask and post. A
    request over the limit is refused before any work is done for it. Every answer ends its connection, a refusal too:
    so whoever goes on asking must connect each time, and how often it may do that is limited by the front door.
 3. Answers are JSON, refusals included, except for /metrics (Prometheus text) and /record (the bytes themselves).
 4. A stranger cannot write to the log: what is not HTTP, or breaks off within a body, gets 400 and no line.
 5. aiohttp only parses. Its Application would answer an Expect header, and take its own 100 for the beginning of the
    answer, before any of our code has seen the request. Here a body is asked for only once the request was let in. A
    server may ignore any other expectation (RFC 9110, 10.1.1), and this one does.
 6. aiohttp is imported where it is needed: it takes longer to import than all the rest of zmesh.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from zmesh.handlers.offers import Offer, RecordOutcome
from zmesh.http_limits import RETRY_AFTER, HttpLimits
from zmesh.log import get_logger

if TYPE_CHECKING:
    from aiohttp import web

MAX_LINE = 2 * 1024
"""Bytes of a request line or header: our longest has 40."""
MAX_BODY = 8 * 1024
"""Bytes of a request body: twice what a record of this version may have."""
BODY_SECONDS = 5.0
"""Seconds within which a body must have arrived."""
LINGER = 1.0
"""Seconds for which the unread rest of a refused request is still read, so that its sender gets to read the answer."""
SHUTDOWN = 1.0
"""Seconds a request under way may take when the node stops: each is answered from memory."""

_log = get_logger(__name__)


class Answers(NamedTuple):
    """What one node says over HTTP. Each is called within the event loop, and must not block."""

    health: Callable[[], Mapping[str, Any]]
    """The content of /health, JSON types only; the status is 200 whatever it says, for the question was answered."""
    metrics: Callable[[], str]
    """The content of /metrics, in the Prometheus text format."""
    record: Callable[[], bytes]
    """The node's own signed record, empty while there is none yet."""
    post: Callable[[bytes], Offer]
    """Takes the bytes of a record that a stranger posted, and returns what became of it. The registry is asked before
    any signature is checked."""


GETS = ("GET", "HEAD")
"""The methods of read-only resources."""

App = Callable[["web.BaseRequest"], Awaitable["web.Response"]]
"""Answers one request."""
Routes = Mapping[str, tuple[tuple[str, ...], App]]
"""For each path, its methods and what answers them."""

STATUSES: Mapping[RecordOutcome, int] = {
    RecordOutcome.NEW: 202,
    RecordOutcome.KNOWN: 200,
    RecordOutcome.OLDER: 409,
    RecordOutcome.EQUIVOCATION: 409,
    RecordOutcome.REFUSED: 403,
    RecordOutcome.OTHER_NETWORK: 403,
    RecordOutcome.LOCAL_ADDRESS: 403,
    RecordOutcome.BAD_SIGNATURE: 403,
    RecordOutcome.MALFORMED: 400,
    RecordOutcome.FULL: 503,
}
"""202: the record will be introduced to all others, and its node dialled, asynchronously."""


def json_answer(content: Mapping[str, Any], status: int = 200) -> web.Response:
    """A JSON answer that must not be cached."""
    from aiohttp import web

    text = json.dumps(content, separators=(", ", ": ")) + "\n"
    headers = {"Cache-Control": "no-store"}
    return web.Response(text=text, status=status, content_type="application/json", headers=headers)


def make_app(answers: Answers, limits: HttpLimits) -> App:
    """The application behind the front door. ``limits``: how often clients may ask and post."""
    from aiohttp import web

    async def get_health(_request: web.BaseRequest) -> web.Response:
        return json_answer(answers.health())

    async def get_metrics(_request: web.BaseRequest) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=answers.metrics().encode(), headers=headers)

    async def get_record(_request: web.BaseRequest) -> web.Response:
        encoded = answers.record()
        if not encoded:
            return json_answer({"error": "this node has no record yet"}, 503)
        return web.Response(body=encoded, content_type="application/octet-stream")

    async def post_record(request: web.BaseRequest) -> web.Response:
        offer = answers.post(await _body(request, limits))
        return json_answer({"taken": offer.outcome.value, "why": offer.name}, STATUSES[offer.outcome])

    routes: Routes = {
        "/health": (GETS, get_health),
        "/metrics": (GETS, get_metrics),
        "/record": (GETS, get_record),
        "/records": (("POST",), post_record),
    }

    async def app(request: web.BaseRequest) -> web.Response:
        refusal = _refusal(request, limits)
        answer = await _answer(request, routes) if refusal is None else refusal
        answer.force_close()
        return answer

    return app


def _refusal(request: web.BaseRequest, limits: HttpLimits) -> web.Response | None:
    """The refusal of a request over the rate limit, whose body is not read; None lets the request in."""
    is_post = request.method == "POST"
    whose = (limits.posts if is_post else limits.gets).refusal(request.remote, time.monotonic())
    if whose is None:
        return None
    # For GET /record, 503 means that there is no record yet.
    status = 503 if is_post and whose == "everybody" else 429
    answer = json_answer({"error": f"too many requests from {whose}", "why": "too_often"}, status)
    answer.headers["Retry-After"] = str(RETRY_AFTER)
    return answer


async def _answer(request: web.BaseRequest, routes: Routes) -> web.Response:
    """The answer of the resource; every refusal is an answer, too."""
    from aiohttp import web

    try:
        methods, answer = routes.get(request.path, ((), None))
        if answer is None:
            raise web.HTTPNotFound
        if request.method not in methods:
            raise web.HTTPMethodNotAllowed(request.method, methods)
        return await answer(request)
    except web.HTTPException as refusal:
        said = json_answer({"error": refusal.reason}, refusal.status)
        if "Allow" in refusal.headers:
            said.headers["Allow"] = refusal.headers["Allow"]
        return said
    except Exception as error:  # noqa: BLE001 - our own bug is logged in full, and strangers get a number
        _log.error("http_request_failed", path=request.path, exc_info=error)
        return json_answer({"error": "Internal Server Error"}, 500)


async def _body(request: web.BaseRequest, limits: HttpLimits) -> bytes:
    """At most ``MAX_BODY`` bytes. Raises an ``HTTPException`` if there are more, or if they do not arrive."""
    from aiohttp import HttpVersion11, web
    from aiohttp.http_exceptions import HttpProcessingError

    size = request.content_length or 0
    if size > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, size)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            if request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == "100-continue":
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0  # nothing of the answer itself was sent
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > MAX_BODY:
                    raise web.HTTPRequestEntityTooLarge(MAX_BODY, len(body))
    except TimeoutError:
        raise web.HTTPRequestTimeout from None
    except (OSError, HttpProcessingError, web.RequestPayloadError):
        # The client hung up, or malformed chunks; aiohttp's parsers in C and in Python raise different exceptions.
        limits.counters["http_posts_broken_off"] += 1
        raise web.HTTPBadRequest from None
    return bytes(body)


def make_runner(app: App, limits: HttpLimits) -> web.ServerRunner:
    """A runner with this module's bounds; after ``setup()`` its ``server`` makes a protocol for each connection.

    Needs a running loop. ``limits``: where to count what does not deserve a log line.
    """
    from aiohttp import web

    counters = limits.counters
    logger = logging.Logger(f"{__name__}.server")  # noqa: LOG001 - one per node: it counts for that node alone
    logger.parent = logging.getLogger(__name__)
    logger.addFilter(lambda record: _is_fault_of_ours(record, counters))
    server = web.Server(
        app,
        logger=logger,
        access_log=None,
        keepalive_timeout=0.0,  # a connection ends with its answer, and the front door limits its time
        lingering_time=LINGER,
        max_line_size=MAX_LINE,
        max_field_size=MAX_LINE,
        auto_decompress=False,
    )
    return web.ServerRunner(server, shutdown_timeout=SHUTDOWN)


def _is_fault_of_ours(record: logging.LogRecord, counters: Counter[str]) -> bool:
    """Keep only our own bugs: aiohttp logs a traceback for each malformed request or body, though not for a client that
    hangs up."""
    from aiohttp import web
    from aiohttp.http_exceptions import HttpProcessingError

    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, HttpProcessingError | web.RequestPayloadError):
        return True
    counters["http_malformed"] += 1
    return False
