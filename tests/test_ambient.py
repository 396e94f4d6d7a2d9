"""
How a job's ID token is found on each CI system, and the message where there is none.

`test_client.py` has the cases of GitHub and GitLab; here are those of the other systems.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest
from click.testing import CliRunner

from federation.cli.exchange import exchange
from federation.client import ClientError
from federation.client.ambient import SYSTEMS, subject_token
from federation.client.http import Sender
from federation.client.token_command import find_program, printed_by
from federation.providers.profile import ByCommand, ByMetadata, ByRequest, InFile, InVariable
from federation.providers.table import PROFILES

AUDIENCE = "https://gateway.example.com"
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"

Answer = Callable[[httpx2.Request], httpx2.Response]


def nobody_is_asked(request: httpx2.Request) -> httpx2.Response:
    raise AssertionError(f"{request.url} was asked")


def found(
    environ: Mapping[str, str],
    answer: Answer = nobody_is_asked,
    provider: str | None = None,
    audience: str = AUDIENCE,
) -> str:
    client = httpx2.Client(transport=httpx2.MockTransport(answer))
    with Sender(client, pause=lambda _: None) as sender:
        return subject_token(environ, audience, sender, provider=provider)


def told(
    environ: Mapping[str, str],
    answer: Answer = nobody_is_asked,
    provider: str | None = None,
    audience: str = AUDIENCE,
) -> str:
    """The message to a job that gets no ID token. It holds no token and no secret."""
    with pytest.raises(ClientError) as caught:
        found(environ, answer, provider, audience)
    message = str(caught.value)
    assert TOKEN not in message
    assert "very-secret" not in message
    return message


def marked(name: str) -> dict[str, str]:
    """The environment of a job of the provider *name*, without anything that leads to a token."""
    (mark, value), *_ = SYSTEMS[name].marks
    return {mark: value or "1"}


RECOGNISED = [name for name, how in SYSTEMS.items() if not how.only_if_asked]
REQUESTS = [
    name for name in RECOGNISED for s in SYSTEMS[name].sources[:1] if isinstance(s, ByRequest)
]
VARIABLES = [
    (name, variable)
    for name in RECOGNISED
    for source in SYSTEMS[name].sources
    if isinstance(source, InVariable)
    for variable in source.names
]


@pytest.mark.parametrize("name", RECOGNISED)
def test_a_job_without_a_token_is_told_its_system_and_what_to_add(name: str) -> None:
    message = told(marked(name) | {"PATH": "/nowhere"})
    assert message.startswith(f"This {PROFILES[name].display_name} job ")
    assert SYSTEMS[name].advice.format(audience=AUDIENCE) in message
    assert "{" not in message.replace("{path", "").replace("{{", "")


@pytest.mark.parametrize(("name", "variable"), VARIABLES)
def test_a_token_in_a_variable_is_taken(name: str, variable: str) -> None:
    assert found(marked(name) | {"PATH": "/nowhere", variable: f"{TOKEN}\n"}) == TOKEN


@pytest.mark.parametrize(
    ("environ", "display_name"),
    [
        pytest.param({"FORGEJO_ACTIONS": "true", "GITHUB_ACTIONS": "true"}, "Forgejo",
                     id="a Forgejo runner sets GitHub's variables too"),
        pytest.param({"GITEA_ACTIONS": "true", "GITHUB_ACTIONS": "true"}, "Gitea",
                     id="Gitea has no such tokens"),
        pytest.param({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "GITLAB_CI": "true"}, "GitLab",
                     id="a runner in a cluster"),
        pytest.param({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "Kubernetes", id="a pod"),
        pytest.param({"ACTIONS_ID_TOKEN_REQUEST_URL": "https://x"}, "GitHub",
                     id="a container with GitHub's variable alone"),
        pytest.param({"BUILDKITE": "false", "SEMAPHORE": "true"}, "Semaphore",
                     id="a mark of another value"),
    ],
)  # fmt: skip
def test_the_system_is_recognised(environ: dict[str, str], display_name: str) -> None:
    assert told(environ).startswith(f"This {display_name} job ")


def test_a_job_that_could_be_of_two_systems_must_say_which() -> None:
    both = {"SEMAPHORE": "true", "SEMAPHORE_OIDC_TOKEN": TOKEN, "JENKINS_URL": "https://x"}
    message = told(both)
    assert "--from jenkins or --from semaphore" in message
    assert found(both, provider="semaphore") == TOKEN


def test_a_named_provider_is_asked_alone() -> None:
    environ = marked("gitlab") | {"FEDERATION_ID_TOKEN": TOKEN}
    assert "This Buildkite job" in told(environ | {"PATH": "/nowhere"}, provider="buildkite")


def test_the_variable_of_ones_own_works_on_every_system() -> None:
    assert found({"FEDERATION_ID_TOKEN": TOKEN}) == TOKEN
    assert found(marked("bitbucket") | {"FEDERATION_ID_TOKEN": TOKEN}) == TOKEN


def test_outside_of_all_systems_the_known_ones_are_named() -> None:
    message = told({})
    for name in RECOGNISED:
        assert PROFILES[name].display_name in message
    assert "--from aws or --from google" in message


@pytest.mark.parametrize(
    "token", ["", "  ", "two words", "line\nbreak", "x" * 16385, "caf\u00e9.x.y", "a\x00b"]
)
def test_what_cannot_be_a_token_is_not_sent(tmp_path: Path, token: str) -> None:
    if token:
        assert "There is no ID token in SEMAPHORE_OIDC_TOKEN" in told(
            marked("semaphore") | {"SEMAPHORE_OIDC_TOKEN": token}
        )
    file = tmp_path / "token"
    file.write_text(token, "utf-8")
    message = told(marked("kubernetes") | {"FEDERATION_ID_TOKEN_FILE": str(file)})
    assert f"There is no ID token in {file}" in message


class TestFile:
    def test_the_projected_file_is_read(self, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text(TOKEN)
        assert found(marked("kubernetes") | {"FEDERATION_ID_TOKEN_FILE": str(file)}) == TOKEN

    def test_a_missing_file_is_named_with_the_volume_to_add(self) -> None:
        message = told(marked("kubernetes"))
        assert "has no file /var/run/secrets/federation/token" in message
        assert f"{{path: token, audience: {AUDIENCE}, expirationSeconds: 600}}" in message

    def test_a_pipe_does_not_keep_the_job_waiting(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "token")
        environ = marked("kubernetes") | {"FEDERATION_ID_TOKEN_FILE": str(tmp_path / "token")}
        assert "has no file" in told(environ)


class TestRequest:
    @pytest.mark.parametrize("name", REQUESTS)
    def test_the_url_and_the_secret_of_the_environment_are_used(self, name: str) -> None:
        source = SYSTEMS[name].sources[0]
        assert isinstance(source, ByRequest)
        asked = []

        def answer(request: httpx2.Request) -> httpx2.Response:
            asked.append(request)
            return httpx2.Response(200, json={source.member: TOKEN})

        environ = {source.url: "https://ci.example/token?x=1", source.bearer: "very-secret"}
        assert found(marked(name) | environ, answer) == TOKEN
        (request,) = asked
        assert request.method == source.method
        assert request.headers["authorization"] == f"{source.scheme} very-secret".strip()
        query = parse_qs(request.url.query.decode())
        assert query["x"] == ["1"]
        assert "{audience}" not in source.query or query["audience"] == [AUDIENCE]

    def test_codefresh_gets_the_secret_as_it_is(self) -> None:
        environ = {"CF_OIDC_REQUEST_URL": "https://x/y", "CF_OIDC_REQUEST_TOKEN": "Bearer a.b"}

        def answer(request: httpx2.Request) -> httpx2.Response:
            assert request.headers["authorization"] == "Bearer a.b"
            return httpx2.Response(200, json={"id_token": TOKEN})

        assert found(marked("codefresh") | environ, answer) == TOKEN

    def test_azure_is_asked_by_post_and_has_one_audience(self) -> None:
        environ = {"SYSTEM_OIDCREQUESTURI": "https://x/y", "SYSTEM_ACCESSTOKEN": "very-secret"}

        def answer(request: httpx2.Request) -> httpx2.Response:
            assert (request.method, str(request.url)) == ("POST", "https://x/y?api-version=7.1")
            assert request.headers["authorization"] == "Bearer very-secret"
            return httpx2.Response(200, json={"oidcToken": TOKEN})

        assert found(marked("azure-devops") | environ, answer) == TOKEN

    @pytest.mark.parametrize("name", REQUESTS)
    def test_the_secret_is_never_sent_in_clear(self, name: str) -> None:
        source = SYSTEMS[name].sources[0]
        assert isinstance(source, ByRequest)
        for url in ("http://ci.example/x", "http://metadata.google.internal/x", "ftp://x"):
            environ = {source.url: url, source.bearer: "very-secret"}
            assert "is not an https URL" in told(marked(name) | environ)

    @pytest.mark.parametrize("name", REQUESTS)
    def test_a_refusal_that_looks_like_a_token_is_none(self, name: str) -> None:
        source = SYSTEMS[name].sources[0]
        assert isinstance(source, ByRequest)
        environ = {source.url: "https://ci.example/x", source.bearer: "very-secret"}
        for status in (201, 302, 403):
            answer = httpx2.Response(status, json={source.member: TOKEN})
            message = told(marked(name) | environ, lambda _, answer=answer: answer)  # type: ignore[misc]
            assert f"answered HTTP {status} instead of an ID token" in message

    def test_an_answer_without_an_end_is_given_up(self) -> None:
        environ = {"CF_OIDC_REQUEST_URL": "https://x/y", "CF_OIDC_REQUEST_TOKEN": "very-secret"}
        sent = 0

        class Endless(httpx2.SyncByteStream):
            def __iter__(self) -> Iterator[bytes]:
                nonlocal sent
                while True:
                    sent += 65536
                    yield b"x" * 65536

        message = told(
            marked("codefresh") | environ, lambda _: httpx2.Response(200, stream=Endless())
        )
        assert "more than 256 KiB" in message
        assert sent < 1024 * 1024


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], dict[str, str]]:
    """Makes a program of a name and a body in Python; returns the environment that has it."""

    def make(name: str, body: str) -> dict[str, str]:
        file = tmp_path / name
        file.write_text(f"#!{sys.executable} -I\nimport os, sys, json\n{body}\n")
        file.chmod(0o755)
        return {"PATH": str(tmp_path)}

    return make


Program = Callable[[str, str], dict[str, str]]
SHOW_CALL = (
    "json.dump([sys.argv[1:], dict(os.environ)], open(os.path.join(os.path.dirname("
    f"os.path.abspath(sys.argv[0])), 'call'), 'w')); print({TOKEN!r})"
)


class TestCommand:
    def test_buildkites_agent_is_asked_for_the_ids_too(
        self, program: Program, tmp_path: Path
    ) -> None:
        environ = marked("buildkite") | program("buildkite-agent", SHOW_CALL)
        assert found(environ) == TOKEN
        words, _ = json.loads((tmp_path / "call").read_text())
        assert words == [
            *("oidc", "request-token", "--audience", AUDIENCE),
            *("--claim", "organization_id,pipeline_id"),
        ]

    def test_circlecis_program_is_asked_before_its_variable(
        self, program: Program, tmp_path: Path
    ) -> None:
        environ = marked("circleci") | program("circleci", SHOW_CALL)
        assert found(environ | {"CIRCLE_OIDC_TOKEN_V2": "for.another.audience"}) == TOKEN
        words, _ = json.loads((tmp_path / "call").read_text())
        assert words[:4] == ["run", "oidc", "get", "--claims"]
        assert json.loads(words[4]) == {"aud": AUDIENCE}

    @pytest.mark.parametrize("audience", ['x", "sub": "y', "a\\", "$(id)", "`id`", "a;b", "%s"])
    def test_an_audience_is_one_word_and_no_shell_reads_it(
        self, program: Program, tmp_path: Path, audience: str
    ) -> None:
        environ = marked("circleci") | program("circleci", SHOW_CALL)
        if " " in audience:
            assert "cannot be asked for the audience" in told(environ, audience=audience)
            return
        found(environ, audience=audience)
        words, _ = json.loads((tmp_path / "call").read_text())
        assert json.loads(words[4]) == {"aud": audience}

    def test_an_audience_that_looks_like_an_option_is_refused(self, program: Program) -> None:
        environ = marked("buildkite") | program("buildkite-agent", SHOW_CALL)
        assert "cannot be asked for the audience" in told(environ, audience="--subject-claim")

    def test_the_program_gets_no_token_by_its_environment(
        self, program: Program, tmp_path: Path
    ) -> None:
        secrets = {
            name: f"very-secret-{name}"
            for how in SYSTEMS.values()
            for source in how.sources
            for name in (
                source.names
                if isinstance(source, InVariable)
                else [source.bearer]
                if isinstance(source, ByRequest)
                else []
            )
        } | {"FEDERATION_TOKEN": "very-secret-too"}
        environ = marked("buildkite") | program("buildkite-agent", SHOW_CALL)
        found(environ | secrets | {"BUILDKITE_AGENT_ACCESS_TOKEN": "its-own"}, provider="buildkite")
        _, had = json.loads((tmp_path / "call").read_text())
        assert not secrets.keys() & had.keys()
        assert had["BUILDKITE_AGENT_ACCESS_TOKEN"] == "its-own"

    def test_what_it_says_in_vain_is_shown_without_secrets(self, program: Program) -> None:
        body = (
            f"print({TOKEN!r}); "
            "sys.exit('fatal: no such job\\x1b[31m, (very-secret-key-123) bearer abc.def "
            f"{TOKEN}')"
        )
        environ = marked("buildkite") | program("buildkite-agent", body)
        message = told(environ | {"BUILDKITE_AGENT_ACCESS_TOKEN": "very-secret-key-123"})
        assert "buildkite-agent printed no ID token and ended with code 1." in message
        assert "fatal: no such job" in message
        assert "abc.def" not in message
        assert "\x1b" not in message

    @pytest.mark.parametrize(
        "body",
        ["pass", "print('a b')", "sys.stderr.write('x.y.z')", "print('x' * 20000)",
         "print('x' * 10_000_000)", "sys.stdout.buffer.write(b'\\xff')"],
    )  # fmt: skip
    def test_only_a_token_on_standard_output_counts(self, program: Program, body: str) -> None:
        environ = marked("buildkite") | program("buildkite-agent", body)
        assert "ID token" in told(environ)

    def test_a_program_that_does_not_end_is_ended_with_its_children(
        self, program: Program, tmp_path: Path
    ) -> None:
        body = (
            "import subprocess, time\n"
            "child = subprocess.Popen([sys.executable, '-Ic', 'import time; time.sleep(60)'])\n"
            f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\ntime.sleep(60)"
        )
        environ = program("slow", body)
        began = time.monotonic()
        with pytest.raises(ClientError, match="within 1 seconds"):
            printed_by(str(tmp_path / "slow"), [], environ, seconds=1)
        assert time.monotonic() - began < 10
        child = int((tmp_path / "child").read_text())
        assert _ended(child)

    def test_a_program_of_the_repository_is_not_run(
        self, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program("buildkite-agent", SHOW_CALL)
        monkeypatch.chdir(tmp_path)
        for path in (".", "", f"{os.curdir}{os.pathsep}", "../" + tmp_path.name):
            assert find_program("buildkite-agent", {"PATH": path}) is None
        assert "has no program buildkite-agent" in told(marked("buildkite") | {"PATH": "."})

    def test_aws_is_asked_only_if_somebody_says_so(self, program: Program) -> None:
        environ = program("aws", SHOW_CALL)
        assert "No CI identity" in told(environ)
        assert found(environ, provider="aws") == TOKEN


def _ended(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


FLAVOUR = {"Metadata-Flavor": "Google"}


class TestMetadata:
    def test_googles_server_is_asked_only_if_somebody_says_so(self) -> None:
        def answer(request: httpx2.Request) -> httpx2.Response:
            assert request.url.host == "metadata.google.internal"
            assert request.headers["metadata-flavor"] == "Google"
            assert parse_qs(request.url.query.decode()) == {
                "audience": [AUDIENCE],
                "format": ["full"],
            }
            return httpx2.Response(200, text=TOKEN, headers=FLAVOUR)

        assert "No CI identity" in told({"GCE_METADATA_HOST": "evil.example"})
        assert found({"GCE_METADATA_HOST": "evil.example"}, answer, provider="google") == TOKEN

    @pytest.mark.parametrize(
        "answer",
        [httpx2.Response(200, text=TOKEN), httpx2.Response(404, headers=FLAVOUR),
         httpx2.Response(200, text="<a> </a>", headers=FLAVOUR),
         httpx2.Response(302, headers={**FLAVOUR, "location": "http://evil.example"})],
    )  # fmt: skip
    def test_an_answer_of_something_else_is_refused(self, answer: httpx2.Response) -> None:
        told({}, lambda _: answer, provider="google")

    def test_no_proxy_is_asked_for_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        class Proxy(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(404)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Proxy)
        thread = Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{server.server_port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        looked_up = []
        resolve = socket.getaddrinfo

        def resolves(host: str, *rest: Any, **more: Any) -> Any:
            looked_up.append(host)
            if host == "metadata.google.internal":
                raise socket.gaierror("not here")
            return resolve(host, *rest, **more)

        monkeypatch.setattr(socket, "getaddrinfo", resolves)
        try:
            with Sender(pause=lambda _: None) as sender:
                sender.send("GET", "http://other.example/x")
                with pytest.raises(ClientError):
                    subject_token({}, AUDIENCE, sender, provider="google")
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
        assert asked == ["http://other.example/x"]
        assert "metadata.google.internal" in looked_up


def test_what_is_used_only_if_asked_for_is_never_recognised() -> None:
    assert all(how.only_if_asked == (not how.marks) for how in SYSTEMS.values())


def test_every_source_of_the_table_is_one_that_the_client_reads() -> None:
    kinds = {type(source) for how in SYSTEMS.values() for source in how.sources}
    assert kinds == {InVariable, InFile, ByRequest, ByCommand, ByMetadata}


def test_the_command_takes_a_provider_and_no_token_beside_it() -> None:
    words = ["--url", AUDIENCE, "--from", "gitlab"]
    done = CliRunner().invoke(exchange, words, env={"GITLAB_CI": None})
    assert done.exit_code == 1
    assert "This GitLab job has no FEDERATION_ID_TOKEN." in done.output
    done = CliRunner().invoke(exchange, [*words, "--token", "-"])
    assert done.exit_code == 2
    assert "either --token or --from" in done.output
