"""The headers that pass through the broker, in each direction."""

from __future__ import annotations

import pytest

from federation.gateway.headers import forwarding_headers, response_headers, upstream_headers

FORWARDING = forwarding_headers("192.0.2.7", "https", b"gw.example.com", "r1")
OURS = {
    b"x-forwarded-for": b"192.0.2.7",
    b"x-forwarded-proto": b"https",
    b"x-forwarded-host": b"gw.example.com",
    b"x-request-id": b"r1",
}


def sent(
    *headers: tuple[bytes, bytes],
    function: bool = False,
    json: bool = False,
    authorization: bytes | None = None,
) -> dict[bytes, bytes]:
    passed = upstream_headers(
        headers,
        function=function,
        json=json,
        authorization=authorization,
        forwarding=FORWARDING,
    )
    assert len(dict(passed)) == len(passed)
    return dict(passed)


def test_the_api_is_sent_a_few_known_headers_and_the_upstreams_credentials() -> None:
    passed = sent(
        (b"User-Agent", b"faas-cli/0.17"),
        (b"Authorization", b"Bearer caller"),
        (b"Cookie", b"a=b"),
        (b"Accept-Encoding", b"gzip"),
        (b"Content-Type", b"application/json; charset=utf-8"),
        (b"Content-Length", b"999"),
        (b"X-Forwarded-For", b"10.0.0.1"),
        (b"X-Anything", b"else"),
        json=True,
        authorization=b"Basic upstream",
    )
    assert passed == {
        **OURS,
        b"user-agent": b"faas-cli/0.17",
        b"accept-encoding": b"identity",
        b"content-type": b"application/json",
        b"authorization": b"Basic upstream",
    }


def test_a_function_is_sent_the_callers_own_headers() -> None:
    own = {
        b"content-type": b"text/plain",
        b"content-length": b"3",
        b"accept-encoding": b"gzip",
        b"cookie": b"of_session=x",
        b"x-callback-url": b"http://example.com",
        b"x-custom": b"1",
    }
    assert sent(*own.items(), function=True) == {**own, **OURS}


MISLEADING = [
    b"X-Forwarded-For",
    b"X-Forwarded-User",
    b"X-Forwarded-Anything",
    b"X_Forwarded_For",
    b"X-Forwarded_For",
    b"Forwarded",
    b"X-Real-IP",
    b"X-Client-IP",
    b"X-Cluster-Client-IP",
    b"True-Client-IP",
    b"CF-Connecting-IP",
    b"Remote-User",
    b"Remote-Group",
    b"Remote-Groups",
    b"Remote-Email",
    b"Remote-Name",
    b"X-Remote-User",
    b"X-Remote-Group",
    b"X-Remote-Groups",
    b"X-Remote-Email",
    b"X-Remote-Name",
    b"X-Auth-Request-Email",
    b"X-Authenticated-User",
    b"X-WebAuth-User",
    b"Via",
    b"X-HTTP-Method-Override",
    b"X-HTTP-Method",
    b"X-Method-Override",
    b"X_HTTP_Method_Override",
    b"X-Original-URL",
    b"X-Rewrite-URL",
    b"X-Request-Id",
    b"Host",
    b"Authorization",
    b"Proxy-Authenticate",
    b"Proxy-Authentication-Info",
    b"Proxy-Authorization",
    b"Connection",
    b"Keep-Alive",
    b"Proxy-Connection",
    b"TE",
    b"Trailer",
    b"Transfer-Encoding",
    b"Transfer_Encoding",
    b"Upgrade",
    b"HTTP2-Settings",
    b"Expect",
    b"X-OpenFaaS-Internal",
]


@pytest.mark.parametrize("name", MISLEADING, ids=[n.decode() for n in MISLEADING])
@pytest.mark.parametrize("function", [True, False], ids=["function", "api"])
def test_a_misleading_header_does_not_pass(name: bytes, function: bool) -> None:
    assert b"hostile" not in sent((name, b"hostile"), function=function).values()


@pytest.mark.parametrize(
    "name",
    [
        *("x-forwardedfor", "x-real-ips", "client-ip", "remote-users", "x-remote", "remote-host"),
        *("y-remote-user", "x-auth-request", "x-authenticated", "x-webauth", "y-http-method"),
        *("x-http-meth", "x-method-overrides", "x-original", "x-rewrite-urls", "x-openfaas-internals"),
        *("via-x", "hosts", "expect-ct", "te-x", "x-callback-url", "x-forward"),
    ],
)  # fmt: skip
def test_a_header_that_is_only_called_similarly_passes_to_a_function(name: str) -> None:
    assert b"own" in sent((name.encode(), b"own"), function=True).values()


@pytest.mark.parametrize("named", [b"Content-Type", b"content-length"])
def test_connection_cannot_remove_what_describes_the_body(named: bytes) -> None:
    passed = sent((b"Connection", b"close, " + named), (named, b"3"), function=True)
    assert passed[named.lower()] == b"3"


def test_a_length_beside_a_coding_is_not_sent_on() -> None:
    # The upstream must not be able to choose between two ends of one body.
    passed = sent((b"Content-Length", b"3"), (b"Transfer-Encoding", b"chunked"), function=True)
    assert b"content-length" not in passed
    assert b"transfer-encoding" not in passed


def test_connection_removes_the_headers_it_names_but_none_that_the_broker_sets() -> None:
    passed = sent(
        (b"Connection", b"X-Custom, authorization, x-forwarded-for, content-length"),
        (b"X-Custom", b"1"),
        (b"Content-Length", b"3"),
        function=True,
        authorization=b"Bearer function",
    )
    assert b"x-custom" not in passed
    assert passed[b"authorization"] == b"Bearer function"
    assert passed[b"x-forwarded-for"] == b"192.0.2.7"
    assert passed[b"content-length"] == b"3"


def test_without_headers_from_the_caller_only_the_brokers_own_are_sent() -> None:
    assert sent(function=True) == {**OURS, b"accept-encoding": b"identity"}


def back(
    *headers: tuple[bytes, bytes], function: bool = False, rewritten: bool = False
) -> dict[bytes, bytes]:
    return dict(response_headers(headers, function=function, rewritten=rewritten))


ANSWER = (
    (b"Content-Type", b"application/json"),
    (b"Content-Length", b"2"),
    (b"WWW-Authenticate", b'Basic realm="Restricted"'),
    (b"Set-Cookie", b"a=b"),
    (b"Location", b"/system/functions"),
    (b"Date", b"now"),
    (b"Server", b"upstream"),
    (b"X-Request-Id", b"theirs"),
    (b"Connection", b"close, X-Hop"),
    (b"Transfer-Encoding", b"chunked"),
    (b"X-Hop", b"1"),
)


def test_the_upstreams_own_challenge_is_not_passed_on() -> None:
    assert back(*ANSWER) == {b"content-type": b"application/json", b"content-length": b"2"}


def test_a_functions_response_loses_only_the_headers_of_the_connection() -> None:
    assert set(back(*ANSWER, function=True)) == {
        b"content-type",
        b"content-length",
        b"www-authenticate",
        b"set-cookie",
        b"location",
    }


def test_a_rewritten_response_loses_the_length_of_the_old_one() -> None:
    assert back(*ANSWER, rewritten=True) == {b"content-type": b"application/json"}
