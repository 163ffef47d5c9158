"""What a node says over HTTP: GET /health, /metrics and /record, and POST /records, where a newcomer leaves its own.

Rules
 1. HTTP carries nothing secret, and changes one thing: a posted record is taken as one that was gossiped would be, for
    it is signed and needs no trusted transport. Every method but GET and HEAD is refused elsewhere.
 2. A stranger's bytes are bounded: request line, headers, body, time; so is how often one address may ask and post.
    What comes too often is refused before anything is done for it, and the refusal is held for a while: given at once
    it would cost most of what an answer does, and who does not mind could go on asking as fast as before.
 3. Answers are JSON, refusals too, but for /metrics (Prometheus text) and /record (the bytes themselves).
 4. A stranger cannot write to the log: what is no HTTP, or ends within a body, gets 400 and is not worth a line.
 5. aiohttp is imported where it is needed: it takes longer to import than all the rest of zmesh.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from zmesh.handlers.offers import Offer, Taken
from zmesh.knocks import RETRY_AFTER, Knocks
from zmesh.log import get_logger

if TYPE_CHECKING:
    from aiohttp import web

MAX_LINE = 2 * 1024
"""Bytes of a request line or header: the longest of ours is 40."""
MAX_BODY = 8 * 1024
"""Bytes of a request body: twice what a record of this version may have."""
BODY_SECONDS = 5.0
"""Seconds in which a body must have come."""
READ_BUFFER = 16 * 1024
"""Bytes read ahead of one connection."""
HELD = 1.0
"""Seconds for which a refusal is held, and with it its connection: one a second of 0.2 ms, 10 % of a core for as many
connections as the front door lets one address have (512)."""
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
Post = Callable[[bytes], Offer]
"""Takes the bytes of a record that a stranger posted, and says what became of it."""

STATUSES: Mapping[Taken, int] = {
    Taken.NEW: 202,
    Taken.KNOWN: 200,
    Taken.OLDER: 409,
    Taken.EQUIVOCATION: 409,
    Taken.REFUSED: 403,
    Taken.OTHER_NETWORK: 403,
    Taken.LOCAL_ADDRESS: 403,
    Taken.BAD_SIGNATURE: 403,
    Taken.MALFORMED: 400,
    Taken.FULL: 503,
}
"""202: it is introduced to all others, and dialled, in its own time."""


def json_answer(content: Mapping[str, Any], status: int = 200) -> web.Response:
    """An answer that nobody keeps."""
    from aiohttp import web

    text = json.dumps(content, separators=(", ", ": ")) + "\n"
    headers = {"Cache-Control": "no-store"}
    return web.Response(text=text, status=status, content_type="application/json", headers=headers)


def make_app(
    health: Health,
    metrics: Metrics | None = None,
    record: OwnRecord | None = None,
    post: Post | None = None,
    knocks: Knocks | None = None,
) -> web.Application:
    """The application behind the front door; what is None is not served.

    ``health``: what /health says, JSON types only; the status is 200 whatever it says, for the question was
    answered. ``metrics``: text in the Prometheus exposition format. ``record``: the node's own signed record, empty
    while there is none yet. ``post``: takes records of others; the registry is asked before any signature is checked.
    ``knocks``: how often somebody may ask and post; None takes the usual limits.
    """
    from aiohttp import web
    from aiohttp.http_exceptions import HttpProcessingError

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

    async def post_record(request: web.Request) -> web.Response:
        assert post is not None
        try:
            async with asyncio.timeout(BODY_SECONDS):
                encoded = await request.read()
        except TimeoutError:
            raise web.HTTPRequestTimeout from None
        except asyncio.CancelledError:
            limits.counters["http_posts_broken_off"] += 1  # it hung up, or the node stops
            raise
        except (OSError, HttpProcessingError, web.RequestPayloadError):
            # Its chunks are none; aiohttp's parser in C and the one in Python raise different things.
            limits.counters["http_posts_broken_off"] += 1
            raise web.HTTPBadRequest from None
        taken, name = post(encoded)
        return json_answer({"taken": taken.value, "why": name}, STATUSES[taken])

    limits = knocks or Knocks()

    app = web.Application(middlewares=[_rationed(limits), _errors_as_json()], client_max_size=MAX_BODY)
    app.router.add_get("/health", get_health)
    if metrics is not None:
        app.router.add_get("/metrics", get_metrics)
    if record is not None:
        app.router.add_get("/record", get_record)
    if post is not None:
        app.router.add_post("/records", post_record)
    return app


def _errors_as_json() -> Any:
    """The middleware that gives every refusal the form of an answer."""
    from aiohttp import web

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

    return errors_as_json


def _rationed(knocks: Knocks) -> Any:
    """The middleware that refuses what comes too often; a body is not read."""
    from aiohttp import web

    @web.middleware
    async def rationed(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        is_post = request.method == "POST"
        whose = (knocks.posts if is_post else knocks.gets).refusal(request.remote, time.monotonic())
        if whose is None:
            return await handler(request)
        # 503 to GET /record says that there is no record yet.
        status = 503 if is_post and whose == "everybody" else 429
        answer = json_answer({"error": f"too many requests of {whose}", "why": "too_often"}, status)
        answer.headers["Retry-After"] = str(RETRY_AFTER)
        await asyncio.sleep(HELD)
        return answer

    return rationed


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner with this module's bounds; after ``setup()`` its ``server`` makes a protocol for each connection."""
    from aiohttp import web

    logger = logging.getLogger(f"{__name__}.server")
    logger.addFilter(_not_a_strangers_fault)
    return web.AppRunner(
        app,
        logger=logger,
        access_log=None,
        handler_cancellation=True,  # or whoever hangs up would leave a refusal that is still held
        keepalive_timeout=KEEPALIVE,
        lingering_time=LINGER,
        max_line_size=MAX_LINE,
        max_field_size=MAX_LINE,
        read_bufsize=READ_BUFFER,
        auto_decompress=False,
        shutdown_timeout=SHUTDOWN,
    )


def _not_a_strangers_fault(record: logging.LogRecord) -> bool:
    """aiohttp logs a traceback for each request that does not parse, and for each body that does not."""
    from aiohttp import web
    from aiohttp.http_exceptions import HttpProcessingError

    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError | web.RequestPayloadError))
