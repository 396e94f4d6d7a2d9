"""
Hostile answers: bytes from an upstream that could become another caller's answer, or a tunnel.

A function's answer passes the real gateway nearly as the function wrote it, so an answer is as
hostile as a request. Each caller gets exactly one well-formed answer of the call it made, a 502,
or an answer that is visibly cut short; and the next callers always get their own.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import uvloop

from federation.demo.stage import serving
from federation.gateway.upstream import Upstream
from federation.server.http_limits import http_config
from tests.harness.gateway import Front
from tests.harness.process import in_thread
from tests.harness.raw_upstream import PAUSE_SECONDS, Answer, End, RawUpstream

OK: Final = b"HTTP/1.1 200 OK\r\n"
EVIL: Final = OK + b"Content-Length: 5\r\n\r\nEVIL!"
FIVE: Final = b"Content-Length: 5\r\n\r\nhello"
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n\r\n"
LAST: Final = b"0\r\n\r\n"
UPGRADE: Final = b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@dataclass(frozen=True)
class Got:
    """An answer as its caller sees it. *whole* is false if it was visibly cut short."""

    status: int
    body: bytes = b""
    whole: bool = True


BAD: Final = Got(502)
"""No usable answer. The body is the broker's sentence."""


@dataclass(frozen=True)
class Case:
    """An answer of the upstream, and what the caller gets of it."""

    answer: Answer
    expected: Got
    method: str = "GET"


def answer(text: bytes, unasked: bytes = b"", end: End = End.KEPT) -> Answer:
    return Answer(text, unasked, end)


def closing(text: bytes) -> Answer:
    return Answer(text, end=End.CLOSED)


CASES: dict[str, Case] = {
    # -- statuses
    "101": Case(answer(b"HTTP/1.1 101 Switching Protocols\r\n" + UPGRADE), BAD),
    "101-without-upgrade": Case(answer(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), BAD),
    "101-and-an-answer": Case(answer(b"HTTP/1.1 101 X\r\n" + UPGRADE + EVIL), BAD),
    "status-600": Case(answer(b"HTTP/1.1 600 X\r\n" + FIVE), BAD),
    "status-999": Case(answer(b"HTTP/1.1 999 X\r\n" + FIVE), BAD),
    "status-099": Case(answer(b"HTTP/1.1 099 X\r\n" + FIVE), BAD),
    "status-0": Case(answer(b"HTTP/1.1 000 X\r\n" + FIVE), BAD),
    "status-of-four-digits": Case(answer(b"HTTP/1.1 2000 X\r\n" + FIVE), BAD),
    "status-of-two-digits": Case(answer(b"HTTP/1.1 20 X\r\n" + FIVE), BAD),
    "status-with-a-sign": Case(answer(b"HTTP/1.1 +20 X\r\n" + FIVE), BAD),
    "version-2": Case(answer(b"HTTP/2.0 200 OK\r\n" + FIVE), BAD),
    "version-0-9": Case(answer(b"HTTP/0.9 200 OK\r\n" + FIVE), BAD),
    "no-http": Case(closing(b"hello\r\n\r\n"), BAD),
    # The parser takes both for HTTP.
    "rtsp": Case(answer(b"RTSP/1.1 200 OK\r\n" + FIVE), BAD),
    "ice": Case(answer(b"ICE/1.1 200 OK\r\n" + FIVE), BAD),
    "rtsp-after-empty-lines": Case(answer(b"\r\n\n\r\nRTSP/1.1 200 OK\r\n" + FIVE), BAD),
    "rtsp-after-a-100": Case(
        answer(b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\nRTSP/1.1 200 OK\r\n" + FIVE), BAD
    ),
    "rtsp-with-http-in-its-body": Case(
        answer(b"HTTP/1.1 100 X\r\n\r\nRTSP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n\n\nHTTP/"), BAD
    ),
    "a-100-of-rtsp": Case(answer(b"RTSP/1.1 100 Continue\r\n\r\n" + OK + FIVE), BAD),
    "empty-lines-before-it": Case(answer(b"\r\n\n\r\n" + OK + FIVE), Got(200, b"hello")),
    "rtsp-in-the-body": Case(
        answer(OK + b"Content-Length: 7\r\n\r\n\nRTSP/1"), Got(200, b"\nRTSP/1")
    ),
    "nothing": Case(closing(b""), BAD),
    "half-a-head": Case(closing(OK + b"Content-Le"), BAD),
    "reset-at-once": Case(Answer(b"", end=End.RESET), BAD),
    # -- one answer after the other
    "100-then-an-answer": Case(
        answer(b"HTTP/1.1 100 Continue\r\n\r\n" + OK + FIVE), Got(200, b"hello")
    ),
    "103-then-an-answer": Case(
        answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + FIVE), Got(200, b"hello")
    ),
    "102-three-times": Case(answer(b"HTTP/1.1 102 X\r\n\r\n" * 3 + OK + FIVE), Got(200, b"hello")),
    "two-answers-at-once": Case(answer(OK + FIVE + EVIL), Got(200, b"hello")),
    "an-answer-that-nobody-asked-for": Case(answer(OK + FIVE, unasked=EVIL), Got(200, b"hello")),
    "half-an-answer-that-nobody-asked-for": Case(
        answer(OK + FIVE, unasked=OK + b"Content-Length: 500\r\n\r\n"), Got(200, b"hello")
    ),
    "a-100-that-nobody-asked-for": Case(
        answer(OK + FIVE, unasked=b"HTTP/1.1 100 Continue\r\n\r\n"), Got(200, b"hello")
    ),
    "a-line-that-nobody-asked-for": Case(answer(OK + FIVE, unasked=b"\r\n"), Got(200, b"hello")),
    "one-byte-that-nobody-asked-for": Case(answer(OK + FIVE, unasked=b"H"), Got(200, b"hello")),
    "another-answer-in-the-last-chunk": Case(
        answer(OK + CHUNKED + b"5\r\nhello\r\n0\r\n\r\n" + EVIL), Got(200, b"hello")
    ),
    "another-answer-after-a-close": Case(answer(OK + b"Connection: close\r\n" + FIVE + EVIL), BAD),
    # -- lengths
    "two-lengths": Case(answer(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), BAD),
    "one-length-twice": Case(answer(OK + b"Content-Length: 5\r\n" + FIVE), BAD),
    "lengths-in-a-list": Case(answer(OK + b"Content-Length: 5, 5\r\n\r\nhello"), BAD),
    "a-length-with-a-sign": Case(answer(OK + b"Content-Length: +5\r\n\r\nhello"), BAD),
    "a-negative-length": Case(answer(OK + b"Content-Length: -1\r\n\r\nhello"), BAD),
    "a-length-in-hex": Case(answer(OK + b"Content-Length: 0x5\r\n\r\nhello"), BAD),
    "no-digits-in-a-length": Case(answer(OK + b"Content-Length: \r\n\r\nhello"), BAD),
    "a-length-too-large-to-count": Case(
        answer(OK + b"Content-Length: 99999999999999999999\r\n\r\nhello"), BAD
    ),
    "a-length-and-chunks": Case(
        answer(OK + b"Content-Length: 5\r\n" + CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"), BAD
    ),
    "chunks-and-a-length": Case(
        answer(OK + b"Transfer-Encoding: chunked\r\n" + FIVE + b"0\r\n\r\n"), BAD
    ),
    "a-coding-that-is-not-chunked": Case(
        closing(OK + b"Transfer-Encoding: gzip\r\n\r\nhello"), BAD
    ),
    "two-codings": Case(
        closing(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), BAD
    ),
    "chunked-twice": Case(
        closing(OK + b"Transfer-Encoding: chunked\r\n" + CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"), BAD
    ),
    "chunked-and-a-space": Case(
        answer(OK + b"Transfer-Encoding: chunked \r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        Got(200, b"hello"),
    ),
    # The parser does not take these for chunked, and would pass the frames of the chunks on.
    "chunked-and-a-tab": Case(
        closing(OK + b"Transfer-Encoding: chunked\t\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), BAD
    ),
    "chunked-and-a-folded-blank-line": Case(
        closing(OK + b"Transfer-Encoding: chunked\r\n \r\n\r\n5\r\nhello\r\n0\r\n\r\n"), BAD
    ),
    "chunked-and-a-folded-blank-line-and-a-close": Case(
        closing(
            OK
            + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\t\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        ),
        BAD,
    ),
    "chunked-on-a-folded-line": Case(
        answer(OK + b"Transfer-Encoding:\r\n chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        Got(200, b"hello"),
    ),
    "a-coding-in-two-folded-parts": Case(
        closing(OK + b"Transfer-Encoding: chunk\r\n ed\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), BAD
    ),
    "a-length-and-a-folded-blank-line": Case(
        closing(OK + b"Content-Length: 5\r\n \r\n\r\nhello"), BAD
    ),
    "chunks-of-http-1-0": Case(
        closing(b"HTTP/1.0 200 OK\r\n" + CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"), BAD
    ),
    "the-body-is-longer": Case(answer(OK + b"Content-Length: 5\r\n\r\nhelloEVIL"), BAD),
    "the-body-is-shorter": Case(
        closing(OK + b"Content-Length: 50\r\n\r\nhello"), Got(200, b"hello", whole=False)
    ),
    "reset-in-the-body": Case(
        Answer(OK + b"Content-Length: 50\r\n\r\nhello", end=End.RESET),
        Got(200, b"hello", whole=False),
    ),
    "a-body-without-a-length": Case(closing(OK + b"\r\nhello"), Got(200, b"hello")),
    "a-body-without-a-length-is-reset": Case(
        Answer(OK + b"\r\nhello", end=End.RESET), Got(200, b"hello", whole=False)
    ),
    # -- chunks
    "no-last-chunk": Case(
        closing(OK + CHUNKED + b"5\r\nhello\r\n"), Got(200, b"hello", whole=False)
    ),
    "a-chunk-size-in-words": Case(closing(OK + CHUNKED + b"five\r\nhello\r\n0\r\n\r\n"), Got(502)),
    "a-negative-chunk": Case(closing(OK + CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n"), Got(502)),
    "a-chunk-too-large-to-count": Case(
        closing(OK + CHUNKED + b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n"), Got(502)
    ),
    "a-chunk-longer-than-it-says": Case(
        closing(OK + CHUNKED + b"5\r\nhelloEVIL\r\n0\r\n\r\n"), Got(502)
    ),
    # Some servers fill up their sizes with spaces. The caller gets the broker's own chunks.
    "a-space-after-a-chunk-size": Case(
        answer(OK + CHUNKED + b"5 \r\nhello\r\n0 \r\n\r\n"), Got(200, b"hello")
    ),
    "a-trailer": Case(
        answer(OK + CHUNKED + b"5\r\nhello\r\n0\r\nX-Evil: 1\r\n\r\n"), Got(200, b"hello")
    ),
    # -- headers
    "a-control-character": Case(answer(OK + b"X-A: a\x01b\r\n" + FIVE), BAD),
    "nul": Case(answer(OK + b"X-A: a\x00b\r\n" + FIVE), BAD),
    "delete": Case(answer(OK + b"X-A: a\x7fb\r\n" + FIVE), BAD),
    "a-bare-cr": Case(answer(OK + b"X-A: a\rX-Evil: b\r\n" + FIVE), BAD),
    # The parser takes a bare LF for a line's end, and the caller gets two well-formed headers.
    "a-bare-lf": Case(answer(OK + b"X-A: a\nX-B: b\r\n" + FIVE), Got(200, b"hello")),
    "a-folded-header": Case(answer(OK + b"X-A: a\r\n b\r\n" + FIVE), Got(200, b"hello")),
    "a-space-before-the-colon": Case(answer(OK + b"X-A : a\r\n" + FIVE), BAD),
    "a-header-without-a-name": Case(answer(OK + b": a\r\n" + FIVE), BAD),
    "a-header-without-a-colon": Case(answer(OK + b"X-A\r\n" + FIVE), BAD),
    "a-name-that-is-no-token": Case(answer(OK + b"X(A): a\r\n" + FIVE), BAD),
    "a-name-in-latin-1": Case(answer(OK + b"X-\xe9: a\r\n" + FIVE), BAD),
    "a-value-in-latin-1": Case(answer(OK + b"X-A: \xe9\r\n" + FIVE), Got(200, b"hello")),
    "a-header-of-a-mebibyte": Case(answer(OK + b"X-A: " + b"a" * 2**20 + b"\r\n" + FIVE), BAD),
    "a-hundred-large-headers": Case(
        answer(OK + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 2**15) for n in range(100)) + FIVE), BAD
    ),
    "ten-thousand-headers": Case(answer(OK + b"X-A: a\r\n" * 10_000 + FIVE), BAD),
    "upgrade-in-a-200": Case(
        answer(OK + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + FIVE), Got(200, b"hello")
    ),
    # -- answers without a body
    "204": Case(answer(b"HTTP/1.1 204 No Content\r\n\r\n"), Got(204)),
    "204-with-a-length": Case(answer(b"HTTP/1.1 204 X\r\nContent-Length: 5\r\n\r\n"), Got(204)),
    "204-with-a-body": Case(answer(b"HTTP/1.1 204 X\r\n" + FIVE), Got(204)),
    "204-with-chunks": Case(answer(b"HTTP/1.1 204 X\r\n" + CHUNKED + LAST), Got(204)),
    "204-with-a-body-in-chunks": Case(
        answer(b"HTTP/1.1 204 X\r\n" + CHUNKED + b"5\r\nhello\r\n" + LAST), Got(204)
    ),
    "204-and-the-chunks-come-later": Case(
        answer(b"HTTP/1.1 204 X\r\n" + CHUNKED, unasked=LAST), Got(204)
    ),
    "204-and-another-answer": Case(answer(b"HTTP/1.1 204 X\r\n\r\n" + EVIL), Got(204)),
    "204-and-an-answer-as-its-body": Case(
        answer(b"HTTP/1.1 204 X\r\nContent-Length: %d\r\n\r\n" % len(EVIL) + EVIL), Got(204)
    ),
    "304": Case(answer(b"HTTP/1.1 304 Not Modified\r\nETag: a\r\n\r\n"), Got(304)),
    "304-with-a-length": Case(answer(b"HTTP/1.1 304 X\r\nContent-Length: 500\r\n\r\n"), Got(304)),
    "304-with-a-body": Case(answer(b"HTTP/1.1 304 X\r\n" + FIVE), Got(304)),
    "304-with-chunks": Case(answer(b"HTTP/1.1 304 X\r\n" + CHUNKED + LAST), Got(304)),
    "205": Case(answer(b"HTTP/1.1 205 X\r\nContent-Length: 0\r\n\r\n"), Got(205)),
    "head": Case(answer(OK + b"Content-Length: 500\r\n\r\n"), Got(200), method="HEAD"),
    "head-with-chunks": Case(answer(OK + CHUNKED), Got(200), method="HEAD"),
    "head-without-a-length": Case(answer(OK + b"\r\n"), Got(200), method="HEAD"),
    "head-with-a-last-chunk": Case(answer(OK + CHUNKED + LAST), Got(200), method="HEAD"),
    "head-with-a-body": Case(answer(OK + FIVE), Got(200), method="HEAD"),
    "head-with-a-body-in-chunks": Case(
        answer(OK + CHUNKED + b"5\r\nhello\r\n" + LAST), Got(200), method="HEAD"
    ),
    "head-with-a-body-without-a-length": Case(answer(OK + b"\r\nhello"), Got(200), method="HEAD"),
    "head-and-an-answer-as-its-body": Case(
        answer(OK + b"Content-Length: %d\r\n\r\n" % len(EVIL) + EVIL), Got(200), method="HEAD"
    ),
    "100-with-a-body": Case(
        answer(b"HTTP/1.1 100 X\r\nContent-Length: 5\r\n\r\nhello" + OK + FIVE), BAD
    ),
    "100-with-chunks": Case(answer(b"HTTP/1.1 100 X\r\n" + CHUNKED + LAST + OK + FIVE), BAD),
    "head-and-the-body-comes-later": Case(
        answer(OK + b"Content-Length: 5\r\n\r\n", unasked=b"hello"), Got(200), method="HEAD"
    ),
}


class Hostile(Front):
    """A broker on a loopback socket in front of an upstream that answers by `CASES`."""

    def __init__(self, folder: Path) -> None:
        self.listener, self._behind = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
        self.raw = RawUpstream({name: case.answer for name, case in CASES.items()})
        url = f"http://127.0.0.1:{self._behind.getsockname()[1]}"
        # One connection for functions, so that the next caller would get what was left on it.
        upstream = Upstream.at(url, connections=3, timeout_seconds=2)
        super().__init__(folder, upstream=upstream, audit_verbs="GET,HEAD,PUT,POST,DELETE")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        async with (
            self.raw.serving(self._behind),
            serving(self.app, self.listener, http_config(self.app)),
        ):
            yield

    def say(self, method: str, target: str) -> Got:
        """The one answer to a request, after which the broker closes the connection."""
        request = f"{method} {target} HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n"
        with socket.create_connection(self.listener.getsockname(), timeout=5) as connection:
            connection.sendall(request.encode("ascii"))
            heard = bytearray()
            while chunk := connection.recv(65536):
                heard += chunk
        return parsed(bytes(heard), method)


def parsed(heard: bytes, method: str) -> Got:
    """The only answer in *heard*."""
    head, _, rest = heard.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    found = re.fullmatch(rb"HTTP/1\.1 ([2-5][0-9]{2}) [ -~]*", line)
    assert found, heard[:200]
    headers = dict(field.lower().split(b": ", 1) for field in fields)
    assert len(headers) == len(fields), "no header is there twice"
    assert not {b"upgrade", b"x-evil"} & headers.keys()
    assert not re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", head), "no control characters"
    status = int(found[1])
    if method == "HEAD" or status in {204, 304}:
        assert rest == b""
        assert (
            status in {200, 502} or not {b"content-length", b"transfer-encoding"} & headers.keys()
        )
        return Got(status)
    if status == 502:
        assert int(headers[b"content-length"]) == len(rest)
        return Got(502)
    if length := headers.get(b"content-length"):
        assert b"transfer-encoding" not in headers
        return Got(status, rest, whole=int(length) == len(rest))
    assert headers[b"transfer-encoding"] == b"chunked"
    body = bytearray()
    while chunk := re.match(rb"([0-9a-f]+)\r\n", rest):
        size = int(chunk[1], 16)
        body += rest[chunk.end() : chunk.end() + size]
        rest = rest[chunk.end() + size + 2 :]
        if size == 0:
            assert rest == b"", "nothing follows the last chunk"
            return Got(status, bytes(body))
    return Got(status, bytes(body), whole=False)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hostile]:
    front = Hostile(tmp_path_factory.mktemp("secrets"))
    with in_thread(front.serving, uvloop.new_event_loop):
        yield front


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_answer_reaches_nobody_but_its_caller(hostile: Hostile, name: str) -> None:
    case = CASES[name]
    assert hostile.say(case.method, f"/function/{name}.dev") == case.expected
    if case.answer.unasked:
        time.sleep(2 * PAUSE_SECONDS)  # it is there before the next caller's request
    for number in range(3):
        theirs = f"{name}-{number}"
        got = hostile.say("GET", f"/function/honest.dev?{theirs}")
        assert got == Got(200, theirs.encode()), "every caller gets the answer of its own call"


def test_the_event_has_the_status_that_the_caller_got(hostile: Hostile) -> None:
    for name in ("a-control-character", "status-600", "two-lengths"):
        hostile.say("GET", f"/function/{name}.dev")
        assert hostile.journal.events[-1].response_code == 502
