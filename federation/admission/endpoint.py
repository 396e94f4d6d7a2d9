"""
The endpoints of the admission webhook, as an ASGI application.

Anybody in the cluster may reach the port. A body has at most 4 MiB, all bodies together have a
budget, and each review has less time than the API server waits. After an error there is no "yes":
the API server refuses an object if it gets no answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from federation.admission.judgement import (
    Judgement,
    Neighbours,
    issuers_needed,
    judge,
    policies_needed,
)
from federation.admission.neighbours import NeighbourReader
from federation.admission.renewal import Certificates
from federation.admission.review import (
    NotAReview,
    Review,
    answered,
    out_of_place,
    read_review,
    refused,
)
from federation.background import Background
from federation.documents.kubernetes.api_objects import read_object
from federation.documents.parse import Parsed
from federation.gateway.body_budget import BodyBudget
from federation.gateway.refusals import NoRoom
from federation.sources.kubernetes.connection import Trouble

PATH = "/review"
BODY_BYTES = 4 * 1024 * 1024
"""An API server takes at most 3 MiB of an object, and sends the old one with the new one."""
_BODIES_BYTES = 32 * 1024 * 1024
_REVIEW_SECONDS = 4.0
"""API servers wait 5 s, as the chart's webhook configuration says."""
_ROOM_SECONDS = 2.0


class _Refused(Exception):
    """A request that is answered with an HTTP error. The text is constant."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Endpoint:
    """Answers reviews of the objects of one namespace."""

    def __init__(
        self,
        namespace: str,
        neighbours: NeighbourReader,
        review_seconds: float = _REVIEW_SECONDS,
    ) -> None:
        self._namespace = namespace
        self._neighbours = neighbours
        self._review_seconds = review_seconds
        self._budget = BodyBudget(_BODIES_BYTES, _ROOM_SECONDS)

    async def review(self, request: Request) -> Response:
        """Answer an AdmissionReview."""
        try:
            async with asyncio.timeout(self._review_seconds):
                return Response(await self._answer(request), media_type="application/json")
        except _Refused as refusal:
            return PlainTextResponse(str(refusal), refusal.status)
        except TimeoutError:
            _log().warning("an admission review took too long")
            return PlainTextResponse("too late", 503)
        except ClientDisconnect:
            return PlainTextResponse("gone", 400)
        except Exception:
            _log().exception("an admission review failed unexpectedly")
            return PlainTextResponse("unexpected error", 500)

    def close(self) -> None:
        """End the thread that reads large bodies."""
        self._budget.close()

    async def _answer(self, request: Request) -> bytes:
        began = time.perf_counter()
        size = _announced_bytes(request)
        try:
            async with self._budget.room(size, request.client and request.client.host):
                body = await _read(request, size)
                review, parsed = await self._budget.parse(body, _parsed)
                return await self._judged(review, parsed, body, began)
        except NoRoom:
            raise _Refused(503, "too many large bodies at once") from None
        except NotAReview as error:
            raise _Refused(400, str(error)) from None

    async def _judged(self, review: Review, parsed: Parsed, body: bytes, began: float) -> bytes:
        if why := out_of_place(review, self._namespace):
            _log().warning(
                "the admission webhook was asked about something else",
                object=review.label,
                reason=why,
            )
            return refused(review.uid, f"the webhook of federation was asked in error: {why}")
        try:
            neighbours = await self._neighbours_of(review, parsed)
        except Trouble as trouble:
            _log().warning(
                "an object was refused, because those beside it could not be read",
                object=review.label,
                reason=str(trouble),
            )
            message = "the objects beside this one cannot be read now; try again"
            return refused(review.uid, message, code=503)
        # A large object takes longer to judge, and the event loop has others to serve.
        judgement = await self._budget.parse(body, lambda _: judge(parsed, neighbours))
        _log_judgement(review, judgement, time.perf_counter() - began)
        return answered(review.uid, judgement)

    async def _neighbours_of(self, review: Review, parsed: Parsed) -> Neighbours:
        if not issuers_needed(parsed):
            return Neighbours({})
        without = review.name if review.kind == "JwtIssuer" else ""
        issuers, missing = await asyncio.gather(
            self._neighbours.issuers(without),
            self._neighbours.missing_policies(policies_needed(parsed)),
        )
        return Neighbours(issuers, missing)


def build(
    endpoint: Endpoint, certificates: Certificates, close: Callable[[], Any] | None = None
) -> Starlette:
    """Return the application. While it runs, *certificates* are kept."""
    background = Background("federation.admission")

    async def alive(_request: Request) -> Response:
        return PlainTextResponse("ok")

    async def ready(_request: Request) -> Response:
        if certificates.trusted:
            return PlainTextResponse("\n".join(background.problems) or "ok")
        return PlainTextResponse("API servers do not trust the certificate yet", 503)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        background.start("certificates", certificates.keep())
        try:
            yield
        finally:
            await background.aclose()
            endpoint.close()
            await certificates.connection.aclose()

    return Starlette(
        routes=[
            Route(PATH, endpoint.review, methods=["POST"]),
            Route("/healthz", alive),
            Route("/readyz", ready),
        ],
        lifespan=lifespan,
    )


def _parsed(body: bytes) -> tuple[Review, Parsed]:
    review = read_review(body)
    return review, read_object(review.document).parsed


def _announced_bytes(request: Request) -> int:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise _Refused(415, "the body must be application/json")
    # The HTTP parser has checked that it is a number. API servers always send it.
    announced = request.headers.get("content-length")
    if announced is None or not announced.isdecimal():
        raise _Refused(411, "the length of the body must be announced")
    if len(announced) > 10 or int(announced) > BODY_BYTES:
        raise _Refused(413, "the body is too large")
    return int(announced)


async def _read(request: Request, size: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > size:
            raise _Refused(413, "the body is too large")
    return bytes(body)


def _log_judgement(review: Review, judgement: Judgement, seconds: float) -> None:
    _log().info(
        "object judged",
        object=review.label,
        operation=review.operation,
        allowed=not judgement.errors,
        errors=[problem.code for problem in judgement.errors[:10]],
        warnings=[problem.code for problem in judgement.warnings[:10]],
        milliseconds=round(seconds * 1000, 1),
    )


def _log() -> Any:
    return structlog.get_logger("federation.admission")
