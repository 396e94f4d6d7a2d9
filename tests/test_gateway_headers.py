"""The headers that pass through the broker, in each direction."""

from __future__ import annotations

import re

import pytest

from federation.gateway.headers import (
    check_answer,
    check_body_headers,
    forwarding_headers,
    has_no_body,
    response_headers,
    upstream_headers,
)
from federation.gateway.refusals import Ambiguous, Malformed, TooLarge, UpstreamFailed

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
    b"X_Request_Id",
    b"X-Forwarded-",
    b"X-Auth-Request-",
    b"X-Authenticated-",
    b"X-WebAuth-",
    b"X-Original-",
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


def test_the_api_is_sent_what_the_caller_accepts_unless_connection_names_it() -> None:
    headers = ((b"Accept", b"application/json"), (b"User-Agent", b"faas-cli"))
    assert sent(*headers)[b"accept"] == b"application/json"
    passed = sent(*headers, (b"Connection", b"accept"))
    assert b"accept" not in passed
    assert passed[b"user-agent"] == b"faas-cli"


def test_only_connection_names_headers_that_are_removed() -> None:
    passed = sent((b"X-Note", b"x-custom"), (b"X-Custom", b"1"), function=True)
    assert passed[b"x-custom"] == b"1"


def test_a_header_in_latin_1_is_refused_for_its_caller() -> None:
    assert sent((b"X-Name", "Zoë".encode()), function=True)[b"x-name"] == "Zoë".encode()
    with pytest.raises(Malformed, match="not UTF-8"):
        sent((b"X-Name", "Zoë".encode("latin-1")), function=True)
    with pytest.raises(Malformed, match="not UTF-8"):
        sent((b"User-Agent", b"\xff"))
    assert b"x-name" not in sent((b"X-Name", b"\xff")), "the API does not get it"


def test_an_underscore_alone_makes_no_header_misleading() -> None:
    assert sent((b"X_Custom", b"1"), function=True)[b"x_custom"] == b"1"


def test_a_function_is_asked_for_a_plain_answer_if_its_caller_says_nothing() -> None:
    assert sent((b"Cookie", b"a=b"), function=True)[b"accept-encoding"] == b"identity"


def test_what_is_not_known_about_a_connection_is_not_sent() -> None:
    assert forwarding_headers("", "https", b"", "r1") == [
        (b"x-forwarded-proto", b"https"),
        (b"x-request-id", b"r1"),
    ]


def test_without_headers_from_the_caller_only_the_brokers_own_are_sent() -> None:
    assert sent(function=True) == {**OURS, b"accept-encoding": b"identity"}


def back(
    *headers: tuple[bytes, bytes], function: bool = False, rewritten: bool = False
) -> dict[bytes, bytes]:
    return dict(response_headers(headers, function=function, status=200, rewritten=rewritten))


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


@pytest.mark.parametrize(
    "name", [b"content-encoding", b"content-length", b"content-type", b"retry-after", b"x-call-id"]
)
def test_the_apis_response_keeps_what_describes_it(name: bytes) -> None:
    assert back((name.title(), b"1")) == {name: b"1"}


def test_a_rewritten_response_loses_all_that_described_the_old_body() -> None:
    described = [(b"Content-Length", b"2"), (b"Content-Encoding", b"gzip"), (b"ETag", b'"1"')]
    assert back(*described, function=True, rewritten=True) == {}
    assert len(response_headers(described, function=True, status=200)) == 3


BODY_TYPE = b"content-type"
LENGTH = b"content-length"
CODING = b"transfer-encoding"


def check(*headers: tuple[bytes, bytes], json: bool = False, streams: bool = False) -> None:
    check_body_headers(headers, json=json, streams=streams, most_bytes=10)


@pytest.mark.parametrize(
    "written",
    [
        *(b"application/json", b"APPLICATION/JSON", b"application/json;charset=utf-8"),
        *(b"application/json ; charset=UTF-8", b'application/json; charset="utf-8"'),
        b"application/json;\tcharset=utf-8",
    ],
)
def test_json_is_json_however_it_is_written(written: bytes) -> None:
    check((BODY_TYPE, written), json=True)


@pytest.mark.parametrize(
    "written",
    [
        *(b"application/json; charset=utf8", b"", b"text/json", b"application/json5", b"application/jso", b"xapplication/json"),
        *(b"application/json;", b"application/json; charset=latin-1", b"application/json, text/html"),
        *(b"application/json; charset=utf-8; a=b", b"application/json charset=utf-8"),
    ],
)  # fmt: skip
def test_another_type_is_not_json(written: bytes) -> None:
    with pytest.raises(
        Malformed, match=r"^The body must be JSON: Content-Type application/json\.$"
    ):
        check((BODY_TYPE, written), json=True)


def test_a_missing_type_or_length_is_that_of_an_empty_json_body() -> None:
    check(json=True)
    check_body_headers((), json=True, streams=False, most_bytes=0)


def test_a_json_body_may_be_as_long_as_the_limit_and_no_longer() -> None:
    check((LENGTH, b"10"), json=True)
    with pytest.raises(TooLarge, match=r"^The body is larger than 10 bytes\.$"):
        check((LENGTH, b"11"), json=True)


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"identity, gzip", b""])
def test_a_compressed_body_is_refused(coding: bytes) -> None:
    with pytest.raises(Malformed, match=r"^The body must not be compressed\.$"):
        check((b"content-encoding", coding), json=True)
    check((b"content-encoding", b"Identity"), json=True)


def test_a_functions_body_has_any_type_and_any_length() -> None:
    check((LENGTH, b"999999999999999"), (BODY_TYPE, b"image/png"), streams=True)
    check((CODING, b"Chunked"), (b"content-encoding", b"gzip"), streams=True)
    check(streams=True)


def test_a_call_without_a_body_may_say_that_it_has_none() -> None:
    check((LENGTH, b"0"))
    check()
    for header in ((LENGTH, b"1"), (CODING, b"chunked")):
        with pytest.raises(Malformed, match=r"^This call takes no body\.$"):
            check(header)


@pytest.mark.parametrize(
    "kind", [{"streams": True}, {"json": True}, {}], ids=["function", "json", "none"]
)
@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ([(CODING, b"gzip")], "The length of the body is stated in more than one way."),
        ([(CODING, b"")], "The length of the body is stated in more than one way."),
        ([(CODING, b"chunked"), (LENGTH, b"0")],
         "The length of the body is stated in more than one way."),
        ([(LENGTH, b"")], "The Content-Length is not a plain number."),
        ([(LENGTH, b"-1")], "The Content-Length is not a plain number."),
        ([(LENGTH, b"+1")], "The Content-Length is not a plain number."),
        ([(LENGTH, b"1, 1")], "The Content-Length is not a plain number."),
        ([(LENGTH, b"1x")], "The Content-Length is not a plain number."),
        ([(LENGTH, b"0" * 16)], "The Content-Length is not a plain number."),
        ([(LENGTH, b"0"), (b"Content-Length", b"0")], "The header content-length is given twice."),
        ([(CODING, b"chunked"), (CODING, b"chunked")],
         "The header transfer-encoding is given twice."),
        ([(BODY_TYPE, b"a"), (BODY_TYPE, b"a")], "The header content-type is given twice."),
        ([(b"host", b"a"), (b"Host", b"a")], "The header host is given twice."),
        ([(b"content-encoding", b"a"), (b"content-encoding", b"a")],
         "The header content-encoding is given twice."),
    ],
)  # fmt: skip
def test_a_body_whose_end_is_not_clear_is_refused(
    headers: list[tuple[bytes, bytes]], why: str, kind: dict[str, bool]
) -> None:
    with pytest.raises(Ambiguous, match=f"^{re.escape(why)}$"):
        check(*headers, **kind)


def test_a_rewritten_response_loses_the_length_of_the_old_one() -> None:
    assert back(*ANSWER, rewritten=True) == {b"content-type": b"application/json"}


# -- the head of an answer


FIVE_BYTES = (b"Content-Length", b"5")
IN_CHUNKS = (b"Transfer-Encoding", b"Chunked")


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, ()),
        (599, ()),
        (200, (FIVE_BYTES,)),
        (200, (IN_CHUNKS,)),
        (200, ((b"x-a!#$%&'*+.^_`|~0", b"\ta \xe9"), FIVE_BYTES, (b"x-a", b""))),
        (200, ((b"content-length", b"9" * 15),)),
    ],
)
def test_a_plain_answer_is_passed_on(status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    check_answer(status, headers)


@pytest.mark.parametrize("status", [0, 99, 100, 101, 103, 199, 600, 999])
def test_a_status_that_ends_no_request_is_a_failure_of_the_upstream(status: int) -> None:
    with pytest.raises(UpstreamFailed, match=f"status {status}"):
        check_answer(status, ())


@pytest.mark.parametrize(
    "header",
    [
        *((b"", b"a"), (b"x a", b"a"), (b"x:", b"a"), (b"x\n", b"a"), (b"\xe9", b"a")),
        *((b"x", bytes([code])) for code in (0, 8, 10, 13, 31, 127)),
        (b"x", b"a\r\nx-evil: b"),
    ],
)
def test_an_answer_with_other_characters_in_its_head_is_a_failure(
    header: tuple[bytes, bytes],
) -> None:
    for headers in ((header, FIVE_BYTES), (FIVE_BYTES, header)):
        with pytest.raises(UpstreamFailed, match="not allowed"):
            check_answer(200, headers)


@pytest.mark.parametrize(
    "headers",
    [
        *(
            (FIVE_BYTES, FIVE_BYTES),
            (IN_CHUNKS, IN_CHUNKS),
            (FIVE_BYTES, IN_CHUNKS),
            (IN_CHUNKS, FIVE_BYTES),
        ),
        *(
            ((b"content-length", value),)
            for value in (b"", b"+5", b"-1", b"5, 5", b"0x5", b"9" * 16)
        ),
        *(
            ((b"transfer-encoding", value),)
            for value in (b"", b"gzip", b"gzip, chunked", b"chunked,")
        ),
    ],
)
def test_an_answer_without_one_clear_end_is_a_failure(
    headers: tuple[tuple[bytes, bytes], ...],
) -> None:
    with pytest.raises(UpstreamFailed, match="where it ends"):
        check_answer(200, headers)


@pytest.mark.parametrize(
    ("method", "status", "none"),
    [
        *(("GET", 200, False), ("GET", 205, False), ("POST", 404, False)),
        *(("HEAD", 200, True), ("HEAD", 404, True), ("GET", 204, True), ("PUT", 304, True)),
    ],
)
def test_some_answers_never_have_a_body(method: str, status: int, none: bool) -> None:
    assert has_no_body(method, status) is none


@pytest.mark.parametrize(("status", "passes"), [(200, True), (204, False), (304, False)])
def test_the_length_of_a_body_that_never_comes_is_not_passed_on(status: int, passes: bool) -> None:
    passed = response_headers([FIVE_BYTES, (b"ETag", b"a")], function=True, status=status)
    assert ((b"content-length", b"5") in passed) is passes
    assert (b"etag", b"a") in passed
