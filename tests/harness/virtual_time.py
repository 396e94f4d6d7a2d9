"""An event loop whose time jumps: a test of ten minutes takes milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """A selector that lets the time pass instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("nothing is left to wait for")
        if not ready and timeout:
            self.passed += timeout
        return ready


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.jumping = _Selector()
        super().__init__(self.jumping)

    def time(self) -> float:
        return 1000.0 + self.jumping.passed

    # A thread would work while the time jumps on.
    def run_in_executor(  # type: ignore[override]
        self, _executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:
            done.set_exception(error)
        return done


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run *story*. Nothing in it may wait for the world outside, or for a thread."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(story)


def now() -> float:
    """The time of the running loop."""
    return asyncio.get_running_loop().time()
