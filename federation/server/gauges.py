"""
How everything stands, as gauges.

A gauge is set again every few seconds. Times are told as moments, so that an age is right also
where nobody sets it any more. Of several processes each gauge tells the worst.
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

__all__ = ["Gauges", "Standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How everything stands. Times are seconds since the epoch."""

    ready: bool
    degraded: bool
    catalog: Catalog
    adopted: float
    """When the catalog was adopted."""
    problems: int
    """Errors of a set that was not adopted; 0 when all is well."""
    keys: Mapping[str, KeyStatus]
    """By `iss`."""
    journal: Status | None
    now: float


class Gauges:
    """The gauges of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(
            name: str, text: str, of_several: Literal["livemin", "livemax"], *labels: str
        ) -> Gauge:
            """*of_several* says whose value counts where several processes each have one."""
            return Gauge(
                f"federation_{name}", text, labels, registry=registry, multiprocess_mode=of_several
            )

        self._issuers: set[str] = set()
        """The names whose gauges were last set."""
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
        gauge("build_info", "The version that runs.", "livemax", "version").labels(__version__).set(
            1
        )

    def set(self, standing: Standing) -> None:
        """Everything stands as *standing* says."""
        self._ready.set(standing.ready)
        self._degraded.set(standing.degraded)
        self._adopted.set(standing.adopted)
        self._problems.set(standing.problems)
        for kind, documents in (
            ("JwtIssuer", standing.catalog.issuers),
            ("Role", standing.catalog.roles),
            ("Policy", standing.catalog.policies),
        ):
            self._documents.labels(kind).set(len(documents))
        self._set_keys(standing)
        if standing.journal is not None:
            self._set_journal(standing.journal)

    def _set_keys(self, standing: Standing) -> None:
        names = {iss: issuer.name for iss, issuer in standing.catalog.issuers.items()}
        for gone in self._issuers - set(names.values()):
            self._keys.labels(gone).set(nan)  # it cannot be taken away; see `exposition`
            self._keys_fetched.labels(gone).set(nan)
        for iss, name in names.items():
            keys = standing.keys.get(iss)
            age = keys.age_seconds if keys else None
            self._keys.labels(name).set(keys.keys if keys else 0)
            self._keys_fetched.labels(name).set(nan if age is None else standing.now - age)
        self._issuers = set(names.values())

    def _set_journal(self, journal: Status) -> None:
        self._recording.set(journal.problem is None)
        self._used.set(journal.bytes_used)
        self._allowed.set(journal.bytes_allowed)
        self._left.set(min(journal.bytes_left, journal.bytes_allowed))
        self._backlog.set(journal.undelivered_events)
        self._oldest.set(journal.oldest_undelivered_seconds)
