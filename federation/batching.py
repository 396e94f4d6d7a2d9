"""
Group commit: many callers wait for one piece of blocking work done for them together.

While a batch is at work, new items gather; they become the next batch, which begins when the
event loop is done with what it has to do. A busy moment so costs latency and not throughput,
and the event loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, TypeVar

__all__ = ["Batcher"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_BATCH = 512
_GATHER_SECONDS = 0.002
_QUIET_SECONDS = 0.00003  # a turn of the loop without work takes a few microseconds


class Batcher(Generic[Item, Result]):
    """
    Runs *work* on batches of items, one batch at a time, in a thread of its own.

    *work* returns one result an item, in order. What it raises reaches every caller of the
    batch. One event loop uses it.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result]], name: str) -> None:
        self._work = work
        self._name = name
        self._thread: threading.Thread | None = None
        self._given: SimpleQueue[tuple[asyncio.AbstractEventLoop, _Batch[Item, Result]] | None]
        self._given = SimpleQueue()
        self._waiting: _Batch[Item, Result] = []
        self._idle = asyncio.Event()
        self._idle.set()

    async def submit(self, item: Item) -> Result:
        """
        The result for *item*, once a batch with it is done.

        A caller that is cancelled does not take its item back: it may be at work already.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        if self._idle.is_set():
            self._idle.clear()
            self._begin(loop)
        return await future

    async def aclose(self) -> None:
        """Everything submitted is done, and the thread has ended."""
        await self._idle.wait()
        if self._thread is not None:
            self._given.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        # Not at once: what else this turn of the loop submits belongs to the same batch.
        loop.call_soon(self._gather, loop, now, now)

    def _gather(self, loop: asyncio.AbstractEventLoop, since: float, turned: float) -> None:
        """
        The next batch begins once the loop has nothing else to do, or has long been busy.

        While it works on requests, each of its turns may submit more of them, and each batch
        costs about as much as an exchange. *turned* is when the last turn began.
        """
        now = time.monotonic()
        if now - turned > _QUIET_SECONDS and now - since < _GATHER_SECONDS:
            loop.call_soon(self._gather, loop, since, now)
        else:
            self._next(loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._given.put((loop, batch))

    def _run(self) -> None:
        """What the thread does: batches, until there is none."""
        while (given := self._given.get()) is not None:
            loop, batch = given
            try:
                results, error = self._work([item for item, _ in batch]), None
            except Exception as raised:
                results, error = (), raised
            with suppress(RuntimeError):  # the loop has ended, and nobody waits any more
                loop.call_soon_threadsafe(self._finish, loop, batch, results, error)

    def _finish(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: _Batch[Item, Result],
        results: Sequence[Result],
        error: Exception | None,
    ) -> None:
        for place, (_, future) in enumerate(batch):
            if future.done():  # its caller was cancelled
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(results[place])
        if self._waiting:
            self._begin(loop)
        else:
            self._idle.set()


_Batch = list[tuple[Item, "asyncio.Future[Result]"]]
