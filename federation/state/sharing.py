"""One run of slow work that concurrent callers share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


class SharedRun:
    """
    Runs *work* for all who call while it runs.

    A thousand requests that need the same answer cause one question. A caller that is cancelled
    does not end the run for the others. Use it from one event loop at a time.
    """

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Wait for the run in progress, or for a new one. Raises what *work* raises."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(_take_error)
        await asyncio.shield(self._task)

    async def aclose(self) -> None:
        """Cancel the run in progress."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        await self._work()


def _take_error(task: asyncio.Task[None]) -> None:
    """Mark the error of *task* as seen: every caller may have been cancelled."""
    if not task.cancelled():
        task.exception()
