"""A broker as its users have it: `python -m federation serve` in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

import httpx2

from federation.demo.issuer import LocalIssuer
from federation.demo.stage import serving

AUDIENCE = "https://broker.test"
"""What jobs ask their token for. The broker's port is not known when its documents are written."""


@dataclass
class Served:
    """A broker that is up."""

    url: str
    process: subprocess.Popen[str]
    issuer: LocalIssuer
    documents: Path
    state: Path
    lines: Queue[str]
    metrics_port: int | None

    def metrics(self) -> str:
        """What Prometheus would read."""
        answer = httpx2.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=20)
        return answer.raise_for_status().text

    def job(self, job: str = "main", provider: str = "github") -> str:
        """A subject token of a job."""
        return self.issuer.issue(provider, job, AUDIENCE)

    def exchange(self, token: str | None = None) -> httpx2.Response:
        """The answer to an exchange."""
        form = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token or self.job(),
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
        }
        return httpx2.post(f"{self.url}/oauth/token", data=form, timeout=20)

    def access_token(self) -> str:
        """A granted token."""
        answer = self.exchange()
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def connect(self) -> socket.socket:
        """A bare connection."""
        url = httpx2.URL(self.url)
        return socket.create_connection((url.host, url.port or 80), timeout=30)

    def resident_bytes(self) -> int:
        """How much memory the process holds."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


def documents(issuer: LocalIssuer) -> str:
    """Who may have what, for jobs of *issuer*."""
    return f"""
apiVersion: iam.openfaas.com/v1
kind: JwtIssuer
metadata: {{name: local}}
spec: {{iss: "{issuer.iss("github")}", aud: ["{AUDIENCE}"], provider: github}}
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {{name: deploy}}
spec:
  statement:
    - {{sid: deploy, effect: Allow, action: ["Function:*"], resource: ["dev:*"]}}
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: deployer}}
spec:
  policy: [deploy]
  condition:
    StringEqual:
      jwt:iss: ["{issuer.iss("github")}"]
      jwt:repository_owner_id: ["13420041"]
      jwt:repository_id: ["412890077"]
      jwt:ref: [refs/heads/main]
"""


@contextmanager
def local_issuer() -> Iterator[LocalIssuer]:
    """A CI issuer on a free port, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    issuer = LocalIssuer(f"http://127.0.0.1:{listener.getsockname()[1]}")
    up, down = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving(issuer.app, listener):
            up.set()
            await asyncio.to_thread(down.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert up.wait(20)
    try:
        yield issuer
    finally:
        down.set()
        thread.join()


@contextmanager
def served(folder: Path, *flags: str) -> Iterator[Served]:
    """A broker on a free port that trusts a local CI issuer of its own."""
    with local_issuer() as issuer, started(folder, issuer, *flags) as up:
        yield up


@contextmanager
def started(
    folder: Path,
    issuer: LocalIssuer,
    *flags: str,
    written: Callable[[LocalIssuer], str] = documents,
) -> Iterator[Served]:
    """
    A broker on a free port that trusts *issuer*, with what it left in *folder* before.

    Its documents are as *written* for that issuer.
    """
    place, state = folder / "documents", folder / "state"
    place.mkdir(exist_ok=True)
    (place / "all.yaml").write_text(written(issuer))
    environ = {name: v for name, v in os.environ.items() if not name.startswith("FEDERATION_")}
    process = subprocess.Popen(  # noqa: S603  our own program
        [sys.executable, "-m", "federation", "serve", "--port", "0", "--log-format", "json",
         "--documents", str(place), "--state", str(state), *flags],
        stderr=subprocess.PIPE, text=True, env=environ,
    )  # fmt: skip
    lines: Queue[str] = Queue()
    reader = threading.Thread(target=_read, args=(process, lines))
    reader.start()
    try:
        url, metrics_port = _listening(process, lines)
        yield Served(url, process, issuer, place, state, lines, metrics_port)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join()
        assert process.stderr is not None
        process.stderr.close()


def _read(process: subprocess.Popen[str], lines: Queue[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        lines.put(line)


def _listening(process: subprocess.Popen[str], lines: Queue[str]) -> tuple[str, int | None]:
    """The URL that the broker logs, where it answers, and the port of its metrics."""
    seen = []
    while True:
        try:
            seen.append(lines.get(timeout=20))
        except Empty:
            process.kill()
            raise AssertionError("the broker did not start:\n" + "".join(seen)) from None
        said = json.loads(seen[-1]) if seen[-1].startswith("{") else {}
        if said.get("event") == "listening":
            url = str(said["url"])
            httpx2.get(f"{url}/livez", timeout=20).raise_for_status()
            return url, said.get("metrics_port")
