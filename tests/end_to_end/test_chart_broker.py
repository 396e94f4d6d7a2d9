"""
The broker runs as the rendered StatefulSet says, against a real API server: with its environment,
arguments, user, groups and volumes, and with exactly the rights of its ServiceAccount.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from tests.harness.broker import form
from tests.harness.gateway import PASSWORD, USER, sample
from tests.harness.helm import CHART, URL, Helm, pods, with_needed
from tests.harness.kube import GROUP, Cluster, CommandFailed, cluster_running, run
from tests.harness.pod import Container, World
from tests.harness.process import free_port, until
from tests.harness.signing import signing_key

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="to be another user takes root"),
]

RELEASE = "federation"
NAMESPACE = "openfaas"
UID = "jwt:/kubernetes.io/serviceaccount/uid"
RIGHTS = {
    "jwtissuers.iam.openfaas.com [] [] [get list watch]",
    "policies.iam.openfaas.com [] [] [get list watch]",
    "roles.iam.openfaas.com [] [] [get list watch]",
    "jwtissuers.iam.openfaas.com/status [] [] [patch]",
    "policies.iam.openfaas.com/status [] [] [patch]",
    "roles.iam.openfaas.com/status [] [] [patch]",
    "leases.coordination.k8s.io [] [federation] [get create patch]",
    "events.events.k8s.io [] [] [create]",
}
"""What `kubectl auth can-i --list` shows for the broker, beyond what everybody may."""


@dataclass(frozen=True)
class Installed:
    """A cluster with the chart and the objects of a first job, and what its Secrets hold."""

    cluster: Cluster
    helm: Helm
    secrets: Mapping[str, Mapping[str, str]]

    def install(self, values: Mapping[str, Any]) -> None:
        words = ("--namespace", NAMESPACE, "-f", self.helm.values_file(with_needed(values)))
        self.helm.run("upgrade", "--install", RELEASE, str(CHART), *words)

    def pod(self, kind: str, name: str) -> Mapping[str, Any]:
        """The pod of the StatefulSet or Deployment *name* as the API server has it."""
        [pod] = pods([self.cluster.get(kind, name, NAMESPACE)])
        return pod

    def broker(self, folder: Path) -> Container:
        """The broker's container, on ports of this machine."""
        name, port = f"{RELEASE}-documents", free_port()
        listed = self.cluster.kubectl("-n", NAMESPACE, "get", "configmap", "-o", "json")
        maps = {each["metadata"]["name"]: each["data"] for each in json.loads(listed)["items"]}
        world = World(self.cluster, self.secrets, {name: maps[name]} if name in maps else {})
        replaced = {
            "FEDERATION_HOST": "127.0.0.1",
            "FEDERATION_PORT": str(port),
            "FEDERATION_METRICS_PORT": str(free_port()),
        }
        return Container(self.pod("statefulset", RELEASE), folder, world, port, replaced)


@pytest.fixture(name="installed", scope="module")
def _installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    folder = tmp_path_factory.mktemp("installed")
    key = signing_key(folder).read_text("ascii")
    secrets = {
        "issuer-key": {"issuer.key": key},
        "webhook": {"webhook-secret": "signs-deliveries"},
        "basic-auth": {"basic-auth-user": USER, "basic-auth-password": PASSWORD},
    }
    with cluster_running(folder / "cluster") as cluster:
        cluster.create_namespace(NAMESPACE)
        cluster.apply_crds()
        # A controller puts the cluster's CA into each namespace.
        root = {"ca.crt": cluster.ca.read_text("ascii")}
        metadata = {"name": "kube-root-ca.crt", "namespace": NAMESPACE}
        cluster.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": root})
        cluster.create_account(NAMESPACE, "releaser")
        cluster.create_account(NAMESPACE, "nobody")
        yield Installed(cluster, Helm("helm4", folder, cluster), secrets)


def apply_rules(cluster: Cluster) -> None:
    """Apply a Role by which the ServiceAccount `releaser` may list functions."""
    account = cluster.get("serviceaccount", "releaser", NAMESPACE)["metadata"]["uid"]
    allowed = {"action": ["Function:List"], "resource": ["*"], "effect": "Allow", "sid": "look"}
    equal = {
        "jwt:iss": [cluster.url],
        "jwt:/kubernetes.io/namespace": [NAMESPACE],
        UID: [account],
    }
    specs = {
        "Policy": {"statement": [allowed]},
        "Role": {"policy": ["first"], "condition": {"StringEqual": equal}},
    }
    for kind, spec in specs.items():
        metadata = {"name": "first", "namespace": NAMESPACE}
        cluster.apply(
            {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": metadata, "spec": spec}
        )


def test_the_broker_runs_as_the_statefulset_says(installed: Installed, tmp_path: Path) -> None:
    cluster = installed.cluster
    apply_rules(cluster)
    with sample() as gateway:
        installed.install(
            {
                "gateway": {"url": gateway},
                "issuerKey": {"secretName": "issuer-key"},
                "iam": {
                    "kubernetesIssuer": {
                        "create": True,
                        "url": cluster.url,
                        "internalURL": cluster.url,
                    }
                },
                "bearerTokens": [{"name": "own", "audience": "https://issuer.example.com"}],
                "eventSubscription": {
                    "endpoint": "https://events.invalid",
                    "endpointSecret": "webhook",
                },
                "settings": {"functions": "closed"},
                "trustedProxies": "10.0.0.0/8",
            }
        )
        broker = installed.broker(tmp_path)
        with broker.running():
            _check_exchange(cluster, broker)
            _check_status(cluster)
            _check_test_of_helm(installed, broker)


def test_the_broker_is_ready_with_the_needed_values_alone(
    installed: Installed, tmp_path: Path
) -> None:
    """It reads objects, makes its own key, and asks for no Secret and no ConfigMap."""
    installed.install({})
    broker = installed.broker(tmp_path)
    with broker.running():
        published = httpx2.get(broker.url("/.well-known/openid-configuration"), timeout=20)
        assert published.json()["issuer"] == URL


def test_a_secret_that_others_could_write_is_refused(installed: Installed, tmp_path: Path) -> None:
    """The volumes of these tests are as a kubelet makes them, and the broker looks at them."""
    installed.install({"issuerKey": {"secretName": "issuer-key"}})
    broker = installed.broker(tmp_path)
    key = broker.volumes / "issuer-key" / "..data" / "issuer.key"
    key.chmod(0o662)
    with pytest.raises(RuntimeError, match="signing-key: "), broker.running():
        pass


def _check_exchange(cluster: Cluster, broker: Container) -> None:
    token = cluster.token(NAMESPACE, "releaser", URL)
    answer = httpx2.post(broker.url("/oauth/token"), data=form(token), timeout=20)
    assert answer.status_code == 200, answer.text + broker.output()
    bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    listed = httpx2.get(broker.url("/system/functions"), headers=bearer, timeout=20)
    assert listed.status_code == 200, listed.text
    refused = cluster.token(NAMESPACE, "nobody", URL)
    assert httpx2.post(broker.url("/oauth/token"), data=form(refused)).status_code == 400


def _check_status(cluster: Cluster) -> None:
    wait = ("wait", "--for=condition=Ready", "--timeout=60s", "-n", NAMESPACE)
    cluster.kubectl(*wait, "roles.iam.openfaas.com/first", "policies.iam.openfaas.com/first")
    cluster.kubectl("-n", NAMESPACE, "get", "leases.coordination.k8s.io", "federation")


def _check_test_of_helm(installed: Installed, broker: Container) -> None:
    """The pod of `helm test` would say that all is well, and that another URL is not."""
    hooks = yaml.safe_load(installed.helm.run("get", "hooks", RELEASE, "--namespace", NAMESPACE))
    [container] = hooks["spec"]["containers"]
    command = [sys.executable if word == "python" else word for word in container["command"]]
    environ = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environ["BROKER"] == f"{RELEASE}.{NAMESPACE}:8080"
    environ["BROKER"] = broker.url("").removeprefix("http://")

    def words(**changes: str) -> list[str]:
        return ["env", "-i", *(f"{k}={v}" for k, v in {**environ, **changes}.items()), *command]

    assert f"issuer: {URL}" in run(words())
    with pytest.raises(CommandFailed, match=r"should say that it is https://other\.example"):
        run(words(ISSUER_URL="https://other.example.com"))


def test_the_admission_webhook_runs_as_the_deployment_says(
    installed: Installed, tmp_path: Path
) -> None:
    cluster, name = installed.cluster, f"{RELEASE}-admission"
    installed.install({"webhook": {"enabled": True}})
    port = free_port()
    replaced = {"--host": "127.0.0.1", "--port": str(port), "--host-name": "127.0.0.1"}
    pod = installed.pod("deployment", name)
    webhook = Container(pod, tmp_path, World(cluster), port, replaced)
    _call_by_url(cluster, f"openfaas-{name}", webhook.url("/review"))
    with webhook.running():
        assert until(lambda: "T002" in _refusal_of_a_stranger(cluster), 30)
    # It is away, so no spec changes, and everything else does.
    assert "failed calling webhook" in _refusal_of_a_stranger(cluster)
    installed.install({})
    assert until(lambda: not _refusal_of_a_stranger(cluster), 30)


def _call_by_url(cluster: Cluster, configuration: str, url: str) -> None:
    """Let the API server call the webhook by *url*, since nothing here leads to a Service."""
    patch = [{"op": "replace", "path": "/webhooks/0/clientConfig", "value": {"url": url}}]
    resource = ("validatingwebhookconfiguration", configuration)
    cluster.kubectl("patch", *resource, "--type=json", "-p", json.dumps(patch))


def _refusal_of_a_stranger(cluster: Cluster) -> str:
    """The API server's words on a Role that would admit everybody on GitHub; empty for none."""
    issuer = {"jwt:iss": ["https://token.actions.githubusercontent.com"]}
    role = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Role",
        "metadata": {"name": "stranger", "namespace": NAMESPACE},
        "spec": {"policy": ["first"], "condition": {"StringEqual": issuer}},
    }
    try:
        cluster.apply(role, words=("--dry-run=server",))
    except CommandFailed as failed:
        return str(failed)
    return ""


def test_the_dashboard_runs_as_the_deployment_says(installed: Installed, tmp_path: Path) -> None:
    with provider() as issuer:
        installed.install(
            {
                "dashboard": {
                    "enabled": True,
                    "publicURL": "https://dashboard.example.com",
                    "signingKeySecret": "issuer-key",
                    "signingKeyEntries": ["issuer.key"],
                    "dashboardIssuer": {
                        "url": issuer,
                        "clientId": "dashboard",
                        "clientSecret": "webhook",
                        "clientSecretKey": "webhook-secret",
                    },
                }
            }
        )
        pod = installed.pod("deployment", f"{RELEASE}-dashboard")
        port = free_port()
        replaced = {
            "FEDERATION_DASHBOARD_HOST": "127.0.0.1",
            "FEDERATION_DASHBOARD_PORT": str(port),
        }
        world = World(installed.cluster, installed.secrets)
        dashboard = Container(pod, tmp_path, world, port, replaced)
        with dashboard.running():
            page = httpx2.get(
                dashboard.url("/"), headers={"Host": "dashboard.example.com"}, timeout=20
            )
            assert page.status_code in {200, 303}, page.text
            assert "signs-deliveries" not in dashboard.output()


@contextmanager
def provider() -> Iterator[str]:
    """An OpenID provider that has metadata and nothing else; its issuer URL."""

    class Metadata(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer = f"http://127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]
            endpoints = ("authorization", "token", "end_session", "revocation")
            document = {
                "issuer": issuer,
                "jwks_uri": f"{issuer}/jwks",
                **{f"{each}_endpoint": f"{issuer}/{each}" for each in endpoints},
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "code_challenge_methods_supported": ["S256"],
            }
            body = json.dumps(document if "well-known" in self.path else {"keys": []}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


# Rights


def rights(cluster: Cluster, account: str, namespace: str, folder: Path) -> set[str]:
    """What `kubectl auth can-i --list` shows for *account*, beyond what everybody may."""

    def listed(name: str) -> set[str]:
        token = cluster.token(NAMESPACE, name)
        kubeconfig = cluster.write_kubeconfig(token, folder / f"{name}.kubeconfig")
        shown = cluster.kubectl("auth", "can-i", "--list", "-n", namespace, kubeconfig=kubeconfig)
        return {" ".join(line.split()) for line in shown.splitlines()[1:]}

    return listed(account) - listed("nobody")


def test_the_broker_has_exactly_the_rights_that_it_needs(
    installed: Installed, tmp_path: Path
) -> None:
    installed.install({"webhook": {"enabled": True}})
    cluster = installed.cluster
    assert rights(cluster, RELEASE, NAMESPACE, tmp_path) == RIGHTS
    for elsewhere in ("default", "kube-system"):
        assert rights(cluster, RELEASE, elsewhere, tmp_path) == set()


def test_the_admission_webhook_has_exactly_the_rights_that_it_needs(
    installed: Installed, tmp_path: Path
) -> None:
    installed.install({"webhook": {"enabled": True}})
    configuration = "validatingwebhookconfigurations.admissionregistration.k8s.io"
    everywhere = {f"{configuration} [] [openfaas-federation-admission] [get patch]"}
    there = {
        "secrets [] [federation-admission] [get update]",
        "jwtissuers.iam.openfaas.com [] [] [list]",
        "policies.iam.openfaas.com [] [] [get]",
    }
    account = f"{RELEASE}-admission"
    assert rights(installed.cluster, account, NAMESPACE, tmp_path) == everywhere | there
    assert rights(installed.cluster, account, "default", tmp_path) == everywhere
