"""
HTTP client of a CI job, with timeouts and retries.

Connection errors, 429 and 5xx are retried three times, for at most a minute, and each retry is
told, with its cause. Any other answer is final, and so is a TLS error that another try cannot heal.
An answer is at most 256 KiB and comes within 30 seconds. Proxies and a private CA come from the
environment (`HTTPS_PROXY`, `SSL_CERT_FILE`).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Container, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

import httpx2

from federation.client import ClientError
from federation.client.connection import (
    ANSWER_BYTES,
    ANSWER_SECONDS,
    advice_on_transport,
    open_client,
    tls_advice,
    transport_problem,
)
from federation.outbound.limits import Compressed, TooSlow

_TRIES = 4
_TOTAL_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 10.0


class Sender:
    """
    Sends requests and retries those that may succeed later.

    *tell* gets a line for each retry, and *trace* one for each step, for a person who looks for a
    fault. No line holds a token or a secret.

    Raises: ClientError if the proxy or CA that the environment names cannot be used.
    """

    def __init__(
        self,
        client: httpx2.Client | None = None,
        pause: Callable[[float], None] = time.sleep,
        tell: Callable[[str], None] | None = None,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self._client = client or open_client()
        self._pause = pause
        self._tell = tell or (lambda _line: None)
        self.trace = trace or (lambda _line: None)
        """Tell a step of the exchange."""

    def __enter__(self) -> Sender:
        return self

    def __exit__(self, *_how: object) -> None:
        """Close every connection."""
        self._client.close()

    def send(
        self,
        method: str,
        url: str,
        *,
        form: Mapping[str, str | list[str]] | None = None,
        headers: Mapping[str, str] | None = None,
        not_final: Container[int] = (),
    ) -> httpx2.Response:
        """
        Send a request and return the final answer. A status in *not_final* is tried again too.

        Raises: ClientError if no answer came.
        """
        # No compression is asked for, so that a small answer cannot unpack to a large one.
        headers = {"Accept-Encoding": "identity", **(headers or {})}
        request = self._client.build_request(method, url, data=form, headers=headers)
        began, problem = time.monotonic(), ""
        server = server_of(request.url)
        # The query is left out: it belongs to the CI system, which may have put a secret into it.
        where = f"{method} {request.url.scheme}://{server}{request.url.path}"
        for attempt in range(_TRIES):
            try:
                self.trace(where)
                sent = time.monotonic()
                response = self._answer(request)
            except httpx2.TransportError as error:
                problem, wait = transport_problem(error), None
                if isinstance(error, httpx2.LocalProtocolError) or tls_advice(problem):
                    break
            except httpx2.RequestError as error:
                problem = transport_problem(error)
                raise ClientError(f"{server} answered what cannot be read: {problem}.") from error
            else:
                status = response.status_code
                self.trace(f"HTTP {status} after {time.monotonic() - sent:.2f} s")
                if status != 429 and status < 500 and status not in not_final:
                    return response
                problem, wait = f"HTTP {status}", _retry_after(response)
                if attempt == _TRIES - 1:
                    return response
            pause = wait if wait is not None else random.uniform(0.5, 1.0) * 2**attempt  # noqa: S311  jitter
            if attempt == _TRIES - 1 or time.monotonic() - began + pause > _TOTAL_SECONDS:
                break
            self._tell(
                f"{server}: {problem}. Trying again in {pause:.1f} s ({attempt + 2} of {_TRIES})."
            )
            self._pause(pause)
        raise ClientError(
            f"{server} could not be reached: {problem}.", advice_on_transport(problem)
        )

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        """
        The whole answer to *request*, within the limits of time and size.

        The limit of the client is for each read alone: a server that sends a header now and then
        would hold it for days. So a thread reads, and is left behind if it takes too long.
        """
        outcome: Future[httpx2.Response] = Future()
        ends = time.monotonic() + ANSWER_SECONDS

        def read() -> None:
            try:
                outcome.set_result(self._read(request, ends))
            except Exception as error:  # raised again by the caller
                outcome.set_exception(error)

        threading.Thread(target=read, name="answer", daemon=True).start()
        try:
            return outcome.result(ANSWER_SECONDS)
        except FutureTimeout:
            raise TooSlow(request) from None

    def _read(self, request: httpx2.Request, ends: float) -> httpx2.Response:
        response = self._client.send(request, stream=True)
        try:
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise Compressed(request)
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > ANSWER_BYTES:
                    server = server_of(request.url)
                    raise ClientError(f"{server} answered with more than 256 KiB.")
                if time.monotonic() > ends:
                    raise TooSlow(request)
        finally:
            response.close()
        # The body was decoded on the way, so the headers about its encoding are not true any more.
        headers = [pair for pair in response.headers.multi_items() if pair[0] not in _ENCODING]
        return httpx2.Response(
            response.status_code, headers=headers, content=bytes(body), request=request
        )


def server_of(url: httpx2.URL) -> str:
    """Return the host of *url*, with its port if it has one."""
    return url.netloc.decode("ascii", "replace")


_ENCODING = frozenset({"content-encoding", "content-length", "transfer-encoding"})


def json_of(response: httpx2.Response) -> object:
    """Return the JSON in *response*, None if there is none."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def require_secure_url(url: str, what: str) -> None:
    """
    Check that *url* is https, or http to this machine. *what* names it in the error.

    Raises: ClientError.
    """
    try:
        parts = httpx2.URL(url)  # the same parser reads it when it is requested
    except (httpx2.InvalidURL, UnicodeError):
        parts = httpx2.URL()
    local = parts.host in {"localhost", "127.0.0.1", "::1"}
    if (
        (parts.port or 0) > 65535
        or not parts.host
        or not (parts.scheme == "https" or (parts.scheme == "http" and local))
    ):
        hint = "" if "://" in url or not url.strip() else f" Write https://{url.strip()}"
        raise ClientError(
            f"{what} {url!r} is not an https URL.", f"A token is never sent in clear.{hint}"
        )


def _retry_after(response: httpx2.Response) -> float | None:
    given = response.headers.get("retry-after", "")
    return min(float(given), _LONGEST_PAUSE_SECONDS) if given.isdecimal() else None
