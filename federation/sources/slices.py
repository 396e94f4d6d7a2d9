"""
Long work of a thread in short slices, so that requests do not wait for the interpreter.

One thread runs Python at a time. A thread that works without end gives way when another one has
waited for 5 ms, and a request needs the interpreter a dozen times. A thread that sleeps gives way
at once. To sleep for no time at all does not help: the thread takes the interpreter back before
another one wakes up.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SLICE_SECONDS = 0.0005
_REST_SECONDS = 0.0001
_BUSY_REST_SECONDS = 0.008
"""The rest if other threads used a whole core; of half a core, half of it."""
_LONGEST_REST_SECONDS = 0.005
"""However busy the others are, the work goes on: it takes an eleventh of the time at least."""
_RECENT_SECONDS = 0.02
PROMPT_SECONDS = 1.0
"""The first second of a reload, in which one changed document of thousands is read."""
_OFTEN, _NEVER = 2, 2**31 - 1
"""The number of collections of one generation before one of the next."""


def used_by_others() -> float:
    """Return the seconds of processor time that the other threads of this process have used."""
    return time.process_time() - time.thread_time()


class Slices:
    """
    Sleeps for a moment whenever it is called after half a millisecond of work.

    The more processor time other threads use, the longer it sleeps: each slice that falls into a
    request makes it late, so slices must be rare where requests are many.

    In the first *prompt_seconds* it sleeps as if other threads were idle. A caller who loses a
    right must not be able to keep it by sending many requests.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
        others: Callable[[], float] = used_by_others,
        prompt_seconds: float = 0.0,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._others = others
        self._began = clock()
        self._prompt_until = self._began + prompt_seconds
        self._busy = 0.0
        """The cores that other threads have used lately."""
        self._seen: tuple[float, float] | None = None
        """The time, and what the others had used, at the last slice's end."""

    def __call__(self) -> None:
        """Sleep if a slice is over."""
        now = self._clock()
        if now - self._began >= _SLICE_SECONDS:
            self._look(now, self._others())
            busy = 0.0 if now < self._prompt_until else self._busy
            rest = _REST_SECONDS + _BUSY_REST_SECONDS * busy
            self._sleep(min(rest, _LONGEST_REST_SECONDS))
            self._began = self._clock()

    def _look(self, now: float, used: float) -> None:
        """Note what the others have used; of late counts more than of long ago."""
        # Not in `__init__`: that may run in another thread, which has used another time.
        if self._seen is not None:
            passed = now - self._seen[0]
            busy = max(0.0, used - self._seen[1]) / passed
            self._busy += (busy - self._busy) * min(1.0, passed / _RECENT_SECONDS)
        self._seen = now, used


@contextmanager
def uncollected() -> Iterator[None]:
    """
    Keep the garbage collector from what is made in the block, while no request is answered.

    A collection visits every object in one step: of 10,000 documents that takes 50 ms. They are
    freed when nothing refers to them any more, and need no collector, also not after the block.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def collected_young() -> Iterator[None]:
    """
    Keep full collections from what is made in the block, and all of them from it later.

    Young objects are collected meanwhile: requests are answered, and what they leave in circles
    would stay for ever with the documents.
    """
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, _OFTEN, _NEVER)
    try:
        yield
    finally:
        gc.collect(1)
        gc.freeze()
        gc.set_threshold(young, middle, old)
