"""
A function's log: its last lines, and the lines that come.

A caller of the function may have written a line. Each is cut, made printable and escaped.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import aclosing

from markupsafe import Markup
from starlette.responses import Response

from federation.dashboard.gateway import LogLine, Place
from federation.dashboard.pages.function import path_of, permissions, place_of
from federation.dashboard.pages.streaming import MOST_SECONDS, growing, stamp
from federation.dashboard.pages.visit import Visit, shows
from federation.text import printable

_TAIL = 100
_MOST_TAIL = 1000
_LINE_CHARS = 2000
_ENDED = "The gateway ended the log. The function may be gone."
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@shows("functions")
async def logs(visit: Visit) -> Response:
    """Show the last lines of a log, or follow it."""
    place = place_of(visit.request)
    tail = visit.number("tail", _TAIL, _MOST_TAIL)
    follow = visit.asked("follow") == "1"
    lines = [] if follow else [line async for line in _last(visit, place, tail)]
    page = await visit.page(
        "logs.html",
        place=place,
        base=path_of(place),
        may=await permissions(visit, place),
        tail=tail,
        most_tail=_MOST_TAIL,
        follow=follow,
        minutes=int(MOST_SECONDS // 60),
        lines=Markup("\n").join(map(as_markup, lines)),
    )
    if not follow:
        return page
    return growing(visit, page, _followed(visit, place, tail), ended=_ENDED)


async def _last(visit: Visit, place: Place, tail: int) -> AsyncIterator[LogLine]:
    """The last lines. A gateway that sends more than was asked for is cut short."""
    async with aclosing(visit.gateway.logs(visit.token, place, tail=tail, follow=False)) as lines:
        count = 0
        async for line in lines:
            yield line
            count += 1
            if count >= tail:
                return


async def _followed(visit: Visit, place: Place, tail: int) -> AsyncIterator[Markup]:
    async with aclosing(visit.gateway.logs(visit.token, place, tail=tail, follow=True)) as lines:
        async for line in lines:
            yield as_markup(line)


def as_markup(line: LogLine) -> Markup:
    """*line* as an element of the page: cut, on one line, and escaped."""
    text = printable(_COLOUR.sub("", line.text).expandtabs(4).rstrip(), _LINE_CHARS)
    return Markup("<p>{}{}</p>").format(stamp(line.timestamp), text)
