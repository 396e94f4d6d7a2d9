"""
Pages that grow: one long answer, of which a browser shows each line as it comes.

It needs no script and no refresh. Such a page ends after some minutes, and when the session ends;
its last line says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from markupsafe import Markup
from starlette.responses import Response, StreamingResponse

from federation.dashboard.connection import BrokerError
from federation.dashboard.cookies import SESSION, cookie
from federation.dashboard.moments import moment
from federation.dashboard.pages.visit import Visit
from federation.dashboard.parts import parts_of
from federation.errors import Refusal

MARK = "<!-- the lines -->"
"""The mark in a template that the lines replace. No value can hold it: templates escape `<`."""
MOST_SECONDS = 300.0
_BEAT_SECONDS = 5.0
_BEAT = b"<!-- -->\n"
_SESSION_ENDED = "Your session has ended. Sign in again to go on."
_TOO_MANY = "Too many pages like this one are open. Close one, then load this one again."
_MOST_CHARS = 4 * 1024 * 1024


def growing(
    visit: Visit, page: Response, lines: AsyncIterator[Markup], *, ended: str = ""
) -> Response:
    """*page* with *lines* at its mark, each sent as it comes. At their end it says *ended*."""
    before, _, after = bytes(page.body).partition(MARK.encode())
    headers = {name: value for name, value in page.headers.items() if name != "content-length"}
    return StreamingResponse(
        _pieces(visit, before, _told(visit, lines, ended), after),
        headers={**headers, "X-Accel-Buffering": "no"},  # nginx would hold the lines back
    )


def stamp(when: float | str) -> Markup:
    """The time of a line, empty if *when* is none."""
    at = moment(when, 0.0)
    if at is None:
        return Markup()
    return Markup('<time datetime="{}">{}</time> ').format(at.iso, at.text[11:19])


async def _pieces(
    visit: Visit, before: bytes, pieces: AsyncGenerator[bytes, None], after: bytes
) -> AsyncIterator[bytes]:
    # It is counted here, where the answer has begun: one that never begins is never counted.
    with parts_of(visit.request).growing.one(visit.session.subject) as fits:
        yield before
        async with aclosing(pieces):
            if not fits:
                yield _end(_TOO_MANY)
                yield after
                return
            async for piece in pieces:
                yield piece
    yield after


async def _told(
    visit: Visit, lines: AsyncIterator[Markup], ended: str
) -> AsyncGenerator[bytes, None]:
    """The lines, signs of life in between, and at last why the page ends."""
    ending = _Ending(visit)
    async with aclosing(_with_beats(lines)) as pieces:
        try:
            async for line in pieces:
                if line is not None:
                    ending.room -= len(line)
                if await ending.reached():
                    break
                yield _BEAT if line is None else line.encode() + b"\n"
        except BrokerError as error:
            ending.why = f"{error.sentence} {error.advice}".strip()
    if not ending.why:
        ending.why = ended if await _is_live(visit) else _SESSION_ENDED
    if ending.why:
        yield _end(ending.why)


def _end(why: str) -> bytes:
    return Markup('<p class="log-end" role="status">{}</p>\n').format(why).encode()


class _Ending:
    """The limits of a page that grows. `why` says why it ended, and is empty until then."""

    def __init__(self, visit: Visit) -> None:
        self.why = ""
        self.room = _MOST_CHARS
        self._visit = visit
        self._ends = visit.now + MOST_SECONDS
        self._look = visit.now

    async def reached(self) -> bool:
        """True if the page must end now."""
        now = self._visit.now
        if self.room < 0:
            self.why = "This is long, so the page ends here."
        elif now >= self._ends:
            self.why = f"The page went on for {MOST_SECONDS / 60:.0f} minutes and ends here."
        elif now - self._look >= _BEAT_SECONDS:
            self._look = now
            if not await _is_live(self._visit):
                self.why = _SESSION_ENDED
        return bool(self.why)


async def _is_live(visit: Visit) -> bool:
    """True if the session did not end here, at the provider, or on another replica."""
    try:
        known = await parts_of(visit.request).sessions.find(cookie(visit.request, SESSION))
    except Refusal:  # the store does not answer, so nobody can say
        return False
    return known is not None


async def _with_beats(lines: AsyncIterator[Markup]) -> AsyncGenerator[Markup | None, None]:
    """*lines*, and None every few seconds of silence: the server then notices who left."""
    coming = asyncio.ensure_future(_next(lines))
    try:
        while True:
            await asyncio.wait({coming}, timeout=_BEAT_SECONDS)
            if not coming.done():
                yield None
                continue
            line = coming.result()
            if line is None:
                return
            coming = asyncio.ensure_future(_next(lines))
            yield line
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)


async def _next(lines: AsyncIterator[Markup]) -> Markup | None:
    return await anext(lines, None)
