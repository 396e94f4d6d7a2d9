"""
Group commit: many callers wait for one piece of blocking work done for them together.

While a batch is at work, new items gather; they become the next batch. A busy moment so costs
latency and not throughput, and the event loop never waits for a disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

__all__ = ["Batcher"]

Item = TypeVar("Item")
Result = TypeVar("Result")

_BATCH = 512


class Batcher(Generic[Item, Result]):
    """
    Runs *work* on batches of items, one batch at a time, in a thread of its own.

    *work* returns one result an item, in order. What it raises reaches every caller of the
    batch.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result]], name: str) -> None:
        self._work = work
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._idle = asyncio.Event()
        self._idle.set()

    async def submit(self, item: Item) -> Result:
        """
        The result for *item*, once a batch with it is done.

        A caller that is cancelled does not take its item back: it may be at work already.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._idle.is_set():
            self._idle.clear()
            asyncio.get_running_loop().call_soon(self._next)
        return await future

    async def aclose(self) -> None:
        """Everything submitted is done, and the thread has ended."""
        await self._idle.wait()
        self._thread.shutdown(wait=True)

    def _next(self) -> None:
        batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        if not batch:
            self._idle.set()
            return
        loop = asyncio.get_running_loop()
        done = loop.run_in_executor(self._thread, self._work, [item for item, _ in batch])
        done.add_done_callback(lambda finished: self._finish(batch, finished))

    def _finish(
        self,
        batch: Sequence[tuple[Item, asyncio.Future[Result]]],
        finished: asyncio.Future[Sequence[Result]],
    ) -> None:
        error = finished.exception()
        for place, (_, future) in enumerate(batch):
            if future.done():
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(finished.result()[place])
        self._next()
