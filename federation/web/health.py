"""
Health endpoints: liveness (`/livez`) and readiness (`/readyz`).

The broker is not ready while it cannot answer exchanges: the journal cannot be written, or the
store does not respond. With bad documents, failed key fetches or unreadable signing keys it is
degraded but ready, since it keeps using the last good ones. The same holds while audit segments cannot be sealed, since
events are recorded all the same. `/readyz` names the problems in both cases.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from federation.audit.journal import FileJournal, Status
from federation.errors import Refusal
from federation.exchange import Broker

_STORE_SECONDS = 1.0
_PROBE = "a token that nobody revoked"
_SHOWN_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Report:
    """The problems, in sentences for the operator."""

    unavailable: tuple[str, ...]
    """Problems that keep exchanges from being answered."""
    degraded: tuple[str, ...]
    """Problems that do not."""
    journal: Status | None

    @property
    def status(self) -> str:
        """`ok`, `degraded` or `unavailable`."""
        return "unavailable" if self.unavailable else "degraded" if self.degraded else "ok"


@dataclass(slots=True)
class Health:
    """The health of one process."""

    broker: Broker
    journal: FileJournal | None
    starting: bool = False
    """True until the issuers' keys were fetched, or could not be, for the first time."""
    signing_problem: str | None = None
    """Why the signing keys on disk cannot be read. The broker signs with those it has."""

    async def report(self) -> Report:
        """Return the problems at this moment."""
        journal = self.journal.status() if self.journal else None
        unavailable = [
            *(["starting: the issuers' keys are being fetched"] if self.starting else []),
            *([f"audit journal: {journal.problem}"] if journal and journal.problem else []),
            *await self._store_problems(),
        ]
        degraded = [
            *(["documents: the last set was not adopted"] if self.broker.source.problems() else []),
            *self._key_problems(),
            *([f"signing keys: {self.signing_problem}"] if self.signing_problem else []),
            *(_journal_warnings(journal) if journal else []),
        ]
        return Report(tuple(unavailable), tuple(degraded), journal)

    async def _store_problems(self) -> list[str]:
        # A store answers this from memory unless it has lost touch with its storage.
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                await self.broker.state.revoked(_PROBE)
        except TimeoutError:
            return ["store: no answer within a second"]
        except Refusal as refusal:
            return [f"store: {why}" for why in refusal.evidence.values()] or ["store: no answer"]
        return []

    def _key_problems(self) -> Iterator[str]:
        known = self.broker.keys.status()
        for iss, issuer in self.broker.source.current().issuers.items():
            if (keys := known.get(iss)) and keys.failure:
                held = "" if keys.keys else "none held; "
                yield f"keys of {issuer.name}: {held}{keys.failure}"


def _journal_warnings(journal: Status) -> Iterator[str]:
    if journal.nearly_full:
        yield "audit journal: nearly full"
    if journal.sealing_problem:
        yield f"audit journal: segments cannot be sealed: {journal.sealing_problem}"


async def livez(_request: Request) -> Response:
    """200 while the process can respond at all."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """200 if exchanges can be answered, else 503; the body names all problems."""
    health: Health = request.app.state.health
    broker, report = health.broker, await health.report()
    catalog, audit = broker.source.current(), report.journal
    return JSONResponse(
        {
            "status": report.status,
            "unavailable": report.unavailable,
            "degraded": report.degraded,
            "documents": {
                "issuers": len(catalog.issuers),
                "roles": len(catalog.roles),
                "policies": len(catalog.policies),
                "digest": catalog.digest,
                "not_adopted": [
                    str(problem) for problem in broker.source.problems()[:_SHOWN_PROBLEMS]
                ],
            },
            "issuers": {iss: asdict(status) for iss, status in broker.keys.status().items()},
            **({"audit": {**asdict(audit), "nearly_full": audit.nearly_full}} if audit else {}),
        },
        status_code=503 if report.unavailable else 200,
    )


async def healthz(_request: Request) -> Response:
    """200, for `faas-cli ready`."""
    return JSONResponse({"status": "ok"})
