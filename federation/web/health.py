"""
Whether the broker lives, and whether it can serve.

A set of documents that was not adopted does not make the broker unready: the last good one
serves on. An audit journal that cannot be written does: nothing is granted without it.
`/readyz` says what is wrong in either case.
"""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from federation.audit.journal import FileJournal
from federation.exchange import Broker

__all__ = ["healthz", "livez", "readyz"]


async def livez(_request: Request) -> Response:
    """200 as long as the process answers."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Whether exchanges can be answered, with what is wrong."""
    broker: Broker = request.app.state.broker
    catalog, problems = broker.source.current(), broker.source.problems()
    journal: FileJournal | None = request.app.state.audit
    audit = journal.status() if journal else None
    silenced = audit is not None and audit.problem is not None
    degraded = bool(problems) or (audit is not None and audit.nearly_full)
    return JSONResponse(
        {
            "status": "unavailable" if silenced else "degraded" if degraded else "ok",
            "documents": {
                "issuers": len(catalog.issuers),
                "roles": len(catalog.roles),
                "policies": len(catalog.policies),
                "digest": catalog.digest,
                "not_adopted": [str(problem) for problem in problems[:20]],
            },
            "issuers": {iss: asdict(status) for iss, status in broker.keys.status().items()},
            **({"audit": {**asdict(audit), "nearly_full": audit.nearly_full}} if audit else {}),
        },
        status_code=503 if silenced else 200,
    )


async def healthz(_request: Request) -> Response:
    """What `faas-cli ready` reads."""
    return JSONResponse({"status": "ok"})
