"""Argo CD's health of an object, by the script in `deploy/argocd`, agrees with kstatus."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from federation.documents.kubernetes.unite import Standing, Verdict
from federation.sources.kubernetes.status import desired_status
from tests.harness.kube_status import kstatus
from tests.harness.kube_writes import an_object

FOLDER = Path(__file__).parents[1] / "deploy" / "argocd"
SCRIPT = (FOLDER / "health.lua").read_text("utf-8")
AS_KSTATUS = {"Current": "Healthy", "InProgress": "Progressing", "Failed": "Degraded"}
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def health(found: Mapping[str, Any]) -> dict[str, str]:
    """What the script says of an object, in the Lua of Argo CD (5.1, with few libraries)."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.execute("os, io, debug, package, require, dofile, loadfile = nil")
    lua.globals()["obj"] = lua.table_from(found, recursive=True)
    told: Any = lua.execute(SCRIPT)
    return dict(told)


def an_object_with(status: Any, generation: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = {"metadata": {"generation": generation}}
    return found if status is None else {**found, "status": status}


@pytest.mark.parametrize("standing", Standing)
def test_the_script_agrees_with_kstatus(standing: Standing) -> None:
    status = desired_status(an_object(), Verdict(standing, "So it stands."), {}, NOON)
    found = an_object_with(status)
    assert health(found) == {"status": AS_KSTATUS[kstatus(found)], "message": "So it stands."}


@pytest.mark.parametrize("status", [None, {}, {"conditions": []}])
def test_an_object_that_nobody_read_is_progressing(status: object) -> None:
    assert health(an_object_with(status))["status"] == "Progressing"


def test_an_older_version_says_nothing_of_the_newest() -> None:
    status = desired_status(an_object(), Verdict(Standing.ACCEPTED, "m"), {}, NOON)
    told = health(an_object_with(status, generation=2))
    assert told == {"status": "Progressing", "message": "no broker has read the newest version yet"}


def test_the_config_map_has_the_script_for_each_kind() -> None:
    data = yaml.safe_load((FOLDER / "argocd-cm.yaml").read_text("utf-8"))["data"]
    assert data == {
        f"resource.customizations.health.iam.openfaas.com_{kind}": SCRIPT
        for kind in ("JwtIssuer", "Policy", "Role")
    }
