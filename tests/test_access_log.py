"""With `access-log`, each answered request leaves one line that says who, what and how much."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path
from typing import Any

import httpx2
import pytest

from federation.web.access_log import LOGGER
from tests.harness.broker import InProcess, logged, said
from tests.harness.gateway import Front, listening

DEPLOYMENT = {"service": "figlet", "image": "figlet:2", "namespace": "dev"}
MEMBERS = {
    *("event", "level", "logger", "timestamp", "request_id", "client", "sub", "fed_issuer"),
    *("method", "path", "status", "bytes", "seconds"),
}


def lines(log: StringIO) -> list[dict[str, Any]]:
    """The lines of the access log."""
    told = map(json.loads, log.getvalue().splitlines())
    return [line for line in told if line["logger"] == LOGGER]


def test_it_is_off_by_default(tmp_path: Path) -> None:
    with logged() as log:
        Front(tmp_path).call("GET", "/healthz")
    assert lines(log) == []


def test_an_exchange_leaves_a_line_with_the_subject() -> None:
    with logged() as log:
        broker = InProcess(access_log="on")
        answer = broker.exchange()
    (line,) = lines(log)
    assert set(line) == MEMBERS
    assert line["event"] == "access"
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["sub"] == said(answer.json()["access_token"])["sub"]
    assert line["fed_issuer"] == broker.github.iss
    assert (line["method"], line["path"]) == ("POST", "/oauth/token")
    assert (line["status"], line["bytes"]) == (200, len(answer.content))
    assert line["client"] == "127.0.0.1"
    assert 0 < line["seconds"] < 30


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_a_request_for_the_gateway_does_also_where_it_is_not_audited(
    tmp_path: Path, method: str
) -> None:
    with logged() as log:
        front = Front(tmp_path, access_log="on")
        token = front.grant(("*", "*"))
        answer = front.call(method, "/system/functions", token, json=DEPLOYMENT)
    (line,) = lines(log)
    assert (line["method"], line["status"]) == (method, answer.status_code)
    assert line["sub"] == "fed:repo:octo-org/octo-repo:ref:refs/heads/main"
    assert line["bytes"] == len(answer.content)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/livez", 200),
        ("GET", "/nowhere", 401),
        ("POST", "/oauth/token", 400),
        ("POST", "/oauth/revoke", 400),
        ("GET", "/function/figlet.dev", 200),
    ],
)
def test_a_request_of_somebody_unknown_names_nobody(
    tmp_path: Path, method: str, path: str, status: int
) -> None:
    with logged() as log:
        answer = Front(tmp_path, access_log="on").ask(method, path)
    (line,) = lines(log)
    assert answer.status_code == line["status"] == status
    assert (line["sub"], line["fed_issuer"]) == (None, None)
    assert line["request_id"] == answer.headers["x-request-id"]


def test_a_revocation_names_whose_token_ended() -> None:
    with logged() as log:
        broker = InProcess(access_log="on")
        token = broker.access_token()
        broker.post("/oauth/revoke", {"token": token})
    assert lines(log)[-1]["sub"] == said(token)["sub"]


def test_no_token_and_no_query_is_in_it_and_the_path_is_cut(tmp_path: Path) -> None:
    with logged() as log:
        front = Front(tmp_path, access_log="on")
        token = front.grant(("*", "*"))
        front.call("GET", f"/function/figlet.dev/{token}?secret=word", token)
        front.call("GET", f"/function/figlet.dev/{'x' * 8000}")
    assert token[:40] not in log.getvalue()
    assert "word" not in log.getvalue()
    starts = [line["path"][:22] for line in lines(log)]
    assert starts == ["/function/figlet.dev/(", "/function/figlet.dev/x"]
    assert max(len(line["path"]) for line in lines(log)) <= 1024


def test_an_answer_that_the_upstream_cut_says_so(tmp_path: Path) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield b"half"
        raise httpx2.ReadError("gone")

    async def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, content=half())

    with logged() as log:
        front = Front(tmp_path, access_log="on", transport=httpx2.MockTransport(answer))
        front.call("GET", "/function/figlet.dev")
    (line,) = lines(log)
    assert (line["status"], line["bytes"], line["cut_short"]) == (200, 4, True)


def test_every_request_of_a_kept_connection_has_a_line(tmp_path: Path) -> None:
    one = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /%72eadyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with logged() as log, listening(tmp_path, access_log="on") as front:
        heard = front.say(one + one + last)
    ids = re.findall(rb"x-request-id: (\w+)", heard)
    assert [line["request_id"].encode() for line in lines(log)] == ids
    assert [line["path"] for line in lines(log)] == ["/livez", "/livez", "/%72eadyz"]
