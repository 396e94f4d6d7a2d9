"""Every client explains a failed request: in words, with the likely cause and what to do."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest

from federation.admission.certificates import made
from federation.issuers.answers import status_problem
from federation.issuers.fetch import FetchFailed, fetch_keys
from federation.outbound.failures import failure
from federation.sign_on.bounded import unreachable
from tests.harness.builders import issuer
from tests.harness.process import free_port

Serve = Callable[[socket.socket], object]


@contextmanager
def server(answer: Serve) -> Iterator[int]:
    """A server on loopback that does *answer* with each connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    answer(connection)
                except OSError:
                    continue

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def said(text: bytes) -> Serve:
    def answer(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(text)

    return answer


def reset(connection: socket.socket) -> None:
    connection.recv(10)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def why(url: str, *, context: ssl.SSLContext | None = None, proxy: str | None = None) -> str:
    """What is told of a request to *url*, which must be the same for both kinds of clients."""
    verify: ssl.SSLContext | bool = True if context is None else context
    options = {"verify": verify, "proxy": proxy, "timeout": 0.5, "trust_env": False}

    async def concurrent() -> str:
        async with httpx2.AsyncClient(**options) as client:  # type: ignore[arg-type]
            with pytest.raises(httpx2.HTTPError) as failed:
                await client.get(url)
        return failure(failed.value, ca="the bundle")

    with (
        httpx2.Client(**options) as client,  # type: ignore[arg-type]
        pytest.raises(httpx2.HTTPError) as failed,
    ):
        client.get(url)
    told = failure(failed.value, ca="the bundle")
    assert asyncio.run(concurrent()) == told
    assert "Errno" not in told
    assert "_ssl.c" not in told
    return told


def test_nothing_that_listens_is_told() -> None:
    assert why(f"http://127.0.0.1:{free_port()}/").startswith("nothing listens there")


def test_a_name_without_an_address_is_told() -> None:
    assert why("https://nobody.invalid/").startswith("its name has no address")


def test_a_port_without_tls_is_told() -> None:
    with server(said(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        assert "does not speak TLS" in why(f"https://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", id="cut off"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"SSH-2.0-OpenSSH_9.9\r\n\r\n", id="another protocol"),
    ],
)
def test_an_answer_that_is_cut_off_or_no_http_is_told(answer: bytes) -> None:
    with server(said(answer)) as port:
        assert "cut off or is not HTTP" in why(f"http://127.0.0.1:{port}/")


def test_a_closed_connection_is_told() -> None:
    with server(reset) as port:
        assert why(f"http://127.0.0.1:{port}/").startswith("it closed the connection")


def test_an_answer_that_does_not_come_is_told() -> None:
    done = threading.Event()
    with server(lambda _connection: done.wait(5)) as port:
        assert why(f"http://127.0.0.1:{port}/") == "no complete answer in time"
        done.set()


def test_a_proxy_that_asks_for_a_password_is_told_without_the_one_it_got() -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    with server(said(refusal)) as port:
        told = why("https://ci.example/", proxy=f"http://bob:hunter2@127.0.0.1:{port}")
    assert told.startswith("the proxy asks for a user and password")
    assert "hunter2" not in told


NOW = datetime.now(UTC)


@contextmanager
def tls(tmp_path: Path, name: str, begins: datetime = NOW) -> Iterator[tuple[int, ssl.SSLContext]]:
    """A server with a certificate for *name*, valid for a day, and a context that trusts it."""
    generation = made([name], begins, timedelta(days=1))
    (tmp_path / "chain.pem").write_bytes(generation.certificate + generation.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain.pem")

    def answer(connection: socket.socket) -> None:
        context.wrap_socket(connection, server_side=True).close()

    with server(answer) as port:
        yield port, ssl.create_default_context(cadata=generation.ca.decode())


def test_a_ca_that_nobody_knows_is_told_with_where_to_write_it(tmp_path: Path) -> None:
    with tls(tmp_path, "127.0.0.1") as (port, _):
        told = why(f"https://127.0.0.1:{port}/")
    assert told.startswith("its certificate is not trusted (")
    assert told.endswith("write its CA into the bundle")


def test_a_certificate_for_another_name_is_told(tmp_path: Path) -> None:
    with tls(tmp_path, "127.0.0.2") as (port, trusted):
        assert "for another name" in why(f"https://127.0.0.1:{port}/", context=trusted)


def test_an_expired_certificate_is_told(tmp_path: Path) -> None:
    with tls(tmp_path, "127.0.0.1", NOW - timedelta(days=3)) as (port, trusted):
        assert "has expired" in why(f"https://127.0.0.1:{port}/", context=trusted)


def test_an_error_of_our_own_making_quotes_no_header() -> None:
    told = failure(httpx2.LocalProtocolError("Illegal header value b'Bearer hunter2'"))
    assert "hunter2" not in told


def test_a_sign_in_tells_an_answer_that_cannot_be_decoded_in_the_same_words() -> None:
    told = unreachable(httpx2.DecodingError("Error -3 while decompressing"), "https://idp.example/")
    assert str(told) == "idp.example answered what cannot be read: the answer cannot be decoded."


def test_an_error_that_nobody_foresaw_is_told_by_its_kind() -> None:
    assert failure(RuntimeError("internals")) == "it failed (RuntimeError)"


# What an issuer answers in place of its documents


@pytest.mark.parametrize(
    ("response", "told"),
    [
        pytest.param(httpx2.Response(401), "bearerTokenFile", id="an API server"),
        pytest.param(httpx2.Response(403), "bearerTokenFile", id="forbidden"),
        pytest.param(httpx2.Response(404), "check iss", id="nothing there"),
        pytest.param(httpx2.Response(407), "the proxy asks", id="a proxy"),
        pytest.param(httpx2.Response(429), "asked again later", id="too often"),
        pytest.param(httpx2.Response(503), "has trouble", id="trouble"),
        pytest.param(httpx2.Response(418), "with curl", id="anything else"),
        pytest.param(
            httpx2.Response(
                302, headers={"Location": "https://u:p@sso.example/login?code=hunter2"}
            ),
            "a redirect to https://sso.example, which is not followed",
            id="a login page",
        ),
        pytest.param(httpx2.Response(301), "a redirect to nowhere", id="an empty redirect"),
        pytest.param(
            httpx2.Response(308, headers={"Location": "https://[half"}), "cannot be read", id="bad"
        ),
        pytest.param(httpx2.Response(200, html="<p>Sign in</p>"), "a web page", id="a page"),
        pytest.param(httpx2.Response(200, content=b" <?xml"), "web page or XML", id="XML"),
        pytest.param(httpx2.Response(200, content=b""), "it is empty", id="nothing"),
        pytest.param(
            httpx2.Response(200, content=b'{"issuer": "https://'), "ends too soon", id="cut off"
        ),
        pytest.param(
            httpx2.Response(200, content=b'{"issuer": "https://ci.example",'),
            "ends too soon",
            id="cut off at a comma",
        ),
        pytest.param(httpx2.Response(200, content=b"\xef\xbb\xbf{}"), "byte order mark", id="BOM"),
        pytest.param(httpx2.Response(200, content=b"\xff\xfe{"), "not utf-8", id="UTF-16"),
        pytest.param(httpx2.Response(200, content=b"{} {}"), "more follows", id="two values"),
        pytest.param(httpx2.Response(200, json=[]), "not an object", id="a list"),
    ],
)
def test_an_answer_that_is_no_discovery_is_told_with_its_likely_cause(
    response: httpx2.Response, told: str
) -> None:
    why = _fetch_failure(response)
    assert told in why
    assert not any(raw in why for raw in ("Expecting", "char ", "codec", "hunter2"))


def test_a_refused_bearer_token_is_told_differently_from_a_missing_one() -> None:
    with_token = status_problem(401, "", with_token=True)
    assert "though the token of bearerTokenFile was sent" in with_token
    assert with_token != status_problem(401, "", with_token=False)


def _fetch_failure(response: httpx2.Response) -> str:
    async def story() -> str:
        transport = httpx2.MockTransport(lambda _request: response)
        async with httpx2.AsyncClient(transport=transport) as client:
            with pytest.raises(FetchFailed) as failed:
                await fetch_keys(client, issuer("https://ci.example"))
        return str(failed.value)

    return asyncio.run(story())
