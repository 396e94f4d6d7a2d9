"""The chart's ValidatingAdmissionPolicies on a real API server: what is refused at `apply`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.documents.schema import SPECS, Statement
from tests.harness.helm import CHART, Helm, Manifest, with_needed
from tests.harness.kube import Cluster, CommandFailed, cluster_running
from tests.harness.process import until

pytestmark = pytest.mark.e2e

CRDS = CHART.parents[1] / "crds.yaml"
ISSUER = "https://token.actions.githubusercontent.com"
PINS = {"jwt:iss": [ISSUER], "jwt:repository_owner_id": ["65834"]}


def document(kind: str, spec: Mapping[str, Any], namespace: str = "openfaas") -> dict[str, Any]:
    return {
        "apiVersion": "iam.openfaas.com/v1",
        "kind": kind,
        "metadata": {"name": "tried", "namespace": namespace},
        "spec": dict(spec),
    }


def role(namespace: str = "openfaas", **spec: Any) -> dict[str, Any]:
    return document("Role", {"policy": ["deploy"], **spec}, namespace)


def statement(**changes: Any) -> dict[str, Any]:
    given = {"sid": "a", "effect": "Allow", "action": ["Function:List"], "resource": ["dev:*"]}
    return {**given, **changes}


def policy(*statements: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    return document("Policy", {"statement": list(statements), **spec})


def most_statements() -> int:
    """The number of statements that the schema of a Policy lets in."""
    for crd in yaml.safe_load_all(CRDS.read_text("utf-8")):
        if crd["spec"]["names"]["kind"] == "Policy":
            schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
            return int(schema["properties"]["spec"]["properties"]["statement"]["maxItems"])
    raise AssertionError(CRDS)


GOOD: Mapping[str, Manifest] = {
    "StringEqual": role(condition={"StringEqual": PINS}),
    "its alias": role(condition={"StringEquals": PINS}),
    "a principal": role(principal=PINS),
    "every operator": role(
        condition={"StringEqual": PINS, "StringLike": {"jwt:ref": ["refs/heads/*"]}},
        tokenExpiry="10m",
    ),
    "a Policy": policy(statement(condition={"StringLike": {"jwt:ref": ["*"]}})),
    "the largest Policy": policy(*(statement(sid=f"s{n}") for n in range(most_statements()))),
    "a JwtIssuer": document(
        "JwtIssuer", {"iss": ISSUER, "aud": ["https://gateway.example.com"], "tokenExpiry": "20m"}
    ),
}
BAD: Mapping[str, tuple[Manifest, str]] = {
    "a misspelt field of a Role": (
        role(condition={"StringEqual": PINS}, conditions={}),
        r"\[D005\] spec has unknown fields: conditions; a Role has .*condition",
    ),
    "two unknown fields of a JwtIssuer": (
        document("JwtIssuer", {"iss": ISSUER, "aud": ["a"], "authority": "b", "tokenExpire": "1h"}),
        r"\[D005\] spec has unknown fields: (authority|, |tokenExpire){3}; a JwtIssuer has iss, ",
    ),
    "an unknown field of a Policy": (
        policy(statement(), statements=[]),
        r"\[D005\] spec has unknown fields: statements; a Policy has statement",
    ),
    "an unknown field of a statement": (
        policy(statement(), statement(sid="b", effect="Deny", conditon={}, resources=["*"])),
        r"\[D005\] spec.statement has unknown fields: (conditon|, |resources){3}; a statement has ",
    ),
    "no issuer": (role(condition={"StringEqual": {"jwt:ref": ["a"]}}), r"\[T001\] no StringEqual"),
    "an issuer that is like one": (role(condition={"StringLike": PINS}), r"\[T001\]"),
    "an issuer without regard to case": (
        role(condition={"StringEqualIgnoreCase": PINS}),
        r"\[T001\]",
    ),
    "a claim that only ends like iss": (role(principal={"jwt:/iss": [ISSUER]}), r"\[T001\]"),
    "a namespace that nobody reads": (
        role(namespace="default", condition={"StringEqual": PINS}),
        "no broker reads this namespace.* put it into the namespace openfaas or team",
    ),
}


@pytest.fixture(name="guarded", scope="module")
def _guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with the chart and the CRDs, whose API server knows the policies by now."""
    folder = tmp_path_factory.mktemp("guarded")
    with cluster_running(folder / "cluster") as cluster:
        for name in ("openfaas", "team"):
            cluster.create_namespace(name)
        cluster.apply_crds()
        old = role(condition={"StringEqual": PINS}, since="before the policies")
        send(cluster, {**old, "metadata": {"name": "old", "namespace": "openfaas"}})
        install(cluster, folder, {"admissionPolicy": {"namespaces": ["team"]}})
        bad = [BAD["no issuer"], BAD["a namespace that nobody reads"]]
        assert until(lambda: all(refusal(cluster, manifest) for manifest, _ in bad), 30)
        yield cluster


def install(cluster: Cluster, folder: Path, values: Mapping[str, Any]) -> None:
    helm = Helm("helm4", folder, cluster)
    words = ("--namespace", "openfaas", "-f", helm.values_file(with_needed(values)))
    helm.run("upgrade", "--install", "federation", str(CHART), *words)


def send(cluster: Cluster, manifest: Manifest, *words: str) -> None:
    """Apply *manifest* as a client does that does not ask for unknown fields to be refused."""
    cluster.apply(manifest, words=("--validate=false", *words))


def refusal(cluster: Cluster, manifest: Manifest) -> str:
    """The API server's words if it would refuse *manifest*, else an empty text."""
    try:
        send(cluster, manifest, "--dry-run=server")
    except CommandFailed as failed:
        return str(failed)
    return ""


@pytest.mark.parametrize("case", GOOD)
def test_good_documents_are_let_in(guarded: Cluster, case: str) -> None:
    assert refusal(guarded, GOOD[case]) == ""


@pytest.mark.parametrize("case", BAD)
def test_bad_documents_are_refused_by_the_policies(guarded: Cluster, case: str) -> None:
    manifest, message = BAD[case]
    with pytest.raises(CommandFailed, match=message):
        send(guarded, manifest, "--dry-run=server")


@pytest.mark.parametrize("kind", SPECS)
def test_every_known_field_is_let_in(guarded: Cluster, kind: str) -> None:
    """The policy refuses no field for its name. What a schema says of its value is another thing."""
    spec = dict.fromkeys(SPECS[kind].names(), 7)
    assert "unknown fields" not in refusal(guarded, document(kind, spec))
    named = dict.fromkeys(Statement.names(), 7)
    assert "unknown fields" not in refusal(guarded, policy(named))


def test_an_older_object_can_be_labelled_and_deleted_and_its_spec_cannot_stay_wrong(
    guarded: Cluster,
) -> None:
    words = ("-n", "openfaas")
    guarded.kubectl(*words, "label", "roles.iam.openfaas.com", "old", "team=a")
    patch = '{"spec": {"policy": ["other"]}}'
    with pytest.raises(CommandFailed, match=r"\[D005\] spec has unknown fields: since"):
        guarded.kubectl(
            *words, "patch", "roles.iam.openfaas.com", "old", "--type=merge", "-p", patch
        )
    guarded.kubectl(*words, "delete", "roles.iam.openfaas.com", "old")


def test_another_namespace_can_be_warned_of_only(guarded: Cluster, tmp_path: Path) -> None:
    elsewhere, _ = BAD["a namespace that nobody reads"]
    words = ("--validate=false", "--dry-run=server")
    install(guarded, tmp_path, {"admissionPolicy": {"otherNamespaces": "Warn"}})

    def warned() -> bool:
        try:
            return "no broker reads this namespace" in guarded.apply(elsewhere, words=words)
        except CommandFailed:
            return False

    assert until(warned, 30)
