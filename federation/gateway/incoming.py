"""
A request as the server hands it over: its body as it comes, and the moment its caller leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine

from starlette.types import Message, Receive, Scope

from federation.gateway.refusals import TooLarge, TooSlow

__all__ = ["ARRIVED", "CallerGone", "Incoming", "arrived"]

ARRIVED = "federation.arrived"
"""The ASGI extension by which the server says that a request is here with all of its body."""

_WHOLE_SECONDS = 30.0
_PAUSE_SECONDS = 60.0
_WATCH_SECONDS = 0.05


def arrived(scope: Scope) -> bool:
    """Whether all of a request's body is here, so that nobody needs to wait for it."""
    return ARRIVED in scope.get("extensions", ())


class CallerGone(Exception):
    """The caller closed the connection before its answer was whole."""


class Incoming:
    """
    The body of one request, and whether its caller still waits.

    A body that is read whole has *whole_seconds*; one that is passed on may take its time, but
    not pause for longer than *pause_seconds*. With *arrived* all of it is here already.
    """

    def __init__(
        self,
        receive: Receive,
        *,
        arrived: bool = False,
        whole_seconds: float = _WHOLE_SECONDS,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self._receive = receive
        self._arrived = arrived
        self._whole_seconds = whole_seconds
        self._pause_seconds = pause_seconds
        self._complete = asyncio.Event()

    async def whole(self, most_bytes: int) -> bytes:
        """
        All of the body.

        Raises: TooLarge, TooSlow, CallerGone.
        """
        if self._arrived:
            return await self._gathered(most_bytes)
        try:
            async with asyncio.timeout(self._whole_seconds):
                return await self._gathered(most_bytes)
        except TimeoutError as late:
            raise _too_slow() from late

    async def chunks(self) -> AsyncIterator[bytes]:
        """
        The body as it comes.

        Raises: TooSlow, CallerGone.
        """
        while not self._complete.is_set():
            message = await (self._receive() if self._arrived else self._received())
            if message["type"] == "http.disconnect":
                raise CallerGone
            if not message.get("more_body", False):
                self._complete.set()
            if chunk := message.get("body", b""):
                yield chunk

    async def nothing(self) -> None:
        """
        There is no body, as the headers say.

        Raises: TooLarge, TooSlow, CallerGone.
        """
        if not self._arrived:  # what came with such headers belongs to the next request
            await self.whole(0)

    def no_more(self) -> None:
        """Nobody reads the rest of the body; from here on only the caller's leaving matters."""
        self._complete.set()

    async def while_waited_for(self, work: Coroutine[None, None, None]) -> None:
        """
        *work* is done, or cancelled as soon as the caller leaves.

        Raises: CallerGone.
        """
        doing = asyncio.current_task()
        watching: asyncio.Task[None] | None = None
        left = False

        def watch() -> None:
            nonlocal watching
            watching = asyncio.create_task(self._left())
            watching.add_done_callback(cancel)

        def cancel(watching: asyncio.Task[None]) -> None:
            nonlocal left
            if doing is not None and not watching.cancelled():
                left = True
                doing.cancel()

        # Most work is done before, and whoever left before is found to have left.
        beginning = asyncio.get_running_loop().call_later(_WATCH_SECONDS, watch)
        try:
            await work
        except asyncio.CancelledError:
            # It may be somebody else who wants the whole task to end.
            if left and doing is not None and doing.uncancel() == 0:
                raise CallerGone from None
            raise
        finally:
            beginning.cancel()
            if watching is not None:
                watching.remove_done_callback(cancel)
                watching.cancel()

    async def _gathered(self, most_bytes: int) -> bytes:
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > most_bytes:
                raise TooLarge(f"The body is larger than {most_bytes} bytes.")
        return bytes(body)

    async def _received(self) -> Message:
        try:
            async with asyncio.timeout(self._pause_seconds):
                return await self._receive()
        except TimeoutError as late:
            raise _too_slow() from late

    async def _left(self) -> None:
        await self._complete.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _too_slow() -> TooSlow:
    return TooSlow("The body took too long to arrive.")
