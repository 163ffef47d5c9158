"""Events in a log: silent in a library, whole in a line, and never a line of somebody else's."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from zmesh.log import configure, get_logger


@pytest.fixture
def root_logging() -> Iterator[None]:
    """Let a test configure the root logger, and put back what stood there."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_an_event_reaches_the_services_own_logging_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        get_logger("zmesh.node").info("link.live", peer=b"\xab\xcd", after=1.5)
    (record,) = caplog.records
    assert record.getMessage() == "link.live peer=abcd after=1.5"
    assert (record.name, record.levelname) == ("zmesh.node", "INFO")
    assert vars(record)["zmesh"] == {"event": "link.live", "peer": "abcd", "after": 1.5}
    assert record.funcName == "test_an_event_reaches_the_services_own_logging_with_its_fields"


def test_a_name_with_a_line_break_writes_no_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("zmesh.node").warning("peer.named", name="x\n2026 ERROR all is lost")
    assert caplog.messages == ["peer.named name='x\\n2026 ERROR all is lost'"]


def test_a_level_that_nobody_listens_to_costs_no_text() -> None:
    class Unprintable:
        def __str__(self) -> str:
            raise AssertionError("formatted for nobody")

    get_logger("zmesh.node").debug("frame.dropped", value=Unprintable())


@pytest.mark.usefixtures("root_logging")
def test_json_gives_one_object_a_line_for_every_library() -> None:
    stream = io.StringIO()
    configure("INFO", "auto", stream)
    get_logger("zmesh.node").debug("hidden")
    get_logger("zmesh.node").info("node.started", port=9090, level="forged", odd={1, 2})
    logging.getLogger("other").warning("plain %s", "text")
    try:
        raise LookupError("gone")
    except LookupError as error:
        get_logger("zmesh.node").error("handler.failed", exc_info=error)
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert first.pop("timestamp").endswith("+00:00")
    assert first == {
        "level": "info",
        "logger": "zmesh.node",
        "event": "node.started",
        "port": 9090,
        "odd": "{1, 2}",
    }
    assert (second["event"], second["logger"], second["level"]) == ("plain text", "other", "warning")
    assert third["exception"].endswith("LookupError: gone")


@pytest.mark.usefixtures("root_logging")
def test_the_console_gives_a_line_for_people() -> None:
    stream = io.StringIO()
    configure("DEBUG", "console", stream)
    get_logger("zmesh.node").debug("frame.dropped", reason="stale")
    (line,) = stream.getvalue().splitlines()
    assert "frame.dropped" in line
    assert "reason=stale" in line
    assert "\x1b" not in line
