"""
Attacks on the API for people.

Whoever has no good token, or one of another kind, learns nothing. Whoever has a good token without
`Documents:Read` learns nothing about documents but what it holds. A page of another origin cannot
use what a browser has. No request costs more than a bounded one.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from federation.claims import Claims
from federation.errors import Problem, Reason, Refusal
from federation.tokens import mint
from federation.tokens.signing_keys import SigningKey
from tests.harness import builders as built
from tests.harness.api import (
    BODIES,
    CAN_I,
    DOCUMENTS,
    EXPLAIN,
    METHODS,
    WHO_CAN,
    WHOAMI,
    call,
    refused,
)
from tests.harness.broker import URL, BrokenStore
from tests.harness.gateway import Front, Listening, listening

READ = ("Documents:Read", "*")
every_path = pytest.mark.parametrize("path", sorted(METHODS))


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path)


def unknown(front: Front, answer: httpx2.Response, saying: str) -> None:
    """The caller is not known: it learns so, and nothing is recorded or forwarded."""
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"].partition(" ")[0] == "Bearer"
    assert saying in answer.text
    assert "Basic" not in answer.headers["www-authenticate"], "no browser may ask for a password"
    assert front.journal.events == []
    assert front.received == []


# -- tokens


@every_path
def test_no_token(front: Front, path: str) -> None:
    front.grant(("*", "*"))
    unknown(front, call(front, path, None), "An access token is needed.")


@every_path
def test_a_function_token(front: Front, path: str) -> None:
    front.grant(("*", "*"))
    unknown(front, call(front, path, front.function_token(["*"])), "audience")


@every_path
@pytest.mark.parametrize(
    ("changes", "saying"),
    [
        ({"iss": "https://another.example.com"}, "issuer is not trusted"),
        ({"aud": "https://another.example.com"}, "another audience"),
        ({"aud": [URL]}, "another audience"),
        ({"exp": 1}, "has expired"),
        ({"nbf": 4_000_000_000}, "not valid yet"),
        ({"policy": "p"}, "not a well-formed JWT"),
    ],
    ids=str,
)
def test_a_token_that_is_not_ours_now(
    front: Front, path: str, changes: dict[str, object], saying: str
) -> None:
    front.grant(("*", "*"))
    unknown(front, call(front, path, front.signed({**front.said(), **changes})), saying)


@every_path
def test_a_token_that_another_broker_signed(front: Front, path: str) -> None:
    front.grant(("*", "*"))
    key = SigningKey.generate()
    claims = Claims({**front.said(), "policy": ["p"]})
    unknown(front, call(front, path, mint.sign(claims, key, "at+jwt").token), "names a key")


@every_path
def test_a_subject_token(front: Front, path: str) -> None:
    unknown(front, call(front, path, front.job()), "issuer is not trusted")


@every_path
def test_a_revoked_token(front: Front, path: str) -> None:
    token = front.grant(("*", "*"))
    assert call(front, path, token).status_code == 200
    before = len(front.journal.events)
    assert front.post("/oauth/revoke", {"token": token}).status_code == 200
    answer = call(front, path, token)
    assert answer.status_code == 401
    assert "revoked" in answer.text
    assert len(front.journal.events) == before + 1, "the revocation alone"


@every_path
def test_a_token_in_the_url_or_in_another_form(front: Front, path: str) -> None:
    token = front.grant(("*", "*"))
    for query in (f"?access_token={token}", f"?token={token}"):
        answer = front.call(METHODS[path], path + query, json=BODIES.get(path))
        unknown(front, answer, "An access token is needed.")
    basic = httpx2.BasicAuth("token", token)
    answer = front.ask(METHODS[path], path, auth=basic, json=BODIES.get(path))
    unknown(front, answer, "An access token is needed.")
    twice = [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")]
    answer = front.ask(METHODS[path], path, headers=twice, json=BODIES.get(path))
    unknown(front, answer, "An access token is needed.")


@every_path
def test_while_revocations_are_not_known_nobody_is_answered(tmp_path: Path, path: str) -> None:
    front = Front(tmp_path, state=BrokenStore)
    told = refused(call(front, path, front.grant(("*", "*"))), 503)
    assert told["reason"] == "state_unavailable"
    assert front.journal.events == []


@every_path
def test_invalid_tokens_of_one_address_are_limited_here_and_at_the_gateway_together(
    tmp_path: Path, path: str
) -> None:
    front = Front(tmp_path, failed_exchanges=4)
    good = front.grant(("*", "*"))
    for _ in range(2):
        assert call(front, path, "bad").status_code == 401
        assert front.call("GET", "/system/functions", "bad").status_code == 401
    assert refused(call(front, path, "bad"), 429)["reason"] == "too_many_failures"
    assert front.call("GET", "/system/functions", "bad").status_code == 429
    assert call(front, path, good).status_code == 200, "valid tokens are never limited"


# -- what a caller may learn


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param([], id="no policy"),
        pytest.param([("Function:*", "*")], id="functions everywhere"),
        pytest.param([("*", "dev:*")], id="everything in a namespace"),
        pytest.param([("Documents:Read", "dev:*")], id="the action elsewhere"),
        pytest.param([("Audit:Read", "*")], id="the other action"),
        pytest.param(
            [("*", "*"), {"effect": "Deny", "action": ["Documents:Read"], "resource": ["*"]}],
            id="denied",
        ),
    ],
)
def test_without_the_action_nothing_is_learnt_about_documents(
    front: Front, statements: list[Any]
) -> None:
    token = front.grant(*statements)
    hidden = built.policy("very-secret-policy", {"action": ["*"], "resource": ["hidden:*"]})
    policies = {**front.source.catalog.policies, "very-secret-policy": hidden}
    front.source.catalog = replace(front.source.catalog, policies=policies)
    for path in (DOCUMENTS, EXPLAIN, WHO_CAN):
        answer = call(front, path, token)
        assert answer.status_code == 403
        assert answer.text.startswith("Documents:Read on * is ")
        assert answer.headers["x-request-id"] in answer.text
    assert [e.response_code for e in front.journal.events] == [403] * 3
    assert {e.actions for e in front.journal.events} == {("Documents:Read",)}
    for path in METHODS:
        said = call(front, path, token).text
        assert "secret" not in said
        assert "hidden" not in said


def test_a_caller_without_the_action_causes_no_work_that_could_be_timed(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = front.grant(("Function:*", "*"))

    monkeypatch.setattr(front.source, "problems", not_asked)
    assert call(front, DOCUMENTS, token).status_code == 403


def test_a_policy_that_is_gone_gives_no_documents(front: Front) -> None:
    everything = built.policy("p", {"action": ["*"], "resource": ["*"]})
    answer = call(front, DOCUMENTS, front.bearing(everything, policy=["p", "q"]))
    assert answer.status_code == 403
    assert "policy q of this token is not in force" in answer.text
    (event,) = front.journal.events
    assert event.reason is Reason.POLICY_MISSING


def test_what_cannot_be_recorded_is_not_answered(front: Front) -> None:
    token = front.grant(READ)
    front.journal.failure = Refusal(Reason.AUDIT_UNAVAILABLE)
    assert refused(call(front, DOCUMENTS, token), 503)["reason"] == "audit_unavailable"
    front.source.problems = not_asked  # type: ignore[method-assign]
    assert refused(call(front, DOCUMENTS, token), 503)["reason"] == "audit_unavailable"


def not_asked() -> tuple[Problem, ...]:
    raise AssertionError("the documents were looked at")


@every_path
def test_before_the_first_documents_are_read_nobody_is_answered(front: Front, path: str) -> None:
    token = front.grant(("*", "*"))
    front.source.catalog = replace(front.source.catalog, awaited="a namespace")
    assert refused(call(front, path, token), 503)["reason"] == "documents_unavailable"


def test_no_file_of_the_broker_is_shown(front: Front, tmp_path: Path) -> None:
    secret = tmp_path / "bearer"
    secret.write_text("the-content-of-a-secret-file", "utf-8")
    token = front.grant(READ)
    issuers = {
        iss: replace(issuer, bearer_token_file=str(secret))
        for iss, issuer in front.source.catalog.issuers.items()
    }
    front.source.catalog = replace(front.source.catalog, issuers=issuers)
    said = call(front, DOCUMENTS, token).text
    assert str(secret) in said
    assert "the-content" not in said


# -- pages of another origin


@every_path
def test_a_page_of_another_origin_is_told_nothing_that_lets_it_read(
    front: Front, path: str
) -> None:
    token = front.grant(("*", "*"))
    origin = {"origin": "https://evil.example.com", "sec-fetch-site": "cross-site"}
    for answer in (
        call(front, path, token, headers=origin),
        call(front, path, None, headers={**origin, "cookie": f"token={token}"}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert "set-cookie" not in answer.headers
    preflight = {**origin, "access-control-request-method": METHODS[path],
                 "access-control-request-headers": "authorization"}  # fmt: skip
    answer = front.ask("OPTIONS", path, headers=preflight)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_what_a_page_can_send_without_asking_is_no_body(front: Front, media_type: str) -> None:
    answer = call(
        front,
        CAN_I,
        front.grant(("*", "*")),
        content=json.dumps(BODIES[CAN_I]),
        headers={"content-type": media_type},
    )
    assert "must be JSON" in refused(answer, 400)["error_description"]


# -- paths and methods


@every_path
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "BREW"])
def test_no_other_method_is_taken_or_forwarded(front: Front, path: str, method: str) -> None:
    answer = front.call(method, path, front.grant(("*", "*")))
    assert answer.status_code == 405
    assert answer.headers["allow"] == METHODS[path]
    assert front.received == []


@every_path
def test_get_and_post_are_not_the_same(front: Front, path: str) -> None:
    other = {"GET": "POST", "POST": "GET"}[METHODS[path]]
    assert front.call(other, path, front.grant(("*", "*"))).status_code == 405


@pytest.mark.parametrize(
    "path",
    ["/federation/", "/federation/v1", "/federation/v1/", "/federation/v2/whoami",
     "/federation/v1/whoami/", "/federation/v1//whoami", "/federation/v1/../v1/whoami",
     "/federation/v1/whoami;x", "/federation/v1/whoam%69", "/federation/v1/who%61mi",
     "/federation/../system/functions", "/federation/%2e%2e/system/functions"],
)  # fmt: skip
def test_another_path_below_ours_is_404_and_never_forwarded(front: Front, path: str) -> None:
    token = front.grant(("*", "*"))
    for method in ("GET", "POST", "DELETE"):
        answer = front.call(method, "/x", token, extensions={"target": path.encode()})
        assert answer.status_code in {403, 404}, path
    assert front.received == []


@pytest.mark.parametrize(
    "path", ["/federation", "/Federation/v1/whoami", "//federation/v1/whoami", "/%66ederation/x"]
)
def test_a_path_that_looks_like_ours_is_not_forwarded_either(front: Front, path: str) -> None:
    front.call("GET", "/x", front.grant(("*", "*")), extensions={"target": path.encode()})
    assert front.received == []


@every_path
def test_the_host_header_changes_nothing(front: Front, path: str) -> None:
    token = front.grant(("*", "*"))
    usual = call(front, path, token)
    for host in ("evil.example.com", "localhost", "127.0.0.1", ""):
        answer = call(front, path, token, headers={"host": host})
        assert answer.content == usual.content
        assert "evil" not in str(answer.headers)


# -- bodies


def deep(levels: int) -> bytes:
    return b'{"access":' + b"[" * levels + b"]" * levels + b"}"


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="half"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b'{"access":[],"access":[]}', id="a member twice"),
        pytest.param(b'{"access":NaN}', id="not a number"),
        pytest.param(b'{"access":1e999}', id="infinity"),
        pytest.param(b"\xef\xbb\xbf{}", id="a byte order mark"),
        pytest.param(b'{"access":"\xff"}', id="not UTF-8"),
        pytest.param(b'{"access":"\\ud800"}', id="half a pair"),
        pytest.param(deep(33), id="deep"),
        pytest.param(deep(30_000), id="very deep"),
        pytest.param(b'{"access":' + b"9" * 60_000 + b"}", id="a long number"),
    ],
)
def test_a_body_that_can_be_read_in_two_ways_or_not_at_all(front: Front, body: bytes) -> None:
    json_type = {"content-type": "application/json"}
    answer = call(front, CAN_I, front.bearing(), content=body, headers=json_type)
    told = refused(answer, 400)
    assert told["error"] == "invalid_request"
    assert len(answer.content) < 1000


def test_a_compressed_body_is_not_read(front: Front) -> None:
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    answer = call(front, CAN_I, front.bearing(), content=b"\x1f\x8b", headers=headers)
    assert "compressed" in refused(answer, 400)["error_description"]


def test_a_huge_body_is_not_kept(front: Front) -> None:
    pieces = 0

    async def endless() -> Any:
        nonlocal pieces
        while True:
            pieces += 1
            yield b" " * 16_384

    json_type = {"content-type": "application/json"}
    answer = call(front, CAN_I, front.bearing(), content=endless(), headers=json_type)
    assert "larger than 64 KiB" in refused(answer, 400)["error_description"]
    assert pieces < 20


def test_a_body_without_a_token_is_not_read(front: Front) -> None:
    read = []

    async def unread() -> Any:
        read.append(True)
        yield b"{}"

    json_type = {"content-type": "application/json"}
    answer = call(front, CAN_I, None, content=unread(), headers=json_type)
    assert answer.status_code == 401
    assert not read


def test_long_words_are_not_sent_back_whole(front: Front) -> None:
    body = {"access": [{"action": "x" * 30_000, "resource": "y" * 20_000}]}
    answer = call(front, CAN_I, front.bearing(), json=body)
    assert refused(answer, 400)
    assert len(answer.content) < 1000


def test_a_token_that_ends_while_the_body_arrives_is_not_answered(front: Front) -> None:
    token = front.grant(("*", "*"))

    async def slow() -> Any:
        yield b'{"access":[{"action":"Function:List",'
        await front.state.revoke("ours", front.clock() + 900)
        yield b'"resource":"dev:*"}]}'

    json_type = {"content-type": "application/json"}
    answer = call(front, CAN_I, token, content=slow(), headers=json_type)
    assert answer.status_code == 401


@pytest.mark.parametrize("path", [WHOAMI, DOCUMENTS])
def test_parameters_that_mean_nothing_are_refused(front: Front, path: str) -> None:
    answer = front.call("GET", f"{path}?kind=Role", front.grant(("*", "*")))
    assert "takes no parameters" in refused(answer, 400)["error_description"]


# -- on a socket


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listening]:
    with listening(tmp_path_factory.mktemp("api")) as front:
        yield front


def test_head_has_no_body_and_the_connection_goes_on(served: Listening) -> None:
    token = served.grant(("*", "*"))
    head = f"HEAD {WHOAMI} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    get = head.replace("HEAD", "GET").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
    first, _, rest = served.say(f"{head}{get}".encode()).partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 405 ")
    assert rest.startswith(b"HTTP/1.1 200 ")


def test_many_who_ask_for_the_documents_at_once_get_them(served: Listening) -> None:
    token = served.grant(READ)

    async def all_at_once() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as client:
            headers = {"authorization": f"Bearer {token}"}
            return await asyncio.gather(
                *(client.get(DOCUMENTS, headers=headers) for _ in range(20))
            )

    answers = asyncio.run(all_at_once())
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1


def test_who_leaves_while_the_documents_are_made_stops_nobody_else(served: Listening) -> None:
    token = served.grant(READ)
    request = f"GET {DOCUMENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", served.port)) as connection:
            connection.sendall(request.encode())
    answer = httpx2.get(
        f"http://127.0.0.1:{served.port}{DOCUMENTS}", headers={"authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 200
