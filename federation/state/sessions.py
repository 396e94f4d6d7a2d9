"""
The store of people's sessions, beside the one of spent tokens.

A session is kept under the digest of its cookie's id, so a reader of the store learns no cookie.
The value is sealed before it gets here. A session carries tags, such as its person, by which all
sessions of that person end at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from federation.state import Store
from federation.state.memory import MemoryStore

__all__ = ["OF_ONE_TAG", "MemorySessions", "SessionStore"]

OF_ONE_TAG = 100
"""Maximum number of sessions with one tag. A further one ends the oldest, so that a person who signs
in again and again does not fill the store."""


class SessionStore(Store, Protocol):
    """
    Keeps values until they expire. Times are seconds since the epoch.

    Every method raises Refusal with `state_unavailable` if the store cannot answer.
    """

    async def put(
        self, key: str, value: str, until: float, tags: Sequence[str] = (), ends: float = 0.0
    ) -> None:
        """
        Keep *value* under *key* until *until*, with *tags*.

        No later `get` keeps it beyond *ends*, which is when the tags expire.
        """

    async def get(self, key: str, until: float = 0.0) -> str | None:
        """Return the value of *key*, and keep it until *until* if that is later than before."""

    async def replace(self, key: str, value: str, until: float) -> bool:
        """
        Replace the value of *key* until *until*, and return True, if it is there.

        A session that was ended meanwhile is not brought back.
        """

    async def hold(self, key: str, until: float) -> bool:
        """Return True for the first caller. *key* is free again after *until*, or by `delete`."""

    async def delete(self, key: str) -> bool:
        """Delete *key*. Return whether it was there."""

    async def delete_tagged(self, tag: str) -> int:
        """Delete everything that carries *tag*. Return how many there were."""


@dataclass(slots=True)
class _Kept:
    value: str
    until: float
    ends: float
    tags: frozenset[str] = field(default_factory=frozenset)


class MemorySessions(MemoryStore):
    """A session store in the memory of one process, for tests."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self._kept: dict[str, _Kept] = {}

    async def put(
        self, key: str, value: str, until: float, tags: Sequence[str] = (), ends: float = 0.0
    ) -> None:
        """Keep *value*."""
        self._kept[key] = _Kept(value, until, max(until, ends), frozenset(tags))
        for tag in tags:
            tagged = [name for name, kept in self._kept.items() if tag in kept.tags]
            for oldest in tagged[:-OF_ONE_TAG]:
                del self._kept[oldest]

    async def get(self, key: str, until: float = 0.0) -> str | None:
        """Return the value, and keep it longer."""
        found = self._live(key)
        if found is None:
            return None
        found.until = min(max(found.until, until), found.ends)
        return found.value

    async def replace(self, key: str, value: str, until: float) -> bool:
        """Replace the value if it is there."""
        found = self._live(key)
        if found is not None:
            found.value, found.until = value, min(until, found.ends)
        return found is not None

    async def hold(self, key: str, until: float) -> bool:
        """Return True for the first caller."""
        if self._live(key) is not None:
            return False
        self._kept[key] = _Kept("", until, until)
        return True

    async def delete(self, key: str) -> bool:
        """Delete the value."""
        was_there = self._live(key) is not None
        self._kept.pop(key, None)
        return was_there

    async def delete_tagged(self, tag: str) -> int:
        """Delete what carries *tag*."""
        tagged = [name for name, kept in self._kept.items() if tag in kept.tags]
        return sum([await self.delete(name) for name in tagged])

    def _live(self, key: str) -> _Kept | None:
        found = self._kept.get(key)
        if found is not None and found.until <= self._clock():
            del self._kept[key]
            return None
        return found
