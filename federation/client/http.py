"""
HTTP client of a CI job, with timeouts and retries.

Connection errors, 429 and 5xx are retried three times, for at most a minute, and each retry is
told. Any other answer is final, and so is a TLS error that another try cannot heal. An answer is
at most 256 KiB and comes within 30 seconds. Proxies and a private CA come from the environment
(`HTTPS_PROXY`, `SSL_CERT_FILE`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import httpx2

from federation.client import ClientError
from federation.providers.profile import ByMetadata
from federation.providers.table import PROFILES

_TIMEOUT = httpx2.Timeout(20.0, connect=5.0)
_TRIES = 4
_TOTAL_SECONDS = 60.0
_LONGEST_PAUSE_SECONDS = 10.0
_ANSWER_BYTES = 256 * 1024
_ANSWER_SECONDS = 30.0


class Sender:
    """
    Sends requests and retries those that may succeed later. *tell* gets a line for each retry.

    Raises: ClientError if the proxy or CA that the environment names cannot be used.
    """

    def __init__(
        self,
        client: httpx2.Client | None = None,
        pause: Callable[[float], None] = time.sleep,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self._client = client or _open_client()
        self._pause = pause
        self._tell = tell or (lambda _line: None)

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
    ) -> httpx2.Response:
        """Send a request and return the final answer. Raises: ClientError if no answer came."""
        request = self._client.build_request(method, url, data=form, headers=headers)
        began, problem = time.monotonic(), ""
        server = server_of(request.url)
        for attempt in range(_TRIES):
            try:
                response = self._answer(request)
            except httpx2.TransportError as error:
                problem, wait = _transport_problem(error), None
                if isinstance(error, httpx2.LocalProtocolError) or _tls_advice(problem):
                    break
            except httpx2.RequestError as error:
                raise ClientError(
                    f"{server} answered what cannot be read: {type(error).__name__}."
                ) from error
            else:
                if response.status_code != 429 and response.status_code < 500:
                    return response
                problem, wait = f"HTTP {response.status_code}", _retry_after(response)
                if attempt == _TRIES - 1:
                    return response
            pause = wait if wait is not None else random.uniform(0.5, 1.0) * 2**attempt  # noqa: S311  jitter
            if attempt == _TRIES - 1 or time.monotonic() - began + pause > _TOTAL_SECONDS:
                break
            self._tell(f"{server}: {problem}. Trying again in {pause:.1f} s.")
            self._pause(pause)
        raise ClientError(f"{server} could not be reached: {problem}.", _advice(problem))

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        """The whole answer to *request*, within the limits of time and size."""
        ends = time.monotonic() + _ANSWER_SECONDS
        response = self._client.send(request, stream=True)
        try:
            body = bytearray()
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _ANSWER_BYTES:
                    raise ClientError(f"{request.url.host} answered with more than 256 KiB.")
                if time.monotonic() > ends:
                    raise httpx2.ReadTimeout("the answer did not end in time", request=request)
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
    except ValueError:
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
        raise ClientError(f"{what} {url!r} is not an https URL.", "A token is never sent in clear.")


def _never_by_proxy() -> dict[str, None]:
    """Metadata servers. A proxy would see the token, and would reach its own server instead."""
    return {
        f"all://{httpx2.URL(source.url).host}": None
        for profile in PROFILES.values()
        for source in (profile.job_token.sources if profile.job_token else ())
        if isinstance(source, ByMetadata)
    }


def _open_client() -> httpx2.Client:
    try:
        return httpx2.Client(timeout=_TIMEOUT, follow_redirects=False, mounts=_never_by_proxy())
    except (OSError, ValueError, ImportError, httpx2.InvalidURL) as error:
        raise ClientError(
            f"The proxy or CA that the environment names cannot be used: {error}.",
            "Check SSL_CERT_FILE, SSL_CERT_DIR, HTTPS_PROXY, HTTP_PROXY and ALL_PROXY.",
        ) from error


def _retry_after(response: httpx2.Response) -> float | None:
    given = response.headers.get("retry-after", "")
    return min(float(given), _LONGEST_PAUSE_SECONDS) if given.isdecimal() else None


def _transport_problem(error: httpx2.TransportError) -> str:
    if isinstance(error, httpx2.LocalProtocolError):
        return type(error).__name__  # its text quotes headers, which contain tokens
    return str(error) or type(error).__name__


def _advice(problem: str) -> str:
    return _tls_advice(problem) or (
        "Check the URL, the network of this runner, and HTTPS_PROXY / NO_PROXY."
    )


def _tls_advice(problem: str) -> str:
    """Return what to do about an error of TLS, empty if *problem* is none."""
    problem = problem.lower()
    if "certificate has expired" in problem:
        return "Its certificate has expired: the operator of the server renews it."
    if "hostname mismatch" in problem or "ip address mismatch" in problem:
        return "Its certificate is for another name: check the URL."
    if "certificate" in problem:
        return "Its certificate is not trusted: set SSL_CERT_FILE to a bundle with your CA."
    if "wrong_version_number" in problem:
        return "It does not speak TLS at this port: check the URL and its port."
    return ""
