"""
How programs read the status of an object: the rules of kstatus, written down once more.

Flux, Helm and `kubectl` plugins use them (sigs.k8s.io/cli-utils/pkg/kstatus, its README).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def kstatus(found: Mapping[str, Any]) -> str:
    """What kstatus says of an object: Current, InProgress, Failed or Terminating."""
    metadata, status = found["metadata"], found.get("status", {})
    if metadata.get("deletionTimestamp"):
        return "Terminating"
    observed = status.get("observedGeneration")
    if observed is not None and observed != metadata["generation"]:
        return "InProgress"
    states = {each["type"]: each["status"] for each in status.get("conditions", [])}
    if states.get("Reconciling") == "True":
        return "InProgress"
    if states.get("Stalled") == "True":
        return "Failed"
    if states.get("Ready") in {"False", "Unknown"}:
        return "InProgress"
    return "Current"
