"""
A mirror of one kind of objects in one namespace, by list and watch.

A list gives all objects at one version, page by page, and a watch what changed since. Any trouble
ends in a new list, so that nothing is missed: what was deleted meanwhile, a history that the API
server no longer has (410), or an etcd that was restored from a backup and counts from an older
version. A watch that ends in order goes on from its last version.

The objects that are shown are those of whole lists. Tries are spread, and their pauses grow up to
a bound.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from federation.documents.assemble import DOCUMENTS
from federation.documents.kubernetes.api_objects import ApiObject, document_in, read_object
from federation.documents.schema import API_VERSION
from federation.sources.kubernetes.backoff import backoff_seconds
from federation.sources.kubernetes.connection import Connection, TooLarge, Trouble
from federation.sources.kubernetes.fields import Raw, mapping, text
from federation.sources.kubernetes.json_depth import loads_aside
from federation.text import printable

_PAGE = 500
_LONGEST_RETRY_AFTER_SECONDS = 60.0
_TOLD_EACH = 20
"""Of so many failures in a row, one is logged."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The times of following, in seconds."""

    watch: float = 45.0
    """A watch is asked anew after this time, or a little less."""
    silence: float = 60.0
    """A watch that is silent for so long is cut. Longer than *watch*, after which it ends."""
    first_pause: float = 0.2
    longest_pause: float = 15.0
    short_watch: float = 1.0
    """A watch that ends sooner counts as trouble: it could be asked again without end."""

    def pause(self, failures: int, spread: float) -> float:
        """Return the pause after so many failures in a row; *spread* is between 0 and 1."""
        return backoff_seconds(failures, self.first_pause, self.longest_pause, spread)


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as it was read last."""

    object: ApiObject
    status: Raw = field(repr=False)
    digest: bytes = field(repr=False)
    """Of its document."""


class Mirror:
    """
    The objects of *kind*, whose name in URLs is *plural*; no more than *most*.

    *changed* is called with True if a spec changed, and with False if only a status did.
    """

    def __init__(
        self,
        connection: Connection,
        kind: str,
        plural: str,
        changed: Callable[[bool], None],
        *,
        pace: Pace | None = None,
        most: int = DOCUMENTS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._connection = connection
        self._kind = kind
        self._path = f"/apis/{API_VERSION}/namespaces/{connection.namespace}/{plural}"
        self._changed = changed
        self._pace = pace or Pace()
        self._most = most
        self._jitter = jitter
        self._log = structlog.get_logger("federation.kubernetes").bind(kind=kind)
        self._version = ""
        self._failures = 0
        self._watched_since: float | None = None
        """When the watch that runs was accepted."""
        self._until: asyncio.Timeout | None = None
        self.entries: dict[str, Entry] = {}
        """By name."""
        self.listed = False
        """True once a whole list was read."""
        self.trouble: str = ""
        """The reason why the objects may be old, empty if they are followed."""

    async def run(self) -> None:
        """Follow the objects until cancelled."""
        pause = 0.0
        while True:
            try:
                async with asyncio.timeout(None) as self._until:
                    await asyncio.sleep(pause)
                    pause = 0.0
                    if not self._version:
                        await self._list()
                    await self._watch()
            except TimeoutError:  # a new list was asked for
                pause, self._version = 0.0, ""
            except Trouble as trouble:
                pause = self._pause_after(trouble)
            except Exception as error:  # the error boundary: following must survive any fault
                self._log.exception("a Kubernetes object cannot be taken in", exc_info=error)
                pause = self._pause_after(Trouble(f"unexpected {type(error).__name__}"))

    def relist(self) -> None:
        """List all objects anew, now."""
        if self._until is not None and not self._until.expired():
            with suppress(RuntimeError):  # it is about to list
                self._until.reschedule(0)

    def forget(self) -> None:
        """Read all objects anew, and count as not listed until then."""
        self.listed = False
        self.entries = {}
        self.relist()

    def _pause_after(self, trouble: Trouble) -> float:
        """Note *trouble*, and return the seconds until the next list."""
        self._version = ""
        # One that ends soon after it began, again and again, must not be asked at the first pace.
        lasted = self._watched_since and self._watch_seconds() >= self._pace.short_watch
        self._failures = 1 if lasted else self._failures + 1
        self._watched_since = None
        pause = self._pace.pause(self._failures, self._jitter())
        if trouble.retry_after_seconds:
            at_least = min(trouble.retry_after_seconds, _LONGEST_RETRY_AFTER_SECONDS)
            pause = max(pause, at_least * (1 + self._jitter() / 4))
        # An API server that forgot the history is nothing that anybody must know of.
        if trouble.status != 410:
            self.trouble = f"{self._kind}: {trouble}"
            if self._failures == 2 or self._failures % _TOLD_EACH == 0:  # once is nothing, either
                self._log.warning(
                    "Kubernetes objects cannot be followed; those read before stay in use",
                    why=str(trouble),
                    tries=self._failures,
                )
        return pause

    def _recovered(self) -> None:
        if self.trouble and self._failures > 1:
            self._log.info("Kubernetes objects are followed again")
        self.trouble, self._watched_since = "", time.monotonic()

    def _watch_seconds(self) -> float:
        return 0.0 if self._watched_since is None else time.monotonic() - self._watched_since

    # Lists

    async def _list(self) -> None:
        """Read all objects, and show them when the last page was read. Raises: Trouble."""
        found: dict[str, Entry] = {}
        limit, rest = _PAGE, ""
        while True:
            params = {"limit": str(limit)} | ({"continue": rest} if rest else {})
            try:
                page = await self._connection.request("GET", self._path, params=params)
            except TooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // 10)  # a few objects may be large
                continue
            items = page.get("items")
            if not isinstance(items, list):
                raise Trouble("a list has no items")
            before = len(found)
            found |= await asyncio.to_thread(self._read_page, items)
            self._check_number(len(found))
            rest = _text_in(page, "continue")
            if not rest:
                break
            # A server that goes round in a circle would be followed without end and without a word.
            if len(found) == before:
                raise Trouble("a list goes on without new objects")
        self._version = _text_in(page, "resourceVersion")
        if not self._version:
            raise Trouble("a list has no resourceVersion")
        self._show(found)

    def _read_page(self, items: Iterable[object]) -> dict[str, Entry]:
        """Read the objects of a page. It runs in a thread."""
        page = {}
        for item in items:
            if (name := self._name_of(item)) and isinstance(item, dict):
                page[name] = self._entry(name, item)
        return page

    def _show(self, found: dict[str, Entry]) -> None:
        before, first = self.entries, not self.listed
        self.entries, self.listed = found, True
        spec = first or any(
            before.get(name) is None or before[name].object.parsed is not entry.object.parsed
            for name, entry in found.items()
        )
        if spec or before.keys() != found.keys():
            self._changed(True)
        elif before != found:
            self._changed(False)

    def _entry(self, name: str, item: dict[str, Any]) -> Entry:
        """Read an object. A document that was read before is not read again."""
        raw = {**item, "apiVersion": API_VERSION, "kind": self._kind}
        digest = _digest(document_in(raw))
        known = self.entries.get(name)
        same = known and known.digest == digest and known.object.uid == item["metadata"].get("uid")
        read = read_object(raw, known.object.parsed if known and same else None)
        return Entry(read, mapping(item.get("status")), digest)

    def _name_of(self, item: object) -> str:
        """Return the name of an object that is followed here, empty for any other."""
        if not isinstance(item, dict) or item.get("kind", self._kind) != self._kind:
            return ""
        here = _text_in(item, "namespace") == self._connection.namespace
        return _text_in(item, "name") if here else ""

    # Watches

    async def _watch(self) -> None:
        """Follow changes until the API server ends the watch. Raises: Trouble."""
        params = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
            "timeoutSeconds": str(max(1, round(self._pace.watch * (1 - self._jitter() / 10)))),
        }
        try:
            # The API server should have ended it by then. One that sends a byte now and then, and
            # no whole line, would never count as silent.
            async with asyncio.timeout(self._pace.watch + self._pace.silence):
                await self._follow(params)
        except TimeoutError:
            raise Trouble("a watch does not end") from None
        if self._watch_seconds() < self._pace.short_watch:
            raise Trouble("a watch ended at once")

    async def _follow(self, params: Mapping[str, str]) -> None:
        silence = self._pace.silence
        async with self._connection.lines(self._path, params, silence) as lines:
            self._recovered()
            async for line in lines:
                await self._take(line)

    async def _take(self, line: bytes) -> None:
        """Take in one event. Raises: Trouble."""
        try:
            event = await loads_aside(line)
        except ValueError:
            raise Trouble("an event is not a JSON object") from None
        what, item = event.get("type"), event.get("object")
        if not isinstance(item, dict):
            raise Trouble("an event has no object")
        if what == "ERROR":
            raise _error(item)
        if what in {"ADDED", "MODIFIED", "DELETED"}:
            await self._apply(item, deleted=what == "DELETED")
        elif what != "BOOKMARK":
            raise Trouble("an event of an unknown type")
        if version := _text_in(item, "resourceVersion"):
            self._version = version

    async def _apply(self, item: dict[str, Any], *, deleted: bool) -> None:
        name = self._name_of(item)
        if not name:
            return
        before = self.entries.get(name)
        if deleted:
            if self.entries.pop(name, None):
                self._changed(True)
            return
        now = await asyncio.to_thread(self._entry, name, item)
        self.entries[name] = now
        self._check_number(len(self.entries))
        if before is None or before.object.parsed is not now.object.parsed:
            self._changed(True)
        elif before != now:
            self._changed(False)

    def _check_number(self, objects: int) -> None:
        if objects > self._most:
            raise Trouble(f"there are more than {self._most:,} objects")


def _error(status: Raw) -> Trouble:
    """Return the trouble that an `ERROR` event tells."""
    code, message = status.get("code"), printable(text(status, "message"), 300)
    told = message or "no message"
    return Trouble(f"the watch failed: {told}", code if isinstance(code, int) else 0)


def _text_in(listed: Raw, name: str) -> str:
    """Return the text *name* of an object's or a list's metadata, empty if there is none."""
    return text(mapping(listed.get("metadata")), name)


def _digest(document: Raw) -> bytes:
    return hashlib.blake2b(orjson.dumps(document), digest_size=16).digest()
