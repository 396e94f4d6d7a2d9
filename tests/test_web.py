"""The web endpoints: forms, paths, request ids, discovery, revocation, health."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlencode

import httpx2
import pytest
from starlette.types import Message

from federation.errors import Problem, Reason, Refusal, Severity
from federation.tokens.signing_keys import SigningKey
from federation.web import forms
from federation.web.forms import read_form
from tests.harness.broker import GRANT, URL, BrokenStore, InProcess, form, logged, refusal
from tests.harness.builders import GENERIC
from tests.harness.documents import DOCUMENTS

FORM = "application/x-www-form-urlencoded"
DISCOVERY = ("/.well-known/openid-configuration", "/.well-known/oauth-authorization-server")
FORMS = ("/oauth/token", "/oauth/revoke")


@pytest.fixture
def broker() -> InProcess:
    return InProcess()


def send(
    broker: InProcess,
    body: bytes | AsyncIterator[bytes],
    path: str = "/oauth/token",
    **headers: str,
) -> httpx2.Response:
    given = {"content-type": FORM, **{name.replace("_", "-"): v for name, v in headers.items()}}
    return broker.ask("POST", path, content=body, headers=given)


def refused(answer: httpx2.Response, saying: str) -> None:
    assert refusal(answer) == (400, "invalid_request")
    assert answer.headers["cache-control"] == "no-store"
    assert saying in answer.json()["error_description"]


class TestForm:
    @pytest.mark.parametrize("path", FORMS)
    def test_a_body_over_64_kib_is_refused(self, broker: InProcess, path: str) -> None:
        refused(send(broker, b"a=" + b"x" * 65536, path), "larger than 64 KiB")

    def test_a_body_over_64_kib_is_refused_when_no_length_is_given(self, broker: InProcess) -> None:
        asked = 0

        async def chunks() -> AsyncIterator[bytes]:
            nonlocal asked
            for _ in range(1000):
                asked += 1
                yield b"a=" + b"x" * 8192

        refused(send(broker, chunks()), "larger than 64 KiB")
        assert asked < 20, "the rest was not read"

    @staticmethod
    def read_from(receive: Callable[[], Awaitable[Message]]) -> Refusal:
        """The refusal of a form whose body *receive* delivers."""
        scope = {"type": "http", "headers": [(b"content-type", FORM.encode())]}
        with pytest.raises(Refusal) as caught:
            asyncio.run(read_form(scope, receive))
        return caught.value

    def test_a_body_whose_sender_hangs_up_is_refused(self) -> None:
        arriving: list[Message] = [
            {"type": "http.request", "body": b"grant_type=", "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive() -> Message:
            return arriving.pop(0)

        assert self.read_from(receive).public == "The body was cut short."

    def test_a_body_that_never_ends_is_refused_after_20_seconds(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert forms._BODY_SECONDS == 20
        monkeypatch.setattr(forms, "_BODY_SECONDS", 0.05)

        async def receive() -> Message:
            await asyncio.sleep(0.01)
            return {"type": "http.request", "body": b"a", "more_body": True}

        refusal = self.read_from(receive)
        assert refusal.reason is Reason.INVALID_REQUEST
        assert refusal.public == "The body took too long to arrive."

    def test_a_body_of_64_kib_is_read(self, broker: InProcess) -> None:
        body = urlencode(form("a.b.c")).encode() + b"&pad="
        assert refusal(send(broker, body + b"x" * (65536 - len(body)))) == (400, "malformed_token")

    @pytest.mark.parametrize(
        "media_type",
        ["application/json", "multipart/form-data; boundary=x", "text/plain", "",
         "application/x-www-form-urlencoded2", "x, application/x-www-form-urlencoded"],
    )  # fmt: skip
    @pytest.mark.parametrize("path", FORMS)
    def test_another_content_type_is_refused(
        self, broker: InProcess, media_type: str, path: str
    ) -> None:
        refused(send(broker, b"grant_type=x", path, content_type=media_type), "Content-Type")

    @pytest.mark.parametrize("media_type", [FORM + "; charset=UTF-8", FORM.upper(), FORM + " ;x=y"])
    def test_parameters_and_case_of_the_content_type_do_not_matter(
        self, broker: InProcess, media_type: str
    ) -> None:
        answer = send(broker, b"grant_type=x", content_type=media_type)
        assert refusal(answer) == (400, "unsupported_grant_type")

    @pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, identity"])
    def test_a_compressed_body_is_refused(self, broker: InProcess, coding: str) -> None:
        refused(send(broker, b"grant_type=x", content_encoding=coding), "compressed")

    @pytest.mark.parametrize(
        "body",
        [
            pytest.param(b"grant_type=%", id="a lone percent sign"),
            pytest.param(b"grant_type=%zz", id="percent and no digits"),
            pytest.param(b"grant_type=%4", id="percent and one digit"),
            pytest.param(b"%g1=x", id="percent and no digits in a name"),
            pytest.param(b"grant_type=%ff", id="not UTF-8"),
            pytest.param(b"grant_type=%c0%80", id="overlong UTF-8"),
            pytest.param(b"grant_type=%ed%a0%80", id="a surrogate"),
            pytest.param("grant_type=ü".encode(), id="not ASCII"),
            pytest.param(b"\xff\xfe", id="bytes"),
            pytest.param(b"grant_type", id="no value"),
            pytest.param(b"a=b&&c=d", id="nothing between"),
            pytest.param(b"&".join([b"a=b"] * 10_000), id="10,000 fields"),
            pytest.param(b"&" * 10_000, id="10,000 separators"),
        ],
    )
    @pytest.mark.parametrize("path", FORMS)
    def test_a_form_that_is_not_well_formed_is_refused(
        self, broker: InProcess, body: bytes, path: str
    ) -> None:
        refused(send(broker, body, path), "not a well-formed form")

    @pytest.mark.parametrize("body", [b"", b"a=b", b"grant_type=", b"=x", b"grant_type=&x=y"])
    def test_a_form_without_the_parameters_says_which_is_missing(
        self, broker: InProcess, body: bytes
    ) -> None:
        refused(send(broker, body), "grant_type is missing")

    def test_parameters_in_the_url_are_ignored_and_the_caller_is_told_where_they_belong(
        self, broker: InProcess
    ) -> None:
        query = urlencode(form(broker.job()))
        answer = broker.ask("POST", f"/oauth/token?{query}", headers={"content-type": FORM})
        refused(answer, "not in the URL")

    def test_the_url_cannot_add_to_the_body(self, broker: InProcess) -> None:
        answer = broker.ask("POST", "/oauth/token?scope=function&role=x", data=form(broker.job()))
        assert answer.status_code == 200
        assert "scope" not in answer.json()

    def test_a_repeated_name_is_shown_only_if_it_is_a_plain_one(self, broker: InProcess) -> None:
        answer = send(broker, b"%3Cimg%3E=1&%3Cimg%3E=2")
        refused(answer, "a parameter must not be given twice")
        assert "img" not in answer.text

    def test_a_plus_is_a_space_and_a_semicolon_is_itself(self, broker: InProcess) -> None:
        assert refusal(send(broker, b"grant_type=a;subject_token=b+c"))[1] == (
            "unsupported_grant_type"
        )

    def test_every_refused_form_leaves_a_line_in_the_log_and_no_event(
        self, broker: InProcess
    ) -> None:
        with logged() as log:
            answer = send(broker, b"%zz")
        (line,) = map(json.loads, log.getvalue().splitlines())
        assert (line["event"], line["reason"]) == ("exchange refused", "invalid_request")
        assert line["response_code"] == 400
        assert line["request_id"] == answer.json()["request_id"]
        assert line["token_sha256"] is None
        assert broker.journal.events == []


class TestPlaces:
    @pytest.mark.parametrize("path", FORMS)
    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "X"])
    def test_another_method_is_405(self, broker: InProcess, path: str, method: str) -> None:
        answer = broker.ask(method, path)
        assert answer.status_code == 405
        assert answer.headers["allow"] == "POST"
        assert "x-request-id" in answer.headers
        if method != "HEAD":
            assert answer.json()["reason"] == "invalid_request"

    @pytest.mark.parametrize(
        "path",
        ["/", "/nowhere", "/oauth", "/oauth/token/", "/oauth//token", "/OAUTH/TOKEN", "/docs",
         "/oauth/token%2f", "/.well-known/", "/.well-known/jwks.json/", "/%00", "/oauth/token;x"],
    )  # fmt: skip
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_another_path_is_404(self, broker: InProcess, path: str, method: str) -> None:
        answer = broker.ask(method, path)
        assert refusal(answer) == (404, "invalid_request")

    @pytest.mark.parametrize("path", [*DISCOVERY, "/.well-known/jwks.json"])
    def test_discovery_is_read_only(self, broker: InProcess, path: str) -> None:
        assert broker.ask("POST", path).status_code == 405
        head = broker.ask("HEAD", path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == broker.ask("GET", path).headers["content-length"]


class TestRequestId:
    @pytest.mark.parametrize("given", ["abc", "A-1_b.c", "x" * 64])
    def test_a_good_one_of_a_trusted_proxy_is_kept(self, given: str) -> None:
        broker = InProcess(trusted_proxies="127.0.0.0/8")
        answer = send(broker, b"", x_request_id=given)
        assert answer.headers["x-request-id"] == answer.json()["request_id"] == given

    @pytest.mark.parametrize(
        "given", ["", "x" * 65, "a b", "a\tb", "<script>", "a;b", "%0a", 'a"b', "a/b", "{}"]
    )
    def test_any_other_is_replaced(self, given: str) -> None:
        broker = InProcess(trusted_proxies="127.0.0.0/8")
        answer = send(broker, b"", x_request_id=given)
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])

    @pytest.mark.parametrize("proxies", ["", "10.0.0.0/8"])
    def test_that_of_anybody_else_is_replaced(self, proxies: str) -> None:
        answer = send(InProcess(trusted_proxies=proxies), b"", x_request_id="of-another-request")
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])
        assert answer.headers["x-request-id"] == answer.json()["request_id"]

    @pytest.mark.parametrize("path", [*DISCOVERY, "/livez", "/readyz", "/healthz", "/nowhere"])
    def test_every_answer_has_one(self, broker: InProcess, path: str) -> None:
        assert "x-request-id" in broker.ask("GET", path).headers


class TestFaults:
    @staticmethod
    def broken(broker: InProcess) -> None:
        class Broken:
            def current(self) -> Any:
                raise RuntimeError("hunter2")

        broker.app.state.broker.source = Broken()

    @pytest.mark.parametrize("log_format", ["json", "text"])
    def test_an_unexpected_exception_is_logged_with_traceback_and_the_caller_gets_the_id_only(
        self, broker: InProcess, log_format: str
    ) -> None:
        self.broken(broker)
        token = broker.job()
        with logged(log_format) as log:
            answer = broker.exchange(token)
        assert refusal(answer) == (500, "server_error")
        assert answer.json()["error"] == "server_error"
        assert "hunter2" not in answer.text
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
        written = log.getvalue()
        assert "hunter2" in written
        assert "Traceback" in written
        assert answer.json()["request_id"] in written
        assert token.split(".")[2] not in written

    def test_a_fault_in_json_is_one_line(self, broker: InProcess) -> None:
        self.broken(broker)
        with logged() as log:
            broker.exchange()
        for line in log.getvalue().splitlines():
            json.loads(line)

    def test_the_next_request_is_served(self, broker: InProcess) -> None:
        source = broker.app.state.broker.source
        self.broken(broker)
        assert broker.exchange().status_code == 500
        broker.app.state.broker.source = source
        assert broker.exchange().status_code == 200


class TestDiscovery:
    @pytest.mark.parametrize("path", DISCOVERY)
    def test_the_metadata_lists_the_endpoints(self, broker: InProcess, path: str) -> None:
        answer = broker.ask("GET", path)
        assert answer.headers["content-type"] == "application/json"
        said = answer.json()
        assert said["issuer"] == URL
        assert said["token_endpoint"] == f"{URL}/oauth/token"
        assert said["revocation_endpoint"] == f"{URL}/oauth/revoke"
        assert said["jwks_uri"] == f"{URL}/.well-known/jwks.json"
        assert said["grant_types_supported"] == [GRANT]
        assert said["token_endpoint_auth_methods_supported"] == ["none"]
        assert said["id_token_signing_alg_values_supported"] == ["ES256"]
        assert said["scopes_supported"] == ["function"]
        # OpenID Connect Discovery 1.0, section 3 wants these to be there, and RFC 8414,
        # section 3.2 wants no empty lists.
        assert {"response_types_supported", "subject_types_supported"} <= set(said)
        assert [] not in said.values()

    def test_the_host_header_changes_nothing(self, broker: InProcess) -> None:
        for path in DISCOVERY:
            answer = broker.ask("GET", path, headers={"host": "evil.example"})
            assert "evil" not in answer.text

    def test_the_keys_are_all_published_and_hold_nothing_private(self) -> None:
        keys = [SigningKey.generate() for _ in range(3)]
        answer = InProcess(signing=keys).ask("GET", "/.well-known/jwks.json")
        published = answer.json()["keys"]
        assert [jwk["kid"] for jwk in published] == [key.kid for key in keys]
        for jwk in published:
            assert set(jwk) == {"kty", "crv", "x", "y", "kid", "alg", "use"}

    def test_verifiers_may_cache_the_keys_for_minutes(self, broker: InProcess) -> None:
        answer = broker.ask("GET", "/.well-known/jwks.json")
        assert answer.headers["cache-control"] == "public, max-age=300"


class TestRevoke:
    @staticmethod
    def revoke(broker: InProcess, **parameters: object) -> httpx2.Response:
        return broker.post("/oauth/revoke", parameters)

    def test_the_holder_of_a_token_can_revoke_it(self, broker: InProcess) -> None:
        token = broker.access_token()
        answer = self.revoke(broker, token=token)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["cache-control"] == "no-store"
        assert refusal(broker.exchange(token, scope="function")) == (400, "revoked")

    def test_a_token_can_be_revoked_twice(self, broker: InProcess) -> None:
        token = broker.access_token()
        assert [self.revoke(broker, token=token).status_code for _ in range(2)] == [200, 200]

    @pytest.mark.parametrize("hint", ["access_token", "refresh_token", "nonsense"])
    def test_a_hint_changes_nothing(self, broker: InProcess, hint: str) -> None:
        token = broker.access_token()
        assert self.revoke(broker, token=token, token_type_hint=hint).status_code == 200
        assert refusal(broker.exchange(token, scope="function")) == (400, "revoked")

    @pytest.mark.parametrize("token", ["nonsense", "a.b.c", "e30.e30.e30", "x" * 20_000])
    def test_a_malformed_token_needs_no_revocation(self, broker: InProcess, token: str) -> None:
        assert self.revoke(broker, token=token).status_code == 200

    def test_an_expired_token_needs_no_revocation(self, broker: InProcess) -> None:
        token = broker.access_token()
        broker.clock.advance(10_000)
        assert self.revoke(broker, token=token).status_code == 200

    def test_a_forged_token_revokes_nothing(self, broker: InProcess) -> None:
        token = broker.access_token()
        header, payload, _ = token.split(".")
        _, _, signature = broker.access_token().split(".")
        assert self.revoke(broker, token=f"{header}.{payload}.{signature}").status_code == 200
        assert broker.exchange(token, scope="function").status_code == 200

    def test_a_subject_token_cannot_be_revoked(self, broker: InProcess) -> None:
        token = broker.job()
        assert self.revoke(broker, token=token).status_code == 200
        assert broker.exchange(token).status_code == 200

    def test_other_tokens_stay_valid(self, broker: InProcess) -> None:
        one, other = broker.access_token(), broker.access_token()
        self.revoke(broker, token=one)
        assert broker.exchange(other, scope="function").status_code == 200

    @pytest.mark.parametrize(
        "parameters",
        [{}, {"token": ""}, {"token_type_hint": "access_token"}, {"token": ["a", "b"]}],
    )
    def test_a_form_without_one_token_is_refused(
        self, broker: InProcess, parameters: dict[str, object]
    ) -> None:
        assert refusal(self.revoke(broker, **parameters)) == (400, "invalid_request")

    def test_a_store_that_cannot_remember_says_so(self) -> None:
        many = DOCUMENTS.replace(
            f'iss: "{GENERIC}", ', f'iss: "{GENERIC}", subjectTokenUse: many, '
        )
        broker = InProcess(many, state=BrokenStore)
        answer = self.revoke(broker, token=broker.access_token(broker.job(
            "keycloak-user", sub="someone")))  # fmt: skip
        assert refusal(answer) == (503, "state_unavailable")
        assert "retry-after" in answer.headers


class TestHealth:
    @pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz"])
    def test_a_healthy_broker_is_ok(self, broker: InProcess, path: str) -> None:
        broker.exchange()  # so that keys are held
        answer = broker.ask("GET", path)
        assert answer.status_code == 200
        assert answer.json()["status"] == "ok"

    def test_readiness_says_what_is_held(self, broker: InProcess) -> None:
        broker.exchange()
        said = broker.ask("GET", "http://localhost:8080/readyz").json()
        assert said["documents"]["roles"] == 6
        assert said["documents"]["not_adopted"] == []
        (status,) = said["issuers"].values()
        assert (status["keys"], status["failure"]) == (1, "")

    def test_readiness_names_documents_that_were_not_adopted(self, broker: InProcess) -> None:
        broker.source.refused = (Problem("x.yaml", 3, "D001", Severity.ERROR, "broken"),)
        answer = broker.ask("GET", "http://localhost:8080/readyz")
        assert (answer.status_code, answer.json()["status"]) == (200, "degraded")
        assert "x.yaml:3" in answer.json()["documents"]["not_adopted"][0]
        assert broker.exchange().status_code == 200


def texts(answers: Iterable[httpx2.Response]) -> str:
    return "\n".join(answer.text + str(answer.headers) for answer in answers)


def test_no_response_names_the_server_software(broker: InProcess) -> None:
    told = texts([broker.ask("GET", path) for path in ("/", "/livez", "/oauth/token")])
    assert not re.search(r"starlette|uvicorn|python|traceback", told, re.IGNORECASE)
