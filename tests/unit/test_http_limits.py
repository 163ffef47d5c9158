"""How often somebody may ask and post: whose share is whose, and what becomes of what comes too often."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.unit.http_support import ANSWERS, HEALTH, NEW, exchange, get, make, serving, taking
from zmesh.counted import LAYERS
from zmesh.http import App
from zmesh.http_client import fetch_record
from zmesh.http_limits import (
    GET_BURST,
    GET_BURST_OF_ALL,
    GET_RATE,
    POST_BURST,
    POST_BURST_OF_ALL,
    POST_RATE,
    HttpLimits,
    Requests,
)


def counting(monkeypatch: pytest.MonkeyPatch, burst: int) -> tuple[App, HttpLimits, list[str]]:
    """An application of which one address gets so many answers, and those that it made."""
    monkeypatch.setattr("zmesh.http_limits.GET_RATE", 1e-6)
    monkeypatch.setattr("zmesh.http_limits.GET_BURST", float(burst))
    made: list[str] = []

    def health() -> Mapping[str, Any]:
        made.append("health")
        return HEALTH

    def metrics() -> str:
        made.append("metrics")
        return "zmesh_peers 5\n"

    def record() -> bytes:
        made.append("record")
        return b"\x93record"

    limits = HttpLimits()
    return make(ANSWERS._replace(health=health, metrics=metrics, record=record), limits), limits, made


async def test_one_address_that_posts_too_often_waits_and_others_do_not() -> None:
    app, posted = taking(NEW)
    one = get("/records", "POST", "Content-Length: 1\r\n") + b"x"
    async with serving(app) as endpoint:
        answered = [(await exchange(endpoint, one))[0] for _ in range(int(POST_BURST) + 20)]
        assert answered.count(202) == len(posted)
        assert POST_BURST <= len(posted) < POST_BURST + 20
        assert set(answered[int(POST_BURST) :]) <= {202, 429}
        assert 429 in answered
        reader, writer = await asyncio.open_connection(*endpoint, local_addr=("127.0.0.2", 0))
        writer.write(get("/records", "POST", "Content-Length: 1\r\n") + b"x")
        assert (await reader.readline()).startswith(b"HTTP/1.1 202")
        writer.close()


@pytest.mark.parametrize(
    "kind, rate, burst, burst_of_all",
    [("posts", POST_RATE, POST_BURST, POST_BURST_OF_ALL), ("gets", GET_RATE, GET_BURST, GET_BURST_OF_ALL)],
)
def test_each_machine_has_its_share_and_all_together_have_one(
    kind: str, rate: float, burst: float, burst_of_all: float
) -> None:
    limits = HttpLimits()
    requests: Requests = getattr(limits, kind)
    for address in ("192.0.2.1", "2001:db8::1", None):
        assert [requests.refusal(address, 0.0) for _ in range(int(burst) + 1)] == [None] * int(burst) + ["address"]
    assert requests.refusal("::ffff:192.0.2.1", 0.0) == "address", "the same machine over IPv6"
    assert requests.refusal("2001:db8::2%eth0", 0.0) == "address", "the same /64"
    assert requests.refusal("2001:db8:0:1::1", 0.0) is None
    assert requests.refusal("192.0.2.1", 1 / rate) is None
    left = burst_of_all - 3 * burst - 2
    crowd = [requests.refusal(f"198.51.{number // 200}.{number % 200}", 1 / rate) for number in range(int(left) + 100)]
    assert set(crowd) == {None, "everybody"}
    assert crowd.count("everybody") == pytest.approx(100, abs=40)
    assert limits.counters == {
        f"http_{kind}_over_limit_of_address": 5,
        f"http_{kind}_over_limit_of_everybody": crowd.count("everybody"),
    }


@pytest.mark.parametrize("kind, burst", [("posts", POST_BURST), ("gets", GET_BURST)])
@pytest.mark.parametrize("own", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_strangers_use_up_nothing_of_this_machines_own_share_nor_it_of_theirs(
    kind: str, burst: float, own: str
) -> None:
    limits = HttpLimits()
    requests: Requests = getattr(limits, kind)
    before = [requests.refusal(own, 0.0) for _ in range(int(burst) // 2)]
    let_in = 0
    while requests.refusal(f"198.51.100.{let_in % 100}", 0.0) is None:
        let_in += 1
    after = [requests.refusal(own, 0.0) for _ in range(int(burst) // 2 + 1)]

    assert let_in == (POST_BURST_OF_ALL if kind == "posts" else GET_BURST_OF_ALL)
    assert before + after == [None] * int(burst) + ["address"]
    assert requests.refusal("127.8.7.6", 0.0) == "everybody", "as for the front door, whatever else is on this machine"


async def test_one_address_that_asks_too_often_gets_429_before_an_answer_is_made_and_others_are_served(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, limits, made = counting(monkeypatch, 5)
    within = [get("/metrics"), get("/record", "HEAD"), get("/nothing"), get("/health", "PUT"), get("/health")]
    async with serving(app) as endpoint:
        assert [(await exchange(endpoint, one))[0] for one in within] == [200, 200, 404, 405, 200]
        for one in (*within, get("/metrics")):
            status, headers, body = await exchange(endpoint, one)
            assert (status, headers["retry-after"]) == (429, "1")
        posted, _, _ = await exchange(endpoint, get("/records", "POST", "Content-Length: 1\r\n") + b"x")
        reader, writer = await asyncio.open_connection(*endpoint, local_addr=("127.0.0.2", 0))
        writer.write(get("/record"))
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        with pytest.raises(ValueError, match="answered with status 429"):
            await fetch_record(endpoint, 10)

    assert json.loads(body) == {"error": "too many requests from address", "why": "too_often"}
    assert posted == 202
    assert made == ["metrics", "record", "health", "record"]
    assert limits.counters == {"http_gets_over_limit_of_address": 7}


@pytest.mark.parametrize("expectation", ["100-continue", "a miracle"])
@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/health"),
        ("GET", "/nothing"),
        ("PUT", "/health"),
        ("OPTIONS", "*"),
        ("CONNECT", "x:1"),
        ("POST", "/records"),
    ],
)
async def test_who_expects_something_has_no_other_share_than_who_does_not(
    method: str, path: str, expectation: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An HTTP server's own answers to an Expect (100, 417) come before anything of ours has seen the request."""
    monkeypatch.setattr("zmesh.http_limits.POST_BURST", 0.0)
    app, limits, made = counting(monkeypatch, 0)
    length = "Content-Length: 1\r\n" if method == "POST" else ""
    request = get(path, method, f"Expect: {expectation}\r\n{length}")
    async with serving(app, limits) as endpoint:
        status, _, body = await exchange(endpoint, request)
        assert (status, body.count(b"HTTP/1.1")) == (429, 0), "one answer, and no other before it"

    kind = "posts" if method == "POST" else "gets"
    assert (made, limits.counters) == ([], {f"http_{kind}_over_limit_of_address": 1})
    assert caplog.records == []


async def test_what_everybody_asks_too_often_gets_429_too_for_503_says_that_there_is_no_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("zmesh.http_limits.GET_BURST_OF_ALL", 0.0)
    monkeypatch.setattr("zmesh.http_limits.POST_BURST_OF_ALL", 0.0)
    monkeypatch.setattr("zmesh.http_limits.machine", lambda _: "198.51.100.1")
    app, limits, made = counting(monkeypatch, 5)
    async with serving(app) as endpoint:
        assert (await exchange(endpoint, get("/record")))[0] == 429
        assert (await exchange(endpoint, get("/records", "POST", "Content-Length: 1\r\n") + b"x"))[0] == 503

    assert made == []
    assert limits.counters == {"http_gets_over_limit_of_everybody": 1, "http_posts_over_limit_of_everybody": 1}
    meanings = LAYERS["front_door"].events
    assert "answered with 429:" in meanings["http_gets_over_limit_of_everybody"]
    assert "answered with 503:" in meanings["http_posts_over_limit_of_everybody"]
