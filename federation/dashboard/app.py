"""
The dashboard as an ASGI application: the place where its parts meet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_network

import httpx2
import jinja2
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from federation.background import Background
from federation.config import read_outbound
from federation.config.dashboard import DashboardSettings
from federation.dashboard import sign_in, sign_out
from federation.dashboard.guard import Guard
from federation.dashboard.health import Health, livez, readyz
from federation.dashboard.notices import REFUSED, show_refused
from federation.dashboard.page import changes, refusal
from federation.dashboard.pages.routes import routes
from federation.dashboard.parts import Parts
from federation.dashboard.provider import Discover, ProviderInUse
from federation.dashboard.renewal import Renewal
from federation.dashboard.sealing import Sealer
from federation.dashboard.secret_files import SecretFiles, made_key
from federation.dashboard.sessions import Sessions
from federation.dashboard.stores import store_of
from federation.dashboard.token_endpoint import BrokerTokens
from federation.errors import Refusal, SettingsRefused
from federation.sign_on.provider import Client, OpenIdProvider
from federation.state.sessions import SessionStore
from federation.web.rate_limit import Buckets

DashboardApp = Starlette
_FAILURES_A_MINUTE = 60
_SECRETS_SECONDS = 10.0


def build(
    settings: DashboardSettings,
    *,
    store: SessionStore | None = None,
    http: httpx2.AsyncClient | None = None,
    discover: Discover | None = None,
    clock: Callable[[], float] = time.time,
) -> DashboardApp:
    """
    The application. Tests give their own *store*, *http*, *discover* and *clock*.

    Raises: SettingsRefused with everything that is wrong with the secrets.
    """
    files = SecretFiles(
        settings.session_key or (made_key(settings.state),), settings.client_secret_file
    )
    secrets = _Secrets(files)
    store = store or store_of(settings, clock)
    http = http or read_outbound().async_client()

    async def discover_provider() -> OpenIdProvider:
        client = Client(settings.client_id, settings.scopes, secrets.client_secret)
        return await OpenIdProvider.discover(settings.issuer, client, http, clock)

    provider = ProviderInUse(discover or discover_provider)
    secrets.changed = provider.again
    sessions = Sessions(
        store,
        secrets.sealer("session"),
        clock,
        lifetime=settings.session_lifetime,
        idle=settings.idle_lifetime,
    )
    broker = BrokerTokens(settings.gateway, http, clock)
    trusted = tuple(ip_network(each) for each in settings.trusted_proxies.split(",") if each)
    parts = Parts(
        public_url=settings.public_url,
        gateway=settings.gateway,
        gateway_url=settings.broker_url,
        http=http,
        provider=provider,
        broker=broker,
        sessions=sessions,
        renewal=Renewal(sessions, provider, broker, clock),
        sign_ins=secrets.sealer("sign-in"),
        notices=secrets.sealer("notice"),
        templates=_templates(),
        trusted_proxies=trusted,
        attempts=Buckets(_FAILURES_A_MINUTE, time.monotonic),
        logouts=Buckets(_FAILURES_A_MINUTE, time.monotonic),
        clock=clock,
        background=Background("federation.dashboard"),
    )
    app = Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/auth/login", sign_in.login),
            Route("/auth/callback", sign_in.callback),
            Route(REFUSED, show_refused),
            Route("/auth/logout", changes(sign_out.logout), methods=["POST"]),
            Route(sign_out.SIGNED_OUT, sign_out.signed_out),
            Route("/auth/backchannel-logout", sign_out.backchannel, methods=["POST"]),
            *routes(),
        ],
        middleware=[
            Middleware(
                Guard,
                public_url=settings.public_url,
                provider=provider,
                trusted_proxies=trusted,
            )
        ],
        exception_handlers={HTTPException: _not_found, Refusal: _unavailable},
        lifespan=_Lifespan(parts, secrets),
    )
    app.router.redirect_slashes = False
    app.state.parts = parts
    app.state.health = Health(provider, store, settings.gateway, http, background=parts.background)
    app.state.clock = clock
    app.state.reload = secrets.reload
    return app


class _Secrets:
    """The secrets in use. *changed* is called when the client's secret is another one."""

    def __init__(self, files: SecretFiles) -> None:
        self._files = files
        self._keys = files.read_keys()
        self._sealers: list[Sealer] = []
        self._problems: tuple[str, ...] = ()
        self.client_secret = files.read_client_secret()
        self.changed: Callable[[], None] = lambda: None

    def sealer(self, purpose: str) -> Sealer:
        """A sealer, which follows the session keys."""
        made = Sealer(purpose, self._keys)
        self._sealers.append(made)
        return made

    def reload(self) -> None:
        """Read the files again. What cannot be read stays as it was; that is logged once."""
        log = structlog.get_logger("federation.dashboard")
        try:
            keys, secret = self._files.read_keys(), self._files.read_client_secret()
        except SettingsRefused as refused:
            if refused.problems != self._problems:
                self._problems = refused.problems
                log.error(
                    "secrets not reloaded; the known ones stay in use", problems=self._problems
                )
            return
        self._problems = ()
        if keys != self._keys:
            self._keys = keys
            for sealer in self._sealers:
                sealer.use(keys)
            log.info("session keys changed", keys=len(keys))
        if secret != self.client_secret:
            self.client_secret = secret
            self.changed()
            log.info("client secret changed")


@dataclass(frozen=True, slots=True)
class _Lifespan:
    """Background tasks run while the server does, then everything is closed."""

    parts: Parts
    secrets: _Secrets

    @asynccontextmanager
    async def __call__(self, _app: Starlette) -> AsyncIterator[None]:
        parts = self.parts
        background = parts.background
        background.start("identity provider", parts.provider.follow())
        background.start("sessions", parts.sessions.store.run())
        background.start("secrets", self._follow_secrets())
        try:
            yield
        finally:
            await parts.renewal.aclose()
            await background.aclose()
            await parts.http.aclose()
            await parts.sessions.store.aclose()

    async def _follow_secrets(self) -> None:
        while True:
            await asyncio.sleep(_SECRETS_SECONDS)
            self.secrets.reload()


def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("federation.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


async def _not_found(request: Request, error: Exception) -> Response:
    """Starlette's handler for a path or method that no route has."""
    status = error.status_code if isinstance(error, HTTPException) else 404
    sentence = (
        "There is no such page." if status == 404 else "This page is not asked for like this."
    )
    answer = refusal(request, "Not found", sentence, status)
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update(error.headers)
    return answer


async def _unavailable(request: Request, error: Exception) -> Response:
    """Starlette's handler for a store that does not answer."""
    log = structlog.get_logger("federation.dashboard")
    evidence = error.evidence if isinstance(error, Refusal) else {}
    log.error("the session store does not answer", **evidence)
    sentence = "The store of sessions does not answer at the moment."
    return refusal(request, "Not now", sentence, 503, advice="Try again in a minute.")
