"""The Helm chart agrees with the code and with itself, as far as no Helm is needed to tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation import __version__
from federation.config import Settings
from federation.config.dashboard import DashboardSettings
from federation.documents.schema import SPECS, Statement

CHART = Path(__file__).parents[1] / "deploy" / "helm" / "federation"
SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))
VALUES = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))

SET_BY_THE_CHART = {
    "documents",
    "issuer-url",
    "state",
    "shared-state",
    "shared-state-wait",
    "signing-key",
    "port",
    "upstream",
    "upstream-secrets",
    "function-namespace",
    "trusted-proxies",
    "audit-verbs",
    "audit-webhook",
    "audit-webhook-secret",
    "metrics-port",
    "sign-in-issuer",
    "sign-in-client-id",
    "sign-in-scopes",
    "kubernetes-namespace",
    "kubeconfig",
    "bearer-token-files",
}
"""Settings that a value of its own sets, or that a pod has no use for."""

SET_FOR_THE_DASHBOARD = {
    "public-url",
    "gateway",
    "gateway-url",
    "issuer",
    "client-id",
    "client-secret-file",
    "scopes",
    "session-key",
    "state",
    "shared-state",
    "port",
    "trusted-proxies",
}
"""The same for the dashboard."""


def test_the_admission_policy_knows_exactly_the_fields_that_the_models_have() -> None:
    known = json.loads((CHART / "files" / "fields.json").read_text("utf-8"))
    assert known == {
        "spec": {kind: list(model.names()) for kind, model in SPECS.items()},
        "statement": list(Statement.names()),
    }


def test_every_other_setting_of_the_broker_can_be_given() -> None:
    settings = {name.replace("_", "-") for name in Settings.model_fields}
    assert set(SCHEMA["properties"]["settings"]["properties"]) == settings - SET_BY_THE_CHART


def test_every_other_setting_of_the_dashboard_can_be_given() -> None:
    settings = {name.replace("_", "-") for name in DashboardSettings.model_fields}
    properties = SCHEMA["properties"]["dashboard"]["properties"]
    assert set(properties["settings"]["properties"]) == settings - SET_FOR_THE_DASHBOARD


def test_the_chart_has_the_version_of_the_broker() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["version"] == chart["appVersion"] == __version__


def _names(schema: Mapping[str, Any]) -> set[str]:
    return set(schema.get("properties", ()))


def _unlike(schema: Mapping[str, Any], values: Mapping[str, Any], path: str) -> list[str]:
    """The values that only one of *schema* and *values* has."""
    unlike = [f"{path}{name}" for name in _names(schema) ^ set(values)]
    for name in _names(schema) & set(values):
        inner = schema["properties"][name]
        if "properties" in inner and name != "settings":
            unlike += _unlike(inner, values[name], f"{path}{name}.")
    return unlike


def test_the_schema_and_the_defaults_have_the_same_values() -> None:
    assert _unlike(SCHEMA, VALUES, "") == ["global"]  # which Helm gives to every chart


def test_no_token_that_an_object_may_send_away_is_for_the_api_server() -> None:
    """Without an audience, a projected token is for the API server, and acts there as the broker."""
    token = SCHEMA["properties"]["bearerTokens"]["items"]
    assert token["oneOf"] == [{"required": ["secretName"]}, {"required": ["audience"]}]
    assert token["properties"]["audience"]["minLength"] > 0


def test_the_chart_holds_no_custom_resource_and_no_crd() -> None:
    assert not (CHART / "crds").exists()
    for template in CHART.glob("templates/**/*.yaml"):
        assert "CustomResourceDefinition" not in template.read_text("utf-8")


@pytest.mark.parametrize("unsafe", ["privileged", "hostNetwork", "hostPath", "cluster-admin"])
def test_no_template_asks_for_a_right_over_the_node_or_the_cluster(unsafe: str) -> None:
    for template in CHART.glob("templates/**/*"):
        assert template.is_dir() or unsafe not in template.read_text("utf-8")
