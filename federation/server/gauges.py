"""
Prometheus gauges for readiness, documents, issuers' keys and the audit journal.

The broker sets them every few seconds. Times are timestamps, not ages, so that they stay right
between two updates. Of several workers, Prometheus sees the worst value of each gauge.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Literal

from prometheus_client import CollectorRegistry, Gauge

from federation import __version__
from federation.audit.journal import Status
from federation.documents.catalog import Catalog
from federation.issuers.key_ring import KeyStatus


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


class Gauges:
    """The gauges of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(
            name: str, text: str, worst: Literal["livemin", "livemax"], *labels: str
        ) -> Gauge:
            """*worst* says which of several workers' values is exposed."""
            return Gauge(
                f"federation_{name}", text, labels, registry=registry, multiprocess_mode=worst
            )

        self._issuers: set[str] = set()
        """The issuers whose gauges are set."""
        self._ready = gauge("ready", "Whether exchanges can be answered.", "livemin")
        self._degraded = gauge("degraded", "Whether something needs mending.", "livemax")
        self._adopted = gauge(
            "catalog_adopted_timestamp_seconds", "When the live documents were adopted.", "livemin"
        )
        self._problems = gauge(
            "catalog_problems", "Errors of documents that were not adopted.", "livemax"
        )
        self._documents = gauge("catalog_documents", "Live documents.", "livemax", "kind")
        self._keys = gauge("issuer_keys", "Keys that can be used.", "livemin", "issuer")
        self._keys_fetched = gauge(
            "issuer_keys_fetched_timestamp_seconds", "When keys last came.", "livemin", "issuer"
        )
        self._recording = gauge(
            "journal_recording", "Whether audit events can be recorded.", "livemin"
        )
        self._used = gauge("journal_used_bytes", "The journal's size.", "livemax")
        self._allowed = gauge("journal_allowed_bytes", "The journal's largest size.", "livemax")
        self._left = gauge(
            "journal_left_bytes", "What the journal can take before it is full.", "livemin"
        )
        self._backlog = gauge(
            "journal_undelivered_events", "Events that wait for the webhook.", "livemax"
        )
        self._oldest = gauge(
            "journal_oldest_undelivered_seconds", "How long the oldest has waited.", "livemax"
        )
        version = gauge("build_info", "The version that runs.", "livemax", "version")
        version.labels(__version__).set(1)

    def set(self, status: BrokerStatus) -> None:
        """Set every gauge from *status*."""
        self._ready.set(status.ready)
        self._degraded.set(status.degraded)
        self._adopted.set(status.adopted)
        self._problems.set(status.problems)
        self._documents.labels("JwtIssuer").set(len(status.catalog.issuers))
        self._documents.labels("Role").set(len(status.catalog.roles))
        self._documents.labels("Policy").set(len(status.catalog.policies))
        self._set_keys(status)
        if status.journal is not None:
            self._set_journal(status.journal)

    def _set_keys(self, status: BrokerStatus) -> None:
        names = {iss: issuer.name for iss, issuer in status.catalog.issuers.items()}
        for removed in self._issuers - set(names.values()):
            # While several processes count, a gauge cannot be removed; the endpoint leaves NaN out.
            self._keys.labels(removed).set(nan)
            self._keys_fetched.labels(removed).set(nan)
        for iss, name in names.items():
            keys = status.keys.get(iss)
            age = keys.age_seconds if keys else None
            self._keys.labels(name).set(keys.keys if keys else 0)
            self._keys_fetched.labels(name).set(nan if age is None else status.now - age)
        self._issuers = set(names.values())

    def _set_journal(self, journal: Status) -> None:
        self._recording.set(journal.problem is None)
        self._used.set(journal.bytes_used)
        self._allowed.set(journal.bytes_allowed)
        self._left.set(min(journal.bytes_left, journal.bytes_allowed))
        self._backlog.set(journal.undelivered_events)
        self._oldest.set(journal.oldest_undelivered_seconds)
