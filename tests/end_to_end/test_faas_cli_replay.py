"""
Recorded requests of faas-cli, sent byte for byte through a real broker.

The real client is a Go program that some machines lack. These are its requests, with other hosts
and tokens, and how it reads the answers: which statuses are a success for it, and what it shows
of the others.
"""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest

from tests.harness.gateway import Fronted, fronted

pytestmark = pytest.mark.e2e

CLI = "faas-cli/0.17.4"
SDK = "openfaas-go-sdk"
INVOKE = "faas-cli/0.17.4 (openfaas; linux; amd64)"
JSON = "application/json"
DEPLOYMENT = (
    '{"service":"figlet","image":"registry.example.com/figlet:1","namespace":"dev",'
    '"envVars":{"E":"F"},"secrets":["s1"],"labels":{"a":"b"},"annotations":{"c":"d"}}'
)
NEW = (
    '{"service":"newfn","image":"registry.example.com/figlet:1","namespace":"dev","labels":{},'
    '"annotations":{}}'
)
STACK = (
    '{"service":"yfn","image":"registry.example.com/yfn:0.1","namespace":"dev","envVars":{"A":"b"},'
    '"secrets":["s1"],"labels":{"x":"y"},"annotations":{"topic":"t"},"limits":{"memory":"64Mi"},'
    '"requests":{"cpu":"10m"},"readOnlyRootFilesystem":true}'
)
SECRET = '{"name":"s1","namespace":"dev","value":"v1"}'
NEW_SECRET = '{"name":"s2","namespace":"dev","value":"v1"}'
SECRET_NAME = '{"name":"s1","namespace":"dev"}'
APPLIED = '{"name":"s1","namespace":"dev","value":"abc","rawValue":"YWJjCg=="}'
DEV2 = '{"name":"dev2","annotations":{"c":"d","openfaas":"1"},"labels":{"a":"b","openfaas":"1"}}'
DEV2_NAME = '{"name":"dev2","labels":{"openfaas":"1"}}'
LOGS = "/system/logs?follow={follow}&name=figlet&namespace=dev"


@dataclass(frozen=True)
class Recorded:
    """A request of faas-cli, with the status of the answer and a text in it."""

    method: str
    target: str
    body: str | None = None
    status: int = 200
    says: str = ""
    agent: str = CLI
    action: str = ""
    """The action that the broker names when it refuses."""

    def written(self, host: str, authorization: str | None) -> bytes:
        """The request as Go's HTTP client writes it."""
        body = (self.body or "").encode()
        lines = [
            f"{self.method} {self.target} HTTP/1.1",
            f"Host: {host}",
            f"User-Agent: {self.agent}",
            *([f"Content-Length: {len(body)}"] if self.body is not None else []),
            *([f"Authorization: {authorization}"] if authorization else []),
            *([f"Content-Type: {JSON}"] if self.body is not None else []),
            "Accept-Encoding: gzip",
        ]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


LIST = Recorded(
    "GET", "/system/functions?namespace=dev", says='"name":"figlet"', action="Function:List"
)
UPDATE = Recorded("PUT", "/system/functions", DEPLOYMENT, 202, action="Function:Update")
COMMANDS: dict[str, tuple[Recorded, ...]] = {
    "list -n dev": (LIST,),
    "deploy -n dev (update)": (UPDATE,),
    "deploy -n dev (create)": (
        Recorded("PUT", "/system/functions", NEW, 404, "not found", action="Function:Update"),
        Recorded("POST", "/system/functions", NEW, 202, action="Function:Create"),
    ),
    "deploy -f stack.yaml": (
        Recorded("PUT", "/system/functions", STACK, 404, action="Function:Update"),
        Recorded("POST", "/system/functions", STACK, 202, action="Function:Create"),
    ),
    "deploy --replace --update=false": (
        Recorded(
            "DELETE",
            "/system/functions",
            '{"functionName":"figlet","namespace":"dev"}',
            202,
            action="Function:Delete",
        ),
        Recorded("POST", "/system/functions", DEPLOYMENT, 202, action="Function:Create"),
    ),
    "describe figlet -n dev": (
        Recorded(
            "GET",
            "/system/function/figlet?namespace=dev&usage=1",
            says='"usage":',
            action="Function:Get",
        ),
        LIST,
    ),
    "logs figlet -n dev --follow=false": (
        Recorded(
            "GET",
            LOGS.format(follow="false"),
            says='"text": "deployed figlet"',
            action="Function:Logs",
        ),
    ),
    "logs figlet -n dev --since 5m --lines 3 --follow=false": (
        Recorded(
            "GET",
            LOGS.format(follow="false") + "&since=2026-01-24T08%3A16%3A11Z&tail=3",
            says="deployed figlet",
            action="Function:Logs",
        ),
    ),
    "secret list -n dev": (
        Recorded("GET", "/system/secrets?namespace=dev", says='"name":"s1"', action="Secret:List"),
    ),
    "secret create s2 -n dev": (
        Recorded("POST", "/system/secrets", NEW_SECRET, 202, action="Secret:Create"),
    ),
    "secret update s1 -n dev": (
        Recorded("PUT", "/system/secrets", SECRET, 202, action="Secret:Update"),
    ),
    "secret remove s1 -n dev": (
        Recorded("DELETE", "/system/secrets", SECRET_NAME, 202, action="Secret:Delete"),
    ),
    "secret apply": (
        Recorded("GET", "/system/secrets?namespace=dev", says="s1", action="Secret:List"),
        Recorded("DELETE", "/system/secrets", SECRET_NAME, 202, action="Secret:Delete"),
        Recorded("POST", "/system/secrets", APPLIED, 202, action="Secret:Create"),
    ),
    "namespaces": (
        Recorded("GET", "/system/namespaces", says='["dev"]', agent=SDK, action="Namespace:List"),
    ),
    "namespace create dev2": (
        Recorded("POST", "/system/namespace/", DEV2, 201, agent=SDK, action="Namespace:Create"),
    ),
    "namespace get dev": (
        Recorded(
            "GET", "/system/namespace/dev", says='"name":"dev"', agent=SDK, action="Namespace:Get"
        ),
    ),
    "version": (Recorded("GET", "/system/info", says='"arch":', action="System:Info"),),
    "ready figlet": (
        Recorded("GET", "/system/function/figlet?namespace=dev&usage=1", action="Function:Get"),
    ),
    "remove figlet -n dev": (
        Recorded(
            "DELETE",
            "/system/functions",
            '{"functionName":"figlet","namespace":"dev"}',
            202,
            action="Function:Delete",
        ),
    ),
}
command = pytest.mark.parametrize("requests", COMMANDS.values(), ids=COMMANDS)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    with fronted(tmp_path_factory.mktemp("broker")) as up:
        yield up


@pytest.fixture(scope="module")
def tokens(both: Fronted) -> dict[str, str]:
    return {job: both.token(job) for job in ("main", "feature")}


@pytest.fixture
def front(both: Fronted) -> Fronted:
    both.reset()
    return both


def send(front: Fronted, written: bytes) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of the answer."""
    with front.broker.connect() as connection:
        connection.sendall(written)
        return answer(connection)


def answer(connection: socket.socket) -> tuple[int, dict[str, str], str]:
    with connection.makefile("rb") as lines:
        status = int(lines.readline().split()[1])
        headers: dict[str, str] = {}
        while line := lines.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while size := int(lines.readline(), 16):
                body += lines.read(size)
                lines.readline()
        else:
            body = lines.read(int(headers.get("content-length", "0")))
        return status, headers, body.decode()


def host(front: Fronted) -> str:
    return front.broker.url.removeprefix("http://")


def ask(front: Fronted, recorded: Recorded, token: str | None) -> tuple[int, dict[str, str], str]:
    bearer = f"Bearer {token}" if token else None
    return send(front, recorded.written(host(front), bearer))


def shown(recorded: Recorded, status: int, body: str) -> str:
    """The text that faas-cli shows for an answer that is no success."""
    if status == 401:
        return 'unauthorized access, run "faas-cli login" to setup authentication for this server'
    if recorded.body and "service" in recorded.body:
        return f"Unexpected status: {status}, message: {body}"
    return f"Server returned unexpected status code: {status} - {body}"


@command
def test_an_admitted_jobs_command_succeeds(
    front: Fronted, tokens: dict[str, str], requests: tuple[Recorded, ...]
) -> None:
    for recorded in requests:
        status, headers, body = ask(front, recorded, tokens["main"])
        assert status == recorded.status, shown(recorded, status, body)
        assert recorded.says in body
        assert "content-encoding" not in headers
        if recorded.says.startswith(("[", '"')) and "logs" not in recorded.target:
            json.loads(body)
    methods = [request.split()[0] for request in front.state()["received"]]
    assert methods == [recorded.method for recorded in requests]


@command
def test_each_request_is_refused_to_another_job_with_a_reason_that_faas_cli_shows(
    front: Fronted, tokens: dict[str, str], requests: tuple[Recorded, ...]
) -> None:
    for recorded in requests:
        status, headers, body = ask(front, recorded, tokens["feature"])
        assert status == 403
        assert headers["content-type"] == "text/plain; charset=utf-8"
        told = shown(recorded, status, body)
        assert re.search(
            rf"403(, message:| -) {recorded.action} on \S+ is not allowed by this token's policies"
            rf" \(elsewhere\)\. Request id {headers['x-request-id']}\.\n$",
            told,
        )
    assert front.state()["received"] == []


@command
def test_each_request_is_refused_without_a_login(
    front: Fronted, requests: tuple[Recorded, ...]
) -> None:
    for recorded in requests:
        status, headers, body = ask(front, recorded, None)
        assert (status, headers["www-authenticate"]) == (401, "Bearer")
        assert "faas-cli login" in shown(recorded, status, body)
    assert front.state()["received"] == []


class TestLogin:
    """`faas-cli login -u token --password-stdin` tries the token with basic auth, and saves it."""

    ASKED = Recorded("GET", "/system/functions?namespace=dev", agent="Go-http-client/1.1")

    def login(self, front: Fronted, user: str, password: str) -> int:
        given = base64.b64encode(f"{user}:{password}".encode()).decode()
        status, _, _ = send(front, self.ASKED.written(host(front), f"Basic {given}"))
        return status

    def test_with_an_access_token_it_succeeds(self, front: Fronted, tokens: dict[str, str]) -> None:
        assert self.login(front, "token", tokens["main"]) == 200

    @pytest.mark.parametrize(("user", "password"), [("admin", "the-upstreams-own"), ("token", "x")])
    def test_with_anything_else_it_fails(self, front: Fronted, user: str, password: str) -> None:
        assert self.login(front, user, password) == 401
        assert front.state()["received"] == []

    def test_login_names_the_permission_that_is_missing_in_the_default_namespace(
        self, front: Fronted, tokens: dict[str, str]
    ) -> None:
        plain = Recorded("GET", "/system/functions", agent="Go-http-client/1.1")
        status, _, body = ask(front, plain, tokens["main"])
        assert status == 403
        assert "Function:List on openfaas-fn:*" in body


def test_ready_needs_no_login(front: Fronted) -> None:
    status, _, body = send(front, Recorded("GET", "/healthz").written(host(front), None))
    assert (status, body) == (200, "OK")


def test_a_created_namespace_is_updated_and_removed(front: Fronted, tokens: dict[str, str]) -> None:
    for method, target, body, status in (
        ("POST", "/system/namespace/", DEV2, 201),
        ("PUT", "/system/namespace/dev2", DEV2, 202),
        ("DELETE", "/system/namespace/dev2", DEV2_NAME, 202),
        ("GET", "/system/namespace/dev2", None, 400),
    ):
        recorded = Recorded(method, target, body, agent=SDK)
        assert ask(front, recorded, tokens["main"])[0] == status


def test_remove_without_a_namespace_means_the_default_one(
    front: Fronted, tokens: dict[str, str]
) -> None:
    recorded = Recorded("DELETE", "/system/functions", '{"functionName":"figlet"}')
    status, _, body = ask(front, recorded, tokens["main"])
    assert status == 403
    assert "Function:Delete on openfaas-fn:figlet" in body


def test_followed_logs_show_old_lines_and_new_ones(front: Fronted, tokens: dict[str, str]) -> None:
    recorded = Recorded("GET", LOGS.format(follow="true"))
    with front.broker.connect() as connection:
        connection.sendall(recorded.written(host(front), f"Bearer {tokens['main']}"))
        connection.settimeout(5)
        heard = b""
        while b"deployed figlet" not in heard:
            heard += connection.recv(4096)
        front.directly("POST", "/function/figlet.dev/now")
        while b"POST /function/figlet.dev/now" not in heard:
            heard += connection.recv(4096)
    assert heard.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    with fronted(tmp_path_factory.mktemp("guarded"), "--functions", "authorize") as up:
        yield up


class TestInvoke:
    """`faas-cli invoke` calls without a login. After a 401 it exchanges its token and calls again."""

    def call(self, front: Fronted, token: str | None) -> tuple[int, dict[str, str], str]:
        lines = [
            "POST /function/figlet.dev HTTP/1.1", f"Host: {host(front)}", f"User-Agent: {INVOKE}",
            "Content-Length: 2", *([f"Authorization: Bearer {token}"] if token else []),
            "Content-Type: text/plain", "Accept-Encoding: gzip",
        ]  # fmt: skip
        return send(front, "\r\n".join(lines).encode() + b"\r\n\r\nhi")

    def trade(self, front: Fronted, saved: str) -> tuple[int, dict[str, str], Any]:
        form = urlencode(
            {
                "audience": "dev:figlet",
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "scope": "function",
                "subject_token": saved,
                "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            }
        )
        lines = [
            "POST /oauth/token HTTP/1.1", f"Host: {host(front)}", f"User-Agent: {SDK}",
            f"Content-Length: {len(form)}", "Content-Type: application/x-www-form-urlencoded",
            "Accept-Encoding: gzip",
        ]  # fmt: skip
        written = "\r\n".join([*lines, "", form])
        status, headers, body = send(front, written.encode())
        return status, headers, json.loads(body)

    def test_open_functions_are_called_at_once(self, front: Fronted) -> None:
        status, _, body = self.call(front, None)
        assert (status, body) == (200, "hi")

    def test_guarded_functions_are_called_after_an_exchange(self, guarded: Fronted) -> None:
        guarded.reset()
        status, headers, _ = self.call(guarded, None)
        assert status == 401
        assert realm(headers["www-authenticate"]) == "IAM function invoke"
        assert guarded.state()["received"] == []
        status, _, granted = self.trade(guarded, guarded.token())
        assert (status, granted["token_type"]) == (200, "Bearer")
        assert granted["expires_in"] > 0
        status, _, body = self.call(guarded, granted["access_token"])
        assert (status, body) == (200, "hi")

    def test_a_job_that_may_not_call_a_function_gets_no_token_for_it(
        self, guarded: Fronted
    ) -> None:
        guarded.reset()
        token = guarded.token("feature")
        status, _, refused = self.trade(guarded, token)
        assert (status, refused["error"]) == (400, "invalid_target")
        assert self.call(guarded, token)[0] == 403
        assert guarded.state()["received"] == []


def realm(challenge: str) -> str:
    """The realm as faas-cli reads it."""
    _, _, directives = challenge.partition(" ")
    named = (d for d in directives.split(", ") if d.startswith("realm="))
    return next(named, "realm=").removeprefix("realm=").strip('"')


def test_a_revoked_login_is_401_from_then_on(front: Fronted) -> None:
    token = front.token()
    assert ask(front, LIST, token)[0] == 200
    httpx2.post(f"{front.broker.url}/oauth/revoke", data={"token": token}).raise_for_status()
    assert ask(front, LIST, token)[0] == 401
