"""
HTTP to the broker and the gateway behind it, always with the token of the person who asks.

An answer is foreign input: it is bounded in size and time, never decompressed, read strictly, and
turned into one sentence where it is no answer. A redirect is not followed, because it could take
the token elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import NoReturn, TypeVar

import httpx2

from federation.jose import strict_json
from federation.text import printable

KIB = 1024
ERROR_BYTES = 16 * KIB
"""The most that is read of an answer that says no."""
_SENTENCE_CHARS = 600
_ANSWER_SECONDS = 20.0
_IN_THREAD_BYTES = 256 * KIB


Read = TypeVar("Read")


class BrokerError(Exception):
    """An answer that a page shows as a sentence, with what to do about it."""

    status = 502

    def __init__(self, sentence: str, advice: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.advice = advice


class SignInAgain(BrokerError):
    """The broker does not take the token any more (401)."""

    status = 401


class NotAllowed(BrokerError):
    """The person's policies do not allow it (403). The sentence is the broker's."""

    status = 403


class NotThere(BrokerError):
    """There is no such thing (404)."""

    status = 404


class NotTaken(BrokerError):
    """The broker or the gateway does not take what was sent (400, 409, 413, …)."""

    status = 400


class Unavailable(BrokerError):
    """The broker or the gateway cannot answer now, or answered what cannot be read."""

    status = 502


@dataclass(frozen=True, slots=True)
class Answer:
    """The first bytes of an answer. *cut* says that there were more."""

    status: int
    content_type: str
    body: bytes = field(repr=False)
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Connection:
    """The broker at *url*. Who made *http* closes it; it follows no redirects."""

    http: httpx2.AsyncClient = field(repr=False)
    url: str

    async def json(
        self,
        method: str,
        path: str,
        token: str,
        *,
        reads: Callable[[object], Read],
        most_bytes: int,
        query: Mapping[str, str] | None = None,
        body: object = None,
    ) -> Read:
        """
        The JSON that answers a request, as *reads* returns it; an empty body is None.

        *reads* raises ValueError for what it cannot read. A large answer is read in a thread, so
        that other pages are answered meanwhile.
        Raises: BrokerError for every answer that says no, comes late, or cannot be read.
        """
        content = None if body is None else strict_json.dumps(body)
        answer = await self.send(
            method, path, token, most_bytes=most_bytes, query=query, content=content
        )
        if answer.status >= 300:
            refuse(answer)
        if answer.cut:
            raise Unavailable(
                f"The answer is larger than {most_bytes // KIB} KiB, so it is not shown."
            )

        def parsed() -> Read:
            return reads(strict_json.loads(answer.body) if answer.body else None)

        try:
            if len(answer.body) > _IN_THREAD_BYTES:
                return await asyncio.to_thread(parsed)
            return parsed()
        except ValueError:
            raise not_readable() from None

    async def send(
        self,
        method: str,
        path: str,
        token: str,
        *,
        most_bytes: int,
        query: Mapping[str, str] | None = None,
        content: bytes | None = None,
        content_type: str = "application/json",
        seconds: float = _ANSWER_SECONDS,
    ) -> Answer:
        """An answer of any status, at most *most_bytes* of it. Raises: Unavailable."""
        try:
            async with (
                asyncio.timeout(seconds),
                self.stream(
                    method,
                    path,
                    token,
                    query=query,
                    content=content,
                    content_type=content_type,
                    silence_seconds=seconds,
                ) as response,
            ):
                body, cut = await _read(response, most_bytes)
        except TimeoutError:
            raise Unavailable(
                f"There was no answer within {seconds:.0f} seconds.", "Try again in a moment."
            ) from None
        return Answer(
            response.status_code,
            printable(response.headers.get("content-type", ""), 100),
            body,
            cut,
        )

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        token: str,
        *,
        query: Mapping[str, str] | None = None,
        content: bytes | None = None,
        content_type: str = "application/json",
        silence_seconds: float | None = _ANSWER_SECONDS,
    ) -> AsyncIterator[httpx2.Response]:
        """
        The answer to a request, its body still unread.

        It may be silent for *silence_seconds*, or for ever with None. Raises: Unavailable.
        """
        # Without compression, a small answer cannot become a large one in memory.
        headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
        if content is not None:
            headers["Content-Type"] = content_type
        try:
            async with self.http.stream(
                method,
                self.url.rstrip("/") + path,
                params=query,
                content=content,
                headers=headers,
                timeout=httpx2.Timeout(_ANSWER_SECONDS, connect=5.0, read=silence_seconds),
                follow_redirects=False,
            ) as response:
                if response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise not_readable()
                yield response
        except httpx2.TimeoutException:
            raise Unavailable(
                "The broker did not answer in time.", "Try again in a moment."
            ) from None
        except (httpx2.HTTPError, httpx2.InvalidURL):
            # The text of the error may quote headers, and so the token.
            raise Unavailable(
                "The broker cannot be reached.",
                "Try again in a moment. If it stays so, tell the operator of the gateway.",
            ) from None


def not_readable() -> Unavailable:
    """The error about an answer that is not what the broker or the gateway sends."""
    return Unavailable(
        "The answer cannot be read.",
        "The broker and the dashboard may be of different versions. Tell the operator.",
    )


def refuse(answer: Answer) -> NoReturn:
    """Raise the error that *answer*, whose status is 300 or more, stands for."""
    said = _sentence(answer)
    match answer.status:
        case 401:
            raise SignInAgain(
                "Your session is not valid at the gateway any more.", "Sign in again."
            )
        case 403:
            raise NotAllowed(said or "Your policies do not allow this.")
        case 404:
            raise NotThere(said or "There is no such thing.")
        case 429:
            raise Unavailable(said or "Too many requests.", "Wait a minute, then try again.")
        case status if status < 400:
            raise Unavailable("The broker answered with a redirect, which is not followed.")
        case status if status < 500:
            raise NotTaken(said or f"The gateway refused the request (HTTP {status}).")
    raise Unavailable(
        said or f"The gateway could not answer (HTTP {answer.status}).", "Try again in a moment."
    )


def _sentence(answer: Answer) -> str:
    """The sentence in an error of the broker: `error_description`, or its one line of text."""
    text = answer.body.decode("utf-8", "replace").strip()
    if "json" in answer.content_type:
        try:
            told = strict_json.loads_object(answer.body)
        except ValueError:
            return ""
        text = str(told.get("error_description") or "")
        if request_id := told.get("request_id"):
            text = f"{text} Request id {request_id}."
    elif not answer.content_type.startswith("text/plain"):
        return ""
    return printable(text, _SENTENCE_CHARS)


async def _read(response: httpx2.Response, most_bytes: int) -> tuple[bytes, bool]:
    """The body of *response*, at most *most_bytes*, and whether there was more."""
    most = most_bytes if response.status_code < 300 else min(most_bytes, ERROR_BYTES)
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk[: most + 1 - len(body)]
        if len(body) > most:
            return bytes(body[:most]), True
    return bytes(body), False
