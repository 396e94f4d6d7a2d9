"""
Logs: one line an event, on standard error, as JSON or for a person to read.

The broker's own lines go straight to the stream: there is one for each exchange, and the way
through the standard library's logging costs more than all the rest of it. What other libraries
log there has the same form.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import TextIO

import orjson
import structlog
from structlog.dev import ConsoleRenderer
from structlog.typing import EventDict, Processor

__all__ = ["configure_logs"]

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
    for name in ("httpx", "httpcore", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _Stream(structlog.WriteLogger):
    """Writes each line at once."""

    def __init__(self, name: str, file: TextIO) -> None:
        super().__init__(file)
        self.name = name


def _json_line(_logger: object, _method: str, event: EventDict) -> str:
    try:
        line = orjson.dumps(event, default=str).decode("utf-8")
    except TypeError:  # half a surrogate pair, or a number beyond 64 bits
        line = "\N{REPLACEMENT CHARACTER}"
    # Beyond ASCII there are characters that end lines and move cursors; then all is escaped.
    return line if line.isascii() else json.dumps(event, default=str)


def _text_line(logger: object, method: str, event: EventDict) -> str:
    shown = {key: value if key == "exception" else _plain(value) for key, value in event.items()}
    return str(ConsoleRenderer(colors=sys.stderr.isatty())(logger, method, shown))


def _plain(value: object) -> object:
    """*value*, with what a terminal would obey written out."""
    if isinstance(value, str) and not value.isprintable():
        return value.encode("unicode_escape").decode("ascii")
    return value
