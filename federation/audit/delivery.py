"""
Delivery of audit events to a webhook, as OpenFaaS does it: at least once, in order per process.

Only a 2xx answer counts and moves the cursor. Any other batch is retried with exponential
back-off until the webhook accepts it. A living process delivers what a dead one left.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

import structlog

from federation.audit.backlog import undelivered_from
from federation.audit.journal import FileJournal
from federation.audit.read import Batch, batch_of, ends
from federation.audit.segments import Lock, cursor_of, drop, set_cursor, stored
from federation.audit.webhook import NotDelivered, Webhook

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 60.0
_ADOPT_SECONDS = 5.0
_TEMPORARY = frozenset({408, 425, 429})


class Delivery:
    """Delivers the events of *journal*, and those that dead processes left, to *webhook*."""

    def __init__(
        self,
        journal: FileJournal,
        webhook: Webhook,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._journal = journal
        self._webhook = webhook
        self._jitter = jitter
        self._adopted: dict[str, Lock] = {}
        self._adopt_due = 0.0
        self._cursors: dict[Path, int] = {}
        self._unwritten: set[Path] = set()
        """The segments whose cursor could not be written at the last try."""
        self._stopping = asyncio.Event()
        self.problem: str | None = None
        """The webhook's refusal of the last batch, if only an operator can mend it; else None."""
        self._log = structlog.get_logger("federation.audit")

    async def run(self) -> None:
        """Deliver events as they come until `stop`. Then stop at the first failure."""
        try:
            while await self._step():
                pass
        finally:
            await self._webhook.aclose()
            self._release_adopted()

    def renew(self) -> None:
        """Make the next batch go over a new connection, which reads the CA again."""
        self._webhook.renew()

    def stop(self) -> None:
        """End `run` when everything is delivered, or at the first failure."""
        self._stopping.set()
        self._journal.recorded.set()

    async def _step(self) -> bool:
        """Deliver one batch or wait for one. Return False to end."""
        try:
            self._journal.recorded.clear()
            batch = await asyncio.to_thread(self._find)
            if batch:
                return await self._deliver(batch)
            if not self._stopping.is_set():
                with suppress(TimeoutError):  # time to look for dead processes again
                    async with asyncio.timeout(_ADOPT_SECONDS):
                        await self._journal.recorded.wait()
                return True
        except Exception as error:  # the error boundary: delivery must survive any fault
            self._log.exception("audit delivery failed; it goes on", exc_info=error)
            await self._pause(_LONGEST_PAUSE_SECONDS if not isinstance(error, OSError) else 1.0)
        return not self._stopping.is_set()

    async def _deliver(self, batch: Batch) -> bool:
        """Send *batch* until it is accepted. Return False if the broker stops first."""
        if batch.unreadable:
            self._log.error(
                "audit lines were changed and are not delivered; see `federation audit verify`",
                segment=batch.path.name,
                lines=batch.unreadable,
            )
        tries = 0
        while batch.contents:
            try:
                await self._webhook.post(batch.body, batch.delivery_id)
                break
            except NotDelivered as refused:
                seconds = self._seconds_to_wait(tries, refused)
                self._log_refusal(refused, batch, tries, seconds)
            tries += 1
            if await self._pause(seconds):
                return False
        self.problem = None
        if tries:
            self._log.info("audit webhook takes events again", host=self._webhook.host)
        await asyncio.to_thread(self._taken, batch.path, batch.end)
        return True

    def _seconds_to_wait(self, tries: int, refused: NotDelivered) -> float:
        """
        Back off exponentially, with full jitter so that many brokers do not retry at once.

        `Retry-After` is the least.
        """
        longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2 ** min(tries, 10))
        return max(self._jitter(0, longest), refused.retry_after_seconds)

    def _log_refusal(self, refused: NotDelivered, batch: Batch, tries: int, seconds: float) -> None:
        # Only an operator can help against most 4xx answers.
        temporary = refused.status is None or refused.status >= 500 or refused.status in _TEMPORARY
        self.problem = None if temporary else str(refused)
        log = self._log.warning if temporary else self._log.error
        log(
            "audit webhook did not take a batch",
            host=self._webhook.host,
            why=str(refused),
            delivery=batch.delivery_id,
            events=len(batch.contents),
            tries=tries + 1,
            next_try_in_seconds=round(seconds, 1),
        )

    async def _pause(self, seconds: float) -> bool:
        """Wait *seconds*. Return True if the broker began to stop meanwhile."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self._stopping.wait()
        return False

    # The following methods run in a thread, one at a time.

    def _find(self) -> Batch | None:
        """Return the next batch: of dead processes first, then of this one."""
        if monotonic() >= self._adopt_due:
            self._adopt()
            self._adopt_due = monotonic() + _ADOPT_SECONDS
        return self._of_dead_processes() or self._of_this_process()

    def _adopt(self) -> None:
        """Take over what dead processes left: deliver it, and seal it as nobody else can now."""
        self._cursors = {path: end for path, end in self._cursors.items() if path.exists()}
        for segment in stored(self._journal.folder):
            process = segment.process
            if process == self._journal.process or process in self._adopted:
                continue
            if undelivered_from(segment) is not None and (
                lock := Lock.take(self._journal.folder, process)
            ):
                self._adopted[process] = lock
                self._log.info("audit events of an ended process adopted", process=process)
        for process in self._adopted:
            try:
                self._journal.seal_left_by(process)
            except OSError as error:  # tried again with the next look
                self._log.warning("audit segments not sealed", process=process, error=str(error))

    def _of_dead_processes(self) -> Batch | None:
        if not self._adopted:
            return None
        segments = stored(self._journal.folder)
        counted = ends(segments)
        for segment in segments:
            if segment.process in self._adopted and undelivered_from(segment) is not None:
                with suppress(FileNotFoundError):  # of outsiders, and dropped since the listing
                    if batch := self._after_cursor(segment.path, counted[segment.path]):
                        return batch
                    self._done(segment.path)
        self._release_adopted()
        return None

    def _release_adopted(self) -> None:
        for process in list(self._adopted):
            self._adopted.pop(process).release()

    def _of_this_process(self) -> Batch | None:
        for segment in self._journal.undelivered():
            try:
                batch = self._after_cursor(segment.path, segment.end)
            except FileNotFoundError:
                if self._journal.owed:  # else it was dropped since the listing
                    name = segment.path.name
                    self._log.error("an undelivered audit segment is gone", segment=name)
                batch = None
            if batch:
                return batch
            # If it were forgotten now, its cursor would never be written, and it could never go.
            if segment.closed and self._done(segment.path):
                self._journal.delivered(segment.path)
        return None

    def _after_cursor(self, path: Path, end: int) -> Batch | None:
        start = self._cursors.get(path)
        return batch_of(path, cursor_of(path) if start is None else start, end)

    def _done(self, path: Path) -> bool:
        """Move the cursor of *path* to its end: nothing more comes. Return whether that is on disk."""
        with suppress(FileNotFoundError):
            if not self._taken(path, path.stat().st_size):
                return False
            self._cursors.pop(path, None)
        return True

    def _taken(self, path: Path, end: int) -> bool:
        """Move the cursor of *path* to *end*. Return whether it is on disk."""
        # On a full disk the cursor is kept in memory alone. Without that, the same batch would
        # be sent over and over.
        self._cursors[path] = end
        try:
            set_cursor(path, end)
        except OSError as error:
            if path not in self._unwritten:  # it is tried again and again
                self._unwritten.add(path)
                self._log.warning("audit cursor not written", segment=path.name, error=str(error))
            return False
        self._unwritten.discard(path)
        if not path.exists():  # dropped meanwhile, and its cursor must not stay alone
            drop(path)
        return True
