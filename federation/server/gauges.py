"""
Prometheus gauges for readiness, documents, issuers' keys and the audit journal.

The broker sets them every few seconds. Times are timestamps, not ages, so that they stay right
between two updates. Of several workers, Prometheus sees the worst value of each gauge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, nan
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, Gauge

from federation import __version__
from federation.audit.journal import Status
from federation.documents.catalog import Catalog
from federation.documents.kubernetes.unite import Standing
from federation.issuers.key_ring import KeyStatus
from federation.sources.kubernetes.source import Following


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """The values behind the gauges. Times are seconds since the epoch."""

    ready: bool
    degraded: bool
    catalog: Catalog
    adopted: float
    """When the catalog was adopted."""
    problems: int
    """Errors of the newest documents if they were not adopted, else 0."""
    keys: Mapping[str, KeyStatus]
    """By `iss`."""
    journal: Status | None
    now: float
    upstream_up: bool | None = None
    """None without an upstream, and before it was asked."""
    following: Following | None = None
    """The state of following the Kubernetes API, None if documents come from files alone."""


Worst: TypeAlias = Literal["livemin", "livemax"]

_GAUGES: Mapping[str, tuple[Worst, str, *tuple[str, ...]]] = {
    "ready": ("livemin", "Whether exchanges can be answered."),
    "degraded": ("livemax", "Whether something needs mending."),
    "catalog_adopted_timestamp_seconds": ("livemin", "When the live documents were adopted."),
    "catalog_problems": ("livemax", "Errors of documents that were not adopted."),
    "catalog_documents": ("livemax", "Live documents.", "kind"),
    "issuer_keys": ("livemin", "Keys that can be used.", "issuer"),
    "issuer_keys_fetched_timestamp_seconds": ("livemin", "When keys last came.", "issuer"),
    "journal_recording": ("livemin", "Whether audit events can be recorded."),
    "journal_used_bytes": ("livemax", "The journal's size."),
    "journal_allowed_bytes": ("livemax", "The journal's largest size."),
    "journal_left_bytes": ("livemin", "What the journal can take before it is full."),
    "journal_undelivered_events": ("livemax", "Events that wait for the webhook."),
    "journal_oldest_undelivered_seconds": ("livemax", "How long the oldest has waited."),
    "upstream_up": ("livemin", "Whether the upstream answers."),
    "kubernetes_last_contact_seconds": ("livemax", "The age of the Kubernetes API's last answer."),
    "kubernetes_followed": ("livemin", "Whether the Kubernetes API is followed without trouble."),
    "kubernetes_objects": ("livemax", "Kubernetes objects.", "reason"),
    "build_info": ("livemax", "The version that runs.", "version"),
}
"""Each gauge: which of several workers' values is exposed, its meaning, and its labels."""


class Gauges:
    """The gauges of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._gauges = {
            name: Gauge(
                f"federation_{name}", text, labels, registry=registry, multiprocess_mode=worst
            )
            for name, (worst, text, *labels) in _GAUGES.items()
        }
        self._issuers: set[str] = set()
        """The issuers whose gauges are set."""
        self._set("build_info", 1, __version__)
        for name in ("upstream_up", "kubernetes_last_contact_seconds", "kubernetes_followed"):
            self._set(name, nan)  # the endpoint leaves it out

    def set(self, status: BrokerStatus) -> None:
        """Set every gauge from *status*."""
        self._set("ready", status.ready)
        self._set("degraded", status.degraded)
        self._set("catalog_adopted_timestamp_seconds", status.adopted)
        self._set("catalog_problems", status.problems)
        self._set("catalog_documents", len(status.catalog.issuers), "JwtIssuer")
        self._set("catalog_documents", len(status.catalog.all_roles), "Role")
        self._set("catalog_documents", len(status.catalog.policies), "Policy")
        self._set_keys(status)
        if status.journal is not None:
            self._set_journal(status.journal)
        if status.following is not None:
            self._set_following(status.following)
        self._set("upstream_up", nan if status.upstream_up is None else status.upstream_up)

    def _set(self, name: str, value: float, *labels: str) -> None:
        gauge = self._gauges[name]
        (gauge.labels(*labels) if labels else gauge).set(value)

    def _set_keys(self, status: BrokerStatus) -> None:
        names = {iss: issuer.name for iss, issuer in status.catalog.issuers.items()}
        for removed in self._issuers - set(names.values()):
            # While several processes count, a gauge cannot be removed; the endpoint leaves NaN out.
            self._set("issuer_keys", nan, removed)
            self._set("issuer_keys_fetched_timestamp_seconds", nan, removed)
        for iss, name in names.items():
            keys = status.keys.get(iss)
            age = keys.age_seconds if keys else None
            self._set("issuer_keys", keys.keys if keys else 0, name)
            fetched = nan if age is None else status.now - age
            self._set("issuer_keys_fetched_timestamp_seconds", fetched, name)
        self._issuers = set(names.values())

    def _set_following(self, following: Following) -> None:
        age = following.last_contact_seconds
        self._set("kubernetes_last_contact_seconds", inf if age is None else age)
        self._set("kubernetes_followed", not following.trouble and following.adopted)
        for standing in Standing:
            number = following.objects.get(standing.value, 0)
            self._set("kubernetes_objects", number, standing.value)

    def _set_journal(self, journal: Status) -> None:
        self._set("journal_recording", journal.problem is None)
        self._set("journal_used_bytes", journal.bytes_used)
        self._set("journal_allowed_bytes", journal.bytes_allowed)
        self._set("journal_left_bytes", min(journal.bytes_left, journal.bytes_allowed))
        self._set("journal_undelivered_events", journal.undelivered_events)
        self._set("journal_oldest_undelivered_seconds", journal.oldest_undelivered_seconds)
