"""
Logs: one line an event, on standard error, as JSON or for a person to read.

The broker's own lines go straight to the stream: there is one for each exchange, and the way
through the standard library's logging costs more than all the rest of it. What other libraries
log there has the same form.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

import orjson
import structlog
from structlog.dev import ConsoleRenderer
from structlog.typing import EventDict, Processor

from federation.text import printable

__all__ = ["configure_logs", "quick_info"]

_SHARED: tuple[Processor, ...] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
_LAST: tuple[Processor, ...] = (structlog.processors.format_exc_info,)


def configure_logs(log_format: str | None, *, quiet: bool = False) -> None:
    """
    Every logger of the process writes lines of *log_format* to standard error.

    None means text with colours on a terminal, JSON elsewhere. *quiet* leaves out all but
    errors.
    """
    stream = sys.stderr
    text = log_format == "text" or (log_format is None and sys.stderr.isatty())
    level = logging.ERROR if quiet else logging.INFO
    structlog.configure(
        processors=[*_SHARED, *_LAST, _text_line if text else _json_line],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda name="": _Stream(name, stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=list(_SHARED),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_LAST,
                _text_line if text else _json_line,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # Request lines of libraries would show URLs with query strings, which may hold tokens.
    for name in ("httpx2", "httpcore2", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


def quick_info(name: str) -> Callable[..., None]:
    """
    `info` of the logger *name*, for the line that is written most.

    Where lines are JSON it does without structlog's processors, which cost more than the line.
    It is called within the event loop.
    """
    config = structlog.get_config()
    quiet = not logging.getLogger().isEnabledFor(logging.INFO)
    if quiet or config["processors"][-1] is not _json_line:
        return lambda event, **facts: structlog.get_logger(name).info(event, **facts)
    stream = config["logger_factory"](name)
    lines: list[str] = []

    def write() -> None:
        written = "\n".join(lines)
        lines.clear()  # first: whatever becomes of these, the next are written
        stream.msg(written)

    def info(event: str, **facts: object) -> None:
        facts.update(event=event, level="info", logger=name, timestamp=datetime.now(UTC))
        if not lines:  # the lines of one turn of the event loop are written together
            asyncio.get_running_loop().call_soon(write)
        lines.append(_json_line(stream, "info", facts))

    return info


class _Stream(structlog.WriteLogger):
    """Writes each line at once, where it can: a full disk or a closed pipe ends no request."""

    def __init__(self, name: str, file: TextIO) -> None:
        super().__init__(file)
        self.name = name

    def msg(self, message: str) -> None:
        """Write *message*, or leave it."""
        with suppress(OSError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _json_line(_logger: object, _method: str, event: EventDict) -> str:
    try:
        line = orjson.dumps(event, default=str, option=orjson.OPT_UTC_Z).decode("utf-8")
    except TypeError:  # half a surrogate pair, or a number beyond 64 bits
        line = "\N{REPLACEMENT CHARACTER}"
    # Beyond ASCII there are characters that end lines and move cursors; then all is escaped.
    return line if line.isascii() else json.dumps(event, default=_written)


def _written(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)


def _text_line(logger: object, method: str, event: EventDict) -> str:
    shown = {key: value if key == "exception" else _plain(value) for key, value in event.items()}
    return str(ConsoleRenderer(colors=sys.stderr.isatty())(logger, method, shown))


def _plain(value: object) -> object:
    """*value*, with what a terminal would obey written out."""
    return printable(value) if isinstance(value, str) else value
