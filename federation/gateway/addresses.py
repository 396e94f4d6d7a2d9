"""
Connects to the upstream by the addresses of its name.

All callers wait for one lookup. An address that refuses or is slow does not keep the next one from
being tried.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial

_NEXT_ADDRESS_SECONDS = 0.25  # RFC 8305, section 5

_Way = Callable[[], Coroutine[object, object, socket.socket]]


class Addresses:
    """The addresses of *host*, looked up anew for each connection."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._lookup: asyncio.Task[list[_Way]] | None = None

    async def connect(self) -> socket.socket:
        """A socket that is connected to one of them. Raises: OSError if none can be reached."""
        return await _first(await self._ways())

    async def _ways(self) -> list[_Way]:
        """
        The ways to the addresses of the name. All callers wait for one lookup.

        A lookup takes a thread until DNS answers, also if its caller has left: while DNS is down those
        of many callers would queue, and the queue would have to be worked off afterwards.
        """
        if self._lookup is None:
            self._lookup = asyncio.create_task(self._look_up())
            self._lookup.add_done_callback(self._looked_up)
        lookup = self._lookup
        await asyncio.wait([lookup])
        try:
            return lookup.result()
        finally:
            del lookup  # it holds its error, and the error this frame

    async def _look_up(self) -> list[_Way]:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        return [partial(_reached, family, address) for family, *_, address in found]

    def _looked_up(self, lookup: asyncio.Task[list[_Way]]) -> None:
        self._lookup = None
        if not lookup.cancelled():
            lookup.exception()  # else the event loop reports it if all callers have left


async def _first(ways: Iterable[_Way]) -> socket.socket:
    """
    The connection that is made first. A way is begun when the one before it has failed, or is slow.

    uvloop's own `create_connection` does not begin it when one is slow. `asyncio.staggered` leaves
    cycles, and in these the socket of a caller that left stays open until the garbage collector comes.
    """
    left, tries, why = deque(ways), set[asyncio.Task[socket.socket]](), tuple[object, ...]()
    try:
        while left or tries:
            if left:
                tries.add(asyncio.create_task(left.popleft()()))
            seconds = _NEXT_ADDRESS_SECONDS if left else None
            ended, _ = await asyncio.wait(
                tries, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            for task in ended:
                tries.discard(task)
                error = task.exception()
                if error is None:
                    return task.result()
                why = why or error.args
        raise OSError(*why)  # a new one: the task holds the other, and this frame the task
    finally:
        for task in tries:
            task.cancel()
            task.add_done_callback(_drop)


def _drop(task: asyncio.Task[socket.socket]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _reached(
    family: int, address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made
