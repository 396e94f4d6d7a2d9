"""
The Helm chart with Helm 3 and 4 against a real API server.

There is no controller, so no pod starts: `test_chart_broker.py` runs the broker as the chart
would.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import kube_programs
from tests.harness.helm import CHART, NEEDED, URL, VERSIONS, Helm, of_kind, pods, with_needed
from tests.harness.kube import GROUP, Cluster, CommandFailed, cluster_running, run

pytestmark = pytest.mark.e2e

CA = """
-----BEGIN CERTIFICATE-----
MII=
-----END CERTIFICATE-----
"""
DASHBOARD_URL = "https://dashboard.example.com"
DASHBOARD: Mapping[str, Any] = {
    "enabled": True,
    "publicURL": DASHBOARD_URL,
    "dashboardIssuer": {"url": "https://idp.example.com/realms/people", "clientId": "dashboard"},
}
"""What a dashboard needs, and no more."""
DASHBOARD_REPLICAS: Mapping[str, Any] = {
    **DASHBOARD,
    "replicas": 2,
    "signingKeySecret": "dashboard-key",
    "signingKeyEntries": ["key", "old"],
    "sharedState": {"secretName": "dashboard-redis"},
    "dashboardIssuer": {
        "url": "https://idp.example.com:8443/",
        "clientId": "dashboard",
        "clientSecret": "dashboard-client",
        "scopes": ["openid", "groups"],
    },
    "settings": {"session-lifetime": "8h", "log-format": "json"},
    "ingress": {
        "enabled": True,
        "ingressClassName": "nginx",
        "annotations": {"example.com/d": "e"},
        "tls": [{"secretName": "dashboard-tls", "hosts": ["dashboard.example.com"]}],
    },
    "networkPolicy": {"from": [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]},
}
REPLICAS = {
    "replicas": 3,
    "sharedState": {"secretName": "redis", "wait": 1},
    "issuerKey": {"secretName": "issuer-key", "entries": ["issuer.key", "old.key"]},
}
EVERYTHING = {
    **REPLICAS,
    "gateway": {"url": "http://gateway.openfaas:8080"},
    "iam": {"kubernetesIssuer": {"create": True, "caBundle": CA}},
    "kubernetes": {"namespace": "documents"},
    "documents": {"more.yaml": "# nothing\n"},
    "documentsConfigMap": "more-documents",
    "bearerTokens": [
        {"name": "other", "secretName": "other-cluster", "key": "token"},
        {"name": "own", "audience": "https://issuer.example.com"},
    ],
    "settings": {"functions": "authorize", "workers": 2, "audit-size": 2_000_000},
    "trustedProxies": "10.0.0.0/8",
    "eventSubscription": {"endpoint": "https://events.example.com", "endpointSecret": "events"},
    "caBundleSecretName": "ca-bundle",
    "ingress": {
        "enabled": True,
        "ingressClassName": "nginx",
        "annotations": {"example.com/a": "b"},
        "tls": [{"secretName": "tls", "hosts": ["gateway.example.com"]}],
    },
    "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
    "networkPolicy": {
        "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        "gateway": {"enabled": True},
    },
    "webhook": {"enabled": True},
    "dashboard": DASHBOARD_REPLICAS,
    "signIn": {"issuer": "https://idp.example.com:8443/", "clientId": "faas-cli"},
    "priorityClassName": "system-cluster-critical",
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "nodeSelector": {"kubernetes.io/os": "linux"},
}
CASES: Mapping[str, Mapping[str, Any]] = {
    "defaults": {},
    "replicas": REPLICAS,
    "everything": EVERYTHING,
    "files-only": {"kubernetes": {"enabled": False}, "documentsConfigMap": "documents"},
    "no-volume": {**REPLICAS, "persistence": {"enabled": False}},
    "dashboard": {"dashboard": DASHBOARD},
    "dashboard-replicas": {"dashboard": DASHBOARD_REPLICAS},
    "no-admission-policy": {"admissionPolicy": {"enabled": False}},
}
REFUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "no URL": ({"image": "a:1"}, "iam.systemIssuer.url is needed: set it to the public URL"),
    "no image": ({"iam": NEEDED["iam"]}, "image is needed: build the image with the project's"),
    "a URL with a path": (
        with_needed({"iam": {"systemIssuer": {"url": f"{URL}/a"}}}),
        "set it to an https URL without a path and without a slash at its end",
    ),
    "a URL that the broker does not start with": (
        with_needed({"iam": {"systemIssuer": {"url": "http://gateway.example.com"}}}),
        "set it to an https URL",
    ),
    "two replicas": (
        with_needed({"replicas": 2}),
        r"replicas is more than 1: set sharedState\.secretName \(a Redis, for spent tokens\)",
    ),
    "functions beside the broker": (
        with_needed({"functionNamespace": "openfaas"}),
        "functionNamespace: who deploys a function chooses its labels",
    ),
    "two replicas without a common key": (
        with_needed({"replicas": 2, "sharedState": {"secretName": "redis"}}),
        r"replicas is more than 1: set .* issuerKey\.secretName \(a key that all sign with\)",
    ),
    "neither volume nor Redis": (
        with_needed({"persistence": {"enabled": False}}),
        r"spent tokens would be forgotten, so set sharedState\.secretName",
    ),
    "a token for the API server": (
        with_needed({"bearerTokens": [{"name": "own", "audience": ""}]}),
        "audience",
    ),
    "no documents": (with_needed({"kubernetes": {"enabled": False}}), "no documents: set "),
    "a misspelt value": (with_needed({"kubernets": {}}), "kubernets"),
    "a setting that has its own value": (
        with_needed({"settings": {"issuer-url": URL}}),
        "issuer-url",
    ),
    "an Ingress for another Service": (
        with_needed({"ingress": {"hosts": [{"host": "a.example", "serviceName": "gateway"}]}}),
        "serviceName",
    ),
    "a CA that nobody knows": (
        with_needed({"iam": {"kubernetesIssuer": {"create": True}}}),
        "iam.kubernetesIssuer.caBundle is needed where the cluster cannot be asked",
    ),
}

SERVICE_MONITORS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
    "spec": {
        "group": "monitoring.coreos.com",
        "scope": "Namespaced",
        "names": {"kind": "ServiceMonitor", "plural": "servicemonitors"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                    }
                },
            }
        ],
    },
}


@pytest.fixture(name="helm", params=VERSIONS)
def _helm(request: pytest.FixtureRequest, tmp_path: Path) -> Helm:
    return Helm(request.param, tmp_path)


@pytest.fixture(name="own", scope="module")
def _own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that the chart may change, with every namespace that it needs."""
    with cluster_running(tmp_path_factory.mktemp("cluster")) as cluster:
        for name in ("openfaas", "documents"):
            cluster.create_namespace(name)
        cluster.apply(SERVICE_MONITORS)
        cluster.kubectl("wait", "--for=condition=Established", "crd", "--all")
        yield cluster


# Rendering


@pytest.mark.parametrize("case", CASES)
def test_it_lints_without_a_warning(helm: Helm, case: str) -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in helm.lint(with_needed(CASES[case]))


@pytest.mark.parametrize("case", CASES)
def test_every_rendered_object_is_accepted(helm: Helm, own: Cluster, case: str) -> None:
    manifests = helm.template(with_needed(CASES[case]))
    accounts = [found for found in manifests if found["kind"] == "ServiceAccount"]
    own.apply(*accounts)  # which the API server asks for when it sees a pod
    assert "dry run" in own.apply(*manifests, words=("--dry-run=server",))


@pytest.mark.parametrize("case", REFUSED)
def test_values_that_cannot_work_are_refused_with_the_value_to_set(helm: Helm, case: str) -> None:
    values, message = REFUSED[case]
    with pytest.raises(CommandFailed, match=message):
        helm.template(values)


def test_both_versions_of_helm_render_the_same(tmp_path: Path) -> None:
    values = with_needed(EVERYTHING)
    three, four = (Helm(version, tmp_path).template(values) for version in VERSIONS)
    assert sorted(map(json.dumps, three)) == sorted(map(json.dumps, four))


@pytest.mark.parametrize("case", CASES)
def test_every_pod_keeps_the_restricted_pod_security_standard(
    helm: Helm, own: Cluster, case: str
) -> None:
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": "openfaas", "labels": label}
    own.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    manifests = helm.template(with_needed(CASES[case]))
    own.apply(*[found for found in manifests if found["kind"] == "ServiceAccount"])
    own.apply(*pods(manifests), words=("--dry-run=server",))


def test_the_restricted_standard_would_have_refused_a_root_file_system_of_root(
    own: Cluster, tmp_path: Path
) -> None:
    """The test above can fail."""
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": "openfaas", "labels": label}
    own.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    manifests = Helm("helm4", tmp_path).template(
        with_needed({"securityContext": {"allowPrivilegeEscalation": True}})
    )
    own.apply(*[found for found in manifests if found["kind"] == "ServiceAccount"])
    with pytest.raises(CommandFailed, match="allowPrivilegeEscalation"):
        own.apply(*pods(manifests), words=("--dry-run=server",))


@pytest.mark.parametrize("case", CASES)
def test_kube_score_has_nothing_to_say(tmp_path: Path, case: str) -> None:
    """Exceptions stand here, or as annotations in the chart with their reason."""
    kube_programs.need("kube-score")
    manifests = Helm("helm4", tmp_path).template(with_needed(CASES[case]))
    words = [
        *(str(kube_programs.tool("kube-score")), "score", "--output-format", "ci"),
        # A limit of CPU would slow a broker that has work while the node has time.
        *("--ignore-container-cpu-limit", "--kubernetes-version", "v1.37"),
    ]
    text = run([*words, "-"], given="\n---\n".join(map(json.dumps, manifests)))
    assert [line for line in text.splitlines() if not line.startswith(("[OK]", "[SKIPPED]"))] == []


# What is rendered


def test_a_changed_document_starts_no_pod_anew_and_a_changed_setting_does(tmp_path: Path) -> None:
    helm = Helm("helm4", tmp_path)

    def template(**changes: Any) -> Any:
        values = with_needed({"documents": {"a.yaml": "# one"}, **changes})
        return of_kind(helm.template(values), "StatefulSet")["spec"]["template"]

    assert template() == template(documents={"a.yaml": "# two"})
    assert template() != template(settings={"functions": "closed"})


def test_values_that_openfaas_has_too_mean_what_they_mean_there(tmp_path: Path) -> None:
    values = with_needed({**EVERYTHING, "functionNamespace": "fn"})
    manifests = Helm("helm4", tmp_path).template(values)
    pod = of_kind(manifests, "StatefulSet")["spec"]["template"]["spec"]
    environ = {e["name"]: e.get("value") for e in pod["containers"][0]["env"]}
    secrets = {v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    assert environ["FEDERATION_ISSUER_URL"] == URL
    assert environ["FEDERATION_FUNCTION_NAMESPACE"] == "fn"
    assert {"issuer-key", "basic-auth"} <= secrets
    ingress = of_kind(manifests, "Ingress", "federation")
    assert ingress["metadata"]["annotations"]["example.com/a"] == "b"
    assert ingress["spec"]["ingressClassName"] == "nginx"
    assert [rule["host"] for rule in ingress["spec"]["rules"]] == ["gateway.example.com"]
    cluster = yaml.safe_load(of_kind(manifests, "ConfigMap")["data"]["kubernetes-issuer.yaml"])
    assert (cluster["kind"], cluster["spec"]["provider"]) == ("JwtIssuer", "kubernetes")
    assert cluster["spec"]["aud"] == [URL]


def test_replicas_share_redis_and_are_not_all_drained_at_once(tmp_path: Path) -> None:
    manifests = Helm("helm4", tmp_path).template(with_needed(EVERYTHING))
    template = of_kind(manifests, "StatefulSet")["spec"]["template"]
    environ = {e["name"]: e for e in template["spec"]["containers"][0]["env"]}
    redis = environ["FEDERATION_SHARED_STATE"]["valueFrom"]["secretKeyRef"]
    assert redis == {"name": "redis", "key": "url"}
    labels = template["metadata"]["labels"].items()
    budget = of_kind(manifests, "PodDisruptionBudget", "federation")["spec"]
    assert budget["selector"]["matchLabels"].items() <= labels
    assert budget["maxUnavailable"] == 1
    assert of_kind(manifests, "PodDisruptionBudget", "-dashboard")["spec"]["maxUnavailable"] == 1
    [ports] = of_kind(manifests, "ServiceMonitor")["spec"]["endpoints"]
    named = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    assert ports["port"] in named


def test_only_the_broker_may_reach_the_port_of_the_gateway(tmp_path: Path) -> None:
    values = with_needed({"networkPolicy": {"gateway": {"enabled": True}}})
    manifests = Helm("helm4", tmp_path).template(values)
    spec = of_kind(manifests, "NetworkPolicy", "-gateway")["spec"]
    broker = of_kind(manifests, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"] == {"matchLabels": {"app": "gateway"}}
    assert spec["policyTypes"] == ["Ingress"]
    [rule] = [
        rule for rule in spec["ingress"] if {"port": 8080, "protocol": "TCP"} in rule["ports"]
    ]
    [peer] = rule["from"]
    assert peer["podSelector"]["matchLabels"].items() <= broker.items()
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "openfaas"}
    for pod in pods(manifests):
        if pod["metadata"]["labels"] != broker:
            labels = pod["metadata"]["labels"].items()
            assert not peer["podSelector"]["matchLabels"].items() <= labels


def test_a_pod_has_a_token_of_the_api_server_only_where_it_reads_objects(tmp_path: Path) -> None:
    helm = Helm("helm4", tmp_path)
    for case, values in CASES.items():
        manifests = helm.template(with_needed(values))
        for account in (found for found in manifests if found["kind"] == "ServiceAccount"):
            assert account["automountServiceAccountToken"] is False
        for pod in pods(manifests):
            assert pod["spec"]["automountServiceAccountToken"] is False
        broker = of_kind(manifests, "StatefulSet")["spec"]["template"]["spec"]
        assert ("serviceAccountToken" in json.dumps(broker)) == (case != "files-only")


def test_no_object_of_the_issuers_can_name_the_token_of_the_broker(tmp_path: Path) -> None:
    """Objects may name files of one folder, which is not there unless it was asked for."""
    helm = Helm("helm4", tmp_path)
    folder = "FEDERATION_BEARER_TOKEN_FILES"
    values = {"iam": {"kubernetesIssuer": {"create": True, "caBundle": CA}}}
    assert folder not in json.dumps(helm.template(with_needed(values)))
    [container] = of_kind(helm.template(with_needed(EVERYTHING)), "StatefulSet")["spec"][
        "template"
    ]["spec"]["containers"]
    [given] = [entry["value"] for entry in container["env"] if entry["name"] == folder]
    tokens = {"kubernetes-api", "kubernetes-issuer"}
    for mount in container["volumeMounts"]:
        assert mount["name"] not in tokens or not mount["mountPath"].startswith(given)


# Installing


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_survive_an_upgrade_and_an_uninstall(
    own: Cluster, tmp_path: Path, version: str
) -> None:
    helm = Helm(version, tmp_path, own)
    own.apply_crds()
    target = ("--namespace", "openfaas")
    small = helm.values_file(with_needed({}))
    notes = helm.run("install", version, str(CHART), *target, "-f", small)
    assert (
        "kubectl apply --server-side --field-manager=federation-crds -f deploy/crds.yaml" in notes
    )
    assert f"kubectl rollout status statefulset/{version}-federation --namespace openfaas" in notes
    own.apply(_role("kept"))
    large = helm.values_file(with_needed(EVERYTHING))
    notes = helm.run("upgrade", version, str(CHART), *target, "-f", large)
    assert "is upgraded. Next:" in notes
    assert f"kubectl rollout status deployment/{version}-federation-admission" in notes
    assert "Redis of the Secret redis (entry url)" in notes
    assert own.get("statefulset", f"{version}-federation", "openfaas")["spec"]["replicas"] == 3
    helm.run("uninstall", version, *target)
    assert own.get("roles.iam.openfaas.com", "kept", "openfaas")["metadata"]["name"] == "kept"
    left = own.kubectl("get", "-A", "-l", f"app.kubernetes.io/instance={version}", _KINDS)
    assert "No resources found" in left


@pytest.mark.parametrize("version", VERSIONS)
def test_an_upgrade_keeps_the_certificate_that_the_webhook_made(
    own: Cluster, tmp_path: Path, version: str
) -> None:
    helm, release = Helm(version, tmp_path, own), f"cert-{version}"
    name = f"{release}-federation-admission"
    values = helm.values_file(with_needed({"webhook": {"enabled": True}}))
    words = ("--namespace", "openfaas", "-f", values)
    helm.run("install", release, str(CHART), *words)
    ca = base64.b64encode(own.ca.read_bytes()).decode("ascii")
    _write_certificate(own, name, ca)
    helm.run("upgrade", release, str(CHART), *words, "--set", "webhook.replicas=3")
    assert own.get("deployment", name, "openfaas")["spec"]["replicas"] == 3
    assert own.get("secret", name, "openfaas")["data"] == {"certificate": "bWFkZQ=="}
    [webhook] = own.get(_CONFIGURATION, f"openfaas-{name}")["webhooks"]
    assert webhook["clientConfig"]["caBundle"] == ca
    helm.run("uninstall", release, "--namespace", "openfaas")


def _write_certificate(cluster: Cluster, name: str, ca: str) -> None:
    """Write a certificate and its CA as `federation admission` does."""
    secret = {**cluster.get("secret", name, "openfaas"), "data": {"certificate": "bWFkZQ=="}}
    cluster.kubectl("replace", "-f", "-", given=json.dumps(secret))
    trusting = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": f"openfaas-{name}"},
        "webhooks": [{"name": f"objects.{GROUP}", "clientConfig": {"caBundle": ca}}],
    }
    answer = cluster.request(
        "PATCH",
        f"/apis/admissionregistration.k8s.io/v1/{_CONFIGURATION}s/openfaas-{name}"
        "?fieldManager=federation-admission&force=true",
        trusting,
        content_type="application/apply-patch+yaml",
    )
    assert answer.status_code == 200, answer.text


_CONFIGURATION = "validatingwebhookconfiguration"
_KINDS = ",".join(
    (
        *(
            "statefulset",
            "deployment",
            "service",
            "serviceaccount",
            "role.rbac.authorization.k8s.io",
        ),
        *("rolebinding", "clusterrole", "clusterrolebinding", "configmap", "ingress"),
        *("networkpolicy", "poddisruptionbudget", "validatingadmissionpolicy"),
        *("validatingadmissionpolicybinding", "validatingwebhookconfiguration"),
    )
)


def _role(name: str, namespace: str = "openfaas", **spec: Any) -> dict[str, Any]:
    issuer = {"jwt:iss": ["https://token.actions.githubusercontent.com"]}
    return {
        "apiVersion": "iam.openfaas.com/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"policy": ["deploy"], "condition": {"StringEqual": issuer}, **spec},
    }
