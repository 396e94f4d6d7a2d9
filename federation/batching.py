"""
Group commit: one blocking operation, such as an fsync, serves many concurrent callers.

Items that arrive while a batch runs form the next batch. It starts when the event loop has
nothing else to do. Load therefore raises latency and not cost, and the event loop never waits
for a disk. A single caller's batch starts at once.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_BATCH = 512
_GATHER_SECONDS = 0.002
_QUIET_SECONDS = 0.00003  # an idle turn of the loop takes a few microseconds
_ALONE = 32
"""After so many batches of one item in a row, the caller is taken to be alone.

With several callers, batches of one occur too, and to start the next at once would cost an exchange
a twentieth (four callers) to a tenth (sixteen)."""


class Batcher(Generic[Item, Result]):
    """
    Runs *work* on batches of items in a thread of its own, one batch at a time.

    *work* returns one result for each item, in order. An exception of *work* is raised to every
    caller of the batch. Use a batcher from one event loop only.
    """

    def __init__(self, work: Callable[[Sequence[Item]], Sequence[Result]], name: str) -> None:
        self._work = work
        self._name = name
        self._thread: threading.Thread | None = None
        self._given: SimpleQueue[_Batch[Item, Result] | None] = SimpleQueue()
        self._waiting: _Batch[Item, Result] = []
        self._alone = 0
        """The number of batches of one item since the last larger one."""
        self._idle = asyncio.Event()
        self._idle.set()

    async def submit(self, item: Item) -> Result:
        """
        Return the result for *item* when its batch has run.

        Cancelling the caller does not withdraw the item, because its batch may be running.
        """
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._idle.is_set():
            self._idle.clear()
            if self._alone < _ALONE:
                self._begin()
            else:
                self._start_batch()
        return await future

    async def aclose(self) -> None:
        """Wait until every submitted item is done, then end the thread."""
        await self._idle.wait()
        if self._thread is not None:
            self._given.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    def _begin(self) -> None:
        now = time.monotonic()
        # Not at once: other items of this turn of the event loop belong to the same batch.
        asyncio.get_running_loop().call_soon(self._gather, now, now)

    def _gather(self, since: float, turned: float) -> None:
        """
        Start the next batch when the event loop is idle, or after `_GATHER_SECONDS`.

        A batch costs about as much as an exchange, and each turn of a busy loop may submit more
        items, so it pays to wait for them. *since* is when the waiting began, *turned* when the
        last turn began.
        """
        now = time.monotonic()
        if now - turned > _QUIET_SECONDS and now - since < _GATHER_SECONDS:
            asyncio.get_running_loop().call_soon(self._gather, since, now)
        else:
            self._start_batch()

    def _start_batch(self) -> None:
        batch, self._waiting = self._waiting[:_BATCH], self._waiting[_BATCH:]
        self._alone = self._alone + 1 if len(batch) == 1 else 0
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._given.put(batch)

    def _run(self) -> None:
        """Run batches in the thread until `aclose` ends it."""
        while (batch := self._given.get()) is not None:
            try:
                results, error = self._work([item for item, _ in batch]), None
            except Exception as raised:
                results, error = (), raised
            with suppress(RuntimeError):  # the loop was closed, so no caller is left
                loop = batch[0][1].get_loop()
                loop.call_soon_threadsafe(self._finish, batch, results, error)

    def _finish(
        self, batch: _Batch[Item, Result], results: Sequence[Result], error: Exception | None
    ) -> None:
        for place, (_, future) in enumerate(batch):
            if future.done():  # its caller was cancelled
                continue
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(results[place])
        if self._waiting:
            self._begin()
        else:
            self._idle.set()


_Batch = list[tuple[Item, "asyncio.Future[Result]"]]
