"""
`build(settings)`: makes the application and everything it needs.

This is the only module that knows both the settings and the rooms. It makes the clients, stores
and keys, passes each room plain values, runs the background tasks, and closes everything when the
server stops.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from federation.audit import Journal
from federation.audit.delivery import Delivery, Webhook, read_header, trusting
from federation.audit.journal import DividedJournal, FileJournal
from federation.audit.log import LOGGER, LoggedJournal
from federation.audit.seals import SEAL_TYPE
from federation.audit.segments import OUTSIDERS
from federation.config import Settings
from federation.documents.assemble import Assembled
from federation.documents.catalog import Catalog
from federation.documents.codes import Code
from federation.documents.model import JwtIssuer
from federation.errors import Problem, Problems, Refusal, SettingsRefused, Severity
from federation.exchange import Broker
from federation.gateway.body_budget import BodyBudget
from federation.gateway.function_headers import FunctionHeaders
from federation.gateway.proxy import Functions, Gateway
from federation.gateway.upstream import BasicAuth, Tls, Upstream
from federation.gateway.upstream_health import upstream_problem
from federation.issuers.key_ring import KeyRing
from federation.logs import quick_info
from federation.ownership import NotTrusted, read_key
from federation.policy.index import PolicySets
from federation.server.gauges import BrokerStatus
from federation.server.metrics import Metrics
from federation.sources import Source
from federation.sources.files import Adopted, FileSource
from federation.state import Observe, Store
from federation.state.sqlite import SqliteStore
from federation.tokens.mint import sign_jws
from federation.tokens.signing_keys import KeyFolder, SigningKeys, read_pem
from federation.tokens.verify import AccessTokens
from federation.web.access_log import LOGGER as ACCESS_LOGGER
from federation.web.access_log import AccessLog
from federation.web.discovery import jwks, metadata
from federation.web.health import Health, healthz, livez, readyz
from federation.web.rate_limit import (
    BadTokens,
    Failures,
    Network,
    RepeatedExchanges,
    Revocations,
    is_from_proxy,
)
from federation.web.refusals import ErrorBoundary, not_found
from federation.web.revoke import RevocationEndpoint
from federation.web.token import TokenEndpoint

if TYPE_CHECKING:
    from federation.state.redis import RedisStore

_KEYS_CHECK_SECONDS = 2.0
_LAST_DELIVERY_SECONDS = 5.0
_FIRST_KEYS_SECONDS = 5.0
_GAUGES_SECONDS = 2.0
_UPSTREAM_SECONDS = 5.0
_MIB = 1024 * 1024
_OUTSIDERS_SHARE = 8
"""The part of the journal's size that events of outsiders have: one of so many."""


def build(
    settings: Settings,
    *,
    source: Source | None = None,
    keys: KeyRing | None = None,
    signing: SigningKeys | None = None,
    state: Store | None = None,
    journal: Journal | None = None,
    metrics: Metrics | None = None,
    upstream: Upstream | None = None,
    clock: Callable[[], float] = time.time,
    on_adopt: Callable[[Adopted], None] | None = None,
    last_good: bytes | None = None,
) -> BrokerApp:
    """
    Return the broker as an ASGI application. Arguments replace what *settings* would make.

    *on_adopt* is called with each set of documents that is adopted. *last_good* is such a set of
    another process, and is served if the documents have errors.

    Raises: SettingsRefused, DocumentsRefused, with everything that is wrong.
    """
    metrics = metrics or Metrics()
    problems = Problems()
    if source is None:
        with problems.collected():
            source = _documents(settings, metrics, clock, on_adopt, last_good)
    if signing is None and settings.signing_key:
        with problems.collected():
            signing = _given_keys(settings.signing_key)
    if upstream is None:
        with problems.collected():
            upstream = _upstream(settings)
    with problems.collected():
        _check_webhook(settings)
    with problems.collected():
        store = state or _store(settings, clock, metrics.stored)
    problems.refuse()
    assert source is not None  # noqa: S101  for mypy: else it was refused
    # The folder is made last, so that a start that fails leaves nothing behind.
    key_folder = None if signing else KeyFolder.under(settings.state)
    folder = settings.state / "audit"
    outsiders_size = settings.audit_size * _MIB // _OUTSIDERS_SHARE
    archive, outsiders = (
        FileJournal(
            place,
            size,
            deliver=settings.audit_webhook is not None,
            owed=owed,
            workers=settings.workers,
            clock=clock,
            # Signing keys rotate: each seal is signed with the key of its moment.
            sign=lambda payload: sign_jws(payload, broker.signing.signs, SEAL_TYPE),
        )
        for owed, place, size in (
            (True, folder, settings.audit_size * _MIB - outsiders_size),
            (False, folder / OUTSIDERS, outsiders_size),
        )
    )
    broker = Broker(
        issuer_url=settings.url,
        source=source,
        keys=keys or KeyRing(on_fetch=metrics.fetched),
        signing=signing or _generated_keys(settings.state),
        state=store,
        journal=journal
        or LoggedJournal(
            DividedJournal(archive, outsiders, metrics.event_lost), quick_info(LOGGER)
        ),
        clock=clock,
        policies=PolicySets(),
        limit_repeats=RepeatedExchanges(time.monotonic).take,
    )
    deliveries = _deliveries((archive, outsiders), settings)
    health = Health(broker, archive if journal is None else None, deliveries)
    trusted = tuple(ip_network(each) for each in settings.trusted_proxies.split(",") if each)
    # A budget of their own: who polls with an expired token must not stop exchanges beside it.
    bad_tokens = BadTokens(Failures(settings.failed_exchanges, time.monotonic), trusted)
    gateway = None
    if upstream:
        gateway = _gateway(
            broker, settings, metrics, upstream, trusted_proxies=trusted, bad_tokens=bad_tokens
        )
    failures = Failures(settings.failed_exchanges, time.monotonic)
    exchanges = TokenEndpoint(broker, failures, trusted, metrics)
    # Without a limit by address for failures, the address is one that many callers share.
    revocations = Revocations(time.monotonic, by_address=settings.failed_exchanges > 0)
    app = BrokerApp(
        exchanges,
        gateway,
        trusted,
        access_log=settings.access_log == "on",
        routes=[
            Route("/oauth/token", exchanges, methods=["POST"]),
            Route(
                "/oauth/revoke",
                RevocationEndpoint(broker, revocations, trusted, metrics),
                methods=["POST"],
            ),
            Route("/.well-known/openid-configuration", metadata),
            Route("/.well-known/oauth-authorization-server", metadata),
            Route("/.well-known/jwks.json", jwks),
            Route("/livez", livez),
            Route("/readyz", readyz),
            # With an upstream, its own answer is the better one.
            *([] if gateway else [Route("/healthz", healthz)]),
        ],
        middleware=[Middleware(ErrorBoundary, trusted_proxies=trusted)],
        exception_handlers={HTTPException: not_found},
        lifespan=_Lifespan(
            broker,
            settings,
            metrics,
            health,
            (archive, outsiders),
            deliveries,
            upstream,
            key_folder,
        ),
    )
    app.router.redirect_slashes = False  # a path that is not ours is refused, not mended
    app.state.broker = broker
    app.state.health = health
    app.state.metrics = metrics
    app.state.reload = Reload(
        [
            *([source.reload] if isinstance(source, FileSource) else []),
            partial(_reload_given_keys, health, settings.signing_key),
            broker.keys.renew,
            *(delivery.renew for delivery in deliveries),
            *([upstream.renew] if upstream else []),
        ]
    )
    return app


class Reload:
    """
    Called on SIGHUP: reads documents, keys and certificates again, each by one of *steps*.

    What cannot be read stays as it is. Passwords and the webhook's secret are read again whenever
    they change, so no step reads them.
    """

    def __init__(self, steps: Sequence[Callable[[], None]]) -> None:
        self._steps = steps

    def __call__(self) -> None:
        """Take every step, also after one that failed."""
        log = structlog.get_logger("federation")
        log.info("reloading documents, keys and certificates")
        for step in self._steps:
            try:
                step()
            except (SettingsRefused, OSError, ValueError) as error:
                log.error("not reloaded; the known one serves on", problem=str(error))


@dataclass(frozen=True, slots=True)
class _Lifespan:
    """The ASGI lifespan: background tasks run while the server does, then everything is closed."""

    broker: Broker
    settings: Settings
    metrics: Metrics
    health: Health
    journals: Sequence[FileJournal]
    deliveries: Sequence[Delivery]
    upstream: Upstream | None
    key_folder: KeyFolder | None
    """Where the signing keys are, None if they were given and not generated."""

    @asynccontextmanager
    async def __call__(self, _app: Starlette) -> AsyncIterator[None]:
        """Run the background tasks within the block; close everything after it."""
        self.health.starting = True
        tasks = [_start(work) for work in self._background_work()]
        delivering = [_start(delivery.run()) for delivery in self.deliveries]
        try:
            yield
        finally:
            # Events of the last requests still reach the webhook, if it is quick.
            for delivery in self.deliveries:
                delivery.stop()
            if delivering:
                await asyncio.wait(delivering, timeout=_LAST_DELIVERY_SECONDS)
                tasks += delivering
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.broker.keys.aclose()
            if self.upstream:
                await self.upstream.aclose()
            await self.broker.state.aclose()
            for journal in self.journals:
                await journal.aclose()

    def _background_work(self) -> Iterator[Coroutine[None, None, None]]:
        yield self._fetch_first_keys()
        yield _update_gauges(self.metrics, self.health)
        yield self.broker.keys.refresh(self._trusted)
        yield self.broker.state.run()
        if isinstance(self.broker.source, FileSource):
            yield self.broker.source.watch()
        if self.key_folder:
            yield _follow_rotation(self.health, self.key_folder)
        if self.upstream:
            yield _follow_upstream(self.health, self.upstream)
            yield self.upstream.follow_renewals()
        if self.health.journal:  # events go to these, not to a journal that `build` was given
            for journal in self.journals:
                yield journal.run()

    async def _fetch_first_keys(self) -> None:
        """Stay unready until every issuer was asked for its keys, or for a few seconds."""
        try:
            async with asyncio.timeout(_FIRST_KEYS_SECONDS):
                await self.broker.keys.refresh_due(self._trusted())
        except TimeoutError:
            pass  # the refresh task asks a slow issuer again
        finally:
            self.health.starting = False

    def _trusted(self) -> Iterable[JwtIssuer]:
        return self.broker.source.current().issuers.values()


def _start(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """Run *work* as a task, and log it if it fails: nobody awaits it before the shutdown."""

    def log_failure(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            structlog.get_logger("federation").error(
                "a background task failed; restart the broker", task=str(work), exc_info=error
            )

    task = asyncio.create_task(work)
    task.add_done_callback(log_failure)
    return task


class BrokerApp(Starlette):
    """
    The broker's routes; with an upstream, every other request goes to the gateway.

    Exchanges and gateway requests do not pass Starlette's router and middleware, which cost 6 to
    11 % of an exchange. `ErrorBoundary` is the only middleware, so both are wrapped in it here.
    """

    def __init__(
        self,
        exchanges: TokenEndpoint,
        gateway: Gateway | None,
        trusted_proxies: Sequence[Network],
        *,
        access_log: bool,
        **starlette: Any,
    ) -> None:
        super().__init__(**starlette)
        self._exchanges = ErrorBoundary(exchanges, trusted_proxies)
        self._gateway = ErrorBoundary(gateway, trusted_proxies) if gateway else None
        self._own_requests = frozenset(
            (method, route.path)
            for route in self.routes
            if isinstance(route, Route)
            for method in route.methods or ()
        )

        self._answer: ASGIApp = self._route
        if access_log:
            info = quick_info(ACCESS_LOGGER)
            self._answer = AccessLog(self._route, trusted_proxies, info)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope, receive, send)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # As it was sent: a reverse proxy that keeps `/readyz` to itself passes `/%72eadyz` on.
            scope["path"] = scope["raw_path"].decode("latin-1")
        request = scope.get("method"), scope.get("path")
        if request == ("POST", "/oauth/token"):
            await self._exchanges(scope, receive, send)
        elif self._gateway and scope["type"] != "lifespan" and request not in self._own_requests:
            await self._gateway(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def _documents(
    settings: Settings,
    metrics: Metrics,
    clock: Callable[[], float],
    on_adopt: Callable[[Adopted], None] | None,
    last_good: bytes | None,
) -> FileSource:
    source = FileSource(
        settings.documents,
        clock=clock,
        on_change=partial(_reloaded, metrics),
        on_adopt=on_adopt,
        refuse=partial(_trusts_itself, settings.url),
        last_good=last_good,
    )
    _log_problems(source.current().warnings)
    if source.problems():
        _log_problems(source.problems())
        _log_not_adopted()
    return source


def _trusts_itself(url: str, catalog: Catalog) -> Sequence[Problem]:
    """Refuse the broker at *url* as an issuer: one of its tokens could be exchanged without end."""
    issuer = catalog.issuers.get(url)
    if issuer is None:
        return ()
    message = f"names {url}, which is this broker itself"
    line, code = issuer.origin.line_of("spec", "iss"), Code.OWN_ISSUER.value
    place = issuer.origin.path, line, code, Severity.ERROR, message
    return [
        Problem(*place, "JwtIssuer", issuer.name, "spec.iss", "remove it, or correct issuer-url")
    ]


def _generated_keys(state: Path) -> SigningKeys:
    """The keys in the folder *state*, made if missing."""
    with _problem_of("state"):
        return KeyFolder.under(state).ensure()


def _reload_given_keys(health: Health, paths: Sequence[Path]) -> None:
    """Take the keys in *paths*. Raises: SettingsRefused, and then keeps those that it has."""
    if not paths:
        return
    try:
        keys = _given_keys(paths)
    except SettingsRefused as refused:
        health.signing_problem = "; ".join(refused.problems)
        raise
    health.signing_problem = None
    if keys.kids != health.broker.signing.kids:
        health.broker.signing = keys
        structlog.get_logger("federation.keys").info("signing keys changed", signs=keys.signs.kid)


def _given_keys(paths: Sequence[Path]) -> SigningKeys:
    keys, problems = [], []
    for path in paths:
        try:
            keys.append(read_pem(read_key(path)))
        except NotTrusted as error:  # it names the file
            problems.append(f"signing-key: {error}")
        except (OSError, ValueError) as error:
            problems.append(f"signing-key: {path}: {error}")
    if problems:
        raise SettingsRefused(problems)
    return SigningKeys(tuple({key.kid: key for key in keys}.values()))


@contextmanager
def _problem_of(setting: str) -> Iterator[None]:
    """Report an error of reading files as a problem of *setting*."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise SettingsRefused([f"{setting}: {error}"]) from error


def _gateway(
    broker: Broker,
    settings: Settings,
    metrics: Metrics,
    upstream: Upstream,
    *,
    trusted_proxies: Sequence[Network],
    bad_tokens: BadTokens,
) -> Gateway:
    return Gateway(
        issuer_url=broker.issuer_url,
        source=broker.source,
        signing=lambda: broker.signing,
        tokens=AccessTokens(broker.issuer_url, broker.state, broker.clock),
        policies=broker.policies,
        upstream=upstream,
        journal=broker.journal,
        clock=broker.clock,
        bodies=BodyBudget(settings.body_budget * _MIB),
        is_from_proxy=partial(is_from_proxy, trusted=trusted_proxies),
        functions=Functions(settings.functions),
        to_functions=FunctionHeaders(
            broker.issuer_url, frozenset(settings.callback_hosts.lower().split(","))
        ),
        default_namespace=settings.function_namespace,
        audited=frozenset(settings.audit_verbs.split(",")),
        observer=metrics,
        count_bad_token=bad_tokens.count,
    )


def _upstream(settings: Settings) -> Upstream | None:
    if settings.upstream is None:
        return None
    auth, folder = None, settings.upstream_secrets
    if folder:
        auth = BasicAuth(folder)
        must = f"upstream-secrets: {folder} must hold basic-auth-user and basic-auth-password"
        with _problem_of(must):
            auth.header()
    files = settings.upstream_ca, settings.upstream_certificate, settings.upstream_key
    with _problem_of("upstream-ca, upstream-certificate or upstream-key"):
        return Upstream.at(
            settings.upstream,
            connections=settings.upstream_connections,
            timeout_seconds=settings.upstream_timeout.total_seconds(),
            auth=auth,
            tls=Tls(*files) if any(files) else None,
        )


def _check_webhook(settings: Settings) -> None:
    ca, header = settings.audit_webhook_ca, settings.audit_webhook_header
    with _problem_of(f"audit-webhook-ca: {ca} holds no certificate"):
        trusting(ca)
    if header:
        with _problem_of("audit-webhook-header"):
            read_header(header)


def _deliveries(journals: Iterable[FileJournal], settings: Settings) -> Sequence[Delivery]:
    """A delivery for each journal, with connections of its own: no one waits for the other's."""
    if settings.audit_webhook is None:
        return ()
    url, secret, header = (
        settings.audit_webhook,
        settings.audit_webhook_secret,
        settings.audit_webhook_header,
    )
    ca = settings.audit_webhook_ca
    return [
        Delivery(journal, Webhook(url, secret=secret, header=header, ca=ca)) for journal in journals
    ]


def _store(settings: Settings, clock: Callable[[], float], observe: Observe) -> Store:
    if settings.shared_state is None:
        return SqliteStore(settings.state / "state.db", clock, observe=observe)
    return _redis_store(settings.shared_state.get_secret_value(), settings, clock, observe)


def check_shared_state(settings: Settings) -> None:
    """
    Make sure that the shared state can be used, unless it cannot be reached now.

    Raises: SettingsRefused with the reason.
    """
    if settings.shared_state is None:
        return
    store = _redis_store(settings.shared_state.get_secret_value(), settings, time.time, None)
    try:
        problem = asyncio.run(_unusable(store))
    except Refusal as refusal:
        structlog.get_logger("federation").warning(
            "the shared state does not answer; no exchange is answered until it does",
            **refusal.evidence,
        )
        return
    if problem:
        raise SettingsRefused([f"shared-state: {problem}"])


async def _unusable(store: RedisStore) -> str:
    try:
        return await store.unusable()
    finally:
        await store.aclose()


def _redis_store(
    url: str, settings: Settings, clock: Callable[[], float], observe: Observe | None
) -> RedisStore:
    try:
        from federation.state.redis import RedisStore  # noqa: PLC0415  an extra, often not installed
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        problem = (
            "shared-state: redis is not installed. Run in the checkout of this project:"
            " pip install '.[redis,server]'"
        )
        raise SettingsRefused([problem]) from error
    return RedisStore(
        url,
        clock,
        settings.state / "shared-state-epoch",
        observe,
        replicas=settings.shared_state_wait,
    )


async def _follow_rotation(health: Health, folder: KeyFolder) -> None:
    """Load the signing keys again whenever *folder* changes. A failure is logged once."""
    log = structlog.get_logger("federation.keys")
    broker = health.broker
    # None: the folder may have changed since `build` loaded the keys.
    seen: object = None
    while True:
        try:
            now = folder.fingerprint()
            if now != seen:
                keys, seen = folder.load(), now
                if keys.kids != broker.signing.kids:
                    broker.signing = keys
                    log.info("signing keys changed", signs=keys.signs.kid)
                elif health.signing_problem:
                    log.info("signing keys can be read again")
            health.signing_problem = None
        except (OSError, ValueError) as error:
            seen, problem = None, str(error)
            if problem != health.signing_problem:
                log.error("signing keys cannot be read; the known ones serve on", error=problem)
            health.signing_problem = problem
        await asyncio.sleep(_KEYS_CHECK_SECONDS)


async def _follow_upstream(health: Health, upstream: Upstream) -> None:
    """Ask the upstream again and again how it is. An outage and its end are logged once."""
    log = structlog.get_logger("federation.upstream")
    while True:
        before, now = health.upstream_problem, await upstream_problem(upstream)
        if now and not before:
            log.error("the upstream is not well", problem=now)
        elif before and not now:
            log.info("the upstream is well again")
        health.upstream_problem = now
        await asyncio.sleep(_UPSTREAM_SECONDS)


async def _update_gauges(metrics: Metrics, health: Health) -> None:
    broker, catalog, adopted = health.broker, None, 0.0
    while True:
        report, now = await health.report(), broker.clock()
        if health.publish:
            health.publish(health.details(report))
        if catalog is not broker.source.current():
            catalog, adopted = broker.source.current(), now
        metrics.set_gauges(
            BrokerStatus(
                ready=not report.unavailable,
                degraded=bool(report.degraded),
                catalog=catalog,
                adopted=adopted,
                problems=len(broker.source.problems()),
                keys=broker.keys.status(),
                journal=report.journal,
                now=now,
                upstream_up=None
                if health.upstream_problem is None
                else not health.upstream_problem,
            )
        )
        await asyncio.sleep(_GAUGES_SECONDS)


def _reloaded(metrics: Metrics, assembled: Assembled) -> None:
    """Count and log a reload of the documents."""
    metrics.reloaded(assembled.catalog is not None)
    _log_problems(assembled.problems)
    log = structlog.get_logger("federation.documents")
    if assembled.catalog is None:
        _log_not_adopted()
    else:
        log.info(
            "documents adopted", documents=assembled.documents, digest=assembled.catalog.digest
        )


def _log_not_adopted() -> None:
    structlog.get_logger("federation.documents").error(
        "documents not adopted; the last good set serves on"
    )


def _log_problems(problems: Iterable[Problem]) -> None:
    log = structlog.get_logger("federation.documents")
    for problem in problems:
        log.warning("document problem", code=problem.code, problem=str(problem))
