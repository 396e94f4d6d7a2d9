"""A broker as its users have it, before a sample upstream, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from federation.demo.issuer import LocalIssuer
from tests.harness.recording import ROOT
from tests.harness.sample_gateway import PASSWORD, USER
from tests.harness.served import AUDIENCE, Served, local_issuer, started


@dataclass(frozen=True)
class Fronted:
    """A broker and the upstream behind it."""

    broker: Served
    upstream: str
    """Where the upstream is reached directly."""

    def token(self, job: str = "main") -> str:
        """What a job got: `main` may do everything in `dev`, `feature` nothing of use."""
        answer = self.broker.exchange(self.broker.job(job))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def directly(self, method: str, target: str, **request: Any) -> httpx2.Response:
        """The upstream's answer to its own operator."""
        url = f"{self.upstream}{target}"
        answer = httpx2.request(method, url, auth=(USER, PASSWORD), timeout=20, **request)
        return answer.raise_for_status()

    def state(self) -> dict[str, Any]:
        """What the upstream saw and how many logs are followed there."""
        told: dict[str, Any] = self.directly("GET", "/test/state").json()
        return told

    def reset(self) -> None:
        """The upstream saw nothing, and has the function `figlet` and the secret `s1` in `dev`."""
        self.directly("POST", "/test/reset")


def documents(issuer: LocalIssuer) -> str:
    """Jobs on main do everything in `dev`, also to namespaces `dev…`; on feature they invoke."""
    iss = issuer.iss("github")
    return f"""
apiVersion: iam.openfaas.com/v1
kind: JwtIssuer
metadata: {{name: local}}
spec: {{iss: "{iss}", aud: ["{AUDIENCE}"], provider: github, tokenExpiry: 1h}}
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {{name: dev-rw}}
spec:
  statement:
    - sid: all
      effect: Allow
      action: ["Function:*", "Secret:*", "Namespace:*"]
      resource: ["dev:*", "dev2:*"]
    - {{sid: info, effect: Allow, action: ["System:Info"], resource: ["*"]}}
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {{name: elsewhere}}
spec:
  statement:
    - {{sid: call, effect: Allow, action: ["Function:Invoke"], resource: ["staging:cows"]}}
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: deployer}}
spec:
  policy: [dev-rw]
  condition:
    StringEqual:
      jwt:iss: ["{iss}"]
      jwt:repository_owner_id: ["13420041"]
      jwt:repository_id: ["412890077"]
      jwt:ref: [refs/heads/main]
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: feature}}
spec:
  policy: [elsewhere]
  condition:
    StringEqual:
      jwt:iss: ["{iss}"]
      jwt:repository_owner_id: ["13420041"]
      jwt:repository_id: ["412890077"]
      jwt:ref: [refs/heads/feature/login]
"""


@contextmanager
def fronted(folder: Path, *flags: str) -> Iterator[Fronted]:
    """A broker on a free port, with *flags*, before an upstream on another."""
    secrets = folder / "secrets"
    secrets.mkdir()
    (secrets / "basic-auth-user").write_text(USER)
    (secrets / "basic-auth-password").write_text(PASSWORD)
    with sample() as url, local_issuer() as issuer:
        own = ("--upstream", url, "--upstream-secrets", str(secrets))
        with started(folder, issuer, *own, *flags, written=documents) as broker:
            yield Fronted(broker, url)


@contextmanager
def sample() -> Iterator[str]:
    """Where a sample upstream is reached, within; then it is killed, whatever it is doing."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.harness.sample_gateway"],
        stdout=subprocess.PIPE, cwd=ROOT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
