"""
Request smuggling: bytes that two HTTP parsers could take for two different requests.

Each is sent unchanged through a socket to a broker that runs as `serve` runs it. Either nothing
reaches the sample upstream behind it, or exactly the call that was authorized.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator

import pytest

from tests.harness.gateway import Listening, header, listening

FUNCTION = b"POST /function/figlet.dev HTTP/1.1\r\n"
LIST = b"GET /system/functions?namespace=dev HTTP/1.1\r\n"
PUT = b"PUT /system/functions HTTP/1.1\r\n"
HOST = b"Host: gw.example.com\r\n"
CLOSE = b"Connection: close\r\n"
JSON = b"Content-Type: application/json\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
DEPLOYMENT = json.dumps({"service": "figlet", "image": "i:1", "namespace": "dev"}).encode()
SMUGGLED = b"DELETE /function/figlet.dev/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    with listening(tmp_path_factory.mktemp("secrets")) as front:
        yield front


@pytest.fixture
def front(shared: Listening) -> Listening:
    shared.sample.received.clear()
    return shared


@pytest.fixture
def bearer(front: Listening) -> bytes:
    """The header of a caller who may do everything in `dev`."""
    return b"Authorization: Bearer " + front.grant(("*", "dev:*")).encode() + b"\r\n"


def statuses(heard: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", heard)]


def reached(front: Listening) -> list[tuple[str, bytes]]:
    return [(received.method, received.target) for received in front.received]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


HEADERS: dict[str, bytes] = {
    "length and coding": b"Content-Length: 4\r\nTransfer-Encoding: chunked",
    "coding and length": b"Transfer-Encoding: chunked\r\nContent-Length: 4",
    "two lengths": b"Content-Length: 4\r\nContent-Length: 0",
    "two equal lengths": b"Content-Length: 4\r\nContent-Length: 4",
    "a list of lengths": b"Content-Length: 4, 4",
    "a length with a sign": b"Content-Length: +4",
    "a negative length": b"Content-Length: -4",
    "a length in hex": b"Content-Length: 0x4",
    "a length with an underscore": b"Content-Length: 1_0",
    "a length of nothing": b"Content-Length:",
    "a length beyond 64 bits": b"Content-Length: 18446744073709551620",
    "a length in other digits": "Content-Length: ٤".encode(),
    "an unknown coding": b"Transfer-Encoding: xchunked",
    "a coding with a prefix": b"Transfer-Encoding: \x0bchunked",
    "a coding with a parameter": b"Transfer-Encoding: chunked;q=1",
    "a coding in quotes": b'Transfer-Encoding: "chunked"',
    "a coding in the middle": b"Transfer-Encoding: chunked, gzip",
    "a coding before chunked": b"Transfer-Encoding: gzip, chunked",
    "chunked twice": b"Transfer-Encoding: chunked, chunked",
    "identity": b"Transfer-Encoding: identity",
    "two codings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "two codings, the other way": b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "no coding": b"Transfer-Encoding:",
    "a space before the colon": b"Transfer-Encoding : chunked",
    "a tab before the colon": b"Transfer-Encoding\t: chunked",
    "a folded coding": b"Transfer-Encoding:\r\n chunked",
    "a folded value": b"X-A: b\r\n c",
    "a folded value by a tab": b"X-A: b\r\n\tc",
    "a line that begins with a space": b" X-A: b",
    "NUL in a value": b"X-A: b\x00c",
    "bare CR in a value": b"X-A: b\rc",
    "bare LF in a value": b"X-A: b\nX-B: c",
    "a control character in a value": b"X-A: b\x01c",
    "NUL in a name": b"X-\x00A: b",
    "a space in a name": b"X A: b",
    "bytes in a name": b"X-\xc3\xa4: b",
    "no name": b": b",
    "no colon": b"X-A",
    "two hosts": b"Host: other.example.com",
    "two equal hosts": b"Host: gw.example.com",
    "Latin-1 in a value": b"X-A: caf\xe9",
    "two types": b"Content-Type: text/plain\r\nContent-Type: application/json",
}


@pytest.mark.parametrize("lines", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_head_that_parsers_could_read_differently_is_refused(
    front: Listening, lines: bytes, method: str
) -> None:
    request = FUNCTION.replace(b"POST", method.encode()) + HOST + CLOSE + lines + b"\r\n\r\n"
    heard = front.say(request, b"0\r\n\r\n" + SMUGGLED)
    assert statuses(heard) in ([400], [403])
    assert reached(front) == []


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"GET http://other.example.com%b HTTP/1.1", id="absolute form"),
        pytest.param(b"GET https://gw.example.com@other.com%b HTTP/1.1", id="absolute with user"),
        pytest.param(b"GET HTTP://x?%b HTTP/1.1", id="absolute without a path"),
        pytest.param(b"GET other.example.com:443 HTTP/1.1", id="authority form"),
        pytest.param(b"CONNECT other.example.com:443 HTTP/1.1", id="connect"),
        pytest.param(b"CONNECT %b HTTP/1.1", id="connect with a path"),
        pytest.param(b"OPTIONS * HTTP/1.1", id="asterisk form"),
        pytest.param(b"GET * HTTP/1.1", id="asterisk form of another method"),
        pytest.param(b"GET /%b HTTP/1.1", id="two slashes"),
        pytest.param(b"GET %b#x HTTP/1.1", id="fragment"),
        pytest.param(b"GET %b", id="HTTP/0.9"),
        pytest.param(b"GET %b HTTP/0.9", id="HTTP/0.9, told"),
        pytest.param(b"GET %b HTTP/1.2", id="HTTP/1.2"),
        pytest.param(b"GET %b HTTP/2.0", id="HTTP/2.0"),
        pytest.param(b"GET %b HTTP/11", id="HTTP/11"),
        pytest.param(b"GET %b http/1.1", id="http in lower case"),
        pytest.param(b"GET %b ICE/1.0", id="another protocol"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM", id="the preface of HTTP/2"),
        pytest.param(b"get %b HTTP/1.1", id="method in lower case"),
        pytest.param(b"Get %b HTTP/1.1", id="method in mixed case"),
        pytest.param(b"GETX %b HTTP/1.1", id="method that is longer"),
        pytest.param(b"G\xcfT %b HTTP/1.1", id="method with a byte"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01", id="TLS"),
        pytest.param(b"GET\t%b\tHTTP/1.1", id="tabs between"),
        pytest.param(b"GET %b x HTTP/1.1", id="a space in the target"),
        pytest.param(b"GET %b\x00 HTTP/1.1", id="NUL in the target"),
        pytest.param(b"GET %b\x7f HTTP/1.1", id="DEL in the target"),
        pytest.param(b"GET %b\rX HTTP/1.1", id="bare CR in the target"),
        pytest.param(b"GET %b\xff HTTP/1.1", id="a byte in the target"),
        pytest.param(b"GET %b HTTP/1.1 x", id="more after the version"),
        pytest.param(b"GET /system%%2ffunctions?namespace=dev HTTP/1.1", id="encoded slash"),
        pytest.param(b"GET /x/../system/functions?namespace=dev HTTP/1.1", id="dot segments"),
        pytest.param(b"GET /oauth/token/..%%2f..%b HTTP/1.1", id="out of the broker's own paths"),
        pytest.param(b"GET /livez/..%b HTTP/1.1", id="out of a probe's path"),
    ],
)
def test_a_request_line_that_is_not_plain_is_refused(
    front: Listening, bearer: bytes, line: bytes
) -> None:
    target = b"/system/functions?namespace=dev"
    written = line % target if b"%b" in line else line.replace(b"%%", b"%")
    heard = front.say(written + b"\r\n" + HOST + bearer + CLOSE + b"\r\n")
    assert heard
    assert set(statuses(heard)) <= {400, 403, 404}
    assert reached(front) == []


CHUNKS: dict[str, bytes] = {
    "a size in another form": b"0x4\r\nabcd\r\n0\r\n\r\n",
    "a size with a sign": b"+4\r\nabcd\r\n0\r\n\r\n",
    "a negative size": b"-1\r\nabcd\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"10000000000000004\r\nabcd\r\n0\r\n\r\n",
    "no size": b"\r\nabcd\r\n0\r\n\r\n",
    "a space before the size": b" 4\r\nabcd\r\n0\r\n\r\n",
    "a bare LF after the size": b"4\nabcd\r\n0\r\n\r\n",
    "a bare CR after the size": b"4\rXabcd\r\n0\r\n\r\n",
    "a bare LF after the data": b"4\r\nabcd\n0\r\n\r\n",
    "more data than said": b"4\r\nabcdefgh\r\n0\r\n\r\n",
    "a bare LF in an extension": b"4;a\nb\r\nabcd\r\n0\r\n\r\n",
    "NUL in an extension": b"4;a=\x00\r\nabcd\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_a_body_whose_chunks_are_not_well_formed_is_never_carried_out(
    front: Listening, bearer: bytes, chunks: bytes
) -> None:
    body = chunks.replace(b"abcd", DEPLOYMENT).replace(b"4", b"%x" % len(DEPLOYMENT), 1)
    heard = front.say(PUT + HOST + JSON + bearer + CHUNKED + b"\r\n" + body + SMUGGLED)
    assert statuses(heard) == [400]
    assert reached(front) == []


UPGRADES: dict[str, bytes] = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n",
    "websocket": b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "anything": b"Connection: keep-alive, upgrade\r\nUpgrade: foo/1\r\nUpgrade: bar/2\r\n",
}


@pytest.mark.parametrize("lines", UPGRADES.values(), ids=UPGRADES)
class TestUpgrade:
    """A request with `Upgrade` is answered as if that were not there, body and all."""

    def test_its_body_is_its_body(self, front: Listening, lines: bytes) -> None:
        length = b"Content-Length: %d\r\n\r\n" % len(SMUGGLED)
        head = FUNCTION + HOST + lines + length
        heard = front.say(head + SMUGGLED + LIST + HOST + CLOSE + b"\r\n")
        assert statuses(heard) == [200, 401]
        (received,) = front.received
        assert (received.method, bytes(received.body)) == ("POST", SMUGGLED)
        for name in ("upgrade", "http2-settings"):
            assert header(received, name) is None

    def test_its_chunks_are_its_body(self, front: Listening, lines: bytes) -> None:
        chunks = chunk(b"in") + chunk(SMUGGLED) + b"0\r\n\r\n"
        heard = front.say(FUNCTION + HOST + lines + CHUNKED + CLOSE + b"\r\n", chunks)
        assert statuses(heard) == [200]
        (received,) = front.received
        assert bytes(received.body) == b"in" + SMUGGLED

    def test_what_follows_is_the_next_request(self, front: Listening, lines: bytes) -> None:
        asked = FUNCTION.replace(b"POST", b"GET") + HOST + lines + b"\r\n"
        assert statuses(front.say(asked * 3 + LIST + HOST + CLOSE + b"\r\n")) == [200] * 3 + [401]
        assert len(front.received) == 3

    def test_two_readings_are_still_refused(self, front: Listening, lines: bytes) -> None:
        both = lines + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"
        heard = front.say(FUNCTION + HOST + both + CLOSE + b"\r\n", b"0\r\n\r\n" + SMUGGLED)
        assert statuses(heard) in ([400], [403])
        assert reached(front) == []


class TestTrailers:
    def test_a_credential_in_a_trailer_is_none(self, front: Listening, bearer: bytes) -> None:
        request = PUT + HOST + JSON + CHUNKED + CLOSE + b"\r\n" + chunk(DEPLOYMENT) + b"0\r\n"
        assert statuses(front.say(request + bearer + b"\r\n")) == [401]
        assert reached(front) == []

    def test_a_trailer_reaches_no_function(self, front: Listening) -> None:
        trailer = b"X-Trailer: y\r\nAuthorization: Bearer x\r\nX-Forwarded-User: root\r\n\r\n"
        request = FUNCTION + HOST + CHUNKED + CLOSE + b"\r\n" + chunk(b"in") + b"0\r\n" + trailer
        assert statuses(front.say(request)) == [200]
        (received,) = front.received
        assert bytes(received.body) == b"in"
        for name in ("x-trailer", "authorization", "x-forwarded-user", "trailer"):
            assert header(received, name) is None

    def test_a_trailer_of_the_refused_is_not_of_the_next(
        self, front: Listening, bearer: bytes
    ) -> None:
        first = PUT + HOST + JSON + CHUNKED + b"\r\n" + chunk(DEPLOYMENT) + b"0\r\n" + bearer
        assert statuses(front.say(first + b"\r\n" + LIST + HOST + CLOSE + b"\r\n")) == [401, 401]
        assert reached(front) == []


class TestPipelining:
    def test_what_follows_a_refused_request_is_decided_by_itself(
        self, front: Listening, bearer: bytes
    ) -> None:
        refused = PUT + HOST + JSON + b"Content-Length: %d\r\n\r\n" % len(DEPLOYMENT) + DEPLOYMENT
        allowed = LIST + HOST + bearer + CLOSE + b"\r\n"
        assert statuses(front.say(refused + allowed)) == [401, 200]
        assert reached(front) == [("GET", b"/system/functions?namespace=dev")]

    def test_what_follows_an_allowed_request_is_decided_by_itself(
        self, front: Listening, bearer: bytes
    ) -> None:
        allowed = LIST + HOST + bearer + b"\r\n"
        other = b"GET /system/functions?namespace=staging HTTP/1.1\r\n" + HOST + bearer + b"\r\n"
        nobody = LIST + HOST + CLOSE + b"\r\n"
        assert statuses(front.say(allowed + other + nobody)) == [200, 403, 401]
        assert reached(front) == [("GET", b"/system/functions?namespace=dev")]

    def test_a_body_is_never_read_as_a_request(self, front: Listening, bearer: bytes) -> None:
        length = b"Content-Length: %d\r\n\r\n" % len(SMUGGLED)
        for head in (LIST + HOST + bearer, LIST + HOST, PUT + HOST + JSON + bearer):
            heard = front.say(head + CLOSE + length + SMUGGLED)
            assert len(statuses(heard)) == 1
            assert statuses(heard)[0] in {400, 401}
        assert reached(front) == []

    def test_a_body_passed_to_a_function_is_its_body(self, front: Listening) -> None:
        length = b"Content-Length: %d\r\n\r\n" % len(SMUGGLED)
        assert statuses(front.say(FUNCTION + HOST + CLOSE + length + SMUGGLED)) == [200]
        (received,) = front.received
        assert (received.method, bytes(received.body)) == ("POST", SMUGGLED)

    def test_half_a_body_deploys_nothing(self, front: Listening, bearer: bytes) -> None:
        length = b"Content-Length: %d\r\n\r\n" % (len(DEPLOYMENT) + 10)
        assert front.say(PUT + HOST + JSON + bearer + length + DEPLOYMENT, seconds=0.3) == b""
        assert reached(front) == []


class TestExpect:
    HEAD = PUT + HOST + JSON + CLOSE + b"Content-Length: %d\r\n" % len(DEPLOYMENT)

    def test_a_refused_request_is_answered_before_its_body_is_sent(self, front: Listening) -> None:
        assert statuses(front.say(self.HEAD + b"Expect: 100-continue\r\n\r\n")) == [401]

    def test_100_continue_is_sent_if_the_body_is_read(
        self, front: Listening, bearer: bytes
    ) -> None:
        address = ("127.0.0.1", front.port)
        with socket.create_connection(address, timeout=5) as connection:
            connection.sendall(self.HEAD + bearer + b"Expect: 100-continue\r\n\r\n")
            assert statuses(connection.recv(1000)) == [100]
            connection.sendall(DEPLOYMENT)
            assert statuses(connection.recv(1000)) == [202]
        assert header(front.received[0], "expect") is None

    @pytest.mark.parametrize("wanted", [b"200-ok", b"100-continue, x", b"\x31"])
    def test_no_other_expectation_is_forwarded(
        self, front: Listening, bearer: bytes, wanted: bytes
    ) -> None:
        request = (
            FUNCTION + HOST + CLOSE + b"Expect: " + wanted + b"\r\nContent-Length: 2\r\n\r\nin"
        )
        assert statuses(front.say(request)) == [200]
        assert header(front.received[0], "expect") is None


class TestHost:
    @pytest.mark.parametrize(
        "host",
        [b"Host:\r\n", b"Host: evil.example.com\r\n", b"Host: x/../../y\r\n",
         b"Host: a@b\r\n", b"Host: 127.0.0.1:8081\r\n", b"Host: gw.example.com, evil\r\n"],
    )  # fmt: skip
    def test_the_host_header_does_not_choose_the_upstream(
        self, front: Listening, bearer: bytes, host: bytes
    ) -> None:
        assert statuses(front.say(LIST + host + bearer + CLOSE + b"\r\n")) in ([200], [400])
        for received in front.received:
            assert received.target == b"/system/functions?namespace=dev"
            assert header(received, "host") == b"127.0.0.1:%d" % front.upstream_port

    @pytest.mark.parametrize("host", [b"", HOST + HOST, HOST + b"host: other\r\n"])
    def test_a_request_without_one_host_header_is_refused(
        self, front: Listening, bearer: bytes, host: bytes
    ) -> None:
        assert statuses(front.say(LIST + host + bearer + CLOSE + b"\r\n")) == [400]
        assert reached(front) == []

    def test_another_host_header_in_disguise_reaches_no_function(self, front: Listening) -> None:
        disguised = b"X-Forwarded-Host: evil\r\nX_Forwarded_Host: evil\r\nX-Host: fine\r\n"
        front.say(FUNCTION + HOST + disguised + CLOSE + b"\r\n")
        (received,) = front.received
        assert b"evil" not in b"".join(value for _, value in received.headers)


@pytest.mark.parametrize(
    "override",
    [b"X-HTTP-Method-Override: DELETE", b"X-HTTP-Method: DELETE", b"X-Method-Override: DELETE",
     b"X-Original-URL: /system/namespaces", b"X-Rewrite-URL: /system/namespaces",
     b"X_HTTP_METHOD_OVERRIDE: DELETE", b"x-original-uri: /system/namespaces"],
)  # fmt: skip
@pytest.mark.parametrize("line", [LIST, FUNCTION], ids=["the API", "a function"])
def test_no_header_says_another_method_or_path(
    front: Listening, bearer: bytes, line: bytes, override: bytes
) -> None:
    heard = front.say(line + HOST + bearer + CLOSE + override + b"\r\n\r\n")
    assert statuses(heard) == [200]
    (received,) = front.received
    name = override.partition(b":")[0].lower().decode()
    assert header(received, name) is None


def test_http_1_0_is_answered_and_closed(front: Listening, bearer: bytes) -> None:
    request = LIST.replace(b"1.1", b"1.0") + bearer + b"Connection: keep-alive\r\n\r\n"
    assert statuses(front.say(request + SMUGGLED)) == [200]
    assert reached(front) == [("GET", b"/system/functions?namespace=dev")]


class TestSizes:
    def test_a_head_of_64_kib_is_refused(self, front: Listening, bearer: bytes) -> None:
        heard = front.say(LIST + HOST + bearer + b"X: " + b"a" * 65536 + b"\r\n\r\n")
        assert statuses(heard) == [431]
        assert reached(front) == []

    def test_a_body_that_says_it_is_larger_than_10_mib_is_refused_unread(
        self, front: Listening, bearer: bytes
    ) -> None:
        length = b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (10 * MIB + 1)
        assert statuses(front.say(PUT + HOST + JSON + bearer + CLOSE + length)) == [413]

    def test_a_body_beyond_10_mib_is_refused_where_no_length_was_said(
        self, front: Listening, bearer: bytes
    ) -> None:
        pieces = [chunk(b" " * MIB)] * 11
        heard = front.say(PUT + HOST + JSON + bearer + CHUNKED + CLOSE + b"\r\n", *pieces)
        # It may hang up before all was sent, and then the answer can be lost with the rest.
        assert statuses(heard) in ([413], [])
        assert reached(front) == []

    @pytest.mark.parametrize("line", [LIST, b"GET /healthz HTTP/1.1\r\n"], ids=["list", "health"])
    def test_a_body_where_none_is_allowed_is_refused_unread(
        self, front: Listening, bearer: bytes, line: bytes
    ) -> None:
        head = line + HOST + bearer + CLOSE + b"Content-Length: %d\r\n\r\n" % (100 * MIB)
        assert statuses(front.say(head)) == [400]
        assert statuses(front.say(line + HOST + bearer + CLOSE + CHUNKED + b"\r\n")) == [400]
        assert reached(front) == []

    @pytest.mark.alone
    def test_a_body_that_never_ends_does_not_delay_a_refusal(self, front: Listening) -> None:
        began = time.monotonic()
        head = PUT + HOST + JSON + CLOSE + b"Content-Length: 1000\r\n\r\n"
        assert statuses(front.say(head + b"{")) == [401]
        assert time.monotonic() - began < 2
