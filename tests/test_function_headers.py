"""The headers that pass to a function: callbacks to listed hosts, and no tokens of the broker."""

from __future__ import annotations

import base64
import json

import pytest

from federation.gateway.function_headers import FunctionHeaders
from federation.gateway.headers import Headers
from federation.gateway.routes import Call, match, read

ISSUER = "https://gw.example.com"
CHOOSING = FunctionHeaders(
    ISSUER, frozenset({"hooks.example.com", "gateway.openfaas:8080", "[fd00::1]:8443"})
)
CALLBACK = b"x-callback-url"


def call(path: bytes = b"/async-function/figlet.dev") -> Call:
    made = read(match("POST", path, b"", ()), b"", default_namespace="openfaas-fn")
    assert isinstance(made, Call)
    return made


def passing(headers: Headers, made: Call | None = None) -> Headers:
    return CHOOSING.passing(headers, made or call())


# -- callbacks


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com",
        "https://hooks.example.com/",
        "https://HOOKS.example.com/path?x=1&y=@#z",
        "https://hooks.example.com:443/",
        "http://hooks.example.com:80/",
        "http://hooks.example.com/",
        "http://gateway.openfaas:8080/function/next",
        "https://[fd00::1]:8443/",
    ],
)
def test_a_callback_to_a_listed_host_passes(url: str) -> None:
    headers = [(CALLBACK, url.encode()), (b"x-own", b"1")]
    assert passing(headers) == headers


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/system/functions",
        "http://gateway.openfaas:8081/",
        "http://gateway.openfaas/",
        "https://example.com/",
        "https://hooks.example.com.evil.example/",
        "https://evil.hooks.example.com/",
        "https://hooks.example.com@evil.example/",
        "https://hooks.example.com:443@evil.example/",
        "https://user:pw@hooks.example.com/",
        "https://evil.example#@hooks.example.com/",
        "https://evil.example/https://hooks.example.com/",
        "https://evil.example\\@hooks.example.com/",
        "https://hooks.example.com\\@evil.example/",
        "https:\\\\hooks.example.com/",
        "https://hooks.example.com?@evil.example/",
        "https://hooks.example.com#@evil.example/",
        "https://hooks.example.com:8443/",
        "http://hooks.example.com:443/",
        "https://hooks.example.com:99999/",
        "https://hooks.example.com./",
        "https://hooks.example.com%2eevil.example/",
        "https:///hooks.example.com/",
        "//hooks.example.com/",
        "hooks.example.com",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "https://gateway.openfaas/",
        "https://[fd00::1]/",
        "https://hooks.example.com/ https://evil.example/",
        "https://hooks.example.com, https://evil.example/",
        "",
    ],
)
def test_a_callback_to_any_other_host_is_dropped(url: str) -> None:
    assert passing([(CALLBACK, url.encode()), (b"x-own", b"1")]) == [(b"x-own", b"1")]


@pytest.mark.parametrize(
    "headers",
    [
        [(CALLBACK, b"https://hooks.example.com/")] * 2,
        [(CALLBACK, b"https://hooks.example.com/"), (b"x_callback_url", b"https://evil.example/")],
        [(CALLBACK, b"https://evil.example/"), (CALLBACK, b"https://hooks.example.com/")],
        [(b"x_callback-url", b"https://evil.example/")],
        [(b"X-Callback-URL", b"https://evil.example/")],
    ],
)
def test_of_several_callbacks_and_of_other_spellings_none_passes(headers: Headers) -> None:
    assert passing([*headers, (b"x-own", b"1")]) == [(b"x-own", b"1")]


def test_a_call_that_waits_keeps_the_header_which_means_nothing_there() -> None:
    headers = [(CALLBACK, b"https://evil.example/")]
    assert passing(headers, call(b"/function/figlet.dev")) == headers


# -- tokens


def encoded(value: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).rstrip(b"=")


def token(**claims: object) -> bytes:
    """A token of the broker, as long as the shortest that it signs. Nobody asks its signature."""
    return b".".join((encoded({"alg": "ES256"}), encoded({"iss": ISSUER, **claims}), b"s" * 86))


def holds(value: bytes, name: bytes = b"x-own") -> bool:
    """True if *value* is withheld from the function."""
    return passing([(name, value)]) == []


@pytest.mark.parametrize(
    "written",
    [
        *(b"%b", b"Bearer %b", b"a=b; c=%b; d=e", b'JWT token="%b"', b"eyJhIjoxfQ.eyJhIjoxfQ.x.%b"),
        *(b"x%b", b"%b==", b"a.eyJunk.b %b"),
    ],
)
def test_a_token_of_the_broker_is_withheld_wherever_it_stands(written: bytes) -> None:
    assert holds(written % token())
    assert not holds(written % token().replace(encoded({"iss": ISSUER}), encoded({"iss": "x"})))


@pytest.mark.parametrize("scheme", [b"Basic ", b"basic\t", b" BASIC  "])
@pytest.mark.parametrize("text", [b"token:%b", b"admin:%b", b"%b", b":%b:", b"ab:%b"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_and_within_basic_credentials_in_either_base64(
    scheme: bytes, text: bytes, encode: object
) -> None:
    assert callable(encode)
    credentials = bytes(encode(text % token()))
    folded = credentials[:41] + b" \t" + credentials[41:]
    for written in (credentials, credentials.rstrip(b"="), credentials + b"A", folded):
        assert holds(scheme + written, b"authorization")
    other = bytes(encode(text % token().replace(encoded({"iss": ISSUER}), encoded({"a": ISSUER}))))
    assert not holds(scheme + other, b"authorization")


def for_functions(permissions: object, audience: object) -> bytes:
    return token(function={"permissions": permissions, "audience": audience})


@pytest.mark.parametrize(
    ("permissions", "audience", "passes"),
    [
        (["dev:figlet"], ["dev:figlet"], True),
        (["DEV:Figlet"], ["dev:FIGLET"], True),
        (["dev:figlet"], [], False),
        (["dev:*"], ["dev:figlet"], False),
        (["dev:figlet"], ["dev:*"], False),
        (["dev:other"], ["dev:other"], False),
        (["dev:figlet", "dev:other"], ["dev:figlet"], False),
        (["dev:figlet"], ["dev:figlet", "dev:other"], False),
        (["dev:figlet"], "dev:figlet", False),
        ([1], [1], False),
        (None, None, False),
    ],
)
def test_only_a_function_token_for_this_very_function_passes(
    permissions: object, audience: object, passes: bool
) -> None:
    assert holds(for_functions(permissions, audience)) is not passes


@pytest.mark.parametrize("junk", [b"eyJ", b"eyJhIjo", b"eyJhIjoxfQ", b"eyJbXX0", b"eyJ/w", b""])
def test_what_is_no_token_passes(junk: bytes) -> None:
    assert not holds(b"a" * 50 + b"." + junk + b"." + b"b" * 50)
    assert not holds(b"Basic " + b"a" * 50 + b"." + junk + b"." + b"b" * 51)
