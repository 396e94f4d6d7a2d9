"""
What a caller, or a page that it visits, could have handed to a function.

A function that gets an access token of the broker can act as its caller. An asynchronous call that
names any callback makes the gateway post the function's answer to any function, or to any address
inside the cluster.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from federation.claims import Claims
from federation.tokens import mint
from federation.tokens.signing_keys import SigningKey
from tests.harness.gateway import Front, header

FIGLET: Final = "/function/figlet.dev"
ASYNC: Final = "/async-function/figlet.dev"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


FORMS: dict[str, Callable[[str], tuple[str, str]]] = {
    "bearer": lambda token: ("Authorization", f"Bearer {token}"),
    "bearer-in-capitals": lambda token: ("Authorization", f"BEARER   {token}"),
    "no-scheme": lambda token: ("Authorization", token),
    "another-scheme": lambda token: ("Authorization", f"token {token}"),
    "as-a-parameter": lambda token: ("Authorization", f'JWT token="{token}"'),
    "basic": lambda token: ("Authorization", basic("token", token)),
    "basic-of-another-user": lambda token: ("Authorization", basic("admin", token)),
    "basic-without-a-user": lambda token: (
        "Authorization",
        "basic " + base64.urlsafe_b64encode(token.encode()).decode().rstrip("="),
    ),
    "a-header-of-its-own": lambda token: ("X-Auth-Token", token),
    "cookie": lambda token: ("Cookie", f"a=b; token={token}; c=d"),
    "after-another-token": lambda token: ("X-Tokens", f"eyJhIjoxfQ.eyJhIjoxfQ.x.{token}"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", [FIGLET, ASYNC])
@pytest.mark.parametrize("kind", ["access-token", "function-token-for-more"])
def test_no_function_gets_a_token_of_the_broker(
    tmp_path: Path, form: str, target: str, kind: str
) -> None:
    front = Front(tmp_path, functions="open")
    more = front.function_token(["dev:*"])
    token = front.grant(("*", "*")) if kind == "access-token" else more
    name, value = FORMS[form](token)
    assert front.call("POST", target, headers={name: value, "X-Other": "1"}).status_code < 300
    (received,) = front.received
    assert header(received, name.lower()) is None
    assert header(received, "x-other") == b"1"


def test_with_authorize_a_token_in_another_header_is_withheld_too(tmp_path: Path) -> None:
    front = Front(tmp_path, functions="authorize")
    token = front.grant(("*", "dev:*"))
    front.call("GET", FIGLET, token, headers={"X-Auth-Token": token})
    assert header(front.received[0], "x-auth-token") is None


def other_brokers(front: Front) -> str:
    claims = Claims({**front.said(), "iss": "https://another.example.com"})
    return mint.sign(claims, SigningKey.generate(), "at+jwt").token


PASSING: dict[str, Callable[[Front], str]] = {
    "anything": lambda _: "Bearer own-secret",
    "basic": lambda _: basic("admin", "secret"),
    "a-token-of-another-issuer": lambda front: f"Bearer {other_brokers(front)}",
    # The function's watchdog checks it (`jwt_auth`), and it opens nothing else.
    "a-function-token-for-this-function": lambda front: (
        "Bearer " + front.function_token(["dev:figlet"], ["dev:figlet"])
    ),
    "no-token": lambda _: "Bearer a.eyJub3QganNvbg.b",
}


@pytest.mark.parametrize("case", PASSING)
def test_a_functions_own_credentials_still_pass(tmp_path: Path, case: str) -> None:
    front = Front(tmp_path, functions="open")
    given = PASSING[case](front)
    front.call("GET", FIGLET, headers={"Authorization": given})
    assert header(front.received[0], "authorization") == given.encode()


@pytest.mark.parametrize(
    ("permissions", "audience"),
    [
        (["dev:figlet"], []),
        (["dev:other"], ["dev:other"]),
        (["dev:figlet", "dev:other"], ["dev:figlet"]),
        (["dev:*"], ["dev:figlet"]),
        (["dev:figlet"], ["dev:figlet", "dev:other"]),
    ],
)
def test_a_function_token_for_anything_else_is_withheld(
    tmp_path: Path, permissions: list[str], audience: list[str]
) -> None:
    front = Front(tmp_path, functions="open")
    token = front.function_token(permissions, audience)
    front.call("GET", FIGLET, headers={"Authorization": f"Bearer {token}"})
    assert header(front.received[0], "authorization") is None


LISTED: Final = "hooks.example.com,gateway.openfaas:8080"


@pytest.mark.parametrize("functions", ["open", "authorize"])
@pytest.mark.parametrize(
    ("url", "passes"),
    [
        ("https://hooks.example.com/done", True),
        ("http://gateway.openfaas:8080/function/next", True),
        ("http://127.0.0.1:8080/system/functions", False),
        ("http://gateway.openfaas:8081/metrics", False),
    ],
)
def test_the_gateway_posts_an_answer_to_listed_hosts_only(
    tmp_path: Path, functions: str, url: str, passes: bool
) -> None:
    front = Front(tmp_path, functions=functions, callback_hosts=LISTED)
    token = front.grant(("Function:Invoke", "dev:*"))
    front.call("POST", ASYNC, token, headers={"X-Callback-Url": url})
    assert header(front.received[0], "x-callback-url") == (url.encode() if passes else None)


def test_without_callback_hosts_no_callback_passes(tmp_path: Path) -> None:
    front = Front(tmp_path)
    front.call("POST", ASYNC, headers={"X-Callback-Url": "https://hooks.example.com/"})
    assert header(front.received[0], "x-callback-url") is None


def test_a_header_full_of_payloads_is_not_parsed_and_does_not_pass(tmp_path: Path) -> None:
    """Each payload costs a parse: a header of 60 KiB held the event loop for 0.3 s."""
    front = Front(tmp_path, functions="open")
    payload = "." + "eyJ" + "a" * 40
    for count, passes in ((16, True), (17, False)):
        front.call("POST", FIGLET, headers={"X-Many": payload * count + ".", "X-Other": "1"})
        assert (header(front.received[-1], "x-many") is not None) is passes
        assert header(front.received[-1], "x-other") == b"1"
