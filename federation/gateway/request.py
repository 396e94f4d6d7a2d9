"""
A request to the gateway as the ASGI server delivers it: headers, token, body, disconnect.

Reading a body is bounded in size and in time. When the caller disconnects, the work for its
request is cancelled.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from starlette.types import Receive, Scope

from federation.gateway.headers import Headers
from federation.gateway.paths import FUNCTION_PATHS
from federation.gateway.refusals import CallerGone, TooLarge, TooSlow

ARRIVED = "federation.arrived"
"""The ASGI extension by which the server says that it has received the whole request."""
LEFT = "federation.left"
"""The ASGI extension of other requests: a function that is true once their caller has left."""

_WHOLE_SECONDS = 30.0
_PAUSE_SECONDS = 60.0
# Most requests are answered sooner, and then no task to watch for a disconnect is made.
_WATCH_AFTER_SECONDS = 0.05
_AUTHORIZATION_CHARS = 40 * 1024
_BASIC_USER = "token"
_SCHEME = re.compile(rb"https?", re.IGNORECASE)
_ADDRESSES = re.compile(rb"[0-9A-Za-z.:_\[\], -]{1,4096}")
_FORWARDED = frozenset({b"x-forwarded-proto", b"x-forwarded-for"})


def _stays() -> bool:
    return False


def arrived(scope: Scope) -> bool:
    """True if the server has received the whole body, so that reading it needs no timeout."""
    return ARRIVED in scope.get("extensions", ())


async def read_body(receive: Receive, most_bytes: int, seconds: float | None) -> bytes:
    """
    The whole body, within *seconds* if these are given.

    Raises: CallerGone, TooLarge, TooSlow.
    """
    if seconds is None:
        return await _gather(receive, most_bytes)
    try:
        async with asyncio.timeout(seconds):
            return await _gather(receive, most_bytes)
    except TimeoutError as late:
        raise TooSlow from late


async def _gather(receive: Receive, most_bytes: int) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > most_bytes:
            raise TooLarge(f"The body is larger than {most_bytes} bytes.")
    return bytes(body)


@dataclass(frozen=True, slots=True)
class Request:
    """One request. Its path and query are still the bytes of the request line."""

    id: str
    method: str
    raw_path: bytes
    raw_query: bytes
    headers: Headers = field(repr=False)
    """Their names are lower-case (ASGI, HTTP connection scope)."""
    addresses: str
    """The value of `X-Forwarded-For`: the addresses that a trusted proxy named, then its own."""
    scheme: str
    """The scheme of the URL that the caller used."""
    body: RequestBody = field(repr=False)

    @classmethod
    def of(
        cls,
        scope: Scope,
        receive: Receive,
        *,
        public_scheme: str,
        is_from_proxy: Callable[[Scope], bool],
    ) -> Request:
        """
        The request of an ASGI *scope*.

        Address and scheme are those that a trusted proxy states, if the request *is_from_proxy*.
        Otherwise the scheme is *public_scheme*: this connection is plain, also behind TLS.
        """
        peer, headers = scope["client"][0] if scope.get("client") else "", scope["headers"]
        scheme = before = ""
        if not _FORWARDED.isdisjoint([name for name, _ in headers]) and is_from_proxy(scope):
            scheme = _stated(headers, b"x-forwarded-proto", _SCHEME)
            before = _stated(headers, b"x-forwarded-for", _ADDRESSES)
        return cls(
            id=scope["state"]["request_id"],
            method=scope["method"],
            raw_path=scope["raw_path"],
            raw_query=scope["query_string"],
            headers=headers,
            addresses=f"{before}, {peer}" if before and peer else before or peer,
            scheme=scheme.lower() or public_scheme,
            body=RequestBody(
                receive,
                arrived=arrived(scope),
                has_left=scope.get("extensions", {}).get(LEFT, _stays),
            ),
        )

    @property
    def for_function(self) -> bool:
        """True if the path is a function's and not one of the API's."""
        return self.raw_path.startswith(FUNCTION_PATHS)

    @property
    def has_body(self) -> bool:
        """True if the headers announce a body."""
        return any(
            name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
            for name, value in self.headers
        )

    @property
    def announced_bytes(self) -> int | None:
        """The length that the headers announce for the body, None if they announce none."""
        lengths = self.values(b"content-length")
        return int(lengths[0]) if len(lengths) == 1 else None

    def values(self, name: bytes) -> list[bytes]:
        """The values of all headers called *name*, which is lower-case."""
        return [value for given, value in self.headers if given == name]


def _stated(headers: Headers, name: bytes, plain: re.Pattern[bytes]) -> str:
    """The values of all headers called *name*, empty if they are not *plain*."""
    value = b", ".join(value for given, value in headers if given == name)
    return value.decode("ascii") if plain.fullmatch(value) else ""


def access_token(authorization: Sequence[bytes]) -> str | None:
    """
    The access token in the only `Authorization` header, None if there is not exactly one.

    It is `Bearer <token>`, or Basic with the user `token` and the access token as password,
    which an unmodified `faas-cli login` sends.
    """
    if len(authorization) != 1 or len(authorization[0]) > _AUTHORIZATION_CHARS:
        return None
    scheme, _, credentials = authorization[0].decode("latin-1").partition(" ")
    match scheme.lower():
        case "bearer":
            return credentials.strip() or None
        case "basic":
            return _basic_password(credentials.strip())
        case _:
            return None


def _basic_password(credentials: str) -> str | None:
    try:
        decoded = base64.b64decode(credentials, validate=True).decode("ascii")
    except ValueError:
        return None
    user, _, password = decoded.partition(":")
    return password if user == _BASIC_USER and password else None


@dataclass(frozen=True, slots=True)
class RequestBody:
    """
    The body of one request, and the notice that its caller disconnected.

    `read` takes at most *whole_seconds*. `stream` may take longer, but no pause in it exceeds
    *pause_seconds*. With *arrived* there is nothing to wait for, so nothing is timed.
    """

    receive: Receive
    arrived: bool = False
    whole_seconds: float = _WHOLE_SECONDS
    pause_seconds: float = _PAUSE_SECONDS
    has_left: Callable[[], bool] = _stays
    """True if the server knows that the caller has left, also while nothing is read from it."""
    _complete: asyncio.Event = field(default_factory=asyncio.Event)

    async def read(self, most_bytes: int) -> bytes:
        """The whole body."""
        seconds = None if self.arrived else self.whole_seconds
        body = await read_body(self.receive, most_bytes, seconds)
        self.finish()
        return body

    async def stream(self) -> AsyncIterator[bytes]:
        """The body, piece by piece as it arrives."""
        while not self._complete.is_set():
            try:
                async with asyncio.timeout(None if self.arrived else self.pause_seconds):
                    message = await self.receive()
            except TimeoutError as late:
                self._complete.set()
                raise TooSlow from late
            if message["type"] == "http.disconnect":
                # The answer may have begun, and then only `cancel_on_disconnect` can end it.
                self._complete.set()
                raise CallerGone
            if not message.get("more_body", False):
                self._complete.set()
            if chunk := message.get("body", b""):
                yield chunk

    async def expect_none(self) -> None:
        """Make sure that no body follows headers that announced none."""
        if not self.arrived:  # after such headers, further bytes belong to the next request
            await self.read(0)

    def finish(self) -> None:
        """Declare the body read, so that `cancel_on_disconnect` may wait for a disconnect."""
        self._complete.set()

    async def cancel_on_disconnect(self, work: Coroutine[None, None, None]) -> None:
        """Run *work*, and cancel it as soon as the caller disconnects. Raises: CallerGone."""
        worker = asyncio.current_task()
        watcher: asyncio.Task[None] | None = None
        disconnected = False

        async def watch() -> None:
            nonlocal disconnected
            await self._complete.wait()
            while (await self.receive())["type"] != "http.disconnect":
                pass
            disconnected = True
            if worker:
                worker.cancel()

        def start() -> None:
            nonlocal watcher
            watcher = asyncio.create_task(watch())

        timer = asyncio.get_running_loop().call_later(_WATCH_AFTER_SECONDS, start)
        try:
            await work
        except asyncio.CancelledError:
            # Somebody else, such as a server that stops, may have cancelled the task as well.
            if disconnected and worker and worker.uncancel() == 0:
                raise CallerGone from None
            raise
        finally:
            timer.cancel()
            if watcher:
                watcher.cancel()


async def run_until(
    ends: Coroutine[None, None, NoReturn], work: Coroutine[None, None, None]
) -> None:
    """Run *work* to its end, or until *ends* raises. Raises: what either raises."""
    tasks = working, ending = asyncio.create_task(work), asyncio.create_task(ends)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    (ending if working.cancelled() else working).result()
