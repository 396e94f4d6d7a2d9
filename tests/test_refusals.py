"""The error boundary: every error becomes one response, in the form that its caller reads."""

from __future__ import annotations

import asyncio
import json
from ipaddress import ip_network

import httpx2
import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from federation.errors import HttpError, Reason, Refusal
from federation.gateway.refusals import (
    FUNCTION_CHALLENGE,
    Ambiguous,
    Denied,
    Malformed,
    NotAuthenticated,
    NotMapped,
    TooLarge,
    TooSlow,
    Unavailable,
    UpstreamFailed,
)
from federation.policy.permissions import Access, Decision
from federation.web.refusals import ErrorBoundary, NotFound
from tests.harness.broker import logged

BUSY = Refusal(Reason.STATE_UNAVAILABLE, retry_after_seconds=7)
NO = Decision(Access("Function:List", "dev", "*"), allowed=False)


def answer(error: Exception, *, begun: bool = False) -> list[Message]:
    """The messages that a caller gets from an application that raises *error*."""
    sent: list[Message] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        if begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        raise error

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    proxy = ip_network("10.0.0.0/8")
    scope = {"type": "http", "client": ("10.0.0.1", 1), "headers": [(b"x-request-id", b"r1")]}
    with logged():
        asyncio.run(ErrorBoundary(app, (proxy,))(scope, receive, send))
    return sent


def headers(messages: list[Message]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in messages[0]["headers"]}


@pytest.mark.parametrize(
    ("error", "status", "extra", "sentence"),
    [
        (NotMapped("Not here."), 403, {}, "Not here."),
        (Ambiguous("Unclear."), 403, {}, "Unclear."),
        (Malformed("Wrong."), 400, {}, "Wrong."),
        (TooLarge("Too much."), 413, {}, "Too much."),
        (TooSlow(), 408, {}, "The body took too long to arrive."),
        (
            NotAuthenticated(),
            401,
            {"www-authenticate": "Bearer"},
            "An access token is needed.",
        ),
        (
            NotAuthenticated(
                Refusal(Reason.EXPIRED, "It ended at noon."), challenge=FUNCTION_CHALLENGE
            ),
            401,
            {"www-authenticate": 'Bearer realm="IAM function invoke"'},
            "The access token has expired.",
        ),
        (Denied(NO, "is not allowed"), 403, {}, "Function:List on dev:* is not allowed."),
        (Unavailable(BUSY), 503, {"retry-after": "7"}, BUSY.public),
        (
            UpstreamFailed("hunter2"),
            502,
            {},
            "The gateway behind this broker gave no usable answer.",
        ),
        (
            UpstreamFailed("hunter2", timed_out=True),
            504,
            {},
            "The gateway behind this broker did not answer in time.",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_an_error_of_the_gateway_is_one_line_of_text(
    error: HttpError, status: int, extra: dict[str, str], sentence: str
) -> None:
    start, body = answer(error)
    assert (start["status"], body["body"]) == (status, f"{sentence} Request id r1.\n".encode())
    assert headers([start]) == {
        "content-type": "text/plain; charset=utf-8",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "content-length": str(len(body["body"])),
        "x-request-id": "r1",
        **extra,
    }


@pytest.mark.parametrize(
    ("error", "status", "extra", "code", "reason", "sentence"),
    [
        (Refusal(Reason.EXPIRED, "It ended at noon."), 400, {}, "invalid_request", "expired",
         "It ended at noon."),
        (Refusal(Reason.INVALID_SCOPE), 400, {}, "invalid_scope", "invalid_scope",
         Reason.INVALID_SCOPE.sentence),
        (BUSY, 503, {"retry-after": "7"}, "temporarily_unavailable", "state_unavailable",
         BUSY.public),
        (Refusal(Reason.TOO_MANY_FAILURES, retry_after_seconds=3), 429, {"retry-after": "3"},
         "temporarily_unavailable", "too_many_failures", Reason.TOO_MANY_FAILURES.sentence),
        (NotFound(HTTPException(405, headers={"Allow": "POST"})), 405, {"allow": "POST"},
         "invalid_request", "invalid_request", "Method Not Allowed."),
        (RuntimeError("hunter2"), 500, {}, "server_error", "server_error",
         Reason.SERVER_ERROR.sentence),
    ],
    ids=["expired", "scope", "state", "rate limit", "no such method", "a bug"],
)  # fmt: skip
def test_any_other_error_is_the_json_of_oauth(
    error: Exception, status: int, extra: dict[str, str], code: str, reason: str, sentence: str
) -> None:
    start, body = answer(error)
    assert start["status"] == status
    assert json.loads(body["body"]) == {
        "error": code,
        "error_description": sentence,
        "reason": reason,
        "request_id": "r1",
    }
    assert headers([start]) == {
        "content-type": "application/json",
        "cache-control": "no-store",
        "pragma": "no-cache",
        "x-content-type-options": "nosniff",
        "content-length": str(len(body["body"])),
        "x-request-id": "r1",
        **extra,
    }


@pytest.mark.parametrize("error", [UpstreamFailed("reset"), RuntimeError("a bug")])
def test_after_the_response_began_an_error_reaches_the_server_which_closes_the_connection(
    error: Exception,
) -> None:
    with pytest.raises(type(error)):
        answer(error, begun=True)


def test_a_refusal_names_the_page_about_its_reason_where_the_docs_are_published() -> None:
    docs = "https://docs.example.com/federation"

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise Refusal(Reason.EXPIRED)

    def answer(boundary: ErrorBoundary) -> dict[str, object]:
        transport = httpx2.ASGITransport(boundary)

        async def story() -> dict[str, object]:
            async with httpx2.AsyncClient(transport=transport, base_url="http://b") as client:
                told: dict[str, object] = (await client.get("/")).json()
                return told

        return asyncio.run(story())

    assert answer(ErrorBoundary(app, (), docs))["error_uri"] == f"{docs}/refusals.md#expired"
    assert "error_uri" not in answer(ErrorBoundary(app))
