"""The commands and documents of docs/kubernetes.md, against a real API server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import kube_programs
from tests.harness.broker import AUDIENCE, Served
from tests.harness.kube import Cluster, cluster_running
from tests.harness.kube_replica import RIGHTS
from tests.harness.process import ROOT, until

pytestmark = pytest.mark.e2e

PAGE = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
NAMESPACE = "openfaas"


def section(title: str) -> str:
    """The text under the heading *title*."""
    found = re.search(rf"(?ms)^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE)
    assert found, title
    return found[1]


def block(title: str, holds: str) -> str:
    """The block in the section *title* that holds the text *holds*, without indentation."""
    blocks = re.findall(r"(?ms)^ *```\w+\n(.*?)^ *```$", section(title))
    [found] = [each for each in blocks if holds in each]
    return re.sub(r"(?m)^   (?=\S)", "", found)


class Desk:
    """A checkout's folder, with kubectl and federation, before a cluster with a broker."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder, self.cluster = folder, cluster
        programs = folder / "bin"
        programs.mkdir(parents=True)
        (programs / "kubectl").symlink_to(kube_programs.kubectl())
        (programs / "federation").write_text(
            f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m federation "$@"\n', "utf-8"
        )
        (programs / "federation").chmod(0o755)
        (folder / "deploy").symlink_to(ROOT / "deploy")

    def run(self, commands: str) -> str:
        """Run *commands* in a shell, each of which must succeed, and return what they print."""
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        environ = {**os.environ, "PATH": path, "KUBECONFIG": str(self.cluster.kubeconfig)}
        words = ["bash", "-euo", "pipefail", "-c", commands]
        done = subprocess.run(  # noqa: S603  the page's own commands
            words, cwd=self.folder, env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def broker(self, *flags: str) -> Iterator[Served]:
        """Run the broker with the rights that the page lists, and no others."""
        self.cluster.create_account(NAMESPACE, "federation", RIGHTS)
        token = self.cluster.token(NAMESPACE, "federation")
        kubeconfig = self.cluster.write_kubeconfig(token, self.folder / "broker.kubeconfig")
        served = Served(
            self.folder,
            self.folder / "documents",
            *(f"--kubernetes-namespace={NAMESPACE}", f"--kubeconfig={kubeconfig}"),
            *(f"--issuer-url={AUDIENCE}", *flags),
            environ={"NO_PROXY": "127.0.0.1"},
        )
        if not served.documents.exists():
            served.command = [each for each in served.command if "--documents" not in each]
        with served.running():
            assert until(lambda: has_read_objects(served), 60)
            yield served

    def reasons(self) -> set[str]:
        """The reasons of all objects."""
        words = "get openfaas-iam --namespace openfaas --output json"
        listed = json.loads(self.run(f"kubectl {words}"))["items"]
        conditions = [each.get("status", {}).get("conditions", []) for each in listed]
        return {each["reason"] for found in conditions for each in found}


@pytest.fixture(name="desk")
def _desk(tmp_path: Path) -> Iterator[Desk]:
    with cluster_running(tmp_path / "cluster") as cluster:
        desk = Desk(tmp_path / "desk", cluster)
        desk.run(block("From install to the first job", "--field-manager=federation-crds"))
        yield desk


def has_read_objects(served: Served) -> bool:
    """Whether the broker is in use. Of the page's issuers no key can be fetched here."""
    told = json.loads(served.get("/readyz")[1] or b"{}")
    return "kubernetes" in told and all("keys:" in each for each in told["unavailable"])


def shown(table: str) -> list[list[str]]:
    """The cells of what `kubectl get` prints, but for the age."""
    return [line.split()[:-1] for line in table.splitlines() if line.strip()]


def test_the_steps_lead_from_nothing_to_objects_in_force(desk: Desk) -> None:
    objects = block("From install to the first job", "kind: JwtIssuer")
    (desk.folder / "github.yaml").write_text(objects, "utf-8")
    with desk.broker():
        desk.run(block("From install to the first job", "kubectl wait"))
        printed = desk.run("kubectl get openfaas-iam --namespace openfaas")
    assert shown(printed) == shown(block("From install to the first job", "NAME  "))


def test_files_become_objects_without_a_pause(desk: Desk) -> None:
    documents = desk.folder / "documents"
    documents.mkdir()
    example = (ROOT / "examples" / "github-repository.yaml").read_text("utf-8")
    (documents / "github.yaml").write_text(example, "utf-8")
    with desk.broker() as served:
        desk.run(block("Moving from files", "federation convert"))
        desk.run(block("Moving from files", "kubectl get openfaas-iam"))
        assert until(lambda: desk.reasons() == {"Conflict"}, 20)
        issuer, _, _rules = example.partition("\n---\n")
        assert "kind: JwtIssuer" in issuer
        (documents / "github.yaml").write_text(issuer, "utf-8")
        assert until(lambda: desk.reasons() == {"Conflict", "Accepted"}, 20)
        assert has_read_objects(served)
    shutil.rmtree(documents)
    with desk.broker():
        assert until(lambda: desk.reasons() == {"Accepted"}, 20)
