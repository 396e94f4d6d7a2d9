"""The result of a fault: how often it was tried, how often its promise held, and figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path


class NotTried(Exception):
    """A fault cannot be injected on this machine; the message says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """The arguments of a fault: a folder of its own, and whether to be short."""

    folder: Path
    short: bool

    def of(self, short: int, full: int) -> int:
        """*short* in a short run, *full* in a full one."""
        return short if self.short else full


@dataclass(slots=True)
class Outcome:
    """The row of one fault in the table."""

    tries: int = 0
    wrong: list[str] = field(default_factory=list)
    """Promises that did not hold, one sentence each."""
    measured: list[str] = field(default_factory=list)
    broken_tries: int = 0

    @property
    def held(self) -> int:
        """The number of tries in which everything held."""
        return self.tries - self.broken_tries

    def tried(self, wrong: Iterable[str] = (), times: int = 1) -> None:
        """Count *times* tries. *wrong* says what did not hold in them."""
        found = list(wrong)
        self.tries += times
        self.broken_tries += min(times, len(found))
        self.wrong += found

    def judge(self, wrong: Iterable[str]) -> None:
        """Add what did not hold in one of the tries counted so far."""
        found = list(wrong)
        self.broken_tries = min(self.tries, self.broken_tries + bool(found))
        self.wrong += found

    def saw(self, what: str) -> None:
        """Add a figure to the table."""
        self.measured.append(what)


Fault = Callable[[Run], Awaitable[Outcome]]


async def until(holds: Callable[[], Awaitable[bool]], seconds: float) -> float | None:
    """Wait until *holds*, and return after how many seconds; None if it never does."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        if await holds():
            return time.monotonic() - began
        await asyncio.sleep(min(0.1, max(0.0, seconds - passed)))
    return None
