"""A clock for tests, which moves only when a test moves it."""

from __future__ import annotations


class Clock:
    """Returns `now` when it is called."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
