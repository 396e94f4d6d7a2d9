"""
`GET /federation/v1/documents`: all documents in force, and what keeps newer ones out.

There may be 10,000 of them, so the JSON is made in a thread, once for each set of documents, and
all callers who ask meanwhile wait for the same one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from federation.documents.catalog import Catalog
from federation.documents.kubernetes.api_objects import Key
from federation.documents.kubernetes.verdicts import Standing, Verdict
from federation.documents.listing import listing
from federation.errors import Problem
from federation.jose.strict_json import dumps
from federation.sources import Source
from federation.web.api.endpoint import Asked

_SENTENCES = 200

Verdicts = Mapping[Key, Verdict]


@dataclass(frozen=True, slots=True)
class _Set:
    """A set of documents, with all that is said about it."""

    catalog: Catalog
    refused: tuple[Problem, ...]
    """The errors of the files, if the newest ones were not adopted."""
    verdicts: Verdicts

    def is_same(self, other: _Set) -> bool:
        """Return whether *other* is this set. It is compared by identity, which costs nothing."""
        same = self.catalog is other.catalog and self.verdicts is other.verdicts
        return same and self.refused == other.refused

    def as_json(self) -> bytes:
        """The answer without its end: what is passing trouble follows in each answer anew."""
        problems = [*self.catalog.warnings, *self.refused]
        for verdict in self.verdicts.values():
            if verdict.standing is not Standing.CONFLICT:  # else another document has its name
                problems += verdict.problems
        # One document at a time, so that the thread lets go of the interpreter in between.
        documents = b",".join(map(dumps, listing(self.catalog, problems)))
        return b'{"documents":[' + documents + b'],"degraded":'

    def sentences(self) -> Iterator[str]:
        """Yield what is not in force, and why."""
        for problem in self.refused:
            yield f"The newest files are not in force: {problem}"
        for (kind, name), verdict in self.verdicts.items():
            if verdict.standing is not Standing.ACCEPTED:
                yield f"{kind}/{name}: {verdict.explained}"


class Documents:
    """The endpoint's answer. It keeps the JSON of the last set that was asked for."""

    def __init__(
        self,
        source: Source,
        verdicts: Callable[[], Verdicts] | None,
        trouble: Callable[[], Iterable[str]] | None,
    ) -> None:
        self._source = source
        self._verdicts = verdicts
        self._trouble = trouble
        self._made: tuple[_Set, asyncio.Task[bytes]] | None = None

    async def __call__(self, asked: Asked) -> bytes:
        """All documents of the request's catalog, as JSON."""
        return await self.of(asked.catalog)

    async def of(self, catalog: Catalog) -> bytes:
        """All documents of *catalog*, with what keeps newer ones out, as JSON."""
        verdicts = self._verdicts() if self._verdicts else _NO_VERDICTS
        now = _Set(catalog, self._source.problems(), verdicts)
        beginning = await asyncio.shield(self._json_of(now))
        trouble = self._trouble() if self._trouble else ()
        told = [*(f"Kubernetes API: {each}." for each in trouble), *now.sentences()]
        if len(told) > _SENTENCES:
            told[_SENTENCES:] = [f"There are {len(told) - _SENTENCES} more."]
        return beginning + dumps(told) + b"}"

    def _json_of(self, now: _Set) -> asyncio.Task[bytes]:
        if self._made is None or not self._made[0].is_same(now) or _failed(self._made[1]):
            self._made = now, asyncio.create_task(asyncio.to_thread(now.as_json))
        return self._made[1]


_NO_VERDICTS: Verdicts = MappingProxyType({})


def _failed(task: asyncio.Task[bytes]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)
