"""A whole broker within the test: real rooms, a fake world, a clock that can be set."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2
import structlog

from federation.app import build
from federation.audit.event import Event
from federation.audit.log import LoggedJournal
from federation.config import Settings
from federation.documents.assemble import assemble
from federation.documents.catalog import Catalog
from federation.documents.parse import parse
from federation.errors import Problem, Reason, Refusal
from federation.gateway.upstream import Upstream
from federation.issuers.key_ring import KeyRing
from federation.jose import jws
from federation.logs import configure_logs
from federation.server.metrics import Metrics
from federation.state import Store
from federation.state.memory import MemoryStore
from federation.tokens.signing_keys import SigningKey, SigningKeys
from tests.harness.builders import AUDIENCE, NOW, good
from tests.harness.built import GENERIC, GITHUB, GITLAB
from tests.harness.fakes import Clock, FakeIssuer, FakeKey

URL: Final = AUDIENCE
GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"

HIDDEN: Final = "refs/heads/only-the-operator-knows"
"""A value that Roles expect and that no caller may ever read."""

DOCUMENTS: Final = f"""
apiVersion: iam.openfaas.com/v1
kind: JwtIssuer
metadata: {{name: github}}
spec: {{iss: "{GITHUB}", aud: ["{URL}"], tokenExpiry: 30m}}
---
apiVersion: iam.openfaas.com/v1
kind: JwtIssuer
metadata: {{name: gitlab}}
spec: {{iss: "{GITLAB}", aud: ["{URL}"]}}
---
apiVersion: iam.openfaas.com/v1
kind: JwtIssuer
metadata: {{name: idp}}
spec: {{iss: "{GENERIC}", aud: ["{URL}"], tokenExpiry: 1h}}
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {{name: deploy}}
spec:
  statement:
    - {{sid: deploy, effect: Allow, action: ["Function:*"], resource: ["dev:*"]}}
    - {{sid: never, effect: Deny, action: ["Function:Invoke"], resource: ["dev:vault"]}}
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {{name: invoke}}
spec:
  statement:
    - {{sid: call, effect: Allow, action: ["Function:Invoke"], resource: ["prod:env", "prod:cows"]}}
---
apiVersion: iam.openfaas.com/v1
kind: Policy
metadata: {{name: look}}
spec:
  statement:
    - {{sid: look, effect: Allow, action: ["Function:List"], resource: ["*"]}}
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: octo-deployer}}
spec:
  policy: [deploy]
  condition:
    StringEqual:
      jwt:iss: ["{GITHUB}"]
      jwt:repository_owner_id: ["13420041"]
      jwt:repository: [octo-org/octo-repo]
      jwt:ref: [refs/heads/main]
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: octo-invoker}}
spec:
  policy: [invoke, look]
  tokenExpiry: 10m
  condition:
    StringEqual:
      jwt:iss: ["{GITHUB}"]
      jwt:repository_owner_id: ["13420041"]
      jwt:repository: [octo-org/octo-repo]
      jwt:ref: [refs/heads/main]
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: octo-releaser}}
spec:
  policy: [deploy]
  condition:
    StringEqual:
      jwt:iss: ["{GITHUB}"]
      jwt:repository_owner_id: ["13420041"]
      jwt:ref: [{HIDDEN}]
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: acme-deployer}}
spec:
  policy: [deploy]
  condition:
    StringEqual:
      jwt:iss: ["{GITHUB}"]
      jwt:repository_owner_id: ["777"]
      jwt:ref: [{HIDDEN}]
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: group-deployer}}
spec:
  policy: [look]
  condition:
    StringEqual:
      jwt:iss: ["{GITLAB}"]
      jwt:namespace_path: [octo-group]
      jwt:ref_path: [refs/heads/main]
---
apiVersion: iam.openfaas.com/v1
kind: Role
metadata: {{name: people}}
spec:
  policy: [look]
  principal:
    jwt:sub: [someone]
  condition:
    StringEqual:
      jwt:iss: ["{GENERIC}"]
"""

Told = TypeVar("Told")

_ANYTHING = Path(__file__).parents[1] / "vectors"


def catalog_of(text: str) -> Catalog:
    """The catalog of the documents in *text*."""
    assembled = assemble([parse("documents.yaml", text.encode())])
    assert assembled.catalog is not None, assembled.problems
    return assembled.catalog


class FakeSource:
    """A catalog that a test can change."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.refused: tuple[Problem, ...] = ()

    def current(self) -> Catalog:
        return self.catalog

    def problems(self) -> tuple[Problem, ...]:
        return self.refused


class FakeJournal:
    """Keeps every event, or fails when it is told to."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.failure: Exception | None = None
        self.failed: Exception | None = None
        """What the last record came to, as it is known from then on."""
        self.hanging: asyncio.Event | None = None
        """While it is there, a record never ends; it is set once one has begun."""

    def check(self) -> None:
        if self.failed is not None:
            raise self.failed

    async def record(self, event: Event) -> None:
        if self.hanging is not None:
            self.hanging.set()
            await asyncio.Event().wait()
        self.failed = self.failure
        if self.failure is not None:
            raise self.failure
        self.events.append(event)


class BrokenStore(MemoryStore):
    """A store that cannot answer."""

    async def spend(self, *_args: Any) -> bool:
        raise Refusal(Reason.STATE_UNAVAILABLE)

    async def revoke(self, *_args: Any) -> None:
        raise Refusal(Reason.STATE_UNAVAILABLE)

    async def revoked(self, _jti: str) -> bool:
        raise Refusal(Reason.STATE_UNAVAILABLE)


class InProcess:
    """A broker at `URL`, three issuers that it trusts, and what it recorded."""

    def __init__(
        self,
        documents: str = DOCUMENTS,
        *,
        state: Callable[[Callable[[], float]], Store] = MemoryStore,
        signing: Sequence[SigningKey] = (),
        upstream: Upstream | None = None,
        metrics: Metrics | None = None,
        **settings: Any,
    ) -> None:
        self.clock = Clock(NOW)
        self.github = FakeIssuer(GITHUB)
        self.gitlab = FakeIssuer(GITLAB)
        self.idp = FakeIssuer(GENERIC, FakeKey(alg="ES256"))
        self.source = FakeSource(catalog_of(documents))
        self.journal = FakeJournal()
        self.signing = SigningKeys(tuple(signing) or (SigningKey.generate(),))
        self.state = state(self.clock)
        self.app = build(
            Settings(issuer_url=URL, documents=(_ANYTHING,), state=_ANYTHING / "none", **settings),
            source=self.source,
            keys=KeyRing(self._connect, Clock()),
            signing=self.signing,
            state=self.state,
            journal=LoggedJournal(self.journal),
            metrics=metrics,
            upstream=upstream,
            clock=self.clock,
        )

    def job(self, sample: str = "github-push-main", **changes: object) -> str:
        """A fresh subject token of a CI job, or of a person, with *changes* to its claims."""
        return self.issuer(sample).token(self.claims(sample, **changes))

    def claims(self, sample: str = "github-push-main", **changes: object) -> Mapping[str, object]:
        """The claims of `job`."""
        fresh = {"iss": self.issuer(sample).iss, "aud": URL, "jti": uuid.uuid4().hex}
        return good(sample, self.clock(), **(fresh | changes))

    def issuer(self, sample: str) -> FakeIssuer:
        """Who signs *sample*."""
        if sample.startswith("keycloak"):
            return self.idp
        return self.gitlab if sample.startswith("gitlab") else self.github

    def exchange(self, token: str | None = None, **changes: Any) -> httpx2.Response:
        """The answer to a good exchange with *changes* to its form."""
        return self.post("/oauth/token", form(token or self.job(), **changes))

    def access_token(self, token: str | None = None, **changes: Any) -> str:
        """A token that the broker gave."""
        answer = self.exchange(token, **changes)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def post(
        self, path: str, parameters: Mapping[str, object] | None = None, **request: Any
    ) -> httpx2.Response:
        """The answer to a form."""
        return self.ask("POST", path, data=parameters, **request)

    def ask(self, method: str, path: str, **request: Any) -> httpx2.Response:
        """The answer to any request."""

        async def story(client: httpx2.AsyncClient) -> httpx2.Response:
            return await client.request(method, path, **request)

        return self.tell(story)

    def tell(self, story: Callable[[httpx2.AsyncClient], Awaitable[Told]]) -> Told:
        """What *story* comes to, with a client of this broker."""

        async def told() -> Told:
            transport = httpx2.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx2.AsyncClient(transport=transport, base_url=URL) as client:
                return await story(client)

        return asyncio.run(told())

    def _connect(self, _ca_bundle: str | None) -> httpx2.AsyncClient:
        async def answer(request: httpx2.Request) -> httpx2.Response:
            for fake in (self.github, self.gitlab, self.idp):
                if str(request.url).startswith(fake.base):
                    return await fake.answer(request)
            raise httpx2.ConnectError("nobody is there")

        return httpx2.AsyncClient(transport=httpx2.MockTransport(answer))


def form(token: str, **changes: object) -> dict[str, object]:
    """The parameters of a good exchange with *changes*; None takes one away."""
    good_one = {
        "grant_type": GRANT,
        "subject_token": token,
        "subject_token_type": ID_TOKEN,
        **changes,
    }
    return {name: value for name, value in good_one.items() if value is not None}


def said(token: str) -> Mapping[str, object]:
    """The claims of *token*, not verified."""
    return jws.parse(token).claims


def refusal(answer: httpx2.Response) -> tuple[int, str]:
    """Status and reason of a refusal, which has the shape of every refusal."""
    assert set(answer.json()) == {"error", "error_description", "reason", "request_id"}, answer.text
    return answer.status_code, answer.json()["reason"]


@contextmanager
def logged(log_format: str = "json") -> Iterator[StringIO]:
    """What is logged within, as the server would write it."""
    stream, root = StringIO(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        with redirect_stderr(stream):
            configure_logs(log_format)
            yield stream
    finally:
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)
