"""
Brokers for tests, in two forms.

`InProcess` is the whole application within the test, with fake issuers, a fake journal and a
clock that the test moves. `Served` is `federation serve` in a process of its own.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from io import StringIO
from pathlib import Path
from queue import Queue
from typing import Any, Final, TypeVar

import httpx2
import structlog

from federation.app import build
from federation.audit.event import Event
from federation.audit.log import LoggedJournal
from federation.config import Settings
from federation.demo.issuer import LocalIssuer
from federation.documents.catalog import Catalog
from federation.errors import Problem, Reason, Refusal
from federation.gateway.upstream import Upstream
from federation.issuers.key_ring import KeyRing
from federation.jose import jws
from federation.logs import configure_logs
from federation.server.metrics import Metrics
from federation.state import Store
from federation.state.memory import MemoryStore
from federation.tokens.signing_keys import SigningKey, SigningKeys
from tests.harness import documents
from tests.harness.builders import AUDIENCE, GENERIC, GITHUB, GITLAB, NOW, good
from tests.harness.clock import Clock
from tests.harness.documents import DOCUMENTS, HIDDEN, URL, catalog_of
from tests.harness.issuer import FakeIssuer, FakeKey, local_issuer
from tests.harness.process import Server

__all__ = [
    "ACCESS_TOKEN",
    "AUDIENCE",
    "DOCUMENTS",
    "GRANT",
    "HIDDEN",
    "ID_TOKEN",
    "JWT",
    "URL",
    "BrokenStore",
    "FakeJournal",
    "FakeSource",
    "InProcess",
    "Served",
    "catalog_of",
    "documents_for",
    "form",
    "local_issuer",
    "logged",
    "refusal",
    "said",
    "served",
    "started",
]

GRANT: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"

Told = TypeVar("Told")

_UNUSED = Path(__file__).parents[1] / "vectors"


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
    """Keeps every event in memory. It can be made to fail, or to hang."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.failure: Exception | None = None
        self.failed: Exception | None = None
        """The failure of the last record, which `check` raises until one succeeds."""
        self.hanging: asyncio.Event | None = None
        """If set by the test, a record never ends. The event is set when one begins."""

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
    """A store that is unavailable."""

    async def spend(self, *_args: Any) -> bool:
        raise Refusal(Reason.STATE_UNAVAILABLE)

    async def revoke(self, *_args: Any) -> str:
        raise Refusal(Reason.STATE_UNAVAILABLE)

    async def revoked(self, _jti: str) -> bool:
        raise Refusal(Reason.STATE_UNAVAILABLE)

    async def check(self) -> str:
        raise Refusal(Reason.STATE_UNAVAILABLE)


class InProcess:
    """A broker at `URL`, the three issuers that it trusts, and the events that it recorded."""

    def __init__(
        self,
        documents: str = DOCUMENTS,
        *,
        state: Callable[[Callable[[], float]], Store] = MemoryStore,
        signing: Sequence[SigningKey] = (),
        upstream: Upstream | None = None,
        metrics: Metrics | None = None,
        state_folder: Path = _UNUSED / "none",
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
            Settings(issuer_url=URL, documents=(_UNUSED,), state=state_folder, **settings),
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
        """A fresh subject token with the claims of *sample* and *changes* to them."""
        return self.issuer(sample).token(self.claims(sample, **changes))

    def claims(self, sample: str = "github-push-main", **changes: object) -> Mapping[str, object]:
        """The claims of `job`."""
        fresh = {"iss": self.issuer(sample).iss, "aud": URL, "jti": uuid.uuid4().hex}
        return good(sample, self.clock(), **(fresh | changes))

    def issuer(self, sample: str) -> FakeIssuer:
        """The issuer of *sample*."""
        if sample.startswith("keycloak"):
            return self.idp
        return self.gitlab if sample.startswith("gitlab") else self.github

    def exchange(self, token: str | None = None, **changes: Any) -> httpx2.Response:
        """The answer to a good exchange with *changes* to its form."""
        return self.post("/oauth/token", form(token or self.job(), **changes))

    def access_token(self, token: str | None = None, **changes: Any) -> str:
        """An access token."""
        answer = self.exchange(token, **changes)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def post(
        self, path: str, parameters: Mapping[str, object] | None = None, **request: Any
    ) -> httpx2.Response:
        """The answer to a POST of a form."""
        return self.ask("POST", path, data=parameters, **request)

    def ask(self, method: str, path: str, **request: Any) -> httpx2.Response:
        """The answer to any request."""

        async def story(client: httpx2.AsyncClient) -> httpx2.Response:
            return await client.request(method, path, **request)

        return self.tell(story)

    def tell(self, story: Callable[[httpx2.AsyncClient], Awaitable[Told]]) -> Told:
        """Run *story* with a client of this broker, and return its result."""

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
            raise httpx2.ConnectError("no such host")

        return httpx2.AsyncClient(transport=httpx2.MockTransport(answer))


def form(token: str, **changes: object) -> dict[str, object]:
    """The parameters of a good exchange with *changes*. None removes one."""
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
    """Status and reason of a refusal, after a check that it has all members and no others."""
    assert set(answer.json()) == {"error", "error_description", "reason", "request_id"}, answer.text
    return answer.status_code, answer.json()["reason"]


@contextmanager
def logged(log_format: str = "json") -> Iterator[StringIO]:
    """The log lines written inside the `with` block, in the format of the server."""
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


class Served(Server):
    """
    `federation serve` with *documents*: a file's text, or a folder of files.

    Its state is in *folder*, so that another one started there goes on with it. Without a
    *port* it takes a free one.
    """

    def __init__(
        self,
        folder: Path,
        documents: str | Path,
        *flags: str,
        port: int = 0,
        issuer: LocalIssuer | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.state = folder / "state"
        self.documents = documents if isinstance(documents, Path) else folder / "documents"
        options = {"documents": self.documents, "state": self.state, "port": port}
        words = [f"--{name}={value}" for name, value in options.items()]
        module = ["federation", "serve", *words, "--log-format=json", *flags]
        super().__init__(module, folder, environ)
        if isinstance(documents, str):
            self.documents.mkdir(exist_ok=True)
            (self.documents / "all.yaml").write_text(documents, "utf-8")
        self.listening = {"port": port}
        self._issuer = issuer
        self._lines: Queue[str] = Queue()
        self._lines_read = 0

    @property
    def issuer(self) -> LocalIssuer:
        """The CI issuer that it trusts."""
        assert self._issuer is not None
        return self._issuer

    @property
    def metrics_port(self) -> int | None:
        """The port of its metrics."""
        port: int | None = self.listening.get("metrics_port")
        return port

    @property
    def lines(self) -> Queue[str]:
        """The lines that it logged, in a queue: a test takes each once."""
        whole = self.log.read_text("utf-8").rpartition("\n")[0]
        for line in whole.splitlines()[self._lines_read :]:
            self._lines.put(line)
            self._lines_read += 1
        return self._lines

    def is_up(self) -> bool:
        """True once it answers."""
        return super().is_up() and self.status("/livez") == 200

    def metrics(self) -> str:
        """Its metrics, as Prometheus reads them."""
        answer = httpx2.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=20)
        return answer.raise_for_status().text

    def job(self, job: str = "main", provider: str = "github") -> str:
        """A fresh subject token of a job."""
        return self.issuer.issue(provider, job, AUDIENCE)

    def exchange(self, token: str | None = None) -> httpx2.Response:
        """The answer to an exchange."""
        return httpx2.post(f"{self.url}/oauth/token", data=form(token or self.job()), timeout=20)

    def access_token(self, job: str = "main") -> str:
        """An access token for a job."""
        answer = self.exchange(self.job(job))
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def workers(self) -> list[int]:
        """The ids of its worker processes, if it has several."""
        found = []
        with suppress(OSError):
            for pid in self.children():
                with suppress(OSError):
                    if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        found.append(pid)
        return found

    def unexpected_errors(self) -> list[str]:
        """The lines of its log that tell of errors that the code does not expect."""
        lines = self.log.read_text("utf-8", errors="replace").splitlines()
        return [line[:300] for line in lines if "unexpected error" in line or "Traceback" in line]


def documents_for(issuer: LocalIssuer) -> str:
    """Documents by which jobs on main, from *issuer*, may do everything in `dev`."""
    iss = issuer.iss("github")
    return documents.as_text(
        documents.issuer("local", iss), documents.DEPLOY, documents.role("deployer", iss)
    )


@contextmanager
def served(folder: Path, *flags: str) -> Iterator[Served]:
    """Run a broker, and the local CI issuer that it trusts, inside the `with` block."""
    with local_issuer() as issuer, started(folder, issuer, *flags) as broker:
        yield broker


@contextmanager
def started(
    folder: Path,
    issuer: LocalIssuer,
    *flags: str,
    written: Callable[[LocalIssuer], str] = documents_for,
) -> Iterator[Served]:
    """Run a broker that trusts *issuer*, with the state that an earlier one left in *folder*."""
    broker = Served(folder, written(issuer), *flags, issuer=issuer)
    with broker.running():
        yield broker
