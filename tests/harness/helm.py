"""Helm and the chart: render it, install it, and read what was rendered."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.harness import kube_programs
from tests.harness.kube import Cluster, run

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy" / "helm" / "federation"
VERSIONS = ("helm3", "helm4")
URL = "https://gateway.example.com"
NEEDED: Mapping[str, Any] = {
    "image": "registry.example.com/federation:0.1.0",
    "iam": {"systemIssuer": {"url": URL}},
}
"""The values without which nothing is installed."""

Manifest = Mapping[str, Any]


def with_needed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return *values* and those that are needed."""
    return _merged(NEEDED, values)


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    result = {**old, **new}
    for name in old.keys() & new.keys():
        if isinstance(old[name], Mapping) and isinstance(new[name], Mapping):
            result[name] = _merged(old[name], new[name])
    return result


class Helm:
    """
    One version of Helm, with its files in *folder*.

    With a *cluster* it knows its version; without one it must be told, since a Helm that was built
    from source takes every cluster for an old one.
    """

    def __init__(self, version: str, folder: Path, cluster: Cluster | None = None) -> None:
        kube_programs.need(version)
        self._program = str(kube_programs.tool(version))
        self._folder = folder
        self._cluster = cluster

    def run(self, *words: str) -> str:
        """Run helm and return what it printed. Raises: CommandFailed."""
        environ = [f"HOME={self._folder}", f"PATH={os.environ['PATH']}"]
        chosen = ["--kubeconfig", str(self._cluster.kubeconfig)] if self._cluster else []
        return run(["env", "-i", *environ, self._program, *words, *chosen])

    def template(
        self, values: Mapping[str, Any], *words: str, chart: Path = CHART
    ) -> list[Manifest]:
        """Return the objects that *values* render, those of `helm test` too."""
        given = self.values_file(values)
        named = ("--namespace", "openfaas", "--kube-version", _version())
        text = self.run("template", "federation", str(chart), "-f", given, *named, *words)
        return [found for found in yaml.safe_load_all(text) if found]

    def lint(self, values: Mapping[str, Any]) -> str:
        """Lint the chart. Raises: CommandFailed for a warning too."""
        version = ("--kube-version", _version())
        return self.run("lint", str(CHART), "--strict", "-f", self.values_file(values), *version)

    def values_file(self, values: Mapping[str, Any]) -> str:
        """Write *values* to a file and return its path."""
        path = self._folder / "values.yaml"
        path.write_text(yaml.safe_dump(dict(values)), "utf-8")
        return str(path)


def _version() -> str:
    text = (kube_programs.SOURCE / "go.mod").read_text("utf-8")
    found = re.search(r"k8s\.io/kubernetes v(\S+)", text)
    assert found, "go.mod names no version of Kubernetes"
    return found[1]


def of_kind(manifests: Sequence[Manifest], kind: str, suffix: str = "") -> Manifest:
    """The one object of *kind* whose name ends with *suffix*."""
    found = [
        manifest
        for manifest in manifests
        if manifest["kind"] == kind and manifest["metadata"]["name"].endswith(suffix)
    ]
    assert len(found) == 1, [manifest["metadata"]["name"] for manifest in found]
    return found[0]


def pods(manifests: Sequence[Manifest]) -> Iterator[Manifest]:
    """Each pod that *manifests* are or would make, as an object of its own."""
    for manifest in manifests:
        if manifest["kind"] == "Pod":
            yield manifest
        elif "template" in manifest.get("spec", {}):
            template, own = manifest["spec"]["template"], manifest["metadata"]
            named = {"namespace": own["namespace"], "name": f"{own['name']}-0"}
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {**template["metadata"], **named},
                "spec": _with_claims(manifest, template["spec"]),
            }


def _with_claims(manifest: Manifest, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Give *spec* the volumes that a StatefulSet makes for each of its pods."""
    claims = [
        {"name": claim["metadata"]["name"], "emptyDir": {}}
        for claim in manifest["spec"].get("volumeClaimTemplates", ())
    ]
    return {**spec, "volumes": [*spec.get("volumes", ()), *claims]}
