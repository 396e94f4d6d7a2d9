"""
Events (`events.k8s.io/v1`) that tell `kubectl describe` of objects that are not in force.

An Event is news, and the status is the record: an Event that cannot be created is dropped.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from federation.documents.kubernetes.unite import ApiObject, Standing, Verdict
from federation.documents.schema import API_VERSION
from federation.text import printable

API = "events.k8s.io/v1"
NOTE_BYTES = 1024
"""The API server's own bound is on bytes."""

_CONTROLLER = "iam.openfaas.com/federation"
_INSTANCE_CHARS = 128
_MOST_NAME_CHARS = 200
_TOLD = frozenset({Standing.INVALID, Standing.REFUSED, Standing.POLICY_MISSING, Standing.CONFLICT})


def is_told(verdict: Verdict) -> bool:
    """True if an Event tells of *verdict*: a refusal does, an object that waits does not."""
    return verdict.standing in _TOLD


def event(
    found: ApiObject,
    verdict: Verdict,
    *,
    namespace: str,
    instance: str,
    unique: str,
    now: datetime,
) -> dict[str, Any]:
    """
    Return the Event which says that *found* got *verdict*.

    *unique* makes its name another than that of every other Event of the object; *instance* is
    the process that writes it.
    """
    return {
        "apiVersion": API,
        "kind": "Event",
        "metadata": {"name": _name(found.name, unique), "namespace": namespace},
        "type": "Warning",
        "reason": verdict.standing.value,
        "action": "Adopt",
        "note": _cut(printable(verdict.explained)),
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": _CONTROLLER,
        "reportingInstance": printable(instance, _INSTANCE_CHARS),
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": found.kind,
            "namespace": namespace,
            "name": found.name,
            "uid": found.uid,
            "resourceVersion": found.resource_version,
        },
    }


def _name(name: str, unique: str) -> str:
    """A DNS name of at most 253 characters, as the object's own is."""
    return f"{name[:_MOST_NAME_CHARS].rstrip('.-')}.{unique}"


def _cut(text: str) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) <= NOTE_BYTES:
        return text
    return data[: NOTE_BYTES - 3].decode("utf-8", "ignore") + "..."
