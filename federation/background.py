"""
Runs work beside the requests until the process ends, and reports each failure of it.

No request awaits such work, so its failure would show only in what no longer happens. Each failure
is therefore logged with its traceback, and the process's health names it until a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from functools import partial

import structlog


class Background:
    """The background tasks of one process, by their names. Use it from one event loop."""

    def __init__(self, logger: str = "federation") -> None:
        self._logger = logger
        self._tasks: list[asyncio.Task[None]] = []
        self._failed: dict[str, str] = {}

    @property
    def problems(self) -> Sequence[str]:
        """A sentence for each task that ended though it should go on."""
        return [
            f"background task {name}: ended with {kind}; restart the process, and see its log"
            for name, kind in self._failed.items()
        ]

    def start(
        self, name: str, work: Coroutine[None, None, None], *, ends: bool = False
    ) -> asyncio.Task[None]:
        """Run *work* as a task. Unless it *ends*, that it returned is a failure too."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(partial(self._note, name, ends))
        return task

    async def aclose(self) -> None:
        """Cancel every task and wait for its end."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _note(self, name: str, ends: bool, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if error is None and ends:
            return
        self._failed[name] = "no error" if error is None else type(error).__name__
        structlog.get_logger(self._logger).error(
            "a background task failed; restart the process", task=name, exc_info=error
        )
