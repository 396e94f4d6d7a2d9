"""What came of a fault: how often it was tried, how often the promise held, what was seen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Fault", "NotTried", "Outcome", "Run", "until"]


class NotTried(Exception):
    """Why a fault cannot be tried here."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a fault is given: a folder of its own, and how much to do."""

    folder: Path
    short: bool

    def of(self, short: int, full: int) -> int:
        """How many."""
        return short if self.short else full


@dataclass(slots=True)
class Outcome:
    """The row of one fault in the table."""

    tries: int = 0
    wrong: list[str] = field(default_factory=list)
    """What did not hold, one sentence each."""
    measured: list[str] = field(default_factory=list)
    broken_tries: int = 0

    @property
    def held(self) -> int:
        """In how many tries everything held."""
        return self.tries - self.broken_tries

    def tried(self, wrong: Iterable[str] = (), times: int = 1) -> None:
        """The fault was tried *times*; *wrong* is what did not hold."""
        found = list(wrong)
        self.tries += times
        self.broken_tries += min(times, len(found))
        self.wrong += found

    def judge(self, wrong: Iterable[str]) -> None:
        """*wrong* did not hold in one try of those that were told."""
        found = list(wrong)
        self.broken_tries = min(self.tries, self.broken_tries + bool(found))
        self.wrong += found

    def saw(self, what: str) -> None:
        """*what* is worth telling."""
        self.measured.append(what)


Fault = Callable[[Run], Awaitable[Outcome]]


async def until(holds: Callable[[], Awaitable[bool]], seconds: float) -> float | None:
    """After how many seconds *holds* was true; None where it never was."""
    began = time.monotonic()
    while (passed := time.monotonic() - began) < seconds:
        if await holds():
            return time.monotonic() - began
        await asyncio.sleep(min(0.1, max(0.0, seconds - passed)))
    return None
