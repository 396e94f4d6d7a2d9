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


class Slices:
    """Sleeps for a moment whenever it is called after half a millisecond of work."""

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._began = clock()

    def __call__(self) -> None:
        """Sleep if a slice is over."""
        if self._clock() - self._began >= _SLICE_SECONDS:
            self._sleep(_REST_SECONDS)
            self._began = self._clock()


@contextmanager
def uncollected(*, forever: bool = False) -> Iterator[None]:
    """
    Keep the garbage collector from what is made in the block; with *forever*, later too.

    A collection visits every object in one step: of 10,000 documents that takes 50 ms. They are
    freed when nothing refers to them any more, and need no collector.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if forever:
            gc.freeze()
        if enabled:
            gc.enable()
