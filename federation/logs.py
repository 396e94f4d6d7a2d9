"""
Logging: one line for each event on standard error, as JSON or as text for a terminal.

structlog writes the broker's own lines to the stream without the standard library's logging, which
costs more than the rest of a line. Lines that other libraries log there get the same form.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TextIO

import orjson
import structlog
from structlog.dev import ConsoleRenderer
from structlog.typing import EventDict, Processor

from federation.errors import HttpError
from federation.text import printable

_SHARED: tuple[Processor, ...] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure_logs(log_format: str | None, level: str = "info", *, quiet: bool = False) -> None:
    """
    Make every logger of this process write lines of *log_format* to standard error.

    None means text with colours on a terminal, else JSON. Lines below *level* are left out: it is
    `debug`, `info`, `warning`, `error`, or `critical`, which the broker never uses. *quiet* logs
    errors only.
    """
    stream = sys.stderr
    text = log_format == "text" or (log_format is None and sys.stderr.isatty())
    least = logging.ERROR if quiet else logging.getLevelNamesMapping()[level.upper()]
    last: list[Processor] = [
        structlog.processors.format_exc_info,
        _text_line if text else _json_line,
    ]
    structlog.configure(
        processors=[*_SHARED, *last],
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=lambda name="": _Stream(name, stream),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(_is_news)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=list(_SHARED),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # What libraries say for their own debugging holds requests, and with them tokens.
    root.setLevel(max(least, logging.INFO))
    # These libraries log URLs with their query strings, which may hold tokens.
    for name in ("httpx2", "httpcore2", "uvicorn.access"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def quiet_logs() -> Iterator[None]:
    """
    Log nothing until the block ends: a command says what matters itself, and its output is read.

    Unless configured, structlog writes to standard output, between the lines of the result.
    """
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


def quick_info(name: str) -> Callable[..., None]:
    """
    Return the method `info` of the logger *name*, in a faster form for the most frequent line.

    There is one audit line for each exchange. As JSON it skips structlog's chain of processors
    and is written together with the other lines of the same turn of the event loop. That saves
    8 to 10 % of an exchange. It must be called within the event loop.
    """
    config = structlog.get_config()
    quiet = not logging.getLogger().isEnabledFor(logging.INFO)
    if quiet or config["processors"][-1] is not _json_line:
        return lambda event, **facts: structlog.get_logger(name).info(event, **facts)
    stream = config["logger_factory"](name)
    lines: list[str] = []

    def write() -> None:
        written = "\n".join(lines)
        lines.clear()  # before writing, since a failed write must not repeat these lines
        stream.msg(written)

    def info(event: str, **facts: object) -> None:
        facts.update(event=event, level="info", logger=name, timestamp=datetime.now(UTC))
        if not lines:
            asyncio.get_running_loop().call_soon(write)
        lines.append(_json_line(stream, "info", facts))

    return info


def _is_news(record: logging.LogRecord) -> bool:
    """
    Return false for an `HttpError` that reached uvicorn, which then closes the connection.

    That is how a response is cut short. The broker has logged the cause without a traceback.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], HttpError))


class _Stream(structlog.WriteLogger):
    """A stream of lines. A line that cannot be written is lost, and the request goes on."""

    def __init__(self, name: str, file: TextIO) -> None:
        super().__init__(file)
        self.name = name

    def msg(self, message: str) -> None:
        with suppress(OSError):  # a full disk, or a closed pipe
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _json_line(_logger: object, _method: str, event: EventDict) -> str:
    try:
        line = orjson.dumps(event, default=str, option=orjson.OPT_UTC_Z).decode("utf-8")
    except TypeError:  # orjson refuses half a surrogate pair, and a number beyond 64 bits
        line = "\N{REPLACEMENT CHARACTER}"
    # Some characters beyond ASCII end a line or move a terminal's cursor. `json` escapes them all.
    return line if line.isascii() else json.dumps(event, default=_json_text)


def _json_text(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return str(value)


def _text_line(logger: object, method: str, event: EventDict) -> str:
    # Control characters are escaped, so that a log line cannot command the terminal.
    shown = {
        key: printable(value) if isinstance(value, str) and key != "exception" else value
        for key, value in event.items()
    }
    return str(ConsoleRenderer(colors=sys.stderr.isatty())(logger, method, shown))
