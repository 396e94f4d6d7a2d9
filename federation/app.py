"""
`build`: the only place where things meet.

It makes the clients, stores and keys, hands each room what it needs, and closes them when the
server stops. No room knows another's settings.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from federation.audit import Journal
from federation.audit.delivery import Delivery, Webhook, trusting
from federation.audit.journal import FileJournal
from federation.audit.log import LOGGER, LoggedJournal
from federation.config import Settings
from federation.documents.assemble import Assembled
from federation.documents.model import JwtIssuer
from federation.errors import Problem, SettingsRefused
from federation.exchange import Broker
from federation.gateway.proxy import Functions, Gateway
from federation.gateway.upstream import BasicAuth, Upstream
from federation.gateway.wire import Wire
from federation.issuers.key_ring import KeyRing
from federation.logs import quick_info
from federation.server.gauges import Standing
from federation.server.metrics import Metrics
from federation.sources import Source
from federation.sources.files import FileSource
from federation.state import Store
from federation.state.sqlite import SqliteStore
from federation.state.timed import TimedStore
from federation.tokens.signing_keys import KeyFolder, SigningKeys, read_pem
from federation.tokens.verify import AccessTokens
from federation.web.discovery import jwks, metadata
from federation.web.edge import Edge, no_such_place
from federation.web.health import Health, healthz, livez, readyz
from federation.web.rate_limit import FailedExchanges
from federation.web.revoke import revoke
from federation.web.token import TokenEndpoint

__all__ = ["build", "signing_keys"]

_KEYS_CHECK_SECONDS = 2.0
_LAST_DELIVERY_SECONDS = 5.0
_FIRST_KEYS_SECONDS = 5.0
_STANDING_SECONDS = 2.0
_MIB = 1024 * 1024


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
) -> Starlette:
    """
    The broker as an ASGI application; what is not handed in is made from *settings*.

    Raises: DocumentsRefused, SettingsRefused.
    """
    metrics = metrics or Metrics()
    if source is None:
        source = FileSource(settings.documents, clock=clock, on_change=_reporting(metrics))
        _warn(source.current().warnings)
    if settings.url in source.current().issuers:
        raise SettingsRefused(
            [f"a JwtIssuer names {settings.url}, which is this broker itself; remove it"]
        )
    archive = FileJournal(
        settings.state / "audit",
        settings.audit_size * _MIB,
        deliver=settings.audit_webhook is not None,
        workers=settings.workers,
        clock=clock,
    )
    broker = Broker(
        issuer_url=settings.url,
        source=source,
        keys=keys or KeyRing(on_fetch=metrics.fetched),
        signing=signing or signing_keys(settings),
        state=TimedStore(state or _store(settings, clock), metrics.stored),
        journal=journal or LoggedJournal(archive, quick_info(LOGGER)),
        clock=clock,
    )
    delivery = _delivery(archive, settings)
    gateway = _gateway(broker, settings, metrics, upstream or _upstream(settings))
    health = Health(broker, archive if journal is None else None)

    running = _Running(
        broker,
        settings,
        metrics,
        health,
        archive,
        records=journal is None,
        delivery=delivery,
        upstream=gateway.upstream if gateway else None,
    )
    exchanges = TokenEndpoint(
        broker,
        FailedExchanges(settings.failed_exchanges, time.monotonic),
        tuple(ip_network(network) for network in settings.trusted_proxies.split(",") if network),
        metrics,
    )
    app = BrokerApp(
        exchanges,
        gateway,
        routes=[
            Route("/oauth/token", exchanges, methods=["POST"]),
            Route("/oauth/revoke", revoke, methods=["POST"]),
            Route("/.well-known/openid-configuration", metadata),
            Route("/.well-known/oauth-authorization-server", metadata),
            Route("/.well-known/jwks.json", jwks),
            Route("/livez", livez),
            Route("/readyz", readyz),
            *([Mount("/", gateway)] if gateway else [Route("/healthz", healthz)]),
        ],
        middleware=[Middleware(Edge)],
        exception_handlers={HTTPException: no_such_place},
        lifespan=running.lifespan,
    )
    app.router.redirect_slashes = False
    app.state.broker = broker
    app.state.health = health
    app.state.metrics = metrics
    return app


@dataclass(frozen=True, slots=True)
class _Running:
    """What goes on beside the requests: begun with the server, and ended with it."""

    broker: Broker
    settings: Settings
    metrics: Metrics
    health: Health
    archive: FileJournal
    records: bool
    """Whether events go to the archive."""
    delivery: Delivery | None
    upstream: Upstream | None

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Everything goes on within, and what was held open is closed afterwards."""
        self.health.starting = True
        tasks = [_begun(work) for work in self._work()]
        delivering = _begun(self.delivery.run()) if self.delivery else None
        try:
            yield
        finally:
            if self.delivery and delivering:
                self.delivery.stop()
                await asyncio.wait([delivering], timeout=_LAST_DELIVERY_SECONDS)
                tasks.append(delivering)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()

    def _work(self) -> Iterator[Coroutine[None, None, None]]:
        yield self._first_keys()
        yield _tell_standing(self.metrics, self.health)
        yield self.broker.keys.refresh(self._trusted)
        yield self.broker.state.run()
        yield from _watching(self.broker, self.settings)
        if self.records:
            yield self.archive.run()

    async def _first_keys(self) -> None:
        try:
            async with asyncio.timeout(_FIRST_KEYS_SECONDS):
                await self.broker.keys.refresh_due(self._trusted())
        except TimeoutError:
            pass  # an issuer that is slow to answer is asked again, beside the requests
        finally:
            self.health.starting = False

    def _trusted(self) -> Iterable[JwtIssuer]:
        return self.broker.source.current().issuers.values()

    async def _close(self) -> None:
        await self.broker.keys.aclose()
        if self.upstream:
            await self.upstream.aclose()
        await self.broker.state.aclose()
        await self.archive.aclose()


def _begun(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """*work* as a task that does not end in silence."""

    def tell(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            structlog.get_logger("federation").error(
                "a background task failed; restart the broker", task=str(work), exc_info=error
            )

    task = asyncio.create_task(work)
    task.add_done_callback(tell)
    return task


class BrokerApp(Starlette):
    """
    The broker's places, of which two are asked for far more than all others.

    Exchanges and what is meant for the gateway go straight there. The router and the layers
    above it cost a quarter of what an exchange does.
    """

    def __init__(self, exchanges: TokenEndpoint, gateway: Gateway | None, **places: Any) -> None:
        super().__init__(**places)
        self._exchanges = Edge(exchanges)
        self._gateway = Edge(gateway) if gateway else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope.get("path", "")
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
        elif path == "/oauth/token" and scope["method"] == "POST":
            await self._exchanges(scope, receive, send)
        elif self._gateway and path.startswith(("/system/", "/function/", "/async-function/")):
            await self._gateway(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def signing_keys(settings: Settings) -> SigningKeys:
    """
    The keys that sign: those of `signing-key`, else the state directory's, made if need be.

    Raises: SettingsRefused.
    """
    if not settings.signing_key:
        try:
            return KeyFolder.under(settings.state).ensure()
        except (OSError, ValueError) as error:
            raise SettingsRefused([f"state: {error}"]) from error
    keys, problems = [], []
    for path in settings.signing_key:
        try:
            keys.append(read_pem(path.read_bytes()))
        except (OSError, ValueError) as error:
            problems.append(f"signing-key: {path}: {error}")
    if problems:
        raise SettingsRefused(problems)
    return SigningKeys(tuple({key.kid: key for key in keys}.values()))


def _gateway(
    broker: Broker, settings: Settings, metrics: Metrics, upstream: Upstream | None
) -> Gateway | None:
    if upstream is None:
        return None
    return Gateway(
        issuer_url=broker.issuer_url,
        source=broker.source,
        signing=lambda: broker.signing,
        tokens=AccessTokens(broker.issuer_url, broker.state, broker.clock),
        upstream=upstream,
        journal=broker.journal,
        clock=broker.clock,
        functions=Functions(settings.functions),
        default_namespace=settings.function_namespace,
        audited=frozenset(settings.audit_verbs.split(",")),
        observer=metrics,
    )


def _upstream(settings: Settings) -> Upstream | None:
    if settings.upstream is None:
        return None
    secrets = settings.upstream_secrets
    return Upstream(
        Wire(settings.upstream, settings.upstream_connections),
        _basic_auth(secrets) if secrets else None,
        timedelta(seconds=settings.upstream_timeout),
    )


def _basic_auth(folder: Path) -> BasicAuth:
    auth = BasicAuth(folder)
    try:
        auth.header()
    except OSError as error:
        raise SettingsRefused(
            [
                f"upstream-secrets: {folder} must hold basic-auth-user and basic-auth-password: {error}"
            ]
        ) from error
    return auth


def _delivery(archive: FileJournal, settings: Settings) -> Delivery | None:
    if settings.audit_webhook is None:
        return None
    try:
        trusting(settings.audit_webhook_ca)
    except OSError as error:
        raise SettingsRefused(
            [f"audit-webhook-ca: {settings.audit_webhook_ca} holds no certificate: {error}"]
        ) from error
    return Delivery(
        archive,
        Webhook(
            settings.audit_webhook,
            secret=settings.audit_webhook_secret,
            ca=settings.audit_webhook_ca,
        ),
    )


def _store(settings: Settings, clock: Callable[[], float]) -> Store:
    if settings.shared_state is None:
        return SqliteStore(settings.state / "state.db", clock)
    try:
        from federation.state.redis import RedisStore  # noqa: PLC0415  an extra, often not installed
    except ModuleNotFoundError as error:
        if error.name != "redis":
            raise
        problem = "shared-state: redis is not installed. Run: pip install 'federation[redis]'"
        raise SettingsRefused([problem]) from error
    return RedisStore(
        settings.shared_state.get_secret_value(), clock, settings.state / "shared-state-life"
    )


def _watching(broker: Broker, settings: Settings) -> list[Coroutine[None, None, None]]:
    work = []
    if isinstance(broker.source, FileSource):
        work.append(broker.source.watch())
    if not settings.signing_key:
        work.append(_follow_rotation(broker, KeyFolder.under(settings.state)))
    return work


async def _follow_rotation(broker: Broker, folder: KeyFolder) -> None:
    """The broker signs with whatever key the folder says, soon after it says so."""
    log = structlog.get_logger("federation.keys")
    seen: object = None  # what changed since the keys were loaded must not be missed
    while True:
        try:
            now = folder.fingerprint()
            if now != seen:
                keys, seen = folder.load(), now
                if keys.kids != broker.signing.kids:
                    broker.signing = keys
                    log.info("signing keys changed", signs=keys.signs.kid)
        except (OSError, ValueError) as error:
            log.error("signing keys cannot be read; the known ones serve on", error=str(error))
        await asyncio.sleep(_KEYS_CHECK_SECONDS)


async def _tell_standing(metrics: Metrics, health: Health) -> None:
    """The metrics tell how everything stands, until cancelled."""
    broker, catalog, adopted = health.broker, None, 0.0
    while True:
        report, now = await health.report(), broker.clock()
        if catalog is not broker.source.current():
            catalog, adopted = broker.source.current(), now
        metrics.stands(
            Standing(
                ready=not report.unavailable,
                degraded=bool(report.degraded),
                catalog=catalog,
                adopted=adopted,
                problems=len(broker.source.problems()),
                keys=broker.keys.status(),
                journal=report.journal,
                now=now,
            )
        )
        await asyncio.sleep(_STANDING_SECONDS)


def _reporting(metrics: Metrics) -> Callable[[Assembled], None]:
    def changed(assembled: Assembled) -> None:
        metrics.reloaded(assembled.catalog is not None)
        _report(assembled)

    return changed


def _warn(problems: Iterable[Problem]) -> None:
    log = structlog.get_logger("federation.documents")
    for problem in problems:
        log.warning("document problem", code=problem.code, problem=str(problem))


def _report(assembled: Assembled) -> None:
    log = structlog.get_logger("federation.documents")
    _warn(assembled.problems)
    if assembled.catalog is None:
        log.error("documents not adopted; the last good set serves on")
    else:
        log.info(
            "documents adopted", documents=assembled.documents, digest=assembled.catalog.digest
        )
