"""
Bounds what the bodies of all callers cost together: their memory, and the event loop's time.

A body of 10 MiB is read into memory, and parsing it takes up to a second in which the event loop
would serve no other request. So large bodies share a budget of bytes, and are parsed in one thread,
one after the other. Small ones need no room: the number of connections bounds them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import TypeVar

from federation.gateway.refusals import NoRoom

SMALL_BYTES = 64 * 1024
_WAIT_SECONDS = 10.0

Parsed = TypeVar("Parsed")


class BodyBudget:
    """
    Room for bodies of *total_bytes* at once. It must hold the largest body that is read.

    Who comes first gets room first, and waits for it at most *wait_seconds*. One caller has, and
    waits for, at most half of it in several bodies, so that no caller alone keeps the others out.
    """

    def __init__(self, total_bytes: int, wait_seconds: float = _WAIT_SECONDS) -> None:
        self._free_bytes = total_bytes
        self._share_bytes = total_bytes // 2
        self._asked_bytes: Counter[Hashable] = Counter()
        """Bytes that each caller holds or waits for."""
        self._wait_seconds = wait_seconds
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        # One thread: parsed JSON takes several times the memory of its text.
        self._parser = ThreadPoolExecutor(1, thread_name_prefix="bodies")

    def room(self, size_bytes: int, caller: Hashable) -> AbstractAsyncContextManager[None]:
        """Have room for a body of *size_bytes* from *caller* inside the block. Raises: NoRoom."""
        return nullcontext() if size_bytes <= SMALL_BYTES else self._room(size_bytes, caller)

    @asynccontextmanager
    async def _room(self, size_bytes: int, caller: Hashable) -> AsyncIterator[None]:
        asked = self._asked_bytes[caller]
        if asked and asked + size_bytes > self._share_bytes:
            raise NoRoom
        self._asked_bytes[caller] += size_bytes
        try:
            async with self._taken(size_bytes):
                yield
        finally:
            self._asked_bytes[caller] -= size_bytes
            if not self._asked_bytes[caller]:
                del self._asked_bytes[caller]

    @asynccontextmanager
    async def _taken(self, size_bytes: int) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._wait_seconds), self._turn:
                while self._free_bytes < size_bytes:
                    self._freed.clear()
                    await self._freed.wait()
                self._free_bytes -= size_bytes
        except TimeoutError as late:
            raise NoRoom from late
        try:
            yield
        finally:
            self._free_bytes += size_bytes
            self._freed.set()

    async def parse(self, body: bytes, read: Callable[[bytes], Parsed]) -> Parsed:
        """Return *read* of *body*. A large body is read outside the event loop."""
        if len(body) <= SMALL_BYTES:
            return read(body)
        return await asyncio.get_running_loop().run_in_executor(self._parser, read, body)

    def close(self) -> None:
        """End the thread, once it has parsed what it is at."""
        self._parser.shutdown(wait=False)
