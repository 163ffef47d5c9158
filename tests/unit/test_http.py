"""HTTP on real sockets: what is answered, what is refused, and what a stranger's answer may be."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from zmesh.core.types import Endpoint
from zmesh.http import MAX_LINE, MAX_RECORD, fetch_record, make_app, make_runner

HEALTH = {"status": "healthy", "peer_id": "validator_001", "peers_count": 5, "running": True}


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[Endpoint]:
    runner = make_runner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with asyncio.timeout(20):
            yield Endpoint(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


@asynccontextmanager
async def answering(answer: Callable[[asyncio.StreamWriter], Awaitable[Any]]) -> AsyncIterator[Endpoint]:
    """A server that is no zmesh node: takes a request, gives ``answer``, and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await answer(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with asyncio.timeout(20), server:
        yield Endpoint(*server.sockets[0].getsockname()[:2])


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


def whole_app() -> web.Application:
    return make_app(lambda: HEALTH, lambda: "zmesh_peers 5\n", lambda: b"\x93record")


async def test_health_is_what_the_guide_shows() -> None:
    async with serving(whole_app()) as endpoint:
        status, headers, body = await exchange(endpoint, get("/health"))
        assert (status, json.loads(body)) == (200, HEALTH)
        assert headers["content-type"] == "application/json; charset=utf-8"
        assert headers["cache-control"] == "no-store"
        status, headers, nothing = await exchange(endpoint, get("/health", "HEAD"))
        assert (status, int(headers["content-length"]), nothing) == (200, len(body), b"")


async def test_metrics_are_text_for_prometheus_and_the_record_is_its_bytes() -> None:
    async with serving(whole_app()) as endpoint:
        status, headers, body = await exchange(endpoint, get("/metrics"))
        assert (status, body) == (200, b"zmesh_peers 5\n")
        assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        status, headers, body = await exchange(endpoint, get("/record"))
        assert (status, body) == (200, b"\x93record")
        assert headers["content-type"] == "application/octet-stream"
        assert await fetch_record(endpoint, 10) == b"\x93record"


@pytest.mark.parametrize(
    "path, method, status, error",
    [
        ("/", "GET", 404, "Not Found"),
        ("/health/", "GET", 404, "Not Found"),
        ("/../etc/passwd", "GET", 404, "Not Found"),
        ("/health", "POST", 405, "Method Not Allowed"),
        ("/record", "PUT", 405, "Method Not Allowed"),
        ("/metrics", "DELETE", 405, "Method Not Allowed"),
    ],
)
async def test_anything_else_is_refused_in_json(path: str, method: str, status: int, error: str) -> None:
    async with serving(whole_app()) as endpoint:
        answered, headers, body = await exchange(endpoint, get(path, method))
    assert (answered, json.loads(body)) == (status, {"error": error})
    assert headers.get("allow") == ("get,head" if status == 405 else None)


async def test_what_is_not_given_is_not_served() -> None:
    async with serving(make_app(lambda: HEALTH)) as endpoint:
        assert (await exchange(endpoint, get("/metrics")))[0] == 404
        assert (await exchange(endpoint, get("/record")))[0] == 404


async def test_a_node_without_a_record_yet_says_so() -> None:
    async with serving(make_app(lambda: HEALTH, record=lambda: b"")) as endpoint:
        status, _, body = await exchange(endpoint, get("/record"))
        assert (status, json.loads(body)) == (503, {"error": "this node has no record yet"})
        with pytest.raises(ValueError, match="answered with status 503"):
            await fetch_record(endpoint, 10)


@pytest.mark.parametrize(
    "request_bytes",
    [
        get("/" + "x" * 2 * MAX_LINE),
        get("/health", extra=f"X-Long: {'x' * 2 * MAX_LINE}\r\n"),
        b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00CURVE\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
    ],
    ids=["line", "header", "zmtp", "version"],
)
async def test_what_is_no_request_is_refused_without_a_line_in_the_log(
    request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The exchange ends because the server hangs up; the next one is served."""
    async with serving(whole_app()) as endpoint:
        assert (await exchange(endpoint, request_bytes))[0] == 400
        assert (await exchange(endpoint, get("/health")))[0] == 200
    assert caplog.records == []


async def test_a_large_body_is_refused_with_its_method() -> None:
    async with serving(whole_app()) as endpoint:
        status, _, _ = await exchange(endpoint, get("/health", "POST", "Content-Length: 65536\r\n") + bytes(65536))
        assert status == 405


async def test_a_fault_in_health_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> dict[str, Any]:
        raise LookupError("a bug")

    async with serving(make_app(broken)) as endpoint:
        status, _, body = await exchange(endpoint, get("/health"))
    assert (status, json.loads(body)) == (500, {"error": "Internal Server Error"})
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "http.request_failed path=/health")
    assert "LookupError: a bug" in caplog.text


async def test_a_door_that_nobody_opens_is_a_connection_error() -> None:
    async with answering(lambda writer: writer.drain()) as endpoint:
        pass
    with pytest.raises(ConnectionError) as refusal:
        await fetch_record(endpoint, 10)
    assert refusal.value.strerror == "Connection refused"


@pytest.mark.parametrize(
    "answer, said",
    [
        (b"", "speaks no HTTP"),
        (b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00CURVE", "speaks no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive!", "speaks no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + bytes(9000), f"more than {MAX_RECORD} bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1_000_000), f"more than {MAX_RECORD} bytes"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "with status 302"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "with status 404"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "speaks no HTTP"),
    ],
    ids=["nothing", "zmtp", "cut", "large", "endless", "redirect", "missing", "header"],
)
async def test_an_answer_that_is_no_record_is_refused(answer: bytes, said: str) -> None:
    async def give(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    async with answering(give) as endpoint:
        with pytest.raises(ValueError, match=said):
            await fetch_record(endpoint, 10)


async def test_a_door_that_never_answers_is_given_up() -> None:
    async def never(_writer: asyncio.StreamWriter) -> None:
        await gone.wait()

    gone = asyncio.Event()
    async with answering(never) as endpoint:
        with pytest.raises(TimeoutError):
            await fetch_record(endpoint, 0.05)
        gone.set()
