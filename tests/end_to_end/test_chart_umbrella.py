"""
The example that puts the broker before OpenFaaS's community gateway, as one release.

The chart of OpenFaaS is not ours to ship, so a stand-in takes its place: a gateway, and CRDs of the
same names as the broker's, as that chart brings them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.helm import CHART, URL, VERSIONS, Helm, of_kind, pods, with_needed
from tests.harness.kube import GROUP, Cluster, cluster_running

pytestmark = pytest.mark.e2e

CRDS = CHART.parents[1] / "crds.yaml"
GATEWAY: Mapping[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "gateway", "namespace": "openfaas"},
    "spec": {
        "selector": {"matchLabels": {"app": "gateway"}},
        "template": {
            "metadata": {"labels": {"app": "gateway"}},
            "spec": {"containers": [{"name": "gateway", "image": "gateway:1"}]},
        },
    },
}


def _foreign_crd(kind: str, plural: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"spec": {"type": "object"}}}
    version = {"name": "v1", "served": True, "storage": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{**version, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def _write(path: Path, *objects: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump_all([dict(each) for each in objects]), "utf-8")


@pytest.fixture(name="example")
def _example(tmp_path: Path) -> Path:
    """A copy of the example whose chart of OpenFaaS is the stand-in."""
    shutil.copytree(CHART.parent, tmp_path / "helm")
    other = tmp_path / "helm" / "openfaas"
    _write(other / "Chart.yaml", {"apiVersion": "v2", "name": "openfaas", "version": "14.2.0"})
    _write(other / "templates" / "gateway.yaml", GATEWAY)
    kinds = {"JwtIssuer": "jwtissuers", "Policy": "policies", "Role": "roles"}
    _write(other / "crds" / "iam.yaml", *(_foreign_crd(*names) for names in kinds.items()))
    example = tmp_path / "helm" / "examples" / "openfaas"
    chart = yaml.safe_load((example / "Chart.yaml").read_text("utf-8"))
    [foreign] = [one for one in chart["dependencies"] if one["name"] == "openfaas"]
    foreign["repository"] = "file://../../openfaas"
    _write(example / "Chart.yaml", chart)
    return example


def test_the_example_holds_nothing_of_the_chart_of_openfaas() -> None:
    example = CHART.parent / "examples" / "openfaas"
    files = {str(path.relative_to(example)) for path in example.rglob("*") if path.is_file()}
    assert files == {".helmignore", "Chart.yaml", "values.yaml", "templates/NOTES.txt"}
    values = yaml.safe_load((example / "values.yaml").read_text("utf-8"))
    assert values["openfaas"]["iam"] == {"enabled": False}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_gateway_is_behind_the_broker_and_the_crds_are_ours(
    example: Path, tmp_path: Path, version: str
) -> None:
    with cluster_running(tmp_path / "cluster") as cluster:
        cluster.create_namespace("openfaas")
        helm = Helm(version, tmp_path, cluster)
        helm.run("dependency", "update", str(example))
        values = helm.values_file({"federation": with_needed({})})
        words = ("openfaas", str(example), "--namespace", "openfaas", "-f", values)
        notes = helm.run("install", *words)
        assert "kubectl apply --server-side --force-conflicts" in notes
        _check_the_way_to_the_gateway(cluster)
        _check_that_ours_replace_the_crds_of_the_other_chart(cluster)
        helm.run("upgrade", *words)
        assert _has_status(cluster)


def _check_the_way_to_the_gateway(cluster: Cluster) -> None:
    names = ("openfaas-federation", "openfaas")
    [pod] = pods([cluster.get("statefulset", *names)])
    environ = {e["name"]: e.get("value", "") for e in pod["spec"]["containers"][0]["env"]}
    assert environ["FEDERATION_UPSTREAM"] == "http://gateway:8080"
    assert environ["FEDERATION_ISSUER_URL"] == URL
    closed = cluster.get("networkpolicy", "openfaas-federation-gateway", "openfaas")["spec"]
    assert closed["podSelector"]["matchLabels"] == {"app": "gateway"}
    [rule] = cluster.get("ingress", *names)["spec"]["rules"]
    assert rule["host"] == "gateway.example.com"
    assert rule["http"]["paths"][0]["backend"]["service"]["name"] == "openfaas-federation"


def _has_status(cluster: Cluster) -> bool:
    crd = cluster.get("crd", f"roles.{GROUP}")
    return "status" in crd["spec"]["versions"][0].get("subresources", {})


def _check_that_ours_replace_the_crds_of_the_other_chart(cluster: Cluster) -> None:
    assert not _has_status(cluster)
    words = ("--server-side", "--force-conflicts", "--field-manager=federation-crds")
    cluster.kubectl("apply", *words, "-f", str(CRDS))
    assert _has_status(cluster)


def test_the_example_renders_alike_with_both_versions(example: Path, tmp_path: Path) -> None:
    rendered = []
    for version in VERSIONS:
        helm = Helm(version, tmp_path)
        helm.run("dependency", "update", str(example))
        rendered.append(helm.template({"federation": with_needed({})}, chart=example))
    assert rendered[0] == rendered[1]
    assert of_kind(rendered[0], "Deployment") == GATEWAY
