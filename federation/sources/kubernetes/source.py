"""
A source of documents in the Kubernetes API, united with those in files.

Three mirrors follow the three kinds. Changes that come together are joined: when nothing changed
for a moment, or at the latest half a second after the first change, a new catalog is made of all of
them in a thread. Nothing is adopted before every kind was listed once, and nothing while the CRDs
are not ours. Until the first set is adopted the catalog says that it is awaited, so that nobody is
decided upon by the files alone.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

import structlog

from federation.documents.assemble import DOCUMENTS
from federation.documents.catalog import Catalog
from federation.documents.kubernetes.unite import ApiObject, Key, Standing, United, Verdict, unite
from federation.documents.model import JwtIssuer
from federation.documents.pauses import Pause, go_on, paced
from federation.documents.schema import PLURALS
from federation.errors import Problem
from federation.sources import Source
from federation.sources.kubernetes.connection import Connection, Trouble
from federation.sources.kubernetes.crd_check import crd_problem
from federation.sources.kubernetes.mirror import Entry, Mirror, Pace
from federation.sources.slices import PROMPT_SECONDS, Slices
from federation.text import printable

_TOLD_CHARS = 1000
"""Of what became of one object."""
_LOGGED_OBJECTS = 20
"""Of one change, so many objects are logged that are not in force."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The objects as they were read last, and the verdict on each."""

    united: United = field(default_factory=lambda: United(Catalog()))
    objects: Mapping[Key, ApiObject] = field(default_factory=dict)
    statuses: Mapping[Key, Mapping[str, object]] = field(default_factory=dict)
    """`status` of each object as the API server has it."""

    @classmethod
    def of(cls, mirrored: Iterable[Mapping[str, Entry]], pause: Pause = go_on) -> Snapshot:
        """The objects of the mirrors with their statuses, as nothing was decided upon yet."""
        objects: dict[Key, ApiObject] = {}
        statuses: dict[Key, Mapping[str, object]] = {}
        for entries in mirrored:
            for entry in paced(entries.values(), pause):
                key = entry.object.key
                objects[key], statuses[key] = entry.object, entry.status
        return cls(objects=objects, statuses=statuses)


@dataclass(frozen=True, slots=True)
class Following:
    """The state of following the API, for the operator."""

    namespace: str
    adopted: bool
    """False until the first set was adopted: no exchange is answered until then."""
    trouble: tuple[str, ...]
    """Reasons why the set may be old, in sentences; empty if there is none."""
    last_contact_seconds: float | None
    """The age of the API server's last answer, None if it never answered."""
    objects: Mapping[str, int]
    """The number of objects by standing."""
    refusing: int
    """The number of objects that refuse the tokens that they would admit."""
    not_in_force: tuple[str, ...]
    """Sentences on objects that are not in force as they are, some of them."""


@dataclass(frozen=True, slots=True)
class Joining:
    """The times of joining changes, in seconds."""

    quiet: float = 0.1
    """Changes are adopted when nothing changed for so long."""
    longest: float = 0.5
    """They are adopted after this time at the latest, however many come."""
    check_crds: float = 30.0
    """The CRDs are looked at so often, and before each adoption."""
    recheck_crds: float = 3.0
    """While they cannot be used, so often."""


def _refusing_first(verdicts: Mapping[Key, Verdict]) -> list[tuple[Key, Verdict]]:
    """Return *verdicts* in an order in which many harmless ones hide none that refuses tokens."""
    return sorted(verdicts.items(), key=lambda item: not item[1].refuses)


@dataclass(frozen=True, slots=True)
class _Summary:
    """
    The verdicts in short, for the operator.

    It is made once for each set: anybody may ask `/readyz`, and there may be thousands of objects.
    """

    objects: Mapping[str, int] = field(default_factory=dict)
    refusing: int = 0
    not_in_force: tuple[str, ...] = ()

    @classmethod
    def of(cls, verdicts: Mapping[Key, Verdict]) -> _Summary:
        """Return the summary of *verdicts*."""
        told = (
            f"{kind}/{name}: {printable(verdict.explained, _TOLD_CHARS)}"
            for (kind, name), verdict in _refusing_first(verdicts)
            if verdict.standing is not Standing.ACCEPTED
        )
        return cls(
            objects=dict(Counter(verdict.standing.value for verdict in verdicts.values())),
            refusing=sum(verdict.refuses for verdict in verdicts.values()),
            not_in_force=tuple(islice(told, _LOGGED_OBJECTS)),
        )


class KubernetesSource:
    """
    The documents of one namespace, and those of *files* where there are any.

    *judge_issuer* returns errors of an issuer that only this broker's settings show. *on_adopt* is
    called with each set that is adopted. There may be *most* documents, those of files included.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        judge_issuer: Callable[[JwtIssuer], Iterable[Problem]] = lambda _issuer: (),
        on_adopt: Callable[[United], None] = lambda _united: None,
        pace: Pace | None = None,
        joining: Joining | None = None,
        most: int = DOCUMENTS,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.connection = connection
        self._judge_issuer = judge_issuer
        self._on_adopt = on_adopt
        self._pace, self._joining, self._jitter = pace or Pace(), joining or Joining(), jitter
        self._most = most
        self._log = structlog.get_logger("federation.kubernetes")
        self._files: Source | None = None
        self._mirrors = [
            Mirror(
                connection, kind, plural, self._changed, pace=self._pace, most=most, jitter=jitter
            )
            for kind, plural in PLURALS.items()
        ]
        self._adopted = False
        self._catalog = Catalog(awaited=self._awaited())
        self.snapshot = Snapshot()
        """The newest state of the objects. It is replaced as a whole."""
        self._summary = _Summary()
        self._replaced = asyncio.Event()
        self._change = asyncio.Event()
        self._due = True
        """True if a new catalog is due, and not only new statuses."""
        self._crds = ""
        """The reason why the CRDs cannot be used; empty if they can."""
        self._held = ""
        """The reason why the newest objects are not adopted; empty if they are."""

    # What others ask

    def current(self) -> Catalog:
        """Return the catalog of the last set that was adopted."""
        return self._catalog

    def problems(self) -> tuple[Problem, ...]:
        """Return the errors of the files if they were not adopted. Objects never hold a set up."""
        return self._files.problems() if self._files else ()

    def following(self) -> Following:
        """Return how well the API is followed at this moment."""
        answered = self.connection.answered_at
        trouble = [*(mirror.trouble for mirror in self._mirrors), self._crds, self._held]
        return Following(
            namespace=self.connection.namespace,
            adopted=self._adopted,
            trouble=tuple(filter(None, trouble)),
            last_contact_seconds=None if answered is None else time.monotonic() - answered,
            objects=self._summary.objects,
            refusing=self._summary.refusing,
            not_in_force=self._summary.not_in_force,
        )

    async def changed(self, seen: Snapshot) -> Snapshot:
        """Return the newest snapshot once it is another one than *seen*."""
        while self.snapshot is seen:
            await self._replaced.wait()
        return self.snapshot

    async def first_adopted(self) -> None:
        """Return once a first set was adopted."""
        while not self._adopted:
            await self.changed(self.snapshot)

    # What others say

    def unite_with(self, files: Source) -> None:
        """Unite the objects with the documents of *files* from now on."""
        self._files = files
        self.files_changed()

    def files_changed(self) -> None:
        """Take in the newest documents of the files."""
        if not self._adopted:
            self._catalog = replace(self._in_files(), awaited=self._awaited())
        self._changed(True)

    def reload(self) -> None:
        """List all objects anew, with a token and a CA that are read again."""
        self.connection.reread()
        for mirror in self._mirrors:
            mirror.relist()

    async def run(self) -> None:
        """Follow the API until cancelled. The connection stays open: others use it, too."""
        async with asyncio.TaskGroup() as tasks:
            for mirror in self._mirrors:
                tasks.create_task(mirror.run())
            tasks.create_task(self._adopt_changes())
            tasks.create_task(self._follow_crds())

    # Adopting

    def _changed(self, spec: bool) -> None:
        self._due = self._due or spec
        self._change.set()

    async def _adopt_changes(self) -> None:
        failures = 0
        while True:
            await self._change.wait()
            await self._settled()
            try:
                await self._adopt()
                failures = 0
            except Trouble as trouble:
                failures += 1
                self._held = f"the newest objects are not adopted: {trouble}"
                await self._try_again(failures)
            except Exception as error:  # the error boundary: adopting must survive any fault
                failures += 1
                self._log.exception("Kubernetes objects not adopted", exc_info=error)
                self._held = f"the newest objects are not adopted: {type(error).__name__}"
                await self._try_again(failures)

    async def _settled(self) -> None:
        """Return when nothing changed for a moment, but do not wait without end."""
        end = time.monotonic() + self._joining.longest
        while True:
            self._change.clear()
            left = min(self._joining.quiet, end - time.monotonic())
            try:
                async with asyncio.timeout(left):
                    await self._change.wait()
            except TimeoutError:
                return

    async def _try_again(self, failures: int) -> None:
        await asyncio.sleep(self._pace.pause(failures, self._jitter()))
        self._changed(True)

    async def _adopt(self) -> None:
        """Adopt what the mirrors have, if all of them have something. Raises: Trouble."""
        if not self._is_listed():
            return
        if self._due:
            self._note_crds(await crd_problem(self.connection))
            if not self._crds and self._is_listed():
                await self._adopt_objects()
        else:
            self._show(replace(await self._read(), united=self.snapshot.united))

    async def _adopt_objects(self) -> None:
        self._due = False  # what changes from here on is due again
        files = self._in_files()
        read = await self._read()
        found = len(read.objects) + len(files.issuers) + len(files.roles) + len(files.policies)
        if found > self._most:
            raise Trouble(f"there are more than {self._most:,} documents")
        before = self.snapshot.united
        united = await asyncio.to_thread(
            unite,
            files,
            tuple(read.objects.values()),
            before,
            judge_issuer=self._judge_issuer,
            pause=Slices(prompt_seconds=PROMPT_SECONDS),
        )
        self._catalog, self._adopted, self._held = united.catalog, True, ""
        self._summary = _Summary.of(united.verdicts)
        self._show(replace(read, united=united))
        self._on_adopt(united)
        self._log_adopted(before.verdicts)

    def _is_listed(self) -> bool:
        return all(mirror.listed for mirror in self._mirrors)

    async def _read(self) -> Snapshot:
        """Return the newest objects and statuses."""
        # Copies, since the mirrors go on. To go through them takes long, and so a thread does.
        entries = [mirror.entries.copy() for mirror in self._mirrors]
        slices = Slices(prompt_seconds=PROMPT_SECONDS)
        return await asyncio.to_thread(Snapshot.of, entries, slices)

    def _show(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._replaced, replaced = asyncio.Event(), self._replaced
        replaced.set()

    def _log_adopted(self, before: Mapping[Key, Verdict]) -> None:
        verdicts = self.snapshot.united.verdicts
        worse = [
            (key, verdict)
            for key, verdict in _refusing_first(verdicts)
            if verdict.standing is not Standing.ACCEPTED and before.get(key) != verdict
        ]
        for (kind, name), verdict in worse[:_LOGGED_OBJECTS]:
            self._log.warning(
                "a Kubernetes object is not in force as it is",
                object=f"{kind}/{name}",
                reason=verdict.standing.value,
                message=printable(verdict.explained, _TOLD_CHARS),
            )
        self._log.info(
            "Kubernetes objects adopted",
            namespace=self.connection.namespace,
            objects=len(verdicts),
            newly_not_in_force=len(worse),
            digest=self._catalog.digest,
        )

    # CRDs

    async def _follow_crds(self) -> None:
        """Look at the CRDs again and again, so that foreign ones are noticed while nothing changes."""
        while True:
            joining = self._joining
            await asyncio.sleep(joining.recheck_crds if self._crds else joining.check_crds)
            try:
                problem = await crd_problem(self.connection)
            except Trouble:
                continue  # the mirrors tell it
            except Exception as error:  # the error boundary: it runs beside the mirrors
                self._log.exception("the CRDs cannot be looked at", exc_info=error)
                continue
            self._note_crds(problem)

    def _note_crds(self, problem: str) -> None:
        if problem and problem != self._crds:
            self._log.error("the CRDs cannot be used; nothing new is adopted", why=problem)
        elif self._crds and not problem:
            self._log.info("the CRDs can be used again")
            for mirror in self._mirrors:
                mirror.forget()  # what was read through the other CRDs may lack fields
        self._crds = problem

    def _in_files(self) -> Catalog:
        return self._files.current() if self._files else Catalog()

    def _awaited(self) -> str:
        return f"namespace {self.connection.namespace} was not read from the Kubernetes API yet"
