"""
Remembers what request lines without a body ask for, so that the same one is read once.

Callers of a function, and clients that poll, repeat one request line. The access it asks for
depends on the line alone; whether the caller has that access is decided anew each time. A line is
remembered only after it was read without an error, so an error comes from the same place each time.
"""

from __future__ import annotations

from federation.gateway.routes import Call, HealthCall, Match

_LINES = 1000
_LINE_BYTES = 512

Line = tuple[str, bytes, bytes]
"""Method, path and query as they came."""
Known = tuple[Match, Call | HealthCall]


class RequestLines:
    """The lines that came lately: at most 1,000 of 512 bytes, and then it starts anew."""

    def __init__(self) -> None:
        self._known: dict[Line, Known] = {}

    def get(self, line: Line) -> Known | None:
        """Return the remembered match of *line*, None if there is none."""
        return self._known.get(line)

    def remember(self, line: Line, matched: Match, call: Call | HealthCall) -> None:
        """Remember that *line* asks for *call*."""
        if len(line[1]) + len(line[2]) > _LINE_BYTES:
            return
        if len(self._known) >= _LINES:
            self._known.clear()
        self._known[line] = matched, call
