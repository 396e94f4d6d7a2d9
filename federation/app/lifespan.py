"""
What happens around the requests: background tasks, reloading on SIGHUP, and closing everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from starlette.applications import Starlette

from federation.app.documents import Documents
from federation.app.parts import given_keys
from federation.audit.delivery import Delivery
from federation.audit.journal import FileJournal
from federation.documents.model import JwtIssuer
from federation.errors import SettingsRefused
from federation.exchange import Broker
from federation.gateway.proxy import Gateway
from federation.gateway.upstream import Upstream
from federation.gateway.upstream_health import upstream_problem
from federation.server.gauges import BrokerStatus
from federation.server.metrics import Metrics
from federation.tokens.signing_keys import KeyFolder, SigningKeys
from federation.web.health import Health

_KEYS_CHECK_SECONDS = 2.0
_LAST_DELIVERY_SECONDS = 5.0
_FIRST_KEYS_SECONDS = 5.0
_GAUGES_SECONDS = 2.0
_UPSTREAM_SECONDS = 5.0


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
                log.error("not reloaded; the known one stays in use", problem=str(error))


@dataclass(frozen=True, slots=True)
class Lifespan:
    """The ASGI lifespan: background tasks run while the server does, then everything is closed."""

    broker: Broker
    metrics: Metrics
    health: Health
    journals: Sequence[FileJournal]
    deliveries: Sequence[Delivery]
    gateway: Gateway | None
    key_folder: KeyFolder | None
    """The folder of generated signing keys, None if the keys were given."""
    documents: Documents

    @asynccontextmanager
    async def __call__(self, _app: Starlette) -> AsyncIterator[None]:
        """Run the background tasks within the block; close everything after it."""
        self.health.starting = True
        background = self.health.background
        background.start("first keys", self._fetch_first_keys(), ends=True)
        for name, work in self._background_work():
            background.start(name, work)
        delivering = [
            background.start("audit webhook", delivery.run(), ends=True)
            for delivery in self.deliveries
        ]
        try:
            yield
        finally:
            # Events of the last requests still reach the webhook, if it is quick.
            for delivery in self.deliveries:
                delivery.stop()
            if delivering:
                await asyncio.wait(delivering, timeout=_LAST_DELIVERY_SECONDS)
            await background.aclose()
            await self.documents.aclose()
            await self.broker.keys.aclose()
            if self.gateway:
                await self.gateway.upstream.aclose()
                self.gateway.bodies.close()
            await self.broker.state.aclose()
            for journal in self.journals:
                await journal.aclose()

    def _background_work(self) -> Iterator[tuple[str, Coroutine[None, None, None]]]:
        """Yield the work that goes on until the shutdown, by the names that health tells."""
        yield "health and gauges", _update_gauges(self.metrics, self.health)
        yield "issuers' keys", self.broker.keys.refresh(self._trusted)
        yield "spent and revoked tokens", self.broker.state.run()
        for work in self.documents.work():
            yield f"documents ({getattr(work, '__qualname__', 'work')})", work
        if self.key_folder:
            yield "signing keys", _follow_rotation(self.health, self.key_folder)
        if self.gateway:
            yield "upstream health", _follow_upstream(self.health, self.gateway.upstream)
            if self.gateway.upstream.tls:  # without, there is nothing to follow
                yield "upstream certificates", self.gateway.upstream.follow_renewals()
        if self.health.journal:  # events go to these, not to a journal that `build` was given
            for number, journal in enumerate(self.journals, 1):
                yield f"audit journal {number}", journal.run()

    async def _fetch_first_keys(self) -> None:
        """Stay unready until every issuer was asked for its keys, or for a few seconds."""
        if self.documents.kubernetes:
            await self.documents.kubernetes.first_adopted()
        try:
            async with asyncio.timeout(_FIRST_KEYS_SECONDS):
                await self.broker.keys.refresh_due(self._trusted())
        except TimeoutError:
            pass  # the refresh task asks a slow issuer again
        finally:
            self.health.starting = False

    def _trusted(self) -> Iterable[JwtIssuer]:
        return self.broker.source.current().issuers.values()


def reload_given_keys(health: Health, paths: Sequence[Path]) -> None:
    """Take the keys in *paths*. Raises: SettingsRefused, and then keeps those that it has."""
    if not paths:
        return
    try:
        keys = given_keys(paths)
    except SettingsRefused as refused:
        health.signing_problem = "; ".join(refused.problems)
        raise
    health.signing_problem = None
    _use_keys(health.broker, keys)


def _use_keys(broker: Broker, keys: SigningKeys) -> bool:
    """Make *broker* sign with *keys*, and return True if they are others than before."""
    changed = keys.kids != broker.signing.kids
    if changed:
        broker.signing = keys
        structlog.get_logger("federation.keys").info("signing keys changed", signs=keys.signs.kid)
    return changed


async def _follow_rotation(health: Health, folder: KeyFolder) -> None:
    """Load the signing keys again whenever *folder* changes. A failure is logged once."""
    log = structlog.get_logger("federation.keys")
    # None: the folder may have changed since `build` loaded the keys.
    seen: object = None
    while True:
        try:
            now = folder.fingerprint()
            if now != seen:
                keys, seen = folder.load(), now
                if not _use_keys(health.broker, keys) and health.signing_problem:
                    log.info("signing keys can be read again")
            health.signing_problem = None
        except (OSError, ValueError) as error:
            seen, problem = None, str(error)
            if problem != health.signing_problem:
                log.error("signing keys cannot be read; the known ones stay in use", error=problem)
            health.signing_problem = problem
        await asyncio.sleep(_KEYS_CHECK_SECONDS)


async def _follow_upstream(health: Health, upstream: Upstream) -> None:
    """Ask the upstream again and again how it is. An outage and its end are logged once."""
    log = structlog.get_logger("federation.upstream")
    while True:
        before, now = health.upstream_problem, await upstream_problem(upstream)
        if now and not before:
            log.error("the upstream is unhealthy", problem=now)
        elif before and not now:
            log.info("the upstream is healthy again")
        health.upstream_problem = now
        await asyncio.sleep(_UPSTREAM_SECONDS)


async def _update_gauges(metrics: Metrics, health: Health) -> None:
    broker, catalog, adopted, told = health.broker, None, 0.0, ""
    while True:
        report, now = await health.report(), broker.clock()
        if health.publish:
            health.publish(health.details(report))
        if catalog is not broker.source.current():
            catalog, adopted = broker.source.current(), now
            told = _note_sign_in(health.sign_in_problem(), told)
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
                following=health.following() if health.following else None,
            )
        )
        await asyncio.sleep(_GAUGES_SECONDS)


def _note_sign_in(problem: str, told: str) -> str:
    """Log why nobody who signs in gets a token, unless it was *told*. Return the problem."""
    if problem and problem != told:
        structlog.get_logger("federation").warning(
            "nobody who signs in gets a token", problem=problem
        )
    return problem
