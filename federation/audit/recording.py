"""
Records a request's audit event before its response leaves, also when the request fails.

If the event of a failed request cannot be recorded, the journal's refusal takes the place of the
error: an admitted caller gets no answer that left no event. Events of other signed tokens are
recorded if there is room. A caller without a valid token is not known and leaves none, so that
strangers cannot fill the journal.
"""

from __future__ import annotations

from contextlib import suppress
from types import TracebackType

from federation.audit import Journal
from federation.audit.event import Standing, Trail
from federation.errors import HttpError, Reason, Refusal


class Recording:
    """
    The recording of one request's event, as an async context manager around its handling.

    An error that leaves the block is added to *trail* and recorded. With *audited* false, and
    while the trail knows no caller, nothing is recorded.
    """

    def __init__(self, journal: Journal, trail: Trail, *, audited: bool = True) -> None:
        self._journal = journal
        self._trail = trail
        self._due = audited

    def check(self) -> None:
        """Raise a Refusal with `audit_unavailable` if an event that is owed cannot be recorded."""
        if self._due and self._trail.standing is Standing.ADMITTED:
            self._journal.check()

    async def record(self, status: int) -> None:
        """Record the event of a request answered with *status*, at the first call only."""
        if self._due and self._trail.standing is not Standing.UNKNOWN:
            self._due = False
            await self._journal.record(self._trail.event(status))

    async def record_error(self, error: Exception) -> None:
        """Record that the request ended with *error*."""
        if isinstance(error, HttpError):
            self._trail.refused(error)
            await self.record(error.status)
        else:
            await self.record_fault()

    async def record_fault(self) -> None:
        """Record that the request ended by an unexpected exception, if it can be recorded."""
        reason = self._trail.reason = Reason.SERVER_ERROR
        self._trail.message = reason.sentence
        with suppress(Refusal):
            await self.record(reason.status)

    async def __aenter__(self) -> Recording:
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            await self.record_error(error)
