"""
Everything that a dashboard needs, as processes on loopback, for tests with a real browser.

A provider, a gateway with some functions, a broker in front of it, the dashboard, and a CI issuer
whose jobs deploy. Alice may do all, but delete `payments`; Bob may look; Mallory's name is markup.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from federation.demo.issuer import LocalIssuer
from tests.harness import documents
from tests.harness.broker import AUDIENCE, Served, local_issuer, started
from tests.harness.dashboard_server import ServedDashboard
from tests.harness.faas_cli import __file__ as faas_cli_file
from tests.harness.gateway import PASSWORD, USER, sample, write_secrets
from tests.harness.oidc_provider import OidcProvider
from tests.harness.process import ROOT
from tests.harness.sign_on_parts import DASHBOARD, SECRETS

_FUNCTIONS = ("env", "figlet", "payments")
_AROUND = {"PATH": "/usr/bin:/bin"}


@dataclass(frozen=True)
class Stage:
    """The processes, and where they are."""

    folder: Path
    provider: OidcProvider
    broker: Served
    dashboard: ServedDashboard
    gateway: str
    """The URL of the gateway behind the broker."""

    @property
    def url(self) -> str:
        """The dashboard's address."""
        return self.dashboard.public_url

    def deploy(self, name: str, image: str) -> str:
        """Deploy a function into `dev` as a job on the main branch does. Return what it printed."""
        folder = self.folder / f"job-{name}"
        folder.mkdir(exist_ok=True)
        (folder / "token").write_text(self.broker.job("main"), "utf-8")
        (folder / "stack.yaml").write_text(
            f"functions:\n  {name}:\n    image: {image}\n    namespace: dev\n", "utf-8"
        )
        environ = {**_AROUND, "HOME": str(folder), "PYTHONPATH": str(ROOT)}
        exchange = [sys.executable, "-m", "federation", "exchange", "--url", self.broker.url]
        for command in (
            [*exchange, "--audience", AUDIENCE, "--token", "token", "--faas-cli"],
            [sys.executable, faas_cli_file, "deploy"],
        ):
            done = subprocess.run(  # noqa: S603  our own words
                command,
                cwd=folder,
                env={**environ, "OPENFAAS_URL": self.broker.url},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refuse(self, job: str = "feature") -> str:
        """Exchange the token of a job that no Role admits. Return the request's id."""
        answer = self.broker.exchange(self.broker.job(job))
        assert answer.status_code == 400, answer.text
        return str(answer.json()["request_id"])

    def directly(self, method: str, path: str, **request: Any) -> httpx2.Response:
        """Ask the gateway without the broker."""
        return httpx2.request(
            method,
            self.gateway + path,
            auth=(USER, PASSWORD),
            timeout=20,
            **request,
        )


@contextmanager
def stage_for(folder: Path, provider: OidcProvider) -> Iterator[Stage]:
    """Run everything but *provider*, with three functions in `dev`, inside the `with` block."""
    (folder / "client-secret").write_text(SECRETS[DASHBOARD], "utf-8")
    (folder / "client-secret").chmod(0o600)
    secrets = write_secrets(folder / "secrets", USER, PASSWORD)
    with ExitStack() as stack:
        gateway = stack.enter_context(sample())
        issuer = stack.enter_context(local_issuer())

        def written(ci: LocalIssuer) -> str:
            return _documents(ci.iss("github"), provider.issuer)

        flags = ("--upstream", gateway, "--upstream-secrets", str(secrets))
        broker = stack.enter_context(started(folder / "broker", issuer, *flags, written=written))
        dashboard = ServedDashboard(
            folder / "dashboard",
            gateway=broker.url,
            issuer=provider.issuer,
            client_id=DASHBOARD,
            port=provider.ports.dashboard,
            public_url=provider.ports.dashboard_url,
            flags={
                "client-secret-file": folder / "client-secret",
                "gateway-url": AUDIENCE,
            },
        )
        stack.enter_context(dashboard.running())
        stage = Stage(folder, provider, broker, dashboard, gateway)
        for name in _FUNCTIONS:
            image = f"registry.example.com/{name}:1.0.0"
            body = {"service": name, "image": image, "namespace": "dev"}
            stage.directly("POST", "/system/functions", json=body).raise_for_status()
        yield stage


def _documents(ci: str, people: str) -> str:
    everything = {"sid": "functions", "action": ["Function:*"], "resource": ["dev:*"]}
    see = {"sid": "namespaces", "action": ["Namespace:List", "System:Info"], "resource": ["*"]}
    keep = {
        "sid": "keep-payments",
        "effect": "Deny",
        "action": ["Function:Delete"],
        "resource": ["dev:payments"],
    }
    read = {"sid": "read", "action": ["Documents:Read", "Audit:Read"], "resource": ["*"]}
    look = {"sid": "look", "action": ["Function:List", "Function:Get"], "resource": ["dev:*"]}
    return documents.as_text(
        documents.issuer("ci", ci, tokenExpiry="1h"),
        documents.document("JwtIssuer", "people", {"iss": people, "clients": [DASHBOARD]}),
        documents.policy("dev-rw", everything),
        documents.policy("guard", keep),
        documents.policy("operate", see, read),
        documents.policy("look", look),
        documents.role("deployer", ci, "main", policy="dev-rw"),
        _people("operators", people, "alice", "dev-rw", "guard", "operate"),
        _people("readers", people, "bob", "look"),
        _people("strangers", people, "mallory", "look"),
    )


def _people(name: str, iss: str, subject: str, *policies: str) -> dict[str, object]:
    equal = {"jwt:iss": [iss], "jwt:sub": [subject]}
    spec = {"policy": list(policies), "condition": {"StringEqual": equal}}
    return documents.document("Role", name, spec)
