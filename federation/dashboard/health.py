"""
Liveness (`/livez`) and readiness (`/readyz`) of the dashboard.

It is ready while people can sign in: the provider's metadata is known, and the session store
answers. A broker that is away, or a background task that failed, makes it degraded. Other replicas
could do no better then, and pages say what is wrong.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import httpx2
import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from federation.background import Background
from federation.dashboard.provider import ProviderInUse
from federation.errors import Refusal
from federation.sign_on.bounded import Bounded, client_of
from federation.state import Store

_SECONDS = 2.0
_REMEMBERED_SECONDS = 1.0


class Health:
    """The health of one process. Changes are logged."""

    def __init__(
        self,
        provider: ProviderInUse,
        store: Store,
        broker_url: str,
        http: httpx2.AsyncClient,
        clock: Callable[[], float] = time.monotonic,
        *,
        background: Background | None = None,
    ) -> None:
        self._provider = provider
        self._store = store
        self._broker_url = broker_url
        self._http = client_of(Bounded(http, _SECONDS))
        self._clock = clock
        self._background = background or Background()
        self._lock = asyncio.Lock()
        self._known: tuple[float, str] = (float("-inf"), "")
        self._said: list[str] = []

    async def status(self) -> str:
        """`ok`, `degraded` or `unavailable`, not older than a moment."""
        async with self._lock:
            asked, status = self._known
            if self._clock() - asked > _REMEMBERED_SECONDS:
                status = await self._look()
                self._known = (self._clock(), status)
            return status

    async def _look(self) -> str:
        unavailable = [
            *(["identity provider: " + self._provider.problem] if not self._provider.known else []),
            *await self._store_problems(),
        ]
        degraded = [*await self._broker_problems(), *self._background.problems]
        problems = unavailable + degraded
        if problems != self._said:
            log = structlog.get_logger("federation.dashboard")
            if problems:
                log.warning("the dashboard is not well", problems=problems)
            else:
                log.info("the dashboard is well")
            self._said = problems
        return "unavailable" if unavailable else "degraded" if degraded else "ok"

    async def _store_problems(self) -> list[str]:
        try:
            async with asyncio.timeout(_SECONDS):
                await self._store.check()
        except TimeoutError:
            return ["session store: no answer in time"]
        except Refusal as refusal:
            why = [f"session store: {each}" for each in refusal.evidence.values()]
            return why or ["session store: no answer"]
        return []

    async def _broker_problems(self) -> list[str]:
        try:
            answer = await self._http.get(f"{self._broker_url}/livez")
        except httpx2.HTTPError as error:
            return [f"broker: {type(error).__name__}"]
        return [] if answer.status_code == 200 else [f"broker: HTTP {answer.status_code}"]


async def livez(_request: Request) -> Response:
    """200 while the process can respond at all."""
    return JSONResponse({"status": "ok"})


async def readyz(request: Request) -> Response:
    """200 if people can sign in, else 503. What is wrong stands in the log."""
    health: Health = request.app.state.health
    status = await health.status()
    return JSONResponse({"status": status}, 503 if status == "unavailable" else 200)
