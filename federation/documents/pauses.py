"""
Pauses in long work: before each step the work calls a function that it was given.

A broker reads new documents in a thread, and Python runs one thread at a time. Where the function
sleeps for a moment, the threads that answer requests go first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias, TypeVar

Pause: TypeAlias = Callable[[], None]

T = TypeVar("T")


def go_on() -> None:
    """Continue without a pause: no other thread waits for the interpreter."""


def paced(things: Iterable[T], pause: Pause) -> Iterator[T]:
    """Yield *things*, with a pause before each."""
    for thing in things:
        pause()
        yield thing
