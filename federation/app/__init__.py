"""
`build(settings)`: makes the application and everything it needs.

This room alone knows both the settings and the other rooms. `parts` makes each part, `lifespan`
runs the background tasks and closes everything when the server stops, `routing` sends a request to
its endpoint.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from ipaddress import ip_network

from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from federation.app import parts
from federation.app.documents import Documents, read_documents
from federation.app.lifespan import Lifespan, Reload, reload_given_keys
from federation.app.parts import check_shared_state
from federation.app.routing import BrokerApp
from federation.audit import Journal
from federation.audit.divided import DividedJournal
from federation.audit.kept_claims import AuditClaims
from federation.audit.log import LOGGER, LoggedJournal
from federation.audit.seals import SEAL_TYPE
from federation.config import Settings, read_outbound
from federation.errors import Problems
from federation.exchange import Broker
from federation.gateway.upstream import Upstream
from federation.issuers.key_ring import KeyRing
from federation.logs import quick_info
from federation.outbound import Outbound
from federation.policy.index import PolicySets
from federation.server.metrics import Metrics
from federation.sources import Source
from federation.sources.files import Adopted
from federation.state import Store
from federation.tokens.mint import sign_jws
from federation.tokens.signing_keys import KeyFolder, SigningKeys
from federation.tokens.verify import AccessTokens
from federation.web.api.endpoint import Api
from federation.web.discovery import (
    PROTECTED_RESOURCE,
    challenge,
    jwks,
    metadata,
    protected_resource,
)
from federation.web.health import Health, healthz, livez, readyz
from federation.web.rate_limit import (
    Failures,
    InvalidTokens,
    Network,
    RepeatedExchanges,
    Revocations,
)
from federation.web.refusals import ErrorBoundary, not_found
from federation.web.revoke import RevocationEndpoint
from federation.web.token import TokenEndpoint

__all__ = ["BrokerApp", "build", "check_shared_state"]


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
    outbound: Outbound | None = None,
    clock: Callable[[], float] = time.time,
    on_adopt: Callable[[Adopted], None] | None = None,
    last_good: bytes | None = None,
) -> BrokerApp:
    """
    Return the broker as an ASGI application.

    Arguments replace what *settings* would make. Without *outbound*, the environment says how other
    machines are reached.

    *on_adopt* is called with each set of documents that is adopted. *last_good* is such a set of
    another process, and is served if the documents have errors.

    Raises: SettingsRefused, DocumentsRefused, with everything that is wrong.
    """
    metrics = metrics or Metrics()
    problems = Problems()
    way = outbound or Outbound()
    if outbound is None:
        with problems.collected():
            way = read_outbound()
    documents = Documents.given(source) if source else None
    if documents is None:
        with problems.collected():
            documents = read_documents(settings, metrics, clock, on_adopt, last_good, outbound=way)
    if signing is None and settings.signing_key:
        with problems.collected():
            signing = parts.given_keys(settings.signing_key)
    if upstream is None:
        with problems.collected():
            upstream = parts.upstream(settings, way)
    with problems.collected():
        parts.check_webhook(settings)
    with problems.collected():
        store = state or parts.store(settings, clock, metrics.stored)
    problems.refuse()
    assert documents is not None  # noqa: S101  for mypy: else it was refused
    # The folder is made last, so that a start that fails leaves nothing behind.
    key_folder = None if signing else KeyFolder.under(settings.state)
    # Signing keys rotate: each seal is signed with the key of its moment.
    archive, outsiders = parts.journals(
        settings, clock, sign=lambda payload: sign_jws(payload, broker.signing.signs, SEAL_TYPE)
    )
    broker = Broker(
        issuer_url=settings.url,
        source=documents.source,
        keys=keys or parts.key_ring(settings, way, metrics.fetched),
        signing=signing or parts.generated_keys(settings.state),
        state=store,
        journal=journal or _logged(archive, outsiders, metrics.event_lost),
        clock=clock,
        audit_claims=AuditClaims(settings.audit_claims),
        policies=PolicySets(),
        limit_repeats=RepeatedExchanges(time.monotonic).take,
    )
    deliveries = parts.deliveries((archive, outsiders), settings, way)
    health = Health(
        broker,
        archive if journal is None else None,
        deliveries,
        documents.kubernetes.following if documents.kubernetes else None,
        parts.sign_in(settings),
    )
    trusted = tuple(ip_network(each) for each in settings.trusted_proxies.split(",") if each)
    api = _api(settings, broker, metrics, health, trusted)
    gateway = parts.gateway(api, settings, metrics, upstream, trusted) if upstream else None
    lifespan = Lifespan(
        broker,
        metrics,
        health,
        (archive, outsiders),
        deliveries,
        gateway,
        key_folder,
        documents,
    )
    app = _application(settings, api, trusted, lifespan)
    app.state.broker = broker
    app.state.health = health
    app.state.sign_in = health.sign_in
    app.state.metrics = metrics
    app.state.reload = Reload(
        [
            documents.reload,
            partial(reload_given_keys, health, settings.signing_key),
            broker.keys.renew,
            *(delivery.renew for delivery in deliveries),
            *([upstream.renew] if upstream else []),
        ]
    )
    return app


def _api(
    settings: Settings,
    broker: Broker,
    metrics: Metrics,
    health: Health,
    trusted: Sequence[Network],
) -> Api:
    """The check of access tokens that the API for people and the gateway share."""
    # A budget of their own: who polls with an expired token must not stop exchanges beside it.
    invalid_tokens = InvalidTokens(Failures(settings.failed_exchanges, time.monotonic), trusted)
    return Api(
        broker,
        AccessTokens(broker.issuer_url, broker.state, broker.clock),
        invalid_tokens.count,
        metrics,
        challenge(broker.issuer_url, health.sign_in),
    )


def _application(
    settings: Settings, api: Api, trusted: Sequence[Network], lifespan: Lifespan
) -> BrokerApp:
    """The endpoints, and which path leads to which."""
    broker, gateway, metrics = lifespan.broker, lifespan.gateway, lifespan.metrics
    failures = Failures(settings.failed_exchanges, time.monotonic)
    exchanges = TokenEndpoint(broker, failures, trusted, metrics)
    # Without a limit by address for failures, the address is one that many callers share.
    revocations = Revocations(time.monotonic, by_address=settings.failed_exchanges > 0)
    revoke = RevocationEndpoint(broker, revocations, trusted, metrics)
    app = BrokerApp(
        exchanges,
        parts.api(api, lifespan.documents, settings),
        gateway,
        trusted,
        docs=settings.docs_url,
        access_log=settings.access_log == "on",
        routes=[
            Route("/oauth/token", exchanges, methods=["POST"]),
            Route("/oauth/revoke", revoke, methods=["POST"]),
            Route("/.well-known/openid-configuration", metadata),
            Route("/.well-known/oauth-authorization-server", metadata),
            Route("/.well-known/jwks.json", jwks),
            Route(PROTECTED_RESOURCE, protected_resource),
            Route("/livez", livez),
            Route("/readyz", readyz),
            # With an upstream, its own answer is the better one.
            *([] if gateway else [Route("/healthz", healthz)]),
        ],
        middleware=[Middleware(ErrorBoundary, trusted_proxies=trusted, docs=settings.docs_url)],
        exception_handlers={HTTPException: not_found},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a path that is not ours is refused, not mended
    return app


def _logged(owed: Journal, outsiders: Journal, on_lost: Callable[[], None]) -> Journal:
    """A journal for both kinds of events, which logs each event that was recorded."""
    info = quick_info(LOGGER)
    return DividedJournal(LoggedJournal(owed, info), LoggedJournal(outsiders, info), on_lost)
