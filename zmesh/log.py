"""What zmesh writes to a log: an event name and its fields.

Rules
 1. A library leaves logging to the service that embeds it: events go to the standard loggers under ``zmesh``, so
    ``logging.basicConfig(level=logging.DEBUG)`` shows them, and each record carries its fields as a mapping in
    ``record.zmesh`` for those who want structure. Only ``configure`` configures anything.
 2. ``configure`` belongs to the command line alone. Only it imports structlog, which takes longer to import than
    the rest of zmesh.
 3. Never a secret, and never a payload: keys, ids, names, counts and reasons.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import IO, Any

_LEVELS = {"DEBUG": logging.DEBUG, "INFO": logging.INFO, "WARNING": logging.WARNING, "ERROR": logging.ERROR}


class EventLogger:
    """Writes the events of one part of zmesh."""

    __slots__ = ("_logger",)

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, **fields: Any) -> None:
        """For a developer who follows one message."""
        self._log(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """For an operator who wonders what the node does."""
        self._log(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """For an operator who should look at something in the daytime."""
        self._log(logging.WARNING, event, fields)

    def error(self, event: str, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        """For an operator who should look now; ``exc_info`` adds a traceback."""
        self._log(logging.ERROR, event, fields, exc_info)

    def _log(self, level: int, event: str, fields: Mapping[str, Any], exc_info: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            shown = {name: _readable(value) for name, value in fields.items()}
            text = " ".join([event, *(f"{name}={_one_word(value)}" for name, value in shown.items())])
            extra = {"zmesh": {"event": event, **shown}}
            self._logger.log(level, "%s", text, exc_info=exc_info, extra=extra, stacklevel=3)


def _readable(value: Any) -> Any:
    """Keys and ids are bytes; in a log, as elsewhere, they are shown in hex."""
    return value.hex() if isinstance(value, bytes) else value


def _one_word(value: Any) -> str:
    """``value`` as a single word, quoted if it is not: a name that a peer gave itself must not forge a log line."""
    text = str(value)
    return text if text.isprintable() and " " not in text else repr(text)


def get_logger(name: str) -> EventLogger:
    """The logger of a module; ``name`` is its ``__name__``, so that all of zmesh's are children of ``zmesh``."""
    return EventLogger(logging.getLogger(name))


def configure(level: str, form: str, stream: IO[str] | None = None) -> bool:
    """Set up logging for a process that is zmesh's own; returns whether the log is JSON.

    ``level``: DEBUG, INFO, WARNING or ERROR. ``form``: ``console`` (human-readable), ``json`` (one object per line), or
    ``auto``: ``console`` if ``stream`` (standard error) is a terminal, else ``json``. Replaces any earlier
    configuration.
    """
    stream = stream or sys.stderr
    person = form == "console" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter(_console(stream.isatty()) if person else _json()))
    logging.basicConfig(level=_LEVELS[level], handlers=[handler], force=True)
    return not person


Renderer = Callable[[dict[str, Any]], str]


class _Formatter(logging.Formatter):
    """Turns any record, zmesh's or another library's, into one event for a structlog renderer."""

    def __init__(self, render: Renderer) -> None:
        super().__init__()
        self._render = render

    def format(self, record: logging.LogRecord) -> str:
        fields: Mapping[str, Any] = getattr(record, "zmesh", None) or {"event": record.getMessage()}
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        head = {"timestamp": moment, "level": record.levelname.lower(), "logger": record.name}
        entry = {**head, **fields, **head}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return self._render(entry)


def _json() -> Renderer:
    from structlog.processors import JSONRenderer

    # What JSON cannot represent is written as text: a log line must never fail.
    render = JSONRenderer(default=str)
    return lambda entry: str(render(None, "", entry))


def _console(colors: bool) -> Renderer:
    from structlog.dev import ConsoleRenderer, plain_traceback

    render = ConsoleRenderer(colors=colors, exception_formatter=plain_traceback)
    return lambda entry: str(render(None, "", entry))
