"""
Prometheus counters and histograms of one process.

Each event has one method, and rooms call it through a protocol or callback of their own. Labels
come from small closed sets: reasons, actions, kinds of routes, and the operator's names of
issuers and of shadow Roles. Nothing that a caller sends becomes a label, or a caller could create series without end.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from math import inf
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram

from federation.documents.model import JwtIssuer
from federation.errors import Reason
from federation.server.gauges import BrokerStatus, Gauges

Labelled = TypeVar("Labelled", Counter, Histogram)

_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, inf)
_SHADOW_ROLES = 1_000
"""So many shadow Roles have a series of their own, of all that were ever in force."""
_OTHER_ROLES = "(others)"
_SLOW = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, inf)


class Metrics:
    """The metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, namespace="federation", registry=self.registry)
        histogram = partial(Histogram, namespace="federation", registry=self.registry)
        self._exchanges = counter(
            "exchanges", "Exchanges that were answered.", ("outcome", "reason")
        )
        self._exchange_seconds = histogram(
            "exchange_duration_seconds", "Time to answer an exchange.", ("outcome",), buckets=_FAST
        )
        self._shadow_admissions = counter(
            "shadow_role_admissions", "Exchanges that a shadow Role would have admitted.", ("role",)
        )
        self._shadow_roles: set[str] = set()
        self._revocations = counter(
            "revocations", "Requests to revoke a token that were answered.", ("outcome",)
        )
        self._decisions = counter(
            "decisions", "Decisions about gateway requests.", ("action", "outcome")
        )
        self._gateway_requests = counter(
            "gateway_requests", "Gateway requests that were answered.", ("status",)
        )
        self._not_authenticated = counter(
            "gateway_not_authenticated", "Gateway requests without a valid token.", ("reason",)
        )
        self._upstream_seconds = histogram(
            "upstream_duration_seconds",
            "Time until the upstream began to answer.",
            ("route", "outcome"),
            buckets=_SLOW,
        )
        self._fetches = counter("key_fetches", "Fetches of issuers' keys.", ("issuer", "outcome"))
        self._store_seconds = histogram(
            "store_duration_seconds",
            "Time of the store of spent and revoked tokens.",
            ("operation", "outcome"),
            buckets=_FAST,
        )
        self._reloads = counter(
            "catalog_reloads", "Sets of documents read because they changed.", ("outcome",)
        )
        self._lost_events = counter(
            "audit_events_lost", "Audit events of outsiders that found no room or no disk."
        )
        self._gauges = Gauges(self.registry)
        self._labelled: dict[tuple[object, ...], Any] = {}
        self._series_of: dict[Reason | None, tuple[Counter, Histogram]] = {}
        """The series of exchanges that were granted, and of those refused for each reason."""
        self._store_series: dict[tuple[str, bool], Histogram] = {}
        """The series of each operation of the store, answered and not."""
        self._create_series()

    def exchanged(self, reason: Reason | None, seconds: float) -> None:
        """An exchange was answered after *seconds*: granted, or refused for *reason*."""
        count, took = self._series_of[reason]
        count.inc()
        took.observe(seconds)

    def shadow_admitted(self, roles: Sequence[str]) -> None:
        """An exchange was answered that the shadow Roles named *roles* would have admitted."""
        for role in roles:
            self._of_shadow_role(role).inc()

    def revoked(self, outcome: str) -> None:
        """A request to revoke a token was answered."""
        self._of(self._revocations, outcome).inc()

    def decided(self, action: str, allowed: bool) -> None:
        """A gateway request's *action* was allowed or denied."""
        self._of(self._decisions, action, "allowed" if allowed else "denied").inc()

    def not_authenticated(self, reason: Reason | None) -> None:
        """A gateway request had no token, or one that was refused for *reason*."""
        self._of(self._not_authenticated, reason or "").inc()

    def answered(self, status: int) -> None:
        """A gateway request was answered with *status*."""
        self._of(self._gateway_requests, f"{status // 100}xx").inc()

    def forwarded(self, route: str, outcome: str, seconds: float) -> None:
        """The upstream began to answer a request of kind *route*, or failed to."""
        self._of(self._upstream_seconds, route, outcome).observe(seconds)

    def fetched(self, issuer: JwtIssuer, succeeded: bool) -> None:
        """A fetch of the keys of *issuer* ended."""
        self._fetches.labels(issuer.name, "fetched" if succeeded else "failed").inc()

    def stored(self, operation: str, answered: bool, seconds: float) -> None:
        """The store answered *operation* after *seconds*, or could not."""
        self._store_series[operation, answered].observe(seconds)

    def event_lost(self) -> None:
        """An audit event that is not owed could not be recorded."""
        self._lost_events.inc()

    def reloaded(self, adopted: bool) -> None:
        """Changed documents were read, and adopted or not."""
        self._reloads.labels("adopted" if adopted else "not_adopted").inc()

    def set_gauges(self, status: BrokerStatus) -> None:
        """Set every gauge from *status*."""
        self._gauges.set(status)
        for role in islice(status.catalog.shadow_roles, _SHADOW_ROLES):
            self._of_shadow_role(role.name)  # 0 says that nobody has needed the Role

    def _create_series(self) -> None:
        """Start the series that alerts watch at 0, so that `rate` sees the first event too."""
        for reason in (None, *Reason):
            outcome = _outcome(reason)
            self._series_of[reason] = (
                self._exchanges.labels(outcome, reason or ""),
                self._exchange_seconds.labels(outcome),
            )
        for outcome in ("revoked", "nothing", "refused", "unavailable"):
            self._revocations.labels(outcome)
        for outcome in ("adopted", "not_adopted"):
            self._reloads.labels(outcome)
        for operation in ("spend", "restore", "revoke"):
            for answered, outcome in ((True, "answered"), (False, "unavailable")):
                series = self._store_seconds.labels(operation, outcome)
                self._store_series[operation, answered] = series

    def _of_shadow_role(self, role: str) -> Counter:
        # A series cannot be removed while several processes count, so their number has a limit.
        if role not in self._shadow_roles and len(self._shadow_roles) >= _SHADOW_ROLES:
            role = _OTHER_ROLES
        else:
            self._shadow_roles.add(role)
        return self._of(self._shadow_admissions, role)

    def _of(self, metric: Labelled, *labels: str) -> Labelled:
        """*metric* with *labels*, remembered: the library's look-up costs more than the count."""
        found: Labelled | None = self._labelled.get((metric, *labels))
        if found is None:
            found = self._labelled[metric, *labels] = metric.labels(*labels)
        return found


def _outcome(reason: Reason | None) -> str:
    if reason is None:
        return "granted"
    if reason is Reason.SERVER_ERROR:
        return "failed"
    return "unavailable" if reason.temporary else "refused"
