"""
A real Go server as the upstream: what it understands of a request is what was authorized.

The real gateway is made of Go's `net/http` and `encoding/json`. Of its answers, each caller gets
exactly its own.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from typing import Any, Final

import httpx2
import pytest

from tests.harness.gateway import Fronted, fronted
from tests.harness.go_upstream import go_upstream

pytestmark = pytest.mark.e2e

DEPLOYMENT: Final = {"service": "figlet", "image": "figlet:1", "namespace": "dev"}


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    with fronted(tmp_path_factory.mktemp("broker"), behind=go_upstream) as front:
        yield front


@pytest.fixture(scope="module")
def token(front: Fronted) -> str:
    return front.token()


def seen(front: Fronted) -> list[dict[str, Any]]:
    """What the upstream understood since it was asked last, but for the broker's own probes."""
    found: list[dict[str, Any]] = httpx2.get(f"{front.upstream}/test/seen", timeout=20).json()
    return [request for request in found if request["target"] != "/healthz"]


def say(front: Fronted, *pieces: bytes) -> bytes:
    """The answer to *pieces* on one connection, until the broker closes it."""
    with socket.create_connection(("127.0.0.1", front.broker.port), timeout=10) as connection:
        heard = bytearray()
        for piece in pieces:
            connection.sendall(piece)
        try:
            while chunk := connection.recv(65536):
                heard += chunk
        except ConnectionResetError:
            pass
    return bytes(heard)


# -- requests

CALLS: Final = [
    ("GET", "/system/functions?namespace=dev", None, ("dev", None)),
    ("POST", "/system/functions", DEPLOYMENT, ("dev", "figlet")),
    ("PUT", "/system/functions?namespace=dev", {**DEPLOYMENT, "namespace": ""}, ("dev", "figlet")),
    ("DELETE", "/system/functions", {"functionName": "f", "namespace": "dev"}, ("dev", "f")),
    ("GET", "/system/function/figlet?namespace=dev&usage=1", None, ("dev", "figlet")),
    (
        "POST",
        "/system/scale-function/figlet?namespace=dev",
        {"serviceName": "figlet", "replicas": 0},
        ("dev", "figlet"),
    ),
    ("GET", "/system/logs?name=figlet&namespace=dev&tail=5", None, ("dev", "figlet")),
    ("GET", "/system/secrets?namespace=dev", None, ("dev", None)),
    ("POST", "/system/secrets", {"name": "s", "namespace": "dev", "value": "v"}, ("dev", "s")),
    ("DELETE", "/system/secrets?namespace=dev", {"name": "s"}, ("dev", "s")),
    ("GET", "/system/namespaces", None, (None, None)),
    ("GET", "/system/namespace/dev", None, (None, "dev")),
]


def understood(request: dict[str, Any]) -> tuple[set[str], set[str]]:
    """Every namespace and every name that Go found in a request, wherever it looks."""
    query, meant = request["query"], request["meant"]
    last = request["path"].rpartition("/")[2]
    in_path = {last} - {"functions", "logs", "secrets", "namespaces"}
    names = {query.get("name"), *(meant[n] for n in ("service", "functionName", "serviceName"))}
    names |= {meant["name"]} | in_path
    return {query.get("namespace"), meant["namespace"]} - {None, ""}, names - {None, ""}


@pytest.mark.parametrize(
    ("method", "target", "body", "about"), CALLS, ids=[f"{c[0]} {c[1]}" for c in CALLS]
)
def test_go_understands_what_was_authorized(
    front: Fronted,
    token: str,
    method: str,
    target: str,
    body: dict[str, object] | None,
    about: tuple[str | None, str | None],
) -> None:
    seen(front)
    answer = httpx2.request(
        method,
        front.broker.url + target,
        json=body,
        headers={"authorization": f"Bearer {token}", "x-custom": "1"},
        timeout=20,
    )
    assert answer.status_code == 200, answer.text
    (request,) = seen(front)
    assert request["method"] == method
    namespaces, names = understood(request)
    assert namespaces == ({about[0]} if about[0] else set())
    assert names == ({about[1]} if about[1] else set())
    assert request["header"]["Authorization"][0].startswith("Basic ")
    assert token not in json.dumps(request)
    assert "X-Custom" not in request["header"]
    assert request["length"] == len(request["body"])
    assert request["encodings"] is None


AMBIGUOUS: Final[list[tuple[str, str, bytes]]] = [
    ("POST", "/system/functions?namespace=staging", json.dumps(DEPLOYMENT).encode()),
    ("POST", "/system/functions", b'{"service":"f","image":"i","namespace":"dev","Namespace":"x"}'),
    ("POST", "/system/functions", b'{"service":"f","image":"i","namespace":"dev","service":"g"}'),
    ("POST", "/system/functions", b'{"service":"f","image":"i","name\xc5\xbfpace":"x"}'),
    ("POST", "/system/functions", b'{"service":"f","image":"i","namespace":"dev"}{"service":"g"}'),
    ("POST", "/system/functions", b'\xef\xbb\xbf{"service":"f","image":"i","namespace":"dev"}'),
    ("GET", "/system/functions?namespace=dev&namespace=staging", b""),
    ("GET", "/system/functions?namespace=dev&Namespace=staging", b""),
    ("GET", "/system/functions?namespace=dev;namespace=staging", b""),
    ("GET", "/system/function/figlet%2f..%2f..?namespace=dev", b""),
    ("GET", "/system//functions?namespace=dev", b""),
    ("GET", "/system/./functions?namespace=dev", b""),
    ("GET", "/SYSTEM/functions?namespace=dev", b""),
    ("GET", "/function/figlet.dev/../other.dev", b""),
    ("GET", "/function/figlet.dev/%2e%2e/other.dev", b""),
    ("GET", "/function/figlet.dev/%252e%252e/other.dev", b""),
]


@pytest.mark.parametrize(("method", "target", "body"), AMBIGUOUS)
def test_what_go_could_understand_otherwise_does_not_reach_it(
    front: Fronted, token: str, method: str, target: str, body: bytes
) -> None:
    seen(front)
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    answer = say(front, head.encode() + body)
    assert re.match(rb"HTTP/1\.1 (400|403) ", answer), answer
    assert seen(front) == []


def test_a_streamed_body_reaches_a_function_to_the_byte_and_its_trailers_do_not(
    front: Fronted,
) -> None:
    seen(front)
    pieces = [b"first", bytes(range(256)) * 300, b"last"]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    answer = say(
        front,
        b"POST /function/echo.dev/a?b=c HTTP/1.1\r\nHost: gw.example.com\r\nTrailer: X-Evil\r\n"
        b"Connection: close\r\nTransfer-Encoding: chunked\r\nX-Own: 1\r\n\r\n",
        chunks + b"0\r\nX-Evil: 1\r\nAuthorization: Bearer x\r\n\r\n",
    )
    whole = b"".join(pieces)
    assert b"\r\nx-length: %d\r\n" % len(whole) in answer
    (request,) = seen(front)
    assert (request["method"], request["target"]) == ("POST", "/function/echo.dev/a?b=c")
    assert request["encodings"] == ["chunked"]
    assert not request["trailer"]
    assert request["header"]["X-Own"] == ["1"]
    assert not {"X-Evil", "Authorization", "Trailer"} & request["header"].keys()
    assert request["header"]["X-Forwarded-Host"] == ["gw.example.com"]


# -- answers


def call(front: Fronted, name: str, method: str = "GET", **request: Any) -> httpx2.Response:
    url = f"{front.broker.url}/function/{name}.dev"
    return httpx2.request(method, url, timeout=20, **request)


def test_a_function_opens_no_tunnel(front: Fronted) -> None:
    seen(front)
    answer = say(
        front,
        b"GET /function/tunnel.dev HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert len(seen(front)) == 1


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        ("status-600", 502, None),
        ("status-999", 502, None),
        ("nothing", 502, None),
        ("hints", 200, "after the hints"),
        ("stream", 200, "piece 0\npiece 1\npiece 2\n"),
        ("trailer", 200, "hello"),
        ("unasked", 200, "hello"),
        ("status-204", 204, ""),
        ("status-205", 205, ""),
        ("status-304", 304, ""),
        ("status-500", 500, ""),
        ("status-599", 599, ""),
    ],
)
def test_each_caller_gets_its_own_answer(
    front: Fronted, name: str, status: int, text: str | None
) -> None:
    answer = call(front, name)
    assert answer.status_code == status
    assert text is None or answer.text == text
    assert "x-checksum" not in answer.headers
    if name == "unasked":
        # An answer that comes after the next request was sent is, in HTTP/1.1, the answer to it.
        time.sleep(0.5)
    for number in range(5):
        echoed = call(front, "echo", "POST", content=f"{name} {number}")
        assert echoed.text == f"{name} {number}"


@pytest.mark.parametrize("name", ["echo", "stream", "status-304", "status-404"])
def test_head_is_answered_without_a_body(front: Fronted, name: str) -> None:
    with httpx2.Client(base_url=front.broker.url, timeout=20) as client:
        for _ in range(3):
            answer = client.head(f"/function/{name}.dev")
            assert answer.status_code == int(name.rpartition("-")[2]) if "-" in name else 200
            assert answer.content == b""


def test_an_answer_that_the_function_breaks_off_is_cut_short(front: Fronted) -> None:
    with pytest.raises(httpx2.RemoteProtocolError):
        call(front, "abort")


def test_an_answer_before_the_body_was_read_arrives_and_harms_no_other_call(
    front: Fronted,
) -> None:
    answer = call(front, "early", "POST", content=b"x" * 200_000)
    assert answer.status_code == 413
    assert call(front, "echo", "POST", content="next").text == "next"
