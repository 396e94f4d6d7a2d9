"""
Run the login script of the GitHub action and the GitLab template, in a fake CI job.

`World` is the CI issuer and the broker of the job. A test sets their answers.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

ROOT: Final = Path(__file__).parents[2]
SCRIPT: Final = ROOT / "action" / "federate.sh"

SHELLS: Final = tuple(
    name for name in ("dash", "bash", "busybox") if shutil.which(name)
)  # some machines have no busybox


def jwt(**claims: object) -> str:
    """A token with *claims* and no valid signature: the script does not verify tokens."""
    parts = ({"alg": "none"}, claims)
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join([*(part.rstrip("=") for part in encoded), "c2lnbmF0dXJl"])


@dataclass(frozen=True)
class Request:
    """A request that the world received."""

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    form: Mapping[str, list[str]]


@dataclass(frozen=True)
class Answer:
    """An answer of the world."""

    status: int = 200
    body: object = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        """The bytes of the body."""
        text = self.body if isinstance(self.body, str) else json.dumps(self.body)
        return text.encode()


class World:
    """A CI issuer and a broker at one address, with their next answers. The last one repeats."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self.minted: list[str] = []
        self.access_token = jwt(
            sub="fed:repo:octo-org/octo-repo",
            role=["deployer", "reader"],
            policy=["dev-deploy"],
            exp=1795521600,
        )
        self.claims: dict[str, object] = {
            "sub": "repo:octo-org/octo-repo",
            "ref": "refs/heads/main",
            "jti": "only-once",
        }
        self.github: list[Answer] = []
        self.broker: list[Answer] = []
        self.revocation: list[Answer] = [Answer()]

    def grant(self) -> Answer:
        """The answer of a broker that grants an access token."""
        return Answer(
            200, {"access_token": self.access_token, "token_type": "Bearer", "expires_in": 900}
        )

    def answer(self, request: Request) -> Answer:
        """The next answer to *request*."""
        self.requests.append(request)
        match request.path:
            case "/github/token":
                return _next(self.github) or self.mint(request.query["audience"][0])
            case "/oauth/token" | "/b/oauth/token":
                return _next(self.broker) or self.grant()
            case "/oauth/revoke":
                return _next(self.revocation) or Answer()
            case _:
                return Answer(404, "nothing is here")

    def asked(self, path: str) -> list[Request]:
        """The requests to *path*."""
        return [request for request in self.requests if request.path == path]

    def mint(self, audience: str = "") -> Answer:
        """The answer of a token service that gives an ID token for *audience*."""
        token = jwt(**{"aud": audience, "number": len(self.minted), **self.claims})
        self.minted.append(token)
        return Answer(200, {"count": len(token), "value": token})


def _next(answers: list[Answer]) -> Answer | None:
    if len(answers) > 1:
        return answers.pop(0)
    return answers[0] if answers else None


@contextmanager
def world(tls: ssl.SSLContext | None = None) -> Iterator[World]:
    """Serve a world inside the `with` block."""
    made: list[World] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_args: Any) -> None:
            pass

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            answer = made[0].answer(
                Request(
                    self.command,
                    url.path,
                    parse_qs(url.query),
                    {name.lower(): value for name, value in self.headers.items()},
                    parse_qs(self.rfile.read(length).decode(), keep_blank_values=True),
                )
            )
            content = answer.content()
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(content)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815  as above

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_args: Any) -> None:
            pass  # a client that does not trust our certificate hangs up

    with Server(("127.0.0.1", 0), Handler) as server:
        scheme = "http"
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            scheme = "https"
        made.append(World(f"{scheme}://127.0.0.1:{server.server_port}"))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield made[0]
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Ran:
    """The result of a run of the script."""

    code: int
    log: str
    outputs: Mapping[str, str]
    later: Mapping[str, str]
    """The variables that it sets for later steps."""
    summary: str


class Runner:
    """Runs the script as a CI runner does, in a folder of its own."""

    def __init__(self, folder: Path, world: World, shell: str = "dash") -> None:
        self.folder = folder
        self.world = world
        self.shell = shell
        self.workspace = folder / "workspace"
        self.temporary = folder / "temporary"
        self.tools = folder / "tools"
        for made in (self.workspace, self.temporary, self.tools):
            made.mkdir(parents=True, exist_ok=True)
        self._script("sleep", f'echo "$1" >>{folder}/pauses')

    def github(self, command: str = "github", **changes: str | None) -> Ran:
        """Run the script in a GitHub job. None removes a variable."""
        given = {**self.github_job(), "FEDERATION_URL": self.world.url, **changes}
        return self._run(command, given)

    def github_job(self) -> dict[str, str]:
        """The environment of a step of a GitHub job, with new files for its outputs."""
        files = {name: self.folder / name for name in ("output", "env", "summary")}
        for file in files.values():
            file.write_text("")
        return {
            "GITHUB_ACTIONS": "true",
            "GITHUB_EVENT_NAME": "push",
            "GITHUB_REPOSITORY": "octo-org/octo-repo",
            "GITHUB_OUTPUT": str(files["output"]),
            "GITHUB_ENV": str(files["env"]),
            "GITHUB_STEP_SUMMARY": str(files["summary"]),
            "RUNNER_OS": "Linux",
            "RUNNER_TEMP": str(self.temporary),
            "ACTIONS_ID_TOKEN_REQUEST_URL": (
                f"{self.world.url}/github/token?api-version=2.0&job=main"
            ),
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "the-request-token",
        }

    def gitlab(self, command: str = "gitlab", **changes: str | None) -> Ran:
        """Run the script in a GitLab job. None removes a variable."""
        return self._run(
            command,
            {
                "GITLAB_CI": "true",
                "CI_JOB_ID": "17",
                "CI_PROJECT_DIR": str(self.workspace),
                "RUNNER_TEMP_PROJECT_DIR": f"{self.workspace}.tmp",
                "FEDERATION_ID_TOKEN": jwt(aud=self.world.url, **self.world.claims),
                "FEDERATION_URL": self.world.url,
                "FEDERATION_FAAS_CLI": "true",
                **changes,
            },
        )

    def pauses(self) -> list[str]:
        """The seconds of each wait of the script."""
        file = self.folder / "pauses"
        return file.read_text().split() if file.exists() else []

    def watch(self, *names: str) -> None:
        """Record the arguments and the environment of these programs from now on."""
        for name in names:
            real = shutil.which(name)
            assert real, name
            seen = f'{{ printf "%s\\n" "$0" "$@"; {shutil.which("env")}; }} >>{self.folder}/seen'
            self._script(name, f'{seen}\nexec {real} "$@"')

    def linger(self, seconds: float) -> Path:
        """Have each pause of the script take *seconds*, and return a file that is there from the first on."""
        began = self.folder / "lingers"
        self._script("sleep", f": >{began}; exec {shutil.which('sleep')} {seconds}")
        return began

    def before(self, name: str, command: str) -> None:
        """Have *command* run before each run of the program *name* from now on."""
        self._script(name, f'{command}\nexec {shutil.which(name)} "$@"')

    def seen(self) -> str:
        """The recorded arguments and environments."""
        return (self.folder / "seen").read_text()

    def config(self) -> str:
        """The config file that it wrote for faas-cli."""
        (found,) = self.folder.rglob("config.yml")
        return found.read_text()

    def _script(self, name: str, text: str) -> None:
        file = self.tools / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    def _run(self, command: str, environment: Mapping[str, str | None]) -> Ran:
        variables = {"PATH": f"{self.tools}:{os.environ['PATH']}", "CI": "true", **environment}
        ran = subprocess.run(  # noqa: S603  our own script
            [*_command(self.shell), str(SCRIPT), command],
            env={name: value for name, value in variables.items() if value is not None},
            cwd=self.workspace,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        return Ran(
            ran.returncode,
            ran.stdout,
            _pairs(self.folder / "output"),
            _pairs(self.folder / "env"),
            _text(self.folder / "summary"),
        )


def _command(shell: str) -> list[str]:
    found = shutil.which(shell)
    assert found, shell
    return [found, "sh"] if shell == "busybox" else [found]


def _pairs(file: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in _text(file).splitlines())


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""
