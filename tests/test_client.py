"""The client in a CI job: finding the ID token, exchanging it, and the messages when either fails."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qs

import httpx2
import pytest

from federation.client import ClientError
from federation.client.ambient import subject_token
from federation.client.exchange import AccessToken, exchange
from federation.client.http import Sender, require_secure_url
from federation.client.subject import SubjectToken
from federation.errors import Reason
from tests.harness.ci_runner import jwt

BROKER = "https://gateway.example.com"
REQUEST_URL = "https://pipelines.actions.githubusercontent.com/abc/_apis/token?api-version=2.0"
GITHUB = {
    "GITHUB_ACTIONS": "true",
    "ACTIONS_ID_TOKEN_REQUEST_URL": REQUEST_URL,
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "request-secret",
}
SUBJECT = jwt(
    iss="https://issuer.example.com",
    aud=BROKER,
    sub="repo:octo-org/repo",
    ref="refs/heads/feature",
    jti="the-one",
    user_email="octo@example.com",
)

Answer = Callable[[httpx2.Request], httpx2.Response]


def untrusted(code: int) -> ssl.SSLCertVerificationError:
    """The error of a certificate that OpenSSL refuses for the reason *code*."""
    error = ssl.SSLCertVerificationError("certificate verify failed")
    error.verify_code, error.verify_message = code, "of OpenSSL"
    return error


def no_tls(reason: str = "WRONG_VERSION_NUMBER") -> ssl.SSLError:
    error = ssl.SSLError(reason)
    error.reason = reason
    return error


class World:
    """A fake outside world: it gives prepared answers, and records requests and pauses."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx2.Request] = []
        self.slept: list[float] = []
        self.told: list[str] = []

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def sender(self) -> Sender:
        client = httpx2.Client(transport=httpx2.MockTransport(self.answer))
        return Sender(client, self.slept.append, self.told.append)


def github_answer() -> httpx2.Response:
    return httpx2.Response(200, json={"count": 5, "value": SUBJECT})


def broker_answer() -> httpx2.Response:
    return httpx2.Response(
        200, json={"access_token": "granted", "expires_in": 900, "token_type": "Bearer"}
    )


def broker_refusal(
    status: int = 400, reason: str = "no_role_admits", **headers: str
) -> httpx2.Response:
    body = {
        "error": "invalid_request",
        "error_description": "No policies found for subject: x.",
        "reason": reason,
        "request_id": "r-1",
    }
    return httpx2.Response(status, json=body, headers=headers)


def asked_for(environ: Mapping[str, str], world: World, audience: str = BROKER) -> str:
    return subject_token(environ, audience, world.sender)


def failure(environ: Mapping[str, str], world: World | None = None) -> str:
    """The message to a job that gets no ID token. It must hold no secret."""
    with pytest.raises(ClientError) as caught:
        asked_for(environ, world or World(github_answer()))
    told = str(caught.value)
    assert "request-secret" not in told
    assert SUBJECT not in told
    return told


class TestGitHub:
    def test_the_id_token_request_follows_githubs_documentation(self) -> None:
        world = World(github_answer())
        assert asked_for(GITHUB, world) == SUBJECT
        (request,) = world.asked
        assert request.method == "GET"
        assert str(request.url) == f"{REQUEST_URL}&audience=https%3A%2F%2Fgateway.example.com"
        assert request.headers["authorization"] == "bearer request-secret"
        assert request.headers["accept"] == "application/json"

    @pytest.mark.parametrize(
        "audience",
        ["https://gw.example.com", "a&b=c", "with space", "plus+", "hash#", "100%", "ü", "a/b?c"],
    )
    def test_any_audience_is_sent_unchanged(self, audience: str) -> None:
        world = World(github_answer())
        asked_for(GITHUB, world, audience)
        assert parse_qs(world.asked[0].url.query.decode())["audience"] == [audience]

    def test_a_request_url_without_a_query_gets_one(self) -> None:
        world = World(github_answer())
        asked_for(GITHUB | {"ACTIONS_ID_TOKEN_REQUEST_URL": "https://run.example/token"}, world)
        assert str(world.asked[0].url).startswith("https://run.example/token?audience=")

    @pytest.mark.parametrize(
        "missing", ["ACTIONS_ID_TOKEN_REQUEST_URL", "ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
    )
    @pytest.mark.parametrize("how", ["absent", "empty"])
    def test_each_missing_variable_is_named_with_the_permission(
        self, missing: str, how: str
    ) -> None:
        environ = {name: value for name, value in GITHUB.items() if name != missing}
        told = failure(environ if how == "absent" else environ | {missing: ""})
        assert missing in told
        assert "id-token: write" in told

    def test_both_missing_are_named_together(self) -> None:
        told = failure({"GITHUB_ACTIONS": "true"})
        assert "ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN" in told

    @pytest.mark.parametrize(
        ("event_name", "head", "fork"),
        [
            pytest.param("pull_request", "mallory/repo", True, id="a fork's pull request"),
            pytest.param("pull_request", "octo-org/repo", False, id="a pull request from within"),
            pytest.param("pull_request_target", "mallory/repo", False,
                         id="pull_request_target, which may have a token"),
            pytest.param("push", "mallory/repo", False, id="a push"),
        ],
    )  # fmt: skip
    def test_a_pull_request_from_a_fork_gets_its_own_message(
        self, tmp_path: Path, event_name: str, head: str, fork: bool
    ) -> None:
        event = tmp_path / "event.json"
        event.write_text(
            json.dumps(
                {
                    "pull_request": {"head": {"repo": {"full_name": head}}},
                    "repository": {"full_name": "octo-org/repo"},
                }
            )
        )
        told = failure(
            {
                "GITHUB_ACTIONS": "true",
                "GITHUB_EVENT_NAME": event_name,
                "GITHUB_EVENT_PATH": str(event),
            }
        )
        assert ("fork" in told) is fork
        assert ("id-token: write" in told) is not fork

    @pytest.mark.parametrize("written", ["", "[]", "{}", "nonsense", '{"pull_request": null}'])
    def test_an_unreadable_event_file_leads_to_the_general_message(
        self, tmp_path: Path, written: str
    ) -> None:
        event = tmp_path / "event.json"
        event.write_text(written)
        environ = {"GITHUB_EVENT_NAME": "pull_request", "GITHUB_EVENT_PATH": str(event)}
        assert "id-token: write" in failure({"GITHUB_ACTIONS": "true"} | environ)

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(httpx2.Response(200, json={}), id="no value"),
            pytest.param(httpx2.Response(200, json={"value": ""}), id="empty value"),
            pytest.param(httpx2.Response(200, json={"value": 5}), id="value a number"),
            pytest.param(httpx2.Response(200, json=[]), id="a list"),
            pytest.param(httpx2.Response(200, text="<html>"), id="not JSON"),
            pytest.param(httpx2.Response(401, text="request-secret"), id="401"),
            pytest.param(httpx2.Response(302, headers={"location": "http://x"}), id="a redirect"),
            pytest.param(
                httpx2.Response(
                    200, stream=httpx2.ByteStream(b"junk"), headers={"content-encoding": "gzip"}
                ),
                id="broken compression",
            ),
        ],
    )
    def test_an_unusable_answer_is_reported_and_no_redirect_is_followed(
        self, answer: httpx2.Response
    ) -> None:
        world = World(answer)
        told = failure(GITHUB, world)
        assert "GitHub" in told or "pipelines.actions.githubusercontent.com" in told
        assert len(world.asked) == 1

    @pytest.mark.parametrize(
        "url",
        [
            "http://evil.example/token",
            "ftp://x/y",
            "file:///etc/passwd",
            "token",
            "http://[",
            "//x",
        ],
    )
    def test_the_request_token_is_never_sent_in_clear(self, url: str) -> None:
        world = World(github_answer())
        assert "https" in failure(GITHUB | {"ACTIONS_ID_TOKEN_REQUEST_URL": url}, world)
        assert world.asked == []

    @pytest.mark.parametrize(
        "token", ["request-secret\nX: y", "request-secret\r\n", "request-sécret"]
    )
    def test_a_request_token_that_cannot_be_a_header_is_reported_and_not_shown(
        self, token: str
    ) -> None:
        world = World(github_answer())
        told = failure(GITHUB | {"ACTIONS_ID_TOKEN_REQUEST_TOKEN": token}, world)
        assert "ACTIONS_ID_TOKEN_REQUEST_TOKEN" in told
        assert token not in told
        assert world.asked == []


class TestGitLab:
    def test_the_variable_is_the_token(self) -> None:
        world = World(github_answer())
        environ = {"GITLAB_CI": "true", "FEDERATION_ID_TOKEN": "eyJ.gitlab"}
        assert asked_for(environ, world) == "eyJ.gitlab"
        assert world.asked == []

    @pytest.mark.parametrize("environ", [{}, {"FEDERATION_ID_TOKEN": ""}])
    def test_without_the_variable_the_message_has_the_lines_to_add(
        self, environ: dict[str, str]
    ) -> None:
        told = failure({"GITLAB_CI": "true"} | environ)
        assert "id_tokens:" in told
        assert "FEDERATION_ID_TOKEN:" in told
        assert f"aud: {BROKER}" in told


def test_outside_ci_it_says_so() -> None:
    told = failure({})
    assert "No CI identity was found" in told
    assert "--token" in told


def traded(
    world: World,
    url: str = BROKER,
    token: str = SUBJECT,
    *,
    audience: str = "",
    roles: Sequence[str] = (),
    functions: Sequence[str] = (),
) -> AccessToken:
    return exchange(url, token, world.sender, audience=audience, roles=roles, functions=functions)


def refused(world: World, url: str = BROKER, token: str = SUBJECT, audience: str = "") -> str:
    """The message to a job whose exchange failed. It must not hold its token."""
    with pytest.raises(ClientError) as caught:
        traded(world, url, token, audience=audience)
    told = str(caught.value)
    assert not any(part in told for part in token.split(".") if len(part) > 20)
    return told


class TestExchange:
    @pytest.mark.parametrize("url", [BROKER, BROKER + "/"])
    def test_the_request_follows_rfc_8693(self, url: str) -> None:
        world = World(broker_answer())
        assert traded(world, url) == AccessToken("granted", 900)
        (request,) = world.asked
        assert (request.method, str(request.url)) == ("POST", f"{BROKER}/oauth/token")
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        assert parse_qs(request.content.decode()) == {
            "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
            "subject_token": [SUBJECT],
            "subject_token_type": ["urn:ietf:params:oauth:token-type:id_token"],
        }

    def test_roles_and_functions_are_repeated(self) -> None:
        world = World(broker_answer())
        traded(world, roles=["a", "b"], functions=["dev:env", "dev:cows"])
        sent = parse_qs(world.asked[0].content.decode())
        assert sent["role"] == ["a", "b"]
        assert sent["audience"] == ["dev:env", "dev:cows"]
        assert sent["scope"] == ["function"]

    def test_a_granted_token_hides_itself(self) -> None:
        assert "granted" not in repr(traded(World(broker_answer())))

    def test_a_refusal_is_reported_in_the_brokers_words_and_not_retried(self) -> None:
        world = World(broker_refusal())
        told = refused(world)
        assert "no_role_admits" in told
        assert "No policies found for subject: x." in told
        assert "r-1" in told
        assert len(world.asked) == 1
        assert (world.slept, world.told) == ([], [])

    def test_a_refusal_comes_with_what_to_do_and_the_claims(self) -> None:
        told = refused(World(broker_refusal()))
        assert "refused (no_role_admits)" in told
        assert "Run the job from the branch or environment that a Role asks for" in told
        assert '  "ref": "refs/heads/feature"' in told
        assert "federation explain --documents DOCUMENTS --claims claims.json" in told
        assert not {"the-one", "octo@example.com", "docs/"} & set(told.split())

    @pytest.mark.parametrize(
        "answer", [httpx2.ConnectError("refused"), httpx2.Response(404), httpx2.Response(302)]
    )
    def test_a_server_that_does_not_answer_as_a_broker_is_named_with_its_port(
        self, answer: httpx2.Response | Exception
    ) -> None:
        url = "https://gateway.example.com:8443"
        assert "gateway.example.com:8443 " in refused(World(answer), url, audience=BROKER)

    @pytest.mark.parametrize("reason", [r for r in Reason if not r.temporary])
    def test_every_refusal_that_is_final_has_its_advice(self, reason: Reason) -> None:
        told = refused(World(broker_refusal(reason.status, reason)))
        if reason is not Reason.SERVER_ERROR:
            assert "The operator of the broker can say more" not in told
        assert "docs/" not in told

    def test_a_refusal_of_tomorrows_broker_is_told_too(self) -> None:
        told = refused(World(broker_refusal(400, "of_tomorrow")))
        assert "of_tomorrow" in told
        assert "The operator of the broker can say more" in told

    @pytest.mark.parametrize(
        ("reason", "words"),
        [
            ("wrong_audience", f"The token is for {BROKER}"),
            ("untrusted_issuer", "issued by https://issuer.example.com"),
        ],
    )
    def test_advice_names_the_tokens_own_values(self, reason: str, words: str) -> None:
        assert words in refused(World(broker_refusal(400, reason)))

    def test_an_answer_cannot_give_a_runner_commands(self) -> None:
        hostile = {
            "error_description": "x\n::add-mask::y\x1b[31m",
            "reason": "a\n::stop-commands::z",
            "request_id": "r\n::error::w",
        }
        told = refused(World(httpx2.Response(400, json=hostile)))
        assert not [line for line in told.splitlines() if line.startswith("::")]
        assert "\x1b" not in told

    @pytest.mark.parametrize("status", [301, 401, 403, 404, 418])
    def test_a_server_that_is_no_broker_is_reported_as_such_and_not_retried(
        self, status: int
    ) -> None:
        world = World(httpx2.Response(status, text="<html>"))
        assert f"HTTP {status}" in refused(world)
        assert len(world.asked) == 1

    @pytest.mark.parametrize(
        "body",
        ["{}", "[]", "null", "nonsense", '{"access_token": 5, "expires_in": 5}',
         '{"access_token": "", "expires_in": 5}', '{"access_token": "x"}'],
    )  # fmt: skip
    def test_a_200_that_holds_no_token_is_no_success(self, body: str) -> None:
        assert "not as a broker does" in refused(World(httpx2.Response(200, text=body)))

    @pytest.mark.parametrize(
        "passing",
        [
            pytest.param(httpx2.Response(500), id="500"),
            pytest.param(httpx2.Response(502), id="502"),
            pytest.param(broker_refusal(503), id="503"),
            pytest.param(httpx2.Response(429), id="429"),
            pytest.param(httpx2.ConnectError("refused"), id="connection refused"),
            pytest.param(httpx2.ReadTimeout("slow"), id="timeout"),
        ],
    )
    def test_temporary_errors_are_retried(self, passing: httpx2.Response | Exception) -> None:
        world = World(passing, passing, broker_answer())
        assert traded(world).token == "granted"
        assert len(world.asked) == 3
        assert len(world.slept) == 2
        assert len(world.told) == 2
        assert all("gateway.example.com: " in told and "Trying again" in told
                   for told in world.told)  # fmt: skip

    def test_it_gives_up_after_a_few_tries_with_the_brokers_last_words(self) -> None:
        world = World(broker_refusal(503))
        assert "no_role_admits" in refused(world)
        assert len(world.asked) == 4

    def test_a_failed_connection_is_retried_only_a_few_times(self) -> None:
        world = World(httpx2.ConnectError("[Errno 111] refused"))
        told = refused(world)
        assert "gateway.example.com could not be reached" in told
        assert "HTTPS_PROXY" in told
        assert len(world.asked) == 4

    @pytest.mark.parametrize(
        ("error", "remedy"),
        [
            (untrusted(18), "SSL_CERT_FILE"),
            (untrusted(10), "the operator of the server renews it"),
            (untrusted(62), "Its certificate is for another name"),
            (no_tls(), "It does not speak TLS"),
            (no_tls("TLSV13_ALERT_CERTIFICATE_REQUIRED"), "It may ask for a client certificate"),
            (no_tls("SSLV3_ALERT_HANDSHAKE_FAILURE"), "It may ask for a client certificate"),
        ],
    )
    def test_a_tls_error_that_cannot_heal_is_not_retried_and_has_its_remedy(
        self, error: ssl.SSLError, remedy: str
    ) -> None:
        failed = httpx2.ConnectError("[SSL] the words of OpenSSL (_ssl.c:1006)")
        failed.__cause__ = error
        world = World(failed)
        told = refused(world)
        assert remedy in told
        assert "_ssl.c" not in told
        assert len(world.asked) == 1
        assert world.slept == []

    def test_a_load_balancer_without_a_server_is_asked_again(self) -> None:
        error = httpx2.ConnectError("x")
        error.__cause__ = no_tls("TLSV1_ALERT_INTERNAL_ERROR")
        world = World(error, broker_answer())
        assert traded(world).token == "granted"

    @pytest.mark.parametrize(
        ("retry_after", "least", "most"),
        [("3", 3, 3), ("86400", 0, 10), ("soon", 0, 2), ("-5", 0, 2), ("", 0, 2)],
    )
    def test_retry_after_is_honoured_up_to_a_limit(
        self, retry_after: str, least: float, most: float
    ) -> None:
        world = World(broker_refusal(503, **{"retry-after": retry_after}), broker_answer())
        traded(world)
        assert least <= world.slept[0] <= most

    def test_broken_compression_is_reported(self) -> None:
        broken = httpx2.Response(
            200, stream=httpx2.ByteStream(b"junk"), headers={"content-encoding": "gzip"}
        )
        assert "gateway.example.com" in refused(World(broken))

    @pytest.mark.parametrize(
        "url",
        ["http://gateway.example.com", "gateway.example.com", "", "ftp://x", "https://", "http://[",
         "https://gateway.example.com:99999", "https://gateway.example.com:port"],
    )  # fmt: skip
    def test_a_url_that_would_send_the_token_in_clear_or_nowhere_is_refused(self, url: str) -> None:
        world = World(broker_answer())
        assert "https" in refused(world, url)
        assert world.asked == []


class TestSubjectToken:
    @pytest.mark.parametrize(
        "given",
        [SUBJECT, f"{SUBJECT}\n", f"  {SUBJECT}\r\n", f"Bearer {SUBJECT}", f"bearer  {SUBJECT}\n"],
        ids=["as it is", "a line end", "white space", "Bearer", "both"],
    )
    def test_what_is_around_a_token_is_dropped(self, given: str) -> None:
        world = World(broker_answer())
        traded(world, token=given)
        assert parse_qs(world.asked[0].content.decode())["subject_token"] == [SUBJECT]

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            pytest.param(json.dumps({"count": 5, "value": SUBJECT}), "jq -r .value", id="github"),
            pytest.param(json.dumps({"access_token": SUBJECT}), "jq -r .access_token", id="other"),
            pytest.param(json.dumps({"$(x)": SUBJECT}), "jq -r .value", id="an odd member"),
            pytest.param("{not json", "jq -r .value", id="broken JSON"),
            pytest.param(SUBJECT.replace(".", ".\n"), "line end within", id="lines within"),
            pytest.param(SUBJECT[: len(SUBJECT) // 2], "cut off", id="cut off"),
            pytest.param("null", "begins with eyJ", id="null"),
            pytest.param("", "begins with eyJ", id="nothing"),
            pytest.param("x" * 20_000, "larger than 16 KiB", id="too large"),
            pytest.param("gl\udcfft", "begins with eyJ", id="not UTF-8"),
        ],
    )
    def test_what_is_no_token_is_not_sent_and_not_quoted(self, given: str, words: str) -> None:
        world = World(broker_answer())
        assert words in refused(world, token=given)
        assert world.asked == []

    def test_a_token_hides_itself(self) -> None:
        assert SUBJECT not in repr(SubjectToken.read(SUBJECT))

    @pytest.mark.parametrize("aud", [BROKER, [BROKER], ["account", BROKER], f"{BROKER}/"], ids=str)
    @pytest.mark.parametrize("url", [BROKER, f"{BROKER}/"])
    def test_a_token_for_this_server_is_sent(self, aud: object, url: str) -> None:
        assert traded(World(broker_answer()), url, jwt(aud=aud)).token == "granted"

    def test_a_token_for_the_audience_that_was_asked_for_is_sent(self) -> None:
        token = jwt(aud="an-audience")
        assert traded(World(broker_answer()), token=token, audience="an-audience").token


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"])
def test_loopback_may_be_http(url: str) -> None:
    require_secure_url(url, "it")


@pytest.mark.parametrize(
    "url",
    ["http://localhost.evil.example", "http://127.0.0.1.evil.example", "http://127.0.0.1@evil.example",
     "http://evil.example#127.0.0.1", "http://0.0.0.0", "HTTP://evil.example", "http://evil\\@localhost.x"],
)  # fmt: skip
def test_a_host_that_only_looks_like_loopback_may_not_be_http(url: str) -> None:
    with pytest.raises(ClientError):
        require_secure_url(url, "it")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SSL_CERT_FILE", "/nowhere/ca.pem"),
        ("HTTPS_PROXY", "ftp://proxy"),
        ("ALL_PROXY", "socks5://proxy:1"),
    ],
)
def test_an_unusable_environment_is_reported(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ClientError, match=variable):
        Sender()
