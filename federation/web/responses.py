"""
Where refusals become responses, the one place that does so.

A refusal is HTTP 400, since the clients of this API read OAuth errors at no other status. Two
say when to try again: a broker that cannot answer is 503, and one that has heard enough 429.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse

from federation.errors import Reason, Refusal

__all__ = ["NO_STORE", "refusal_response", "status_of"]

NO_STORE: Mapping[str, str] = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def status_of(refusal: Refusal) -> int:
    """The HTTP status of *refusal*."""
    if refusal.reason is Reason.TOO_MANY_FAILURES:
        return 429
    return 503 if refusal.reason.temporary else 400


def refusal_response(refusal: Refusal, request_id: str) -> JSONResponse:
    """The error response of RFC 6749, section 5.2, with the reason and the request id."""
    status = status_of(refusal)
    retry = {} if status == 400 else {"Retry-After": str(refusal.retry_after_seconds)}
    return JSONResponse(
        {
            "error": refusal.reason.oauth_error,
            "error_description": refusal.public,
            "reason": refusal.reason,
            "request_id": request_id,
        },
        status_code=status,
        headers={**NO_STORE, **retry},
    )
