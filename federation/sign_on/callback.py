"""
The loopback callback of a sign-in on this machine (RFC 8252, section 7.3).

A listener waits on this machine for the browser that comes back from the provider. Any page can
send a browser to it, and any program on this machine can call it. So it takes requests for its own
host name only (DNS rebinding), goes on waiting after an answer that is not its own, and shows
nothing that came in a request. It logs nothing, since the first line of a request holds the code.

The true answer is met with a redirect to a page without parameters, so that the code does not stay
in the address bar and its history. That page waits for the outcome of the whole sign-in.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from hmac import compare_digest
from typing import Any, TypeVar

from federation.client import ClientError
from federation.sign_on import callback_pages as pages
from federation.sign_on.answers import Answer, ForeignAnswer
from federation.sign_on.callback_http import (
    Malformed,
    Request,
    drop_rest,
    new_connection,
    read_request,
    send_page,
)
from federation.sign_on.loopback import DEFAULT_PORT, Loopback, bind
from federation.sign_on.pending import fresh_secret

T = TypeVar("T")

PATH = "/oauth/callback"
_START_PATH = "/oauth/start"
_DONE_PATH = "/oauth/done"
_OUTCOME_SECONDS = 60.0
_CONNECTIONS = 16
"""Browsers open several at once, and use only some of them."""
WAIT_SECONDS = 300.0


@asynccontextmanager
async def listening(
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    *,
    request_seconds: float = 10.0,
    goodbye_seconds: float = 2.0,
) -> AsyncIterator[Callback]:
    """
    Listen for the answer of one sign-in inside the block.

    *host* is `127.0.0.1`, `::1` or `localhost`; *port* 0 picks a free one. Have the whole sign-in
    in the block, the exchange too: if it ends without an exception, the page says that the person
    is signed in. A request comes within *request_seconds*; the end of the block waits for the
    browser to fetch the last page for at most *goodbye_seconds*.
    Raises: ClientError if the port is taken.
    """
    loopback = bind(host, port)
    callback = Callback(loopback, request_seconds, goodbye_seconds)
    servers = [await asyncio.start_server(callback.serve, sock=each) for each in loopback.sockets]
    signed_in = False
    try:
        yield callback
        signed_in = True
    finally:
        await callback.close(signed_in=signed_in)
        for server in servers:
            server.close()
        await asyncio.sleep(0)  # the event loop closes the connections in its next turn


class Callback:
    """A listener at `redirect_uri`."""

    def __init__(self, loopback: Loopback, request_seconds: float, goodbye_seconds: float) -> None:
        self._request_seconds = request_seconds
        self._goodbye_seconds = goodbye_seconds
        self._origin = loopback.origin
        self._host = loopback.origin.removeprefix("http://")
        self._take: Callable[[Answer], Any] | None = None
        self._implicit = False
        loop = asyncio.get_running_loop()
        self._result: asyncio.Future[Any] = loop.create_future()
        self._outcome: asyncio.Future[bool] = loop.create_future()
        self._start: tuple[str, str] | None = None
        self._opened = False
        self._answered = False
        self._told = asyncio.Event()
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def redirect_uri(self) -> str:
        """The address that must be registered at the provider."""
        return self._origin + PATH

    def start_at(self, url: str) -> str:
        """
        Return an address of this listener that leads to *url*, once.

        Open this one, and not *url* itself: the address that a browser is started with is visible
        to every person on the machine, in the list of processes. *url* has state, nonce and code
        challenge. The code verifier is not in it, so a code of another sign-in would be of no use.
        But another person who opens *url* would sign in as themselves with this sign-in's state,
        nonce and challenge, and the listener would take their answer.
        With one use, the second to open it is noticed, and the sign-in ends. So do not print this
        address for the person to open as well: *url* is safe on the person's own terminal.
        """
        self._start = (f"{_START_PATH}/{fresh_secret()}", url)
        self._opened = False
        return self._origin + self._start[0]

    async def answer(
        self,
        take: Callable[[Answer], T],
        *,
        implicit: bool = False,
        seconds: float = WAIT_SECONDS,
    ) -> T:
        """
        Wait once for the answer of the provider, and return what *take* makes of it.

        *take* raises ForeignAnswer if the answer is not that of this sign-in: then the listener
        goes on waiting. With *implicit* the answer may come in a form or a fragment.
        Raises: ClientError of *take*, or if nobody signed in within *seconds*.
        """
        self._take, self._implicit = take, implicit
        try:
            async with asyncio.timeout(seconds):
                answer: T = await self._result
        except TimeoutError:
            raise ClientError(
                f"Nobody signed in within {seconds / 60:.0f} minutes.",
                "Sign in again. Without a browser on this machine, use --grant device.",
            ) from None
        finally:
            self._take = None
        return answer

    async def close(self, *, signed_in: bool) -> None:
        """Tell the outcome to the browser if it waits for it, and end every connection."""
        self._outcome.set_result(signed_in)
        if self._result.done() and not self._result.cancelled():
            self._result.exception()  # it counts as told, also if nobody waited for it
        if self._answered:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._goodbye_seconds):
                    await self._told.wait()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request of a connection, then close it."""
        task = asyncio.current_task()
        if task is None or len(self._connections) >= _CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            with suppress(OSError, TimeoutError):
                await self._serve(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = new_connection()
        try:
            async with asyncio.timeout(self._request_seconds):
                request = await read_request(connection, reader)
            page = await self._page(request)
        except Malformed:
            page = pages.MALFORMED
        async with asyncio.timeout(self._request_seconds):
            await send_page(connection, writer, page)
            if page is pages.MALFORMED:
                await drop_rest(reader, writer)
        if page in {pages.SIGNED_IN, pages.FAILED}:
            self._told.set()

    async def _page(self, request: Request) -> pages.Page:
        """Return the answer to *request*. Raises: Malformed."""
        # A name that an attacker's DNS points at 127.0.0.1 would make this listener a part of
        # the attacker's site (DNS rebinding), so only our own name is answered.
        if request.header("host") != self._host:
            return pages.WRONG_HOST
        if request.method == "GET":
            return await self._got(request)
        if request.method == "POST" and self._implicit:
            return self._posted(request)
        return pages.WRONG_METHOD

    async def _got(self, request: Request) -> pages.Page:
        if self._starts(request.path):
            return self._opening()
        if request.path == _DONE_PATH:
            return await self._done()
        if request.path == pages.SCRIPT_PATH and self._implicit:
            return pages.SCRIPT
        if request.path != PATH:
            return pages.NOT_FOUND
        if self._implicit and not request.query:
            return pages.FRAGMENT
        return self._judged(request.query_parameters)

    def _posted(self, request: Request) -> pages.Page:
        if request.path == PATH:
            # A form that the provider's page posts here (form_post). Its origin is the provider's,
            # or `null`; the state says whether it is ours.
            return self._judged(request.form_parameters)
        if request.path == pages.FRAGMENT_PATH and self._is_own_page(request):
            return self._judged(request.form_parameters)
        return pages.FOREIGN

    def _starts(self, path: str) -> bool:
        return self._start is not None and compare_digest(
            path.encode("latin-1"), self._start[0].encode()
        )

    def _opening(self) -> pages.Page:
        if self._start is None or self._opened:
            self._end(ClientError("The address of the sign-in was opened twice.", _OPENED_TWICE))
            return pages.OPENED_TWICE
        self._opened = True
        return pages.redirect(self._start[1])

    def _is_own_page(self, request: Request) -> bool:
        """True if our own page sent the POST. A page of another site may not post a fragment."""
        own_site = request.header("sec-fetch-site") in {None, "same-origin"}
        return own_site and request.header("origin") == self._origin

    def _judged(self, answer: Answer) -> pages.Page:
        """Take *answer* if it is the one that the sign-in waits for."""
        if self._take is None or self._result.done():
            return pages.FOREIGN
        try:
            self._result.set_result(self._take(answer))
        except ForeignAnswer:
            return pages.FOREIGN
        except ClientError as error:
            self._end(error)
        self._answered = True
        return pages.redirect(_DONE_PATH)

    def _end(self, error: ClientError) -> None:
        if not self._result.done():
            self._result.set_exception(error)

    async def _done(self) -> pages.Page:
        """Wait for the outcome of the sign-in, and return the page that tells it."""
        if not self._answered:
            return pages.NOT_FOUND
        try:
            async with asyncio.timeout(_OUTCOME_SECONDS):
                signed_in = await asyncio.shield(self._outcome)
        except TimeoutError:
            return pages.UNFINISHED
        return pages.SIGNED_IN if signed_in else pages.FAILED


_OPENED_TWICE = (
    "Somebody else on this machine may have opened it. Sign in again; if it happens again, use"
    " --no-browser, and open the address that is printed."
)
