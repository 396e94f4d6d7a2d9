"""Log lines have one form, and a log that cannot be written does not disturb requests."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime

import pytest
import structlog

from federation.logs import configure_logs, quick_info


class Full(io.StringIO):
    """Standard error on a full disk."""

    def write(self, _text: str) -> int:
        """Fail as a file does."""
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Restore the logging configuration, which is global to the process."""
    root, seen = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**seen)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_line_that_cannot_be_written_raises_nothing(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    configure_logs(form)
    structlog.get_logger("federation.audit").info("audit", request_id="r")
    structlog.get_logger("federation").error("unexpected error", exc_info=ValueError("v"))
    logging.getLogger("uvicorn.error").warning("from a library")


class Closed(io.StringIO):
    """Standard error whose first write fails with another error than a full disk's."""

    refuses = True

    def write(self, text: str) -> int:
        """Fail once."""
        if self.refuses:
            self.refuses = False
            raise ValueError("I/O operation on closed file.")
        return super().write(text)


@pytest.mark.parametrize("form", ["json", "text"])
def test_quick_lines_are_written_in_order(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    configure_logs(form)
    info = quick_info("federation.audit")

    async def requests() -> None:
        for number in range(3):
            info("audit", request_id=f"r{number}", sub="\u00e9\n\u2028")
        await asyncio.sleep(0)
        info("audit", request_id="r3")

    asyncio.run(requests())
    lines = written.getvalue().splitlines()
    assert [f"r{number}" in line for number, line in enumerate(lines)] == [True] * 4
    if form == "json":
        told = [json.loads(line) for line in lines]
        assert {(line["event"], line["level"], line["logger"]) for line in told} == {
            ("audit", "info", "federation.audit")
        }
        assert told[0]["sub"] == "\u00e9\n\u2028"
        for line in told:
            assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None
            assert line["timestamp"].endswith("Z")


def test_a_failed_write_loses_no_later_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", written := Closed())
    configure_logs("json")
    info = quick_info("federation.audit")

    async def requests() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        for number in range(2):
            info("audit", request_id=f"r{number}")
            await asyncio.sleep(0)

    asyncio.run(requests())
    assert [json.loads(line)["request_id"] for line in written.getvalue().splitlines()] == ["r1"]


@pytest.mark.parametrize(
    ("level", "told"),
    [("debug", ["debug", "info", "warning"]), ("info", ["info", "warning"]), ("error", [])],
)
def test_lines_below_the_level_are_left_out_and_those_of_libraries_for_debugging_always(
    level: str, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    configure_logs("json", level)
    log = structlog.get_logger("federation")
    log.debug("ours")
    log.info("ours")
    log.warning("ours")
    logging.getLogger("asyncio").debug("a library's, with all headers")
    lines = map(json.loads, written.getvalue().splitlines())
    assert [line["level"] for line in lines] == told


def test_the_fast_form_of_the_audit_line_keeps_to_the_level(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    configure_logs("json", "warning")

    async def request() -> None:
        quick_info("federation.audit")("audit", request_id="r")

    asyncio.run(request())
    assert written.getvalue() == ""
