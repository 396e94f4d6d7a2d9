"""
Limits how many requests do work in a thread at a time, and gives each caller one turn.

Explanations read every Role, and pages of the trail read files. Each is bounded, and yet hundreds at
once would take the processor from exchanges, so the others wait. Each caller has one turn at a time,
so a caller that never stops asking does not delay the others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

_AT_ONCE = 2

Given = ParamSpec("Given")
Made = TypeVar("Made")


class Turns:
    """Runs functions in threads, two at a time, and one at a time for each caller."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._of_caller: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Each lives while a request of its caller holds it or waits for it."""

    async def run(
        self,
        caller: str,
        work: Callable[Given, Made],
        /,
        *args: Given.args,
        **named: Given.kwargs,
    ) -> Made:
        """
        Return the result of *work* for *caller*, which runs in a thread when it is its turn.

        A caller who leaves does not end the thread, so the turn ends with the thread.
        """
        own = self._of_caller.setdefault(caller, asyncio.Lock())
        await own.acquire()
        try:
            await self._free.acquire()
        except asyncio.CancelledError:
            own.release()
            raise

        def over(_: object) -> None:
            self._free.release()
            own.release()

        task = asyncio.create_task(asyncio.to_thread(work, *args, **named))
        task.add_done_callback(over)
        return await asyncio.shield(task)
