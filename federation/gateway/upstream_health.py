"""
Asks the upstream whether it is healthy, so that the operator learns of an outage before callers do.

A broker whose upstream is down stays ready, since it still exchanges tokens: it is degraded.
"""

from __future__ import annotations

import asyncio

from federation.gateway.client import UpstreamRequest
from federation.gateway.refusals import UpstreamFailed
from federation.gateway.upstream import Upstream
from federation.outbound.failures import failure

_SECONDS = 5.0
_ASK = UpstreamRequest(
    "GET",
    b"/healthz",
    [(b"user-agent", b"federation-health-check"), (b"accept-encoding", b"identity")],
    body=None,
)


async def upstream_problem(upstream: Upstream) -> str:
    """Return why a call would fail at *upstream*, empty if it is healthy. It takes at most 5 s."""
    try:
        upstream.authorization()  # a call of the API needs the password, the health check does not
    except UpstreamFailed as failed:
        return str(failed)
    status = await _status(upstream, _ASK)
    if isinstance(status, str):
        return status
    # A gateway without a health check answers 404, and is there.
    return f"GET /healthz is answered with {status}" if status >= 500 else ""


async def password_problem(upstream: Upstream) -> str:
    """
    Return why the API of *upstream* does not take the broker's password, empty if it does.

    It asks for what changes nothing, and takes at most 5 s.
    """
    try:
        password = upstream.authorization()
    except UpstreamFailed as failed:
        return str(failed)
    headers = [*_ASK.headers, *([(b"authorization", password)] if password else [])]
    status = await _status(upstream, _ASK._replace(target=b"/system/info", headers=headers))
    if isinstance(status, str):
        return status
    if status not in {401, 403}:
        return ""
    if password is None:
        return f"its API answers {status} without a password; set --upstream-secrets"
    return (
        f"its API answers {status} to the password; put the gateway's own basic-auth-user and"
        " basic-auth-password into the folder of --upstream-secrets"
    )


async def _status(upstream: Upstream, request: UpstreamRequest) -> int | str:
    """Return the status of the answer to *request*, or why there is none."""
    try:
        async with asyncio.timeout(_SECONDS):
            response = await upstream.api.send(request)
            await response.close()
    except TimeoutError:
        return f"no answer within {_SECONDS:g} s"
    except UpstreamFailed as failed:
        cause = failed.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, TimeoutError):
            return failure(cause, ca="upstream-ca, or SSL_CERT_FILE")
        return str(failed)
    return response.status
