"""
Requests of strangers to the loopback callback: whatever comes, only the true answer is taken.

Any page can send a browser there, and any program on the machine can write any bytes. Nothing may
raise, nothing foreign may be taken, and the sign-in must go on waiting each time.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from federation.sign_on.answers import Answer, code_of
from federation.sign_on.callback import Callback, listening
from federation.sign_on.metadata import Metadata
from federation.sign_on.pending import Pending
from tests.harness.http_server import heard
from tests.harness.process import in_thread

ISSUER = "https://sso.example.com"
PENDING = Pending("unused", "the-state", "n", "v")
METADATA = Metadata(ISSUER, f"{ISSUER}/a", f"{ISSUER}/t", f"{ISSUER}/k")


@dataclass
class Waiting:
    """A sign-in that waits in a thread of its own."""

    callback: Callback
    implicit: bool
    taken: list[Answer] = field(default_factory=list)
    errors: list[object] = field(default_factory=list)

    def take(self, answer: Answer) -> str:
        code = code_of(answer, PENDING, METADATA)
        self.taken.append(answer)
        return code

    @property
    def authority(self) -> str:
        return self.callback.redirect_uri.split("/")[2]

    def say(self, request: bytes) -> bytes:
        """Everything that it answers to *request*, after which the stranger says no more."""
        port = int(self.authority.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            try:
                connection.sendall(request)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass
            return heard(connection, 5)


@asynccontextmanager
async def waiting(implicit: bool) -> AsyncIterator[Waiting]:
    loop = asyncio.get_running_loop()
    async with listening(port=0, request_seconds=5, goodbye_seconds=0) as callback:
        signing_in = Waiting(callback, implicit)
        loop.set_exception_handler(lambda _loop, context: signing_in.errors.append(context))
        task = asyncio.create_task(callback.answer(signing_in.take, implicit=implicit))
        await asyncio.sleep(0)
        yield signing_in
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(scope="module", params=[False, True], ids=["code", "implicit"])
def sign_in(request: pytest.FixtureRequest) -> Iterator[Waiting]:
    with in_thread(lambda: waiting(request.param)) as signing_in:
        yield signing_in


def still_waits(sign_in: Waiting) -> bool:
    """True if nothing was taken or raised, and a foreign answer is still recognised."""
    said = sign_in.say(
        f"GET /oauth/callback?code=c&state=x HTTP/1.1\r\nHost: {sign_in.authority}\r\n\r\n".encode()
    )
    return not sign_in.taken and not sign_in.errors and said.startswith(b"HTTP/1.1 400 ")


QUIET = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@QUIET
@given(st.binary(max_size=600))
@example(b"")
@example(b"\r\n\r\n")
@example(b"GET / HTTP/1.1\r\n\r\n")
@example(b"GET /oauth/callback?code=c&state=the-state HTTP/1.0\r\n\r\n")
@example(b"GET http://evil.example.com/oauth/callback?code=c&state=the-state HTTP/1.1\r\n\r\n")
@example(b"GET /oauth/callback?code=c&state=the-state HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
@example(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
@example(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
@example(b"POST /oauth/callback HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
@example(
    b"POST /oauth/callback HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFF\r\n"
)
def test_any_bytes(sign_in: Waiting, request_bytes: bytes) -> None:
    said = sign_in.say(request_bytes)
    assert said == b"" or said.startswith((b"HTTP/1.1 4", b"HTTP/1.1 4"))
    assert still_waits(sign_in)


TEXT = st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace").decode())
PATHS = st.sampled_from(
    ["/oauth/callback", "/oauth/done", "/oauth/start", "/oauth/start/x", "/oauth/fragment", "/"]
)
NAMES = st.sampled_from(["code", "state", "error", "error_description", "iss", "id_token"])
VALUES = st.sampled_from(["the-state", "the-state ", "THE-STATE", "c", "", ISSUER]) | TEXT
PARAMETERS = st.lists(st.tuples(NAMES | TEXT, VALUES), max_size=6)


def is_ours(parameters: list[tuple[str, str]]) -> bool:
    """True if *parameters* are the true answer after all, or the provider's true refusal."""
    return ("state", "the-state") in parameters


@QUIET
@given(
    method=st.sampled_from(["GET", "POST", "HEAD", "PUT", "OPTIONS", "get", "X"]),
    path=PATHS,
    parameters=PARAMETERS,
    body=PARAMETERS,
    host=st.sampled_from(["{own}", "evil.example.com", "localhost", "", "{own}:1"]),
    origin=st.sampled_from(["", "null", "http://{own}", "https://evil.example.com"]),
)
def test_any_request(
    sign_in: Waiting,
    method: str,
    path: str,
    parameters: list[tuple[str, str]],
    body: list[tuple[str, str]],
    host: str,
    origin: str,
) -> None:
    own = host == "{own}"
    if own and (is_ours(parameters) or is_ours(body)):
        parameters = [pair for pair in parameters if pair[0] != "state"]
        body = [pair for pair in body if pair[0] != "state"]
    form = urlencode(body).encode()
    lines = [
        f"{method} {path}?{urlencode(parameters)} HTTP/1.1",
        f"Host: {host.replace('{own}', sign_in.authority)}",
        f"Content-Length: {len(form)}",
        "Content-Type: application/x-www-form-urlencoded",
        *([f"Origin: {origin.replace('{own}', sign_in.authority)}"] if origin else []),
    ]
    said = sign_in.say("\r\n".join([*lines, "", ""]).encode() + form)
    served = (b"HTTP/1.1 4", b"HTTP/1.1 200 ") if sign_in.implicit and own else (b"HTTP/1.1 4",)
    assert said.startswith(served)
    assert still_waits(sign_in)


@QUIET
@given(st.text(alphabet="<>\"'&;=/abc\x00\n ", min_size=4, max_size=40))
def test_no_page_repeats_what_was_sent(sign_in: Waiting, text: str) -> None:
    marked = f"marker{text}marker"
    query = f"error=x&error_description={quote(marked)}&state={quote(marked)}"
    said = sign_in.say(
        f"GET /oauth/callback?{query} HTTP/1.1\r\nHost: {sign_in.authority}\r\n"
        f"X-A: {quote(marked)}\r\nReferer: {quote(marked)}\r\n\r\n".encode()
    )
    assert said.startswith(b"HTTP/1.1 400 ")
    assert b"marker" not in said
    assert still_waits(sign_in)


def test_a_page_whose_name_was_pointed_here_reads_and_sends_nothing(sign_in: Waiting) -> None:
    """DNS rebinding: the attacker's own name leads to 127.0.0.1, so its page is same-origin."""
    port = sign_in.authority.rpartition(":")[2]
    for host in (f"evil.example.com:{port}", "evil.example.com", f"localhost:{port}", "127.0.0.1"):
        for path in ("/oauth/callback?code=c&state=the-state", "/oauth/done", "/oauth/fragment.js"):
            said = sign_in.say(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert said.startswith(b"HTTP/1.1 421 ")
    assert still_waits(sign_in)


def test_nothing_is_printed_or_logged(
    sign_in: Waiting, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    for request in ("GET /oauth/callback?code=SECRET&state=x HTTP/1.1", "SECRET", "GET SECRET"):
        sign_in.say(f"{request}\r\nHost: {sign_in.authority}\r\n\r\n".encode())
    said, complained = capfd.readouterr()
    assert "SECRET" not in said + complained + caplog.text
