"""The log tells what happened; that it cannot does not change what happens."""

from __future__ import annotations

import errno
import io
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from federation.logs import configure_logs


class Full(io.StringIO):
    """Standard error, on a disk without room."""

    def write(self, _text: str) -> int:
        """Fail as a file does."""
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Logging is of the whole process, so it is put back."""
    root, seen = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.configure(**seen)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_line_that_cannot_be_written_stops_nobody(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", Full())
    configure_logs(form)
    structlog.get_logger("federation.audit").info("audit", request_id="r")
    structlog.get_logger("federation").error("unexpected error", exc_info=ValueError("v"))
    logging.getLogger("uvicorn.error").warning("from a library")
