"""The webhook over TLS: honest reviews, hostile bodies, and an API server that is away."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from federation.admission.certificates import made
from federation.admission.endpoint import BODY_BYTES, Endpoint, build
from federation.admission.handshakes import AT_ONCE, SECONDS
from federation.admission.neighbours import ISSUERS, NeighbourReader
from federation.admission.renewal import Certificates, Place, server_context
from federation.admission.server import server_of
from federation.sources.kubernetes.access import Access
from federation.sources.kubernetes.connection import Connection, Trouble
from tests.harness.admission import (
    IDP,
    NAMESPACE,
    PINNED,
    document,
    issuer,
    policy,
    question,
    role,
)
from tests.harness.process import in_thread, until

FOLDER = f"/apis/iam.openfaas.com/v1/namespaces/{NAMESPACE}"
REVIEW_SECONDS = 1.0


class FakeApi:
    """Answers the reads of the webhook, and keeps its certificate."""

    def __init__(self) -> None:
        self.issuers: list[dict[str, Any]] = []
        self.policies: list[str] = ["deploy"]
        self.asked: list[str] = []
        self.status = 200
        self.silent = False
        self._kept: dict[str, dict[str, Any]] = {
            "secrets": {"metadata": {"resourceVersion": "1"}},
            "configurations": {
                "metadata": {"resourceVersion": "1"},
                "webhooks": [{"name": "w", "clientConfig": {}}],
            },
        }

    async def answer(self, request: httpx2.Request) -> httpx2.Response:
        """Answer as an API server."""
        path = request.url.path
        if not path.startswith(FOLDER):
            return self._certificate(request)
        self.asked.append(path.removeprefix(FOLDER))
        if self.silent:
            await asyncio.sleep(60)
        if self.status != 200:
            return httpx2.Response(self.status, json={"message": "no"})
        if path == f"{FOLDER}/jwtissuers":
            return self._page(request.url.params)
        name = path.removeprefix(f"{FOLDER}/policies/")
        found = name in self.policies
        return httpx2.Response(200 if found else 404, json={} if found else {"message": "none"})

    def _page(self, params: Mapping[str, str]) -> httpx2.Response:
        begin, limit = int(params.get("continue", "0")), int(params["limit"])
        items = self.issuers[begin : begin + limit]
        more = {"continue": str(begin + limit)} if begin + limit < len(self.issuers) else {}
        return httpx2.Response(200, json={"items": items, "metadata": more})

    def _certificate(self, request: httpx2.Request) -> httpx2.Response:
        kept = self._kept["secrets" if "/secrets/" in request.url.path else "configurations"]
        if request.method == "PUT":
            kept.update(json.loads(request.content))
        elif request.method == "PATCH":
            kept["webhooks"] = json.loads(request.content)["webhooks"]
        return httpx2.Response(200, json=kept)

    def connection(self) -> Connection:
        """A connection to it."""
        return Connection(
            "https://api.example",
            NAMESPACE,
            lambda: Access("https://api.example", token="t"),
            transport=httpx2.MockTransport(self.answer),
        )

    def add(self, spec: Mapping[str, Any], created: str, uid: str = "") -> None:
        """Add a JwtIssuer with what the API server says of it."""
        metadata = {
            **spec["metadata"],
            "uid": uid or f"uid-{len(self.issuers)}",
            "resourceVersion": "1",
            "creationTimestamp": created,
        }
        self.issuers.append({"metadata": metadata, "spec": spec["spec"]})


class Webhook:
    """The webhook at a port of this machine."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        connection = api.connection()
        self.certificates = Certificates(
            connection, Place(NAMESPACE, "s", "c"), frozenset({"127.0.0.1"}), server_context()
        )
        endpoint = Endpoint(NAMESPACE, NeighbourReader(connection), REVIEW_SECONDS)
        self._server = server_of(build(endpoint, self.certificates), self.certificates.context)
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Webhook]:
        """Serve while the block runs."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            running = asyncio.create_task(self._server._serve([listener]))
            try:
                yield self
            finally:
                self._server.should_exit = True
                await running

    @property
    def trusting(self) -> ssl.SSLContext:
        """What trusts it, and nothing else."""
        assert self.certificates.served is not None
        return ssl.create_default_context(cadata=self.certificates.served.ca.decode("ascii"))

    def request(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """Send it a request."""
        with httpx2.Client(verify=self.trusting, trust_env=False, timeout=20) as client:
            return client.request(method, f"https://127.0.0.1:{self.port}{path}", **more)

    def post(self, body: bytes, **headers: str) -> httpx2.Response:
        """Send *body* as a review."""
        sent = {"Content-Type": "application/json", **headers}
        return self.request("POST", "/review", content=body, headers=sent)

    def ask(self, subject: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """The response about *subject*."""
        answer = self.post(question(subject, **changes))
        assert answer.status_code == 200, answer.text
        response: dict[str, Any] = answer.json()["response"]
        return response

    def connect(self) -> ssl.SSLSocket:
        """A connection to it."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=10)
        return self.trusting.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.fixture(name="api")
def _api() -> FakeApi:
    return FakeApi()


@pytest.fixture(name="webhook")
def _webhook(api: FakeApi) -> Iterator[Webhook]:
    with in_thread(Webhook(api).serving) as webhook:
        assert until(lambda: webhook.certificates.trusted, 20)
        yield webhook


def codes(warnings: list[str]) -> list[str]:
    return [each.partition(" ")[0] for each in warnings]


def test_a_review_is_answered_over_tls(webhook: Webhook, api: FakeApi) -> None:
    api.add(issuer("github"), "2030-01-01T00:00:00Z")
    assert webhook.ask(role("r", **PINNED)) == {
        "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
        "allowed": True,
    }
    assert api.asked == ["/jwtissuers", "/policies/deploy"]
    refused = webhook.ask(role("r", ref="refs/heads/main"))
    assert not refused["allowed"]
    assert refused["status"]["message"].startswith("T002")


@pytest.mark.parametrize(
    "name",
    [
        *("..", "../jwtissuers", "a/status", "a?watch=1", "a#b", "a%2e", "", "-a", "Deploy", "a\n"),
        "../../../../../../api/v1/namespaces/openfaas/secrets/s",
    ],
)
def test_the_name_of_a_policy_leads_to_no_other_path_of_the_api_server(
    api: FakeApi, name: str
) -> None:
    async def missing() -> frozenset[str]:
        return await NeighbourReader(api.connection()).missing_policies([name, "deploy"])

    assert asyncio.run(missing()) == {name}
    assert api.asked == ["/policies/deploy"]


def test_a_policy_needs_nothing_else(webhook: Webhook, api: FakeApi) -> None:
    assert webhook.ask(policy("deploy"))["allowed"]
    assert api.asked == []


def test_an_object_with_errors_of_form_is_refused_without_asking(
    webhook: Webhook, api: FakeApi
) -> None:
    assert not webhook.ask(document("Role", "r", {"policy": []}))["allowed"]
    assert api.asked == []


def test_the_missing_are_warned_about(webhook: Webhook, api: FakeApi) -> None:
    api.policies = []
    assert codes(webhook.ask(role("r", **PINNED))["warnings"]) == ["T001", "D011"]


def test_only_so_many_policies_are_looked_for(webhook: Webhook, api: FakeApi) -> None:
    many = role("r", **PINNED)
    many["spec"]["policy"] = [f"p-{number}" for number in range(900)]
    assert webhook.ask(many)["allowed"]
    assert len(api.asked) == 1 + 16


def test_the_oldest_issuer_holds_its_iss_also_when_it_is_bad(
    webhook: Webhook, api: FakeApi
) -> None:
    broken = issuer("broken", iss=IDP, provider="keycloak", nonsense=1)
    api.add(broken, "2030-01-01T00:00:00Z")
    api.add(issuer("younger", iss=IDP, provider="keycloak"), "2030-01-01T00:00:01Z")
    response = webhook.ask(role("r", iss=IDP, sub="0b3f4a6e", azp="deployer"))
    assert codes(response["warnings"]) == ["T001"]
    api.issuers = api.issuers[1:]
    assert "T001" not in codes(
        webhook.ask(role("r", iss=IDP, sub="0b3f4a6e", azp="deployer")).get("warnings", [])
    )


def test_a_changed_issuer_is_seen_at_once(webhook: Webhook, api: FakeApi) -> None:
    api.add(issuer("own", iss=IDP, provider="generic"), "2030-01-01T00:00:00Z", "u")
    asked = role("r", iss=IDP, user_login="somebody")
    assert webhook.ask(asked)["allowed"] is True
    api.issuers.clear()
    api.add(issuer("own", iss=IDP, provider="gitlab"), "2030-01-01T00:00:00Z", "u")
    api.issuers[0]["metadata"]["resourceVersion"] = "2"
    assert webhook.ask(asked)["allowed"] is False


def test_issuers_are_read_page_by_page(webhook: Webhook, api: FakeApi) -> None:
    for number in range(45):
        api.add(issuer(f"i-{number}", iss=f"{IDP}/{number}"), "2030-01-01T00:00:00Z")
    api.add(issuer("github"), "2030-01-01T00:00:00Z")
    assert "warnings" not in webhook.ask(role("r", **PINNED))
    assert api.asked.count("/jwtissuers") == 3


def test_more_issuers_than_can_be_read_are_no_yes(webhook: Webhook, api: FakeApi) -> None:
    for number in range(ISSUERS + 1):
        api.add(issuer(f"i-{number}", iss=f"{IDP}/{number}"), "2030-01-01T00:00:00Z")
    response = webhook.ask(role("r", **PINNED))
    assert (response["allowed"], response["status"]["code"]) == (False, 503)


# The API server away


@pytest.mark.parametrize("status", [401, 403, 410, 429, 500])
def test_what_cannot_be_compared_is_refused(webhook: Webhook, api: FakeApi, status: int) -> None:
    api.status = status
    with capture_logs():
        response = webhook.ask(role("r", **PINNED))
    assert response["allowed"] is False
    assert response["status"]["code"] == 503
    assert "no" not in response["status"]["message"].split()


@pytest.mark.alone
def test_a_silent_api_server_costs_no_more_time_than_there_is(
    webhook: Webhook, api: FakeApi
) -> None:
    api.silent = True
    began = time.monotonic()
    assert webhook.post(question(role("r", **PINNED))).status_code == 503
    assert time.monotonic() - began < REVIEW_SECONDS + 2


@pytest.mark.parametrize("page", [[], {}, {"items": 1}, {"items": [1]}, {"items": [{"a": 1}]}])
def test_a_list_that_is_none_is_no_yes(page: object) -> None:
    def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json=page)

    connection = FakeApi().connection()
    connection.transport = httpx2.MockTransport(answer)
    with pytest.raises(Trouble):
        asyncio.run(reading(connection))


async def reading(connection: Connection) -> Mapping[str, object]:
    return await NeighbourReader(connection).issuers()


# Hostile bodies


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        pytest.param(b"", {}, 400, id="nothing"),
        pytest.param(b"{" * 10_000, {}, 400, id="deep"),
        pytest.param(b'{"a":' * 100_000, {}, 400, id="deeper"),
        pytest.param(b"[" + b"0," * 400_000 + b"0]", {}, 400, id="long"),
        pytest.param(b"\xff" * 100, {}, 400, id="not text"),
        pytest.param(b"1" * 1_000_000, {}, 400, id="a number"),
        pytest.param(b" " * (BODY_BYTES + 1), {}, 413, id="too large"),
        pytest.param(b"{}", {"Content-Type": "text/plain"}, 415, id="another type"),
    ],
)
def test_a_hostile_body_is_refused_and_the_next_review_is_answered(
    webhook: Webhook, body: bytes, headers: Mapping[str, str], status: int
) -> None:
    refused = webhook.post(body, **headers)
    assert refused.status_code == status
    assert len(refused.text) < 80
    assert webhook.ask(policy("p"))["allowed"]


def test_the_largest_object_is_judged(webhook: Webhook) -> None:
    value = "a" * 4000
    values = [f"{value}{number}" for number in range(900)]
    large = role("r", **PINNED)
    large["spec"]["condition"]["StringEqual"]["jwt:environment"] = values
    body = question(large)
    assert BODY_BYTES * 0.8 < len(body) < BODY_BYTES
    assert webhook.post(body).status_code == 200


def test_a_body_without_its_length_is_refused(webhook: Webhook) -> None:
    def chunks() -> Iterator[bytes]:
        yield question(policy("p"))

    headers = {"Content-Type": "application/json"}
    answer = webhook.request("POST", "/review", content=chunks(), headers=headers)
    assert answer.status_code == 411


def test_a_body_that_does_not_end_is_given_up(webhook: Webhook) -> None:
    with webhook.connect() as connection:
        connection.sendall(
            b"POST /review HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100000\r\n\r\n{"
        )
        assert connection.recv(100).startswith(b"HTTP/1.1 503")


def test_slow_bodies_do_not_keep_honest_reviews_out(webhook: Webhook) -> None:
    head = (
        b"POST /review HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 4000000\r\n\r\n{"
    )
    held = [webhook.connect() for _ in range(20)]
    try:
        for connection in held:
            connection.sendall(head)
        assert webhook.ask(policy("p"))["allowed"]
    finally:
        for connection in held:
            connection.close()


def test_who_speaks_no_tls_is_not_heard(webhook: Webhook) -> None:
    with socket.create_connection(("127.0.0.1", webhook.port), timeout=10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP" not in connection.recv(100)
    assert webhook.request("GET", "/healthz").status_code == 200


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x40\x00" + b"\x01" * 1000])
def test_handshakes_that_do_not_end_are_few_and_keep_nobody_out(
    webhook: Webhook, sent: bytes
) -> None:
    address = ("127.0.0.1", webhook.port)
    held = [socket.create_connection(address, timeout=10) for _ in range(3 * AT_ONCE)]
    try:
        for connection in held[2 * AT_ONCE :]:
            connection.sendall(sent)
        assert webhook.ask(policy("p"))["allowed"]
        assert until(lambda: sum(map(is_open, held)) <= AT_ONCE, 3)
        assert is_open(held[-1])  # the oldest were cut off
        assert until(lambda: not any(map(is_open, held)), SECONDS + 3)
    finally:
        for connection in held:
            connection.close()


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1000) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(webhook: Webhook) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = webhook.trusting.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", webhook.port), timeout=10) as connection:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(65536))
        tls.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.sendall(outgoing.read())  # with the last part of the handshake
        incoming.write(connection.recv(65536))
        assert tls.read(100).startswith(b"HTTP/1.1 200")


def test_what_is_asked_in_error_is_refused_and_told(webhook: Webhook) -> None:
    response = webhook.ask(policy("p"), namespace="elsewhere")
    assert response["allowed"] is False
    assert "asked in error" in response["status"]["message"]


# Readiness


def test_it_is_ready_while_api_servers_trust_what_it_serves(webhook: Webhook) -> None:
    assert webhook.request("GET", "/readyz").status_code == 200
    webhook.certificates.trusted = False
    assert webhook.request("GET", "/readyz").status_code == 503
    assert webhook.request("GET", "/healthz").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/review"), ("POST", "/"), ("GET", "/docs"), ("POST", "/healthz")]
)
def test_nothing_else_is_served(webhook: Webhook, method: str, path: str) -> None:
    assert webhook.request(method, path).status_code in {404, 405}


def test_a_replaced_certificate_is_shown_to_the_next_connection(webhook: Webhook) -> None:
    other = made(frozenset({"127.0.0.1"}), datetime.now(UTC), timedelta(hours=1))
    with webhook.connect() as kept:
        webhook.certificates._serve(other)
        assert webhook.request("GET", "/healthz").status_code == 200
        kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept.recv(100).startswith(b"HTTP/1.1 200")
