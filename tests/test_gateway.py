"""Gateway requests: only authorized calls reach the upstream, in the form that was authorized."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import Message

from federation.demo.stage import serving
from federation.documents.catalog import Catalog
from federation.documents.model import ACTIONS
from federation.errors import Reason, Refusal
from federation.gateway.request import access_token
from federation.gateway.routes import TABLE, Kind, Route
from federation.gateway.upstream import Upstream
from federation.server.http_limits import http_config
from federation.tokens.signing_keys import SigningKey
from tests.harness import builders as built
from tests.harness.broker import URL, BrokenStore, logged
from tests.harness.gateway import BASIC, Front, header
from tests.harness.raw_server import raw_server

LIST = "/system/functions?namespace=dev"
FIGLET = "/function/figlet.dev"
DEPLOYMENT = {"service": "figlet", "image": "figlet:2", "namespace": "dev"}


@pytest.fixture
def front(tmp_path: Path) -> Front:
    return Front(tmp_path)


def fronts(folder: Path, **settings: Any) -> Front:
    """A broker with *settings*."""
    return Front(folder, **settings)


# -- every route, with each kind of caller


@dataclass(frozen=True)
class Example:
    """A valid request for an object in `dev`, which the upstream answers with *status*."""

    route: Route
    target: str
    body: Mapping[str, object] | None = None
    status: int = 200

    def __str__(self) -> str:
        return f"{self.route.method} {self.route.path}"

    @property
    def granted(self) -> tuple[str, str]:
        """The action and resource that it needs."""
        return str(self.route.action), "*" if self.route.path == "/system/info" else "dev:*"


NAMESPACE_BODY = {"name": "dev", "labels": {"openfaas": "1"}}
SECRET = {"name": "s1", "namespace": "dev", "value": "v2"}
BODIES: Mapping[tuple[str, str], tuple[Mapping[str, object] | None, int]] = {
    ("POST", "/system/functions"): ({**DEPLOYMENT, "service": "fresh"}, 202),
    ("PUT", "/system/functions"): (DEPLOYMENT, 202),
    ("DELETE", "/system/functions"): ({"functionName": "figlet", "namespace": "dev"}, 202),
    ("POST", "/system/scale-function/{name}"): (
        {"serviceName": "figlet", "replicas": 2, "namespace": "dev"},
        202,
    ),
    ("POST", "/system/secrets"): ({**SECRET, "name": "s2"}, 202),
    ("PUT", "/system/secrets"): (SECRET, 202),
    ("DELETE", "/system/secrets"): ({"name": "s1", "namespace": "dev"}, 202),
    ("PUT", "/system/namespace/{namespace}"): (NAMESPACE_BODY, 202),
    ("DELETE", "/system/namespace/{namespace}"): (NAMESPACE_BODY, 202),
    ("POST", "/system/namespace/"): ({**NAMESPACE_BODY, "name": "dev-2"}, 201),
    ("POST", "/async-function/{function}"): (None, 202),
}
QUERIES = {
    "/system/functions": "?namespace=dev",
    "/system/function/{name}": "?namespace=dev",
    "/system/secrets": "?namespace=dev",
    "/system/logs": "?name=figlet&namespace=dev",
}


def examples() -> Iterable[Example]:
    """One for each route that needs a permission."""
    for route in TABLE:
        if route.kind is Kind.HEALTH:
            continue
        body, status = BODIES.get((route.method, route.path), (None, 200))
        query = QUERIES.get(route.path, "") if route.method == "GET" else ""
        path = route.path.format(name="figlet", namespace="dev", function="figlet.dev")
        yield Example(route, path + query, body, status)


EXAMPLES = list(examples())
every_route = pytest.mark.parametrize("example", EXAMPLES, ids=str)


def ask(front: Front, example: Example, token: str | None = None) -> httpx2.Response:
    body = {"json": example.body} if example.body is not None else {}
    return front.call(example.route.method, example.target, token, **body)


def allowed(front: Front, example: Example) -> str:
    """A token that may do what *example* asks for, and no more."""
    action, resource = example.granted
    made = example.target == "/system/namespace/"
    return front.grant((action, "dev-2:*" if made else resource))


def not_authenticated(front: Front, answer: httpx2.Response, saying: str) -> None:
    assert answer.status_code == 401, answer.text
    assert answer.headers["www-authenticate"].split()[0] == "Bearer"
    if answer.request.method != "HEAD":
        assert saying in answer.text
        assert answer.headers["x-request-id"] in answer.text
    assert front.received == []


def denied(front: Front, answer: httpx2.Response, example: Example) -> None:
    assert answer.status_code == 403, answer.text
    if answer.request.method != "HEAD":
        assert str(example.route.action) in answer.text
        assert answer.text.count(". ") == 1, "one sentence, and the request id"
        assert answer.headers["x-request-id"] in answer.text
    assert front.received == []


class TestEveryRoute:
    """In mode `authorize`, so that functions are among them."""

    @pytest.fixture
    def front(self, tmp_path: Path) -> Front:
        return fronts(tmp_path, functions="authorize")

    @every_route
    def test_without_a_token_it_is_401(self, front: Front, example: Example) -> None:
        not_authenticated(front, ask(front, example), "An access token is needed")

    @every_route
    def test_with_a_bad_token_it_is_401(self, front: Front, example: Example) -> None:
        stranger = front.grant(("*", "*"))
        front.app.state.broker.signing = replace(front.signing, keys=(SigningKey.generate(),))
        not_authenticated(front, ask(front, example, stranger), "names a key")

    @every_route
    def test_with_an_expired_token_it_is_401(self, front: Front, example: Example) -> None:
        token = allowed(front, example)
        front.clock.advance(901)
        not_authenticated(front, ask(front, example, token), "expired")

    @every_route
    def test_with_a_revoked_token_it_is_401(self, front: Front, example: Example) -> None:
        token = allowed(front, example)
        assert front.post("/oauth/revoke", {"token": token}).status_code == 200
        not_authenticated(front, ask(front, example, token), "revoked")

    @every_route
    def test_with_the_permission_it_is_forwarded(self, front: Front, example: Example) -> None:
        answer = ask(front, example, allowed(front, example))
        assert answer.status_code == example.status, answer.text
        (received,) = front.received
        assert received.method == example.route.method
        functions = example.route.kind.streams
        assert header(received, "authorization") == (None if functions else BASIC)

    @every_route
    def test_with_the_permission_elsewhere_it_is_403(self, front: Front, example: Example) -> None:
        action, resource = example.granted
        token = front.grant((action, "dev:*" if resource == "*" else "staging:*"))
        answer = ask(front, example, token)
        if example.route.kind is Kind.NAMESPACES:
            assert answer.json() == ["staging"], "it is asked, and narrowed"
        else:
            denied(front, answer, example)

    @every_route
    def test_with_every_other_permission_it_is_403(self, front: Front, example: Example) -> None:
        others = sorted(ACTIONS - {example.route.action})
        token = front.grant({"action": others, "resource": ["*"]})
        denied(front, ask(front, example, token), example)

    @every_route
    def test_with_a_policy_that_is_gone_it_is_403(self, front: Front, example: Example) -> None:
        token = front.grant(("*", "*"))
        front.source.catalog = built.catalog()
        answer = ask(front, example, token)
        denied(front, answer, example)
        if answer.request.method != "HEAD":
            assert "policy p of this token is not in force" in answer.text

    @every_route
    def test_a_deny_wins(self, front: Front, example: Example) -> None:
        deny = {"action": [example.route.action], "resource": ["*"], "effect": "Deny", "sid": "no"}
        answer = ask(front, example, front.grant(("*", "*"), deny))
        denied(front, answer, example)
        if answer.request.method != "HEAD":
            assert "statement no of policy p" in answer.text


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/"), ("GET", "/ui/"), ("GET", "/metrics"), ("POST", "/system/alert"),
        ("GET", "/system/telemetry"), ("PATCH", "/system/functions"),
        ("DELETE", "/async-function/0"), ("GET", "/system/functions/"), ("TRACE", LIST),
        ("POST", "/healthz"), ("POST", "/livez"), ("GET", "/oauth/token"),
    ],
)  # fmt: skip
def test_a_path_that_is_not_mapped_is_refused_for_every_caller(
    front: Front, method: str, target: str
) -> None:
    assert front.call(method, target).status_code in {401, 403, 405}
    assert front.call(method, target, front.grant(("*", "*"))).status_code in {403, 405}
    assert front.received == []


def test_a_method_in_lower_case_is_not_the_method(front: Front) -> None:
    token = front.grant(("*", "*"))
    asked = Asked(front, method="get", target=LIST.encode(), token=token)
    assert asyncio.run(asked.answer())[0] == 403
    assert front.received == []


class TestHealth:
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    def test_the_health_check_is_public(self, front: Front, method: str) -> None:
        assert front.call(method, "/healthz").status_code == 200
        (received,) = front.received
        assert (received.method, received.target) == ("GET", b"/healthz")
        assert header(received, "authorization") is None

    def test_the_health_check_fails_if_the_upstream_does(self, tmp_path: Path) -> None:
        front = Front(tmp_path, transport=failing(httpx2.ConnectError("refused")))
        assert front.call("GET", "/healthz").status_code == 502


# -- credentials


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class TestCredentials:
    @pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
    def test_a_bearer_token_is_accepted(self, front: Front, scheme: str) -> None:
        token = front.grant(("Function:List", "dev:*"))
        sent = {"authorization": f"{scheme} {token}"}
        assert front.call("GET", LIST, headers=sent).status_code == 200

    def test_a_basic_login_with_the_user_token_is_accepted(self, front: Front) -> None:
        sent = {"authorization": basic("token", front.grant(("Function:List", "dev:*")))}
        assert front.call("GET", LIST, headers=sent).status_code == 200

    @pytest.mark.parametrize("user", ["admin", "oidc", "", "Token", "token ", "token\x00"])
    def test_a_basic_login_with_another_user_is_401(self, front: Front, user: str) -> None:
        sent = {"authorization": basic(user, front.grant(("*", "*")))}
        not_authenticated(front, front.call("GET", LIST, headers=sent), "token is needed")

    def test_the_upstreams_own_password_is_401(self, front: Front) -> None:
        sent = {"authorization": BASIC.decode()}
        not_authenticated(front, front.call("GET", LIST, headers=sent), "token is needed")

    def test_two_authorization_headers_are_401(self, front: Front) -> None:
        token = front.grant(("*", "*"))

        async def story(client: httpx2.AsyncClient) -> httpx2.Response:
            twice = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
            return await client.get(LIST, headers=twice)

        not_authenticated(front, front.tell(story), "token is needed")

    @pytest.mark.parametrize(
        "given",
        ["", "Bearer", "Bearer ", "Bearer  ", "Basic", "Basic !!!", "Basic dG9rZW4=",
         "Basic dG9rZW46", "Digest username=token", "Negotiate abc", "token", "Bearer\tx"],
    )  # fmt: skip
    def test_a_header_without_a_token_yields_none(self, given: str) -> None:
        assert access_token([given.encode()]) is None

    @pytest.mark.parametrize(
        "token",
        ["x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "é.é.é", "a b", "." * 100, "x" * 30_000],
    )
    def test_a_malformed_token_is_401_with_a_constant_sentence(
        self, front: Front, token: str
    ) -> None:
        sent = {"authorization": f"Bearer {token}".encode()}
        answer = front.call("GET", LIST, headers=sent)
        not_authenticated(front, answer, "The access token is")
        assert token not in answer.text or token == "x"

    def test_the_api_does_not_accept_a_function_token(self, front: Front) -> None:
        token = front.function_token(["*"])
        not_authenticated(front, front.call("GET", LIST, token), "another audience")

    def test_the_api_does_not_accept_a_ci_token(self, front: Front) -> None:
        not_authenticated(front, front.call("GET", LIST, front.job()), "not trusted here")

    def test_the_api_accepts_a_granted_access_token(self, front: Front) -> None:
        token = front.access_token()
        assert front.call("GET", LIST, token).status_code == 200

    def test_tokens_of_a_rotated_key_are_accepted_until_it_is_removed(self, front: Front) -> None:
        token = front.grant(("Function:List", "dev:*"))
        broker = front.app.state.broker
        assert front.call("GET", LIST, token).status_code == 200
        broker.signing = replace(front.signing, keys=(SigningKey.generate(), *front.signing.keys))
        assert front.call("GET", LIST, token).status_code == 200
        broker.signing = replace(front.signing, keys=broker.signing.keys[:1])
        assert front.call("GET", LIST, token).status_code == 401

    def test_a_cached_token_is_refused_once_it_is_revoked(self, front: Front) -> None:
        token = front.grant(("Function:List", "dev:*"))
        assert front.call("GET", LIST, token).status_code == 200
        front.post("/oauth/revoke", {"token": token})
        assert front.call("GET", LIST, token).status_code == 401

    def test_no_token_is_accepted_while_revocations_cannot_be_read(self, tmp_path: Path) -> None:
        front = fronts(tmp_path, state=BrokenStore)
        answer = front.call("GET", LIST, front.grant(("*", "*")))
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert front.received == []

    def test_nothing_is_decided_before_the_documents_were_read(self, tmp_path: Path) -> None:
        front = fronts(tmp_path, functions="authorize")
        tokens = [front.grant(("*", "*")), front.function_token(["dev:figlet"])]
        front.source.catalog = Catalog(awaited="the first list of Roles")
        for token, path in zip(tokens, [LIST, "/function/figlet.dev"], strict=True):
            answer = front.call("GET", path, token)
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert answer.text.startswith(Reason.DOCUMENTS_UNAVAILABLE.sentence)
            assert "Roles" not in answer.text
        assert front.received == []


class TestUpstreamCredentials:
    def test_the_upstreams_password_replaces_the_callers_credentials(self, front: Front) -> None:
        front.call("GET", LIST, front.grant(("*", "*")), headers={"cookie": "session=1"})
        (received,) = front.received
        assert header(received, "authorization") == BASIC
        assert header(received, "cookie") is None

    def test_the_password_files_are_read_again_when_they_change(self, front: Front) -> None:
        token = front.grant(("*", "*"))
        assert front.call("GET", LIST, token).status_code == 200
        front.write_secrets("admin", "another")
        answer = front.call("GET", LIST, token)
        assert answer.status_code == 502, "the sample still wants the first"
        sent = header(front.received[-1], "authorization") or b""
        assert base64.b64decode(sent.removeprefix(b"Basic ")) == b"admin:another"

    def test_a_password_that_cannot_be_read_is_502(self, front: Front) -> None:
        token = front.grant(("*", "*"))
        (front.secrets / "basic-auth-password").unlink()
        assert front.call("PUT", "/system/functions", token, json=DEPLOYMENT).status_code == 502
        assert front.received == []
        assert [event.response_code for event in front.journal.events] == [502]

    def test_the_password_is_not_in_the_repr(self, front: Front) -> None:
        assert "the-upstreams-own" not in repr(front.app.router.routes[-1])


# -- an upstream that dies


HALF_ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nhalf",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
}


@pytest.mark.parametrize("half", HALF_ANSWERS.values(), ids=HALF_ANSWERS)
def test_an_answer_that_the_upstream_cuts_short_is_cut_short_for_the_caller_and_logged_once(
    tmp_path: Path, half: bytes
) -> None:
    async def die(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(half)
        await writer.drain()
        await asyncio.sleep(0.1)  # so that the broker begins its own answer

    async def story() -> bytes:
        listener = socket.create_server(("127.0.0.1", 0))
        async with raw_server(die) as (url, _):
            front = Front(
                tmp_path,
                upstream=Upstream.at(url, connections=4, timeout_seconds=5),
                trusted_proxies="127.0.0.0/8",
            )
            async with serving(front.app, listener, http_config(front.app)):
                reader, writer = await asyncio.open_connection(*listener.getsockname())
                writer.write(
                    b"GET %b HTTP/1.1\r\nHost: a\r\nX-Request-Id: r1\r\n\r\n" % FIGLET.encode()
                )
                async with asyncio.timeout(5):
                    heard = await reader.read()  # until the broker closes the connection
                writer.close()
                return heard

    with logged() as log:
        head, body = asyncio.run(story()).split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200")
    assert b"half" in body
    assert not body.endswith(b"0\r\n\r\n"), "it must not look complete"
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    (warning,) = [line for line in lines if line["level"] not in {"info", "debug"}]
    assert warning["event"] == "gateway answer cut short"
    assert (warning["level"], warning["request_id"]) == ("warning", "r1")
    assert "Traceback" not in log.getvalue()


# -- what the upstream answers


def failing(error: Exception) -> httpx2.MockTransport:
    """An upstream to which every request fails."""

    def answer(_request: httpx2.Request) -> httpx2.Response:
        raise error

    return httpx2.MockTransport(answer)


def answering(
    status: int, content: bytes | AsyncIterator[bytes] = b"", headers: Mapping[str, str] = {}
) -> httpx2.MockTransport:
    """An upstream that always gives the same response, in pieces."""

    async def pieces() -> AsyncIterator[bytes]:
        if isinstance(content, bytes):
            yield content
        else:
            async for piece in content:
                yield piece

    return httpx2.MockTransport(
        lambda _request: httpx2.Response(status, content=pieces(), headers=dict(headers))
    )


class TestUpstreamAnswers:
    @pytest.mark.parametrize("status", [401, 403])
    def test_a_401_or_403_of_the_upstreams_api_is_502(self, tmp_path: Path, status: int) -> None:
        challenge = {"www-authenticate": "Basic"}
        front = Front(tmp_path, transport=answering(status, content=b"go away", headers=challenge))
        answer = front.call("GET", LIST, front.grant(("*", "*")))
        assert answer.status_code == 502
        assert "go away" not in answer.text
        assert "www-authenticate" not in answer.headers

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_401_or_403_of_a_function_is_passed_on(self, tmp_path: Path, status: int) -> None:
        realm = {"www-authenticate": "Bearer realm=IAM function invoke"}
        front = Front(tmp_path, transport=answering(status, content=b"no", headers=realm))
        answer = front.call("POST", FIGLET)
        assert (answer.status_code, answer.text) == (status, "no")
        assert answer.headers["www-authenticate"] == realm["www-authenticate"]

    @pytest.mark.parametrize(
        ("error", "status"),
        [
            pytest.param(httpx2.ConnectError("refused"), 502, id="refused"),
            pytest.param(httpx2.RemoteProtocolError("nonsense"), 502, id="nonsense"),
            pytest.param(httpx2.ReadError("reset"), 502, id="reset"),
            pytest.param(httpx2.ConnectTimeout("late"), 504, id="does not connect"),
            pytest.param(httpx2.ReadTimeout("late"), 504, id="does not answer"),
            pytest.param(httpx2.PoolTimeout("late"), 504, id="no connection is free"),
        ],
    )
    def test_an_upstream_failure_is_logged_but_not_explained_to_the_caller(
        self, tmp_path: Path, error: Exception, status: int
    ) -> None:
        front = Front(tmp_path, transport=failing(error))
        with logged() as log:
            answer = front.call("GET", LIST, front.grant(("*", "*")))
        assert answer.status_code == status
        assert str(error) not in answer.text
        assert answer.headers["x-request-id"] in log.getvalue()
        assert type(error).__name__ in log.getvalue(), "the operator learns why"

    @pytest.mark.parametrize("status", [200, 202, 400, 404, 409, 500, 501])
    def test_other_statuses_are_passed_on(self, tmp_path: Path, status: int) -> None:
        front = Front(tmp_path, transport=answering(status, content=b"so be it"))
        answer = front.call("GET", LIST, front.grant(("*", "*")))
        assert (answer.status_code, answer.text) == (status, "so be it")

    def test_a_redirect_is_neither_followed_nor_passed_on(self, tmp_path: Path) -> None:
        elsewhere = answering(301, headers={"location": "http://inner:8080/x"})
        answer = Front(tmp_path, transport=elsewhere).call("GET", "/healthz")
        assert answer.status_code == 301
        assert "location" not in answer.headers

    def test_cookies_of_one_caller_are_never_sent_for_another(self, front: Front) -> None:
        seen: list[str | None] = []

        def answer(request: httpx2.Request) -> httpx2.Response:
            seen.append(request.headers.get("cookie"))
            cookie = {"set-cookie": "session=one; Path=/"}
            return httpx2.Response(200, headers=cookie, stream=httpx2.ByteStream(b""))

        front = Front(front.secrets, transport=httpx2.MockTransport(answer))
        front.call("GET", FIGLET)
        front.call("GET", FIGLET)
        assert seen == [None, None]


def test_the_http_client_adds_no_header_of_its_own(
    front: Front,
) -> None:
    asyncio.run(Asked(front, target=LIST.encode(), token=front.grant(("*", "*"))).answer())
    (received,) = front.received
    assert {name for name, _ in received.headers} == {
        b"host", b"accept-encoding", b"authorization",
        b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id",
    }  # fmt: skip
    assert header(received, "accept-encoding") == b"identity"


# -- narrowing


class TestNamespaces:
    def test_the_list_is_narrowed_to_those_in_which_something_is_allowed(
        self, front: Front
    ) -> None:
        token = front.grant(("Namespace:List", "dev:*"), ("Function:Get", "staging:figlet"))
        answer = front.call("GET", "/system/namespaces", token)
        assert answer.json() == ["dev", "staging"]
        assert answer.headers["content-type"] == "application/json"

    def test_a_cluster_permission_makes_no_namespace_visible(self, front: Front) -> None:
        token = front.grant(("Namespace:List", "dev:*"), ("System:Info", "*"))
        assert front.call("GET", "/system/namespaces", token).json() == ["dev"]

    @pytest.mark.parametrize(
        "content",
        [b"{}", b"[1]", b"[" * 100, b"not json", b'["a","a b"]', b'["' + b"x" * 2**21 + b'"]'],
    )
    def test_a_response_that_is_not_a_list_of_names_is_502(
        self, tmp_path: Path, content: bytes
    ) -> None:
        front = Front(tmp_path, transport=answering(200, content=content))
        answer = front.call("GET", "/system/namespaces", front.grant(("*", "*")))
        assert answer.status_code == 502

    def test_a_null_is_an_empty_list(self, tmp_path: Path) -> None:
        front = Front(tmp_path, transport=answering(200, content=b"null"))
        assert front.call("GET", "/system/namespaces", front.grant(("*", "*"))).json() == []


# -- decisions


class TestDecisions:
    @pytest.mark.parametrize(
        ("ref", "status"), [("refs/heads/main", 200), ("refs/heads/other", 403)]
    )
    def test_a_statements_condition_is_compared_with_the_tokens_claims(
        self, front: Front, ref: str, status: int
    ) -> None:
        when = {"StringEqual": {"jwt:ref": ["refs/heads/main"]}}
        statement = {"action": ["Function:List"], "resource": ["dev:*"], "condition": when}
        token = front.bearing(built.policy("p", statement), ref=ref)
        assert front.call("GET", LIST, token).status_code == status

    @pytest.mark.parametrize(
        ("legacy", "method", "target", "status"),
        [
            ("Function:Read", "GET", LIST, 200),
            ("Function:Read", "GET", "/system/function/figlet?namespace=dev", 200),
            ("Function:Read", "GET", "/system/logs?name=figlet&namespace=dev", 200),
            ("Function:Read", "PUT", "/system/functions", 403),
            ("Function:Admin", "PUT", "/system/functions", 202),
            ("Function:Admin", "GET", LIST, 403),
            ("Secret:Read", "GET", "/system/secrets?namespace=dev", 200),
            ("Secret:Admin", "GET", "/system/secrets?namespace=dev", 403),
        ],
    )
    def test_a_legacy_action_means_its_set_of_actions(
        self, front: Front, legacy: str, method: str, target: str, status: int
    ) -> None:
        body = {"json": DEPLOYMENT} if method == "PUT" else {}
        answer = front.call(method, target, front.grant((legacy, "dev:*")), **body)
        assert answer.status_code == status, answer.text

    def test_a_changed_policy_takes_effect_at_once(self, front: Front) -> None:
        token = front.grant(("Function:List", "dev:*"))
        assert front.call("GET", LIST, token).status_code == 200
        front.grant(("Function:List", "staging:*"))
        assert front.call("GET", LIST, token).status_code == 403

    def test_a_missing_namespace_becomes_the_default_and_is_sent(self, tmp_path: Path) -> None:
        front = fronts(tmp_path, function_namespace="dev")
        token = front.grant(("Function:List", "dev:*"), ("Function:Invoke", "dev:*"))
        assert front.call("GET", "/system/functions", token).status_code == 200
        assert front.call("POST", "/function/figlet", token).status_code == 200
        assert [received.target for received in front.received] == [
            b"/system/functions?namespace=dev",
            b"/function/figlet.dev",
        ]

    def test_the_refusal_is_one_sentence_that_names_action_resource_and_id(
        self, front: Front
    ) -> None:
        answer = front.call("GET", LIST, front.grant(("Function:Get", "dev:*")))
        assert answer.text == (
            "Function:List on dev:* is not allowed by this token's policies (p)."
            f" Request id {answer.headers['x-request-id']}.\n"
        )
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.headers["cache-control"] == "no-store"

    def test_the_body_is_sent_in_canonical_form(self, front: Front) -> None:
        token = front.grant(("Function:Delete", "dev:*"))
        body = b' {"namespace" : null, "functionName":"figlet" }'
        target = "/system/functions?namespace=dev"
        assert front.call("DELETE", target, token, content=body).status_code == 202
        (received,) = front.received
        assert json.loads(received.body) == {"functionName": "figlet", "namespace": "dev"}
        assert header(received, "content-length") == str(len(received.body)).encode()
        assert header(received, "content-type") == b"application/json"


# -- functions


class TestOpen:
    """Mode `open`, the default: functions check their callers themselves."""

    @pytest.mark.parametrize("given", [None, "Bearer anything", "Basic x", "whatever they like"])
    def test_authorization_passes_untouched(self, front: Front, given: str | None) -> None:
        sent = {"authorization": given} if given else {}
        assert front.call("POST", FIGLET, headers=sent, content=b"in").status_code == 200
        (received,) = front.received
        assert header(received, "authorization") == (given.encode() if given else None)

    def test_the_upstreams_own_credentials_are_not_added(self, front: Front) -> None:
        front.call("POST", FIGLET)
        assert header(front.received[0], "authorization") is None

    @pytest.mark.parametrize(
        "target",
        [
            b"/function/figlet.dev/a/b?x=1&x=2&y=%20z",
            b"/function/figlet.dev/a%20b?q={}|^`",
            b"/function/figlet.dev?a=b'c\"d<e>",
            b"/function/figlet.dev/x;y=1/@:!$&'()*+,=?%zz",
            b"/function/figlet.dev/",
            b"/function/figlet.dev?",
        ],
    )
    def test_path_and_query_reach_the_function_byte_for_byte(
        self, tmp_path: Path, target: bytes
    ) -> None:
        targets: list[object] = []

        def answer(request: httpx2.Request) -> httpx2.Response:
            targets.append(request.extensions["target"])
            return httpx2.Response(200, stream=httpx2.ByteStream(b""))

        front = Front(tmp_path, transport=httpx2.MockTransport(answer))
        status, _, _ = asyncio.run(Asked(front, target=target).answer())
        assert status == 200
        assert targets == [target.removesuffix(b"?")]


class TestAuthorize:
    """Mode `authorize`: callers need `Function:Invoke` or a function token."""

    @pytest.fixture
    def front(self, tmp_path: Path) -> Front:
        return fronts(tmp_path, functions="authorize")

    def test_without_a_token_the_challenge_is_the_one_that_faas_cli_looks_for(
        self, front: Front
    ) -> None:
        answer = front.call("POST", FIGLET)
        assert answer.status_code == 401
        scheme, _, directives = answer.headers["www-authenticate"].partition(" ")
        realms = [d[6:].strip('"') for d in directives.split(", ") if d.startswith("realm=")]
        assert (scheme, realms) == ("Bearer", ["IAM function invoke"])

    def test_the_challenge_of_the_api_has_no_realm_so_that_faas_cli_does_not_exchange_its_token(
        self, front: Front
    ) -> None:
        assert front.call("GET", LIST).headers["www-authenticate"] == "Bearer"

    @pytest.mark.parametrize(
        ("permissions", "audience"),
        [
            (["dev:figlet"], ["dev:figlet"]),
            (["dev:figlet"], []),
            (["dev:*"], []),
            (["dev:*"], ["dev:figlet"]),
            (["*"], []),
            (["staging:x", "d*:fig*"], []),
            (["dev:figlet", "dev:other"], ["dev:other", "dev:figlet"]),
        ],
    )
    def test_a_function_token_invokes_its_functions(
        self, front: Front, permissions: list[str], audience: list[str]
    ) -> None:
        token = front.function_token(permissions, audience)
        assert front.call("POST", FIGLET, token, content=b"in").text == "in"

    @pytest.mark.parametrize(
        ("permissions", "audience"),
        [
            (["dev:other"], ["dev:other"]),
            (["staging:figlet"], []),
            (["dev:*"], ["dev:other"]),
            (["dev:other"], ["dev:figlet"]),
            (["ev:figlet"], []),
            (["dev:fig"], []),
            (["dev:iglet"], []),
            ([], []),
            ([], ["dev:figlet"]),
        ],
    )
    def test_a_function_token_invokes_no_other_function(
        self, front: Front, permissions: list[str], audience: list[str]
    ) -> None:
        answer = front.call("POST", FIGLET, front.function_token(permissions, audience))
        assert answer.status_code == 403
        assert "Function:Invoke on dev:figlet" in answer.text
        assert front.received == []

    @pytest.mark.parametrize(
        "function",
        [
            None,
            {},
            [],
            {"audience": ["dev:figlet"]},
            {"permissions": "dev:figlet"},
            {"permissions": ["dev:figlet"], "audience": {"dev:figlet": 1}},
            {"permissions": ["dev:figlet"], "audience": None},
            {"permissions": ["dev:figlet", 5]},
            {"permissions": ["figlet"]},
        ],
    )
    def test_a_function_token_with_malformed_claims_is_401(
        self, front: Front, function: object
    ) -> None:
        token = front.function_token(["dev:figlet"], function=function)
        not_authenticated(front, front.call("POST", FIGLET, token), "well-formed")

    @pytest.mark.parametrize(
        "changes",
        [
            pytest.param({"aud": URL}, id="audience as a string"),
            pytest.param({"aud": [URL, "x"]}, id="two audiences"),
            pytest.param({"iss": "https://other.example.com"}, id="another issuer"),
            pytest.param({"exp": 0}, id="expired"),
            pytest.param({"iat": 99999999999}, id="of the future"),
            pytest.param({"jti": None}, id="no jti"),
        ],
    )
    def test_a_function_token_with_a_wrong_claim_is_401(
        self, front: Front, changes: dict[str, object]
    ) -> None:
        token = front.function_token(["dev:figlet"], ["dev:figlet"], **changes)
        not_authenticated(front, front.call("POST", FIGLET, token), "token")

    def test_an_access_token_with_the_type_of_a_function_token_is_401(self, front: Front) -> None:
        front.grant(("*", "*"))
        claims = {**front.said(), "policy": ["p"]}
        not_authenticated(front, front.call("POST", FIGLET, front.signed(claims, "JWT")), "token")

    def test_a_revoked_function_token_is_401(self, front: Front) -> None:
        token = front.function_token(["dev:figlet"])
        assert front.call("POST", FIGLET, token).status_code == 200
        front.post("/oauth/revoke", {"token": token})
        assert front.call("POST", FIGLET, token).status_code == 401

    def test_the_requests_of_faas_cli_invoke_succeed(self, front: Front) -> None:
        access = front.access_token()
        assert front.call("POST", FIGLET, content=b"in").status_code == 401
        exchanged = front.exchange(access, scope="function", audience="dev:figlet")
        again = front.call("POST", FIGLET, exchanged.json()["access_token"], content=b"in")
        assert (again.status_code, again.text) == (200, "in")

    def test_no_credential_of_the_caller_reaches_the_function(self, front: Front) -> None:
        for token in (front.function_token(["*"]), front.grant(("Function:Invoke", "dev:*"))):
            headers = {"proxy-authorization": "Basic x", "x_authorization": "y"}
            assert front.call("POST", FIGLET, token, headers=headers).status_code == 200
            sent = front.received[-1].headers
            assert all(token.encode() not in value for _, value in sent)
            assert header(front.received[-1], "authorization") is None
            assert header(front.received[-1], "proxy-authorization") is None


def test_closed_functions_refuse_every_caller(tmp_path: Path) -> None:
    front = fronts(tmp_path, functions="closed")
    for token in (None, front.function_token(["*"]), front.grant(("*", "*"))):
        for target in (FIGLET, FIGLET + "/x", "/async-function/figlet.dev"):
            assert front.call("POST", target, token).status_code == 403
    assert front.received == []


# -- audit


class TestAudit:
    def test_an_allowed_request_leaves_its_event(self, front: Front) -> None:
        token = front.grant(("Function:Update", "dev:*"))
        answer = front.call("PUT", "/system/functions", token, json=DEPLOYMENT)
        (event,) = front.journal.events
        assert event.as_json() | {"event_id": "", "time": "", "token_sha256": ""} == {
            "actor": {
                "sub": "fed:repo:octo-org/octo-repo:ref:refs/heads/main",
                "issuer": URL,
                "fed_issuer": built.GITHUB,
            },
            "path": "/system/functions",
            "method": "PUT",
            "actions": ("Function:Update",),
            "namespace": "dev",
            "resource": "dev:figlet",
            "response_code": 202,
            "custom_message": event.custom_message,
            "request_id": answer.headers["x-request-id"],
            "roles": ("deployer",),
            "policies": ("p",),
            "reason": None,
            "event_id": "",
            "time": "",
            "token_sha256": "",
        }
        assert '"sid":"s0"' in event.custom_message, "it names what settled it"
        assert token not in str(event.as_json())

    @pytest.mark.parametrize(
        ("statements", "target", "status"),
        [
            pytest.param([], "/system/functions", 403, id="not allowed"),
            pytest.param([("*", "*")], "/system/other", 403, id="not mapped"),
            pytest.param([("*", "*")], "/system/functions?a=b", 403, id="ambiguous"),
            pytest.param([("*", "*")], "/system/secrets", 400, id="malformed"),
        ],
    )
    def test_a_refused_request_leaves_its_event(
        self,
        front: Front,
        statements: list[tuple[str, str]],
        target: str,
        status: int,
    ) -> None:
        answer = front.call("PUT", target, front.grant(*statements), json=DEPLOYMENT)
        (event,) = front.journal.events
        assert (answer.status_code, event.response_code) == (status, status)
        assert event.reason is None
        assert event.request_id == answer.headers["x-request-id"]
        assert event.actor is not None
        assert event.owed

    @pytest.mark.parametrize("token", [None, "x"])
    def test_a_request_without_a_good_token_leaves_a_line_in_the_log_and_no_event(
        self, front: Front, token: str | None
    ) -> None:
        with logged() as log:
            answer = front.call("PUT", "/system/functions", token, json=DEPLOYMENT)
        (line,) = map(json.loads, log.getvalue().splitlines())
        assert line["event"] == "gateway request refused"
        assert (answer.status_code, line["response_code"]) == (401, 401)
        assert line["request_id"] == answer.headers["x-request-id"]
        assert front.journal.events == []

    @pytest.mark.parametrize("failure", [502, 504])
    def test_an_upstream_failure_leaves_its_event(self, tmp_path: Path, failure: int) -> None:
        error = httpx2.ConnectError("no") if failure == 502 else httpx2.ReadTimeout("late")
        front = Front(tmp_path, transport=failing(error))
        token = front.grant(("*", "*"))
        front.call("PUT", "/system/functions", token, json=DEPLOYMENT)
        assert [event.response_code for event in front.journal.events] == [failure]

    def test_an_unexpected_exception_leaves_its_event(self, tmp_path: Path) -> None:
        front = Front(tmp_path, transport=failing(KeyError("a bug")))
        token = front.grant(("*", "*"))
        with logged():
            answer = front.call("PUT", "/system/functions", token, json=DEPLOYMENT)
        assert answer.status_code == 500
        (event,) = front.journal.events
        assert (event.response_code, event.reason) == (500, Reason.SERVER_ERROR)

    def test_requests_of_other_methods_leave_no_event(self, front: Front) -> None:
        front.call("GET", LIST, front.grant(("*", "*")))
        front.call("GET", LIST)
        assert front.journal.events == []

    def test_the_audited_methods_are_a_setting(self, tmp_path: Path) -> None:
        front = fronts(tmp_path, audit_verbs="GET")
        token = front.grant(("*", "*"))
        front.call("GET", LIST, token)
        front.call("PUT", "/system/functions", token, json=DEPLOYMENT)
        assert [event.method for event in front.journal.events] == ["GET"]

    def test_an_open_functions_call_leaves_an_event_without_an_actor(self, front: Front) -> None:
        front.call("POST", FIGLET, "anything")
        (event,) = front.journal.events
        assert (event.actor, event.actions, event.namespace) == (None, ("Function:Invoke",), "dev")
        assert not event.owed

    def test_the_event_is_recorded_before_the_answer_begins(self, front: Front) -> None:
        token = front.grant(("*", "*"))
        asked = Asked(front, method="PUT", target=b"/system/functions", token=token).json(
            DEPLOYMENT
        )

        async def story() -> None:
            front.journal.hanging = asyncio.Event()
            answering = asyncio.create_task(asked.run())
            await front.journal.hanging.wait()
            assert front.received, "it was carried out"
            assert asked.sent == []
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

        asyncio.run(story())

    def test_a_disconnect_during_the_call_is_recorded_and_ends_it_at_the_upstream(
        self, tmp_path: Path
    ) -> None:
        begun = asyncio.Event()
        ended: list[str] = []

        async def never(_request: httpx2.Request) -> httpx2.Response:
            begun.set()
            try:
                return await asyncio.Event().wait()  # type: ignore[return-value]  # it never does
            finally:
                ended.append("upstream")

        front = Front(tmp_path, transport=httpx2.MockTransport(never))
        token = front.grant(("*", "*"))
        asked = Asked(front, method="PUT", target=b"/system/functions", token=token).json(
            DEPLOYMENT
        )

        async def story() -> None:
            running = asyncio.create_task(asked.run())
            await begun.wait()
            asked.leave()
            await asyncio.wait_for(running, 5)

        asyncio.run(story())
        assert ended == ["upstream"], "its request at the upstream ended too"
        assert asked.sent == []
        (event,) = front.journal.events
        assert event.response_code == 499
        assert event.actions == ("Function:Update",)

    def test_a_request_that_a_stopping_server_cancels_leaves_an_event(self, tmp_path: Path) -> None:
        begun = asyncio.Event()

        async def never(_request: httpx2.Request) -> httpx2.Response:
            begun.set()
            return await asyncio.Event().wait()  # type: ignore[return-value]  # it never does

        front = Front(tmp_path, transport=httpx2.MockTransport(never))
        token = front.grant(("*", "*"))
        asked = Asked(front, method="PUT", target=b"/system/functions", token=token).json(
            DEPLOYMENT
        )

        async def story() -> None:
            running = asyncio.create_task(asked.run())
            await begun.wait()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

        asyncio.run(story())
        assert asked.sent == []
        assert [event.response_code for event in front.journal.events] == [500]

    def test_a_disconnect_during_the_body_is_recorded(self, front: Front) -> None:
        token = front.grant(("*", "*"))
        asked = Asked(front, method="PUT", target=b"/system/functions", token=token)
        asked.leave()
        asyncio.run(asked.run())
        assert [event.response_code for event in front.journal.events] == [499]
        assert front.received == []

    def test_a_disconnect_after_the_response_began_leaves_the_event_of_the_response(
        self, tmp_path: Path
    ) -> None:
        async def lines() -> AsyncIterator[bytes]:
            yield b"first\n"
            await asyncio.Event().wait()

        front = Front(tmp_path, transport=answering(200, content=lines()), audit_verbs="GET")
        token = front.grant(("*", "*"))
        asked = Asked(front, target=b"/system/logs?name=figlet&namespace=dev", token=token)
        asked.incoming.append({"type": "http.request", "body": b"", "more_body": False})

        async def story() -> None:
            running = asyncio.create_task(asked.run())
            await asked.flowing.wait()
            asked.leave()
            await asyncio.wait_for(running, 5)

        asyncio.run(story())
        assert [event.response_code for event in front.journal.events] == [200]

    def test_a_call_that_cannot_be_recorded_is_answered_503(self, front: Front) -> None:
        token = front.grant(("*", "*"))
        front.journal.failure = Refusal(Reason.AUDIT_UNAVAILABLE)
        with logged():
            answer = front.call("PUT", "/system/functions", token, json=DEPLOYMENT)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "audit trail" in answer.text

    def test_after_a_failed_record_no_audited_call_is_forwarded(self, front: Front) -> None:
        token = front.grant(("*", "*"))
        front.journal.failure = Refusal(Reason.AUDIT_UNAVAILABLE)
        with logged():
            front.call("PUT", "/system/functions", token, json=DEPLOYMENT)
            done = len(front.received)
            again = front.call("PUT", "/system/functions", token, json=DEPLOYMENT)
        assert (again.status_code, len(front.received)) == (503, done)
        assert front.call("GET", LIST, token).status_code == 200, "what is not audited goes on"

    def test_a_refusal_that_cannot_be_recorded_is_503(self, front: Front) -> None:
        front.journal.failure = Refusal(Reason.AUDIT_UNAVAILABLE)
        with logged():
            answer = front.call("PUT", "/system/functions", front.grant(), json=DEPLOYMENT)
        assert answer.status_code == 503


# -- streams, by hand


@dataclass
class Asked:
    """One request straight to the ASGI application, whose caller can disconnect."""

    front: Front
    method: str = "GET"
    target: bytes = b"/"
    token: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    incoming: list[Message] = field(default_factory=list)
    sent: list[Message] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a part of the response body was sent."""

    def json(self, body: object) -> Asked:
        content = json.dumps(body).encode()
        self.headers += ((b"content-type", b"application/json"),
                         (b"content-length", str(len(content)).encode()))  # fmt: skip
        self.incoming.append({"type": "http.request", "body": content, "more_body": False})
        return self

    def leave(self) -> None:
        self.left.set()

    async def run(self) -> None:
        path, _, query = self.target.partition(b"?")
        given = ((b"authorization", f"Bearer {self.token}".encode()),) if self.token else ()
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "http",  # TLS ends at a proxy in front of the broker
            "path": path.decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": [(b"host", b"gw.example.com"), *given, *self.headers],
            "client": ("192.0.2.7", 1234),
            "server": ("127.0.0.1", 80),
        }
        await self.front.app(scope, self._receive, self._send)

    async def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers and body of the response to a request without a body."""
        self.incoming.append({"type": "http.request", "body": b"", "more_body": False})
        await self.run()
        start, *pieces = self.sent
        return start["status"], dict(start["headers"]), b"".join(p["body"] for p in pieces)

    async def _receive(self) -> Message:
        if self.incoming:
            return self.incoming.pop(0)
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body":
            self.flowing.set()


def test_a_websocket_is_closed_at_once(front: Front) -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    scope = {
        "type": "websocket", "path": "/function/figlet.dev", "raw_path": b"/function/figlet.dev",
        "query_string": b"", "headers": [], "root_path": "", "scheme": "ws",
    }  # fmt: skip
    asyncio.run(front.app(scope, receive, send))
    assert sent == [{"type": "websocket.close"}]
    assert front.received == []


PREFLIGHT = {
    "origin": "https://app.example.com",
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization",
}


def test_a_preflight_is_answered_as_the_function_answers_it(tmp_path: Path) -> None:
    allow = b"Access-Control-Allow-Origin: https://app.example.com\r\n"

    async def answer(_path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n" + allow + b"\r\n")

    async def story() -> httpx2.Response:
        async with raw_server(answer) as (url, asked):
            upstream = Upstream.at(url, connections=3, timeout_seconds=5)
            front = Front(tmp_path, upstream=upstream)
            transport = httpx2.ASGITransport(front.app)
            async with httpx2.AsyncClient(transport=transport, base_url=URL) as client:
                answered = await client.options(FIGLET, headers=PREFLIGHT)
            await upstream.aclose()
            assert asked == [FIGLET]
            return answered

    answered = asyncio.run(story())
    assert answered.status_code == 204
    assert answered.headers["access-control-allow-origin"] == "https://app.example.com"


def test_with_authorize_a_preflight_needs_a_token_like_any_call(tmp_path: Path) -> None:
    front = fronts(tmp_path, functions="authorize")
    assert front.call("OPTIONS", FIGLET, headers=PREFLIGHT).status_code == 401
    assert front.received == []


def test_the_forwarding_headers_are_the_brokers_own(front: Front) -> None:
    lies = ((b"x-forwarded-for", b"10.0.0.1"), (b"x-real-ip", b"10.0.0.1"),
            (b"x-forwarded-host", b"evil"), (b"forwarded", b"for=10.0.0.1"))  # fmt: skip
    asyncio.run(Asked(front, target=b"/function/figlet.dev", headers=lies).answer())
    (received,) = front.received
    assert header(received, "x-forwarded-for") == b"192.0.2.7"
    assert header(received, "x-forwarded-host") == b"gw.example.com"
    assert header(received, "x-forwarded-proto") == b"https"
    assert header(received, "x-real-ip") is None
    assert header(received, "forwarded") is None


PROXY = "192.0.2.0/24"


@pytest.mark.parametrize(
    ("said", "addresses", "scheme"),
    [
        ([], "192.0.2.7", "https"),
        ([("x-forwarded-for", "198.51.100.1")], "198.51.100.1, 192.0.2.7", "https"),
        (
            [("x-forwarded-for", "10.0.0.1, 198.51.100.1"), ("x-forwarded-proto", "HTTP")],
            "10.0.0.1, 198.51.100.1, 192.0.2.7",
            "http",
        ),
        (
            [("x-forwarded-for", "10.0.0.1"), ("x-forwarded-for", "[2001:db8::1]:80")],
            "10.0.0.1, [2001:db8::1]:80, 192.0.2.7",
            "https",
        ),
        ([("x-forwarded-for", 'a"b')], "192.0.2.7", "https"),
        ([("x-forwarded-for", "1" * 5000)], "192.0.2.7", "https"),
        ([("x-forwarded-proto", "http")], "192.0.2.7", "http"),
        ([("x-forwarded-proto", "https, http")], "192.0.2.7", "https"),
        ([("x-forwarded-proto", "http"), ("x-forwarded-proto", "https")], "192.0.2.7", "https"),
        ([("x-forwarded-proto", "javascript")], "192.0.2.7", "https"),
    ],
)
def test_a_trusted_proxy_tells_functions_who_called_and_how(
    tmp_path: Path, said: list[tuple[str, str]], addresses: str, scheme: str
) -> None:
    """The broker's own connection is plain and comes from the proxy."""
    for trusted, expected in ((PROXY, (addresses, scheme)), ("", ("192.0.2.7", "https"))):
        front = fronts(tmp_path, trusted_proxies=trusted)
        headers = tuple((name.encode(), value.encode()) for name, value in said)
        asyncio.run(Asked(front, target=FIGLET.encode(), headers=headers).answer())
        (received,) = front.received
        assert header(received, "x-forwarded-for") == expected[0].encode()
        assert header(received, "x-forwarded-proto") == expected[1].encode()
        assert header(received, "x-forwarded-host") == b"gw.example.com"
