"""HTTP on real sockets: what is answered, what is refused, and what a stranger's answer may be."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.unit.http_support import ANSWERS, HEALTH, NEW, exchange, get, make, serving, taking
from zmesh.core.types import Endpoint
from zmesh.handlers import Offer, RecordOutcome
from zmesh.handlers.standing import Standing
from zmesh.http import MAX_BODY, MAX_LINE, STATUSES, json_answer
from zmesh.http_client import MAX_ANSWER, Posted, fetch_record, post_record
from zmesh.http_limits import HttpLimits


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


async def test_health_is_what_operators_read() -> None:
    async with serving(make()) as endpoint:
        status, headers, body = await exchange(endpoint, get("/health"))
        assert (status, json.loads(body)) == (200, HEALTH)
        assert headers["content-type"] == "application/json; charset=utf-8"
        assert headers["cache-control"] == "no-store"
        status, headers, nothing = await exchange(endpoint, get("/health", "HEAD"))
        assert (status, int(headers["content-length"]), nothing) == (200, len(body), b"")


async def test_metrics_are_text_for_prometheus_and_the_record_is_its_bytes() -> None:
    async with serving(make()) as endpoint:
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
    async with serving(make()) as endpoint:
        answered, headers, body = await exchange(endpoint, get(path, method))
    assert (answered, json.loads(body)) == (status, {"error": error})
    assert headers.get("allow") == ("get,head" if status == 405 else None)


async def test_a_node_without_a_record_yet_says_so() -> None:
    async with serving(make(ANSWERS._replace(record=bytes))) as endpoint:
        status, _, body = await exchange(endpoint, get("/record"))
        assert (status, json.loads(body)) == (503, {"error": "this node has no record yet"})
        with pytest.raises(ValueError, match="answered with status 503"):
            await fetch_record(endpoint, 10)


@pytest.mark.parametrize(
    "request_bytes, counted",
    [
        (get("/" + "x" * 2 * MAX_LINE), {"http_malformed": 1}),
        (get("/health", extra=f"X-Long: {'x' * 2 * MAX_LINE}\r\n"), {"http_malformed": 1}),
        (b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00CURVE\r\n\r\n", {}),
        (b"GET /health HTTP/9.9\r\n\r\n", {"http_malformed": 1}),
    ],
    ids=["line", "header", "zmtp", "version"],
)
async def test_what_is_no_request_is_refused_without_a_line_in_the_log(
    request_bytes: bytes, counted: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    """The exchange ends because the server hangs up; the next one is served. No method: the front door counts it."""
    limits = HttpLimits()
    async with serving(make(), limits) as endpoint:
        assert (await exchange(endpoint, request_bytes))[0] == 400
        assert (await exchange(endpoint, get("/health")))[0] == 200
    assert limits.counters == counted
    assert caplog.records == []


async def test_what_is_malformed_is_counted_and_not_logged_and_a_fault_of_ours_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whatever it is; and each node counts its own."""
    raised: list[Exception] = [ConnectionResetError("of ours"), LookupError("a bug")]

    async def app(_request: web.BaseRequest) -> web.Response:
        raise raised.pop(0)

    here, elsewhere = HttpLimits(), HttpLimits()
    async with serving(app, here) as endpoint, serving(app, elsewhere):
        assert (await exchange(endpoint, get("/" + "x" * 2 * MAX_LINE)))[0] == 400
        assert caplog.records == []
        for fault in ("ConnectionResetError: of ours", "LookupError: a bug"):
            assert (await exchange(endpoint, get("/health")))[0] == 500
            assert fault in caplog.text
    assert (here.counters, elsewhere.counters) == ({"http_malformed": 1}, {})


@pytest.mark.parametrize("leave", ["fin", "rst"])
async def test_whoever_hangs_up_before_its_answer_is_not_logged(leave: str, caplog: pytest.LogCaptureFixture) -> None:
    limits = HttpLimits()
    asked, gone = asyncio.Event(), asyncio.Event()

    async def app(request: web.BaseRequest) -> web.Response:
        asked.set()
        with pytest.raises((OSError, web.RequestPayloadError)):
            await request.content.read()
        gone.set()
        return json_answer({})

    async with serving(app, limits) as endpoint:
        _, writer = await asyncio.open_connection(*endpoint)
        writer.write(get("/health", extra="Content-Length: 1\r\n"))
        await asked.wait()
        if leave == "rst":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await gone.wait()
    assert limits.counters == {}
    assert caplog.records == []


async def test_a_large_body_is_refused_with_its_method() -> None:
    async with serving(make()) as endpoint:
        status, _, _ = await exchange(endpoint, get("/health", "POST", "Content-Length: 65536\r\n") + bytes(65536))
        assert status == 405


async def test_a_fault_in_health_is_logged_and_answered(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> dict[str, Any]:
        raise LookupError("a bug")

    async with serving(make(ANSWERS._replace(health=broken))) as endpoint:
        status, _, body = await exchange(endpoint, get("/health"))
    assert (status, json.loads(body)) == (500, {"error": "Internal Server Error"})
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "http_request_failed path=/health")
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
        (b"", "does not speak HTTP"),
        (b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00CURVE", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive!", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + bytes(9000), f"more than {MAX_ANSWER} bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1_000_000), f"more than {MAX_ANSWER} bytes"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "with status 302"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "with status 404"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "does not speak HTTP"),
    ],
    ids=["nothing", "zmtp", "cut", "large", "endless", "redirect", "missing", "header"],
)
async def test_an_answer_that_is_no_record_is_refused(answer: bytes, said: str) -> None:
    async def give(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    async with answering(give) as endpoint:
        with pytest.raises(ValueError, match=said):
            await fetch_record(endpoint, 10)


@pytest.mark.parametrize(
    "begin, more",
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 1000 + b"\r\na\r\n"),
    ],
    ids=["continue", "hints", "extensions"],
)
async def test_an_answer_without_end_is_cut_whatever_it_consists_of(begin: bytes, more: bytes) -> None:
    sent: asyncio.Queue[int] = asyncio.Queue()

    async def give(writer: asyncio.StreamWriter) -> None:
        count = 0
        writer.write(begin)
        try:
            while True:
                writer.write(more)
                count += len(more)
                await writer.drain()
        except ConnectionError:
            sent.put_nowait(count)

    async with answering(give) as endpoint:
        with pytest.raises(ValueError, match="does not speak HTTP"):
            await fetch_record(endpoint, 10)
        assert await sent.get() < 16 << 20, "no more than the kernel holds for both ends"


async def test_a_door_that_never_answers_is_given_up() -> None:
    async def never(_writer: asyncio.StreamWriter) -> None:
        await gone.wait()

    gone = asyncio.Event()
    async with answering(never) as endpoint:
        with pytest.raises(TimeoutError):
            await fetch_record(endpoint, 0.05)
        gone.set()


# ------------------------------------------------------------ posting a record


@pytest.mark.parametrize("taken", RecordOutcome)
async def test_a_posted_record_is_answered_with_what_became_of_it(taken: RecordOutcome) -> None:
    app, posted = taking(Offer(taken, Standing.UNKNOWN_ACCOUNT))
    async with serving(app) as endpoint:
        answer = await post_record(endpoint, b"\x9crecord", 10)
    why = "unknown_account" if taken is RecordOutcome.REFUSED else taken.value
    assert (answer, posted) == (Posted(STATUSES[taken], why), [b"\x9crecord"])
    assert answer.is_taken is (taken in (RecordOutcome.NEW, RecordOutcome.KNOWN))


async def test_the_answer_to_a_post_is_json_for_people_too() -> None:
    app, _ = taking(NEW)
    request = get("/records", "POST", "Content-Length: 3\r\n") + b"abc"
    async with serving(app) as endpoint:
        status, headers, body = await exchange(endpoint, request)
        assert (await exchange(endpoint, get("/records")))[0] == 405
    assert (status, json.loads(body)) == (202, {"taken": "new", "why": "new"})
    assert headers["content-type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("size, status", [(MAX_BODY, 202), (MAX_BODY + 1, 413), (1_000_000, 413)])
async def test_a_body_over_its_bound_is_refused_unread(size: int, status: int) -> None:
    app, posted = taking(NEW)
    request = get("/records", "POST", f"Content-Length: {size}\r\n") + bytes(size)
    async with serving(app) as endpoint:
        assert (await exchange(endpoint, request))[0] == status
    assert [len(body) for body in posted] == ([size] if status == 202 else [])


async def test_a_body_that_tells_no_size_is_bounded_too() -> None:
    app, posted = taking(NEW)
    chunks = b"1000\r\n" + bytes(4096) + b"\r\n"
    request = get("/records", "POST", "Transfer-Encoding: chunked\r\n") + chunks * 100 + b"0\r\n\r\n"
    async with serving(app) as endpoint:
        assert (await exchange(endpoint, request))[0] == 413
    assert posted == []


async def test_a_body_that_would_unpack_to_a_thousand_times_its_size_stays_packed() -> None:
    app, posted = taking(Offer(RecordOutcome.MALFORMED))
    packed = zlib.compress(bytes(1_000_000))
    extra = f"Content-Encoding: deflate\r\nContent-Length: {len(packed)}\r\n"
    async with serving(app) as endpoint:
        assert (await exchange(endpoint, get("/records", "POST", extra) + packed))[0] == 400
    assert posted == [packed]


async def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmesh.http.BODY_SECONDS", 0.05)
    app, posted = taking(NEW)
    async with serving(app) as endpoint:
        status, _, body = await exchange(endpoint, get("/records", "POST", "Content-Length: 10\r\n") + b"half")
    assert (status, json.loads(body), posted) == (408, {"error": "Request Timeout"}, [])


EXPECTING = "Expect: 100-Continue\r\nContent-Length: 3\r\n"


async def test_a_body_is_asked_for_when_it_was_let_in() -> None:
    app, posted = taking(NEW)
    async with serving(app) as endpoint:
        reader, writer = await asyncio.open_connection(*endpoint)
        writer.write(get("/records", "POST", EXPECTING))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        assert (await reader.read()).startswith(b"HTTP/1.1 202 ")
        writer.close()
    assert posted == [b"abc"]


@pytest.mark.parametrize(
    "request_bytes, status",
    [
        (get("/records", "POST", f"Expect: 100-continue\r\nContent-Length: {MAX_BODY + 1}\r\n"), 413),
        (get("/nothing", "POST", EXPECTING), 404),
        (get("/health", "POST", EXPECTING), 405),
        (get("/health", extra="Expect: 100-continue\r\n"), 200),
        (get("/health", extra="Expect: a miracle\r\n"), 200),
        (get("/records", "POST", "Expect: a miracle\r\nContent-Length: 1\r\n") + b"x", 202),
        (get("/records", "POST", EXPECTING).replace(b"HTTP/1.1", b"HTTP/1.0") + b"abc", 202),
    ],
    ids=["large", "nowhere", "method", "get", "unknown", "unknown of a post", "older HTTP"],
)
async def test_no_other_body_is_asked_for_whatever_is_expected(request_bytes: bytes, status: int) -> None:
    app, _ = taking(NEW)
    async with serving(app) as endpoint:
        assert (await exchange(endpoint, request_bytes))[0] == status


BAD_CHUNKS = b"Transfer-Encoding: chunked\r\n", [b"5\r\nhello", b"XX\r\n"]
TOO_SHORT = b"Content-Length: 100\r\n", [b"abc"]


@pytest.mark.parametrize("leave", ["fin", "rst"])
@pytest.mark.parametrize("coding, pieces", [TOO_SHORT, BAD_CHUNKS], ids=["short", "bad chunks"])
async def test_whoever_hangs_up_within_a_body_is_counted_and_not_logged(
    coding: bytes, pieces: list[bytes], leave: str, caplog: pytest.LogCaptureFixture
) -> None:
    limits = HttpLimits()
    app, posted = taking(NEW, limits=limits)
    ended = asyncio.Event()

    async def watched(request: web.BaseRequest) -> web.Response:
        try:
            return await app(request)
        finally:
            ended.set()

    async with serving(watched) as endpoint:
        reader, writer = await asyncio.open_connection(*endpoint)
        writer.write(b"POST /records HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n" + coding + b"\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if leave == "rst":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await ended.wait()
        assert (await exchange(endpoint, get("/health")))[0] == 200
    assert (posted, limits.counters) == ([], {"http_posts_broken_off": 1})
    assert caplog.records == []


@pytest.mark.parametrize(
    "status, body, posted",
    [
        (404, b"", Posted(404, "status_404")),
        (403, b'{"why": "a\\u0000b"}', Posted(403, "status_403")),
        (403, b"[" * 8000, Posted(403, "status_403")),
        (403, b'{"why": "forged"', Posted(403, "status_403")),
        (403, b'{"why": "forged"}', Posted(403, "forged")),
        (200, b'{"why": "known"}', Posted(200, "known")),
    ],
    ids=["missing", "unprintable", "deep", "cut", "forged", "known"],
)
async def test_what_is_said_of_our_record_is_not_believed_but_shown(status: int, body: bytes, posted: Posted) -> None:
    async def give(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    async with answering(give) as endpoint:
        assert await post_record(endpoint, b"x", 10) == posted


async def test_a_success_that_says_nothing_is_none() -> None:
    async def give(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK")

    async with answering(give) as endpoint:
        with pytest.raises(ValueError, match="/records did not answer with what became of the record"):
            await post_record(endpoint, b"x", 10)
