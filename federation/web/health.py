"""
Whether the broker lives, and whether it can serve.

A set of documents that was not adopted does not make the broker unready: the last good one
serves on. `/readyz` says what is wrong all the same.
"""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from federation.exchange import Broker

__all__ = ["healthz", "livez", "readyz"]


async def livez(_request: Request) -> Response:
    """200 as long as the process answers."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """Whether exchanges can be answered, with what is wrong."""
    broker: Broker = request.app.state.broker
    catalog, problems = broker.source.current(), broker.source.problems()
    return JSONResponse(
        {
            "status": "degraded" if problems else "ok",
            "documents": {
                "issuers": len(catalog.issuers),
                "roles": len(catalog.roles),
                "policies": len(catalog.policies),
                "digest": catalog.digest,
                "not_adopted": [str(problem) for problem in problems[:20]],
            },
            "issuers": {iss: asdict(status) for iss, status in broker.keys.status().items()},
        }
    )


async def healthz(_request: Request) -> Response:
    """What `faas-cli ready` reads."""
    return JSONResponse({"status": "ok"})
