"""
Asks the upstream whether it is healthy, so that the operator learns of an outage before callers do.

A broker whose upstream is down stays ready, since it still exchanges tokens: it is degraded.
"""

from __future__ import annotations

import asyncio

from federation.gateway.client import UpstreamRequest
from federation.gateway.refusals import UpstreamFailed
from federation.gateway.upstream import Upstream

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
        async with asyncio.timeout(_SECONDS):
            response = await upstream.api.send(_ASK)
            await response.close()
    except TimeoutError:
        return f"no answer within {_SECONDS:g} s"
    except UpstreamFailed as failed:
        return str(failed)
    # A gateway without a health check answers 404, and is there.
    return f"GET /healthz is answered with {response.status}" if response.status >= 500 else ""
