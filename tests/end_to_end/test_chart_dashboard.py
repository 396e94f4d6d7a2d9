"""
The dashboard in the Helm chart: what is rendered is what the command takes, and no secret is in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from federation.config import read_settings
from federation.config.dashboard import DashboardSettings, read_dashboard_settings
from tests.end_to_end.test_chart import DASHBOARD, DASHBOARD_REPLICAS, DASHBOARD_URL, EVERYTHING
from tests.harness.helm import URL, Helm, Manifest, of_kind, with_needed
from tests.harness.kube import CommandFailed
from tests.harness.signing import signing_key

pytestmark = pytest.mark.e2e

IDP = "https://idp.example.com/realms/people"
REDIS = "rediss://:password@redis:6379/1"


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    return Helm("helm4", tmp_path)


def dashboard(**changes: Any) -> dict[str, Any]:
    """Values with a dashboard and *changes* to it."""
    return with_needed({"dashboard": {**DASHBOARD, **changes}})


def pod(manifests: list[Manifest]) -> Mapping[str, Any]:
    """The dashboard's pod."""
    spec: Mapping[str, Any] = of_kind(manifests, "Deployment", "-dashboard")["spec"]
    made: Mapping[str, Any] = spec["template"]["spec"]
    return made


def settings(manifests: list[Manifest], folder: Path) -> DashboardSettings:
    """What the dashboard's command makes of its rendered environment, with Secrets in *folder*."""
    [container] = pod(manifests)["containers"]
    assert container["args"] == ["dashboard"]
    environ = {each["name"]: each.get("value", REDIS) for each in container["env"]}
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod(manifests)["volumes"]}
    for path, name in mounted.items():
        at = folder / path.strip("/")
        at.mkdir(parents=True, exist_ok=True)
        for item in volumes[name].get("secret", {}).get("items", ()):
            (at / item["path"]).write_bytes(signing_key(folder).read_bytes())
            (at / item["path"]).chmod(0o600)
    environ = {name: value.replace("/var/", f"{folder}/var/") for name, value in environ.items()}
    return read_dashboard_settings({}, environ)


# What the command takes


def test_the_smallest_dashboard_starts_with_what_is_rendered(helm: Helm, tmp_path: Path) -> None:
    found = settings(helm.template(dashboard()), tmp_path / "pod")
    assert (found.public_url, found.issuer, found.client_id) == (DASHBOARD_URL, IDP, "dashboard")
    assert found.gateway == "http://federation.openfaas:8080"
    assert found.broker_url == URL
    assert (found.host, found.port) == ("0.0.0.0", 8080)  # noqa: S104  in its own pod
    assert found.scopes == "openid profile email"
    assert found.client_secret_file is None
    assert found.session_key == ()
    assert found.shared_state is None


def test_replicas_share_key_and_store_and_the_client_has_its_secret(
    helm: Helm, tmp_path: Path
) -> None:
    values = with_needed({"dashboard": DASHBOARD_REPLICAS, "trustedProxies": "10.0.0.0/8"})
    found = settings(helm.template(values), tmp_path / "pod")
    assert found.issuer == "https://idp.example.com:8443/"
    assert [path.name for path in found.session_key] == ["key", "old"]
    assert found.client_secret_file is not None
    assert found.client_secret_file.name == "client-secret"
    assert found.shared_state is not None
    assert found.shared_state.get_secret_value() == REDIS
    assert found.scopes == "openid groups"
    assert found.trusted_proxies == "10.0.0.0/8"
    assert found.session_lifetime.total_seconds() == 8 * 3600


@pytest.mark.parametrize("scopes", ["openid groups", ["openid", "groups"]], ids=["text", "list"])
@pytest.mark.parametrize("place", ["dashboard", "iam"])
def test_the_client_may_stand_where_openfaas_has_it(
    helm: Helm, tmp_path: Path, place: str, scopes: object
) -> None:
    issuer = {"url": IDP, "clientId": "d", "clientSecret": "dashboard-client", "scopes": scopes}
    bare = {"enabled": True, "publicURL": DASHBOARD_URL}
    values = (
        {"dashboard": {**bare, "dashboardIssuer": issuer}}
        if place == "dashboard"
        else {"dashboard": bare, "iam": {"dashboardIssuer": issuer}}
    )
    found = settings(helm.template(with_needed(values)), tmp_path / "pod")
    assert (found.issuer, found.client_id, found.scopes) == (IDP, "d", "openid groups")
    assert found.client_secret_file is not None


def test_the_broker_publishes_where_people_sign_in(helm: Helm, tmp_path: Path) -> None:
    sign_in = {"issuer": IDP, "clientId": "faas-cli", "scopes": ["openid", "email"]}
    manifests = helm.template(with_needed({"signIn": sign_in}))
    [container] = of_kind(manifests, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    environ = {each["name"]: each["value"] for each in container["env"]}
    environ["FEDERATION_STATE"] = str(tmp_path / "state")
    found = read_settings({}, environ)
    assert (found.sign_in_issuer, found.sign_in_client_id) == (IDP, "faas-cli")
    assert found.sign_in_scopes == "openid email"
    [test] = of_kind(manifests, "Pod")["spec"]["containers"]
    assert {"name": "SIGN_IN_ISSUER", "value": IDP} in test["env"]


def test_without_the_values_nothing_of_either_is_there(helm: Helm) -> None:
    manifests = helm.template(with_needed({}))
    assert not [each for each in manifests if each["metadata"]["name"].endswith("-dashboard")]
    text = json.dumps([each for each in manifests if each["kind"] != "Pod"])
    assert "dashboard" not in text.lower()
    assert "SIGN_IN" not in text
    [test] = of_kind(manifests, "Pod")["spec"]["containers"]
    assert [each["name"] for each in test["env"]] == ["BROKER", "ISSUER_URL"]


# Secrets


def test_keys_and_the_clients_secret_are_mounted_and_in_no_environment(helm: Helm) -> None:
    manifests = helm.template(with_needed({"dashboard": DASHBOARD_REPLICAS}))
    [container] = pod(manifests)["containers"]
    from_secrets = [each["name"] for each in container["env"] if "valueFrom" in each]
    assert from_secrets == ["FEDERATION_DASHBOARD_SHARED_STATE"], "the URL of a store alone"
    assert "envFrom" not in container
    secrets = {v["secret"]["secretName"] for v in pod(manifests)["volumes"] if "secret" in v}
    assert secrets == {"dashboard-key", "dashboard-client"}
    for mount in container["volumeMounts"]:
        assert mount.get("readOnly") or mount["name"] == "state"


def test_the_dashboard_has_no_secret_and_no_right_of_the_broker(helm: Helm) -> None:
    manifests = helm.template(with_needed(EVERYTHING))
    spec = pod(manifests)
    text = json.dumps(spec)
    for name in ("issuer-key", "basic-auth", '"redis"', "serviceAccountToken", "bearer-tokens"):
        assert name not in text
    assert spec["serviceAccountName"] == "federation-dashboard"
    assert spec["automountServiceAccountToken"] is False
    bound = [
        subject["name"]
        for manifest in manifests
        if manifest["kind"] in {"RoleBinding", "ClusterRoleBinding"}
        for subject in manifest["subjects"]
    ]
    assert "federation-dashboard" not in bound


@pytest.mark.parametrize("secret", ["Sup3r.SECRET", "with space", "UPPER", "a" * 300])
def test_a_secret_in_place_of_its_name_is_refused_and_not_quoted(helm: Helm, secret: str) -> None:
    issuer = {**DASHBOARD["dashboardIssuer"], "clientSecret": secret}
    with pytest.raises(CommandFailed, match="must be the name of a Secret") as refused:
        helm.template(dashboard(dashboardIssuer=issuer))
    assert secret not in str(refused.value)


# The network


def test_the_dashboard_has_an_ingress_of_its_own_host_alone(helm: Helm) -> None:
    manifests = helm.template(with_needed(EVERYTHING))
    own, brokers = (of_kind(manifests, "Ingress", name) for name in ("-dashboard", "federation"))
    assert [rule["host"] for rule in own["spec"]["rules"]] == ["dashboard.example.com"]
    assert [rule["host"] for rule in brokers["spec"]["rules"]] == ["gateway.example.com"]
    [path] = own["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"]["name"] == "federation-dashboard"
    assert own["spec"]["tls"] == DASHBOARD_REPLICAS["ingress"]["tls"]


def test_it_reaches_the_broker_the_provider_and_redis_and_nothing_else(helm: Helm) -> None:
    manifests = helm.template(with_needed(EVERYTHING))
    spec = of_kind(manifests, "NetworkPolicy", "-dashboard")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    broker = of_kind(manifests, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    ports = [port["port"] for rule in spec["egress"] for port in rule["ports"]]
    assert ports == [53, 53, "http", 8443, 6379]
    [rule] = [rule for rule in spec["egress"] if "to" in rule]
    assert rule["to"][0]["podSelector"]["matchLabels"].items() <= broker.items()
    labels = of_kind(manifests, "Deployment", "-dashboard")["spec"]["template"]["metadata"][
        "labels"
    ]
    assert not rule["to"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    [way_in] = spec["ingress"]
    assert way_in["from"] == DASHBOARD_REPLICAS["networkPolicy"]["from"]


def test_the_provider_is_reached_at_the_port_of_https(helm: Helm) -> None:
    spec = of_kind(helm.template(dashboard()), "NetworkPolicy", "-dashboard")["spec"]
    assert [p["port"] for rule in spec["egress"] for p in rule["ports"]] == [53, 53, "http", 443]


def test_a_broker_that_lets_few_in_lets_the_dashboard_in(helm: Helm) -> None:
    few = [{"namespaceSelector": {"matchLabels": {"name": "ingress"}}}]
    values = {"networkPolicy": {"from": few}, "dashboard": DASHBOARD}
    manifests = helm.template(with_needed(values))
    labels = of_kind(manifests, "Deployment", "-dashboard")["spec"]["template"]["metadata"][
        "labels"
    ]
    peers = of_kind(manifests, "NetworkPolicy", "federation")["spec"]["ingress"][0]["from"]
    assert peers[0] == few[0]
    assert peers[1]["podSelector"]["matchLabels"].items() <= labels.items()
    metrics = of_kind(manifests, "NetworkPolicy", "federation")["spec"]["ingress"][1]
    assert metrics["ports"][0]["port"] == "metrics"
    assert of_kind(manifests, "NetworkPolicy", "-dashboard")["spec"]["ingress"][0]["from"] == few


def test_without_redis_there_are_never_two_pods(helm: Helm) -> None:
    alone = of_kind(helm.template(dashboard()), "Deployment", "-dashboard")["spec"]
    assert alone["strategy"] == {"type": "Recreate"}
    several = helm.template(with_needed({"dashboard": DASHBOARD_REPLICAS}))
    assert "strategy" not in of_kind(several, "Deployment", "-dashboard")["spec"]


def test_helm_test_asks_the_dashboard_too(helm: Helm) -> None:
    [test] = of_kind(helm.template(dashboard()), "Pod")["spec"]["containers"]
    assert {"name": "DASHBOARD", "value": "federation-dashboard.openfaas:8080"} in test["env"]


# Values that do not go together

REFUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "no URL": (dashboard(publicURL=""), r"dashboard\.publicURL is needed"),
    "a URL with a path": (dashboard(publicURL="https://d.example.com/x"), "without a path"),
    "plain http": (dashboard(publicURL="http://d.example.com"), "set it to an https URL"),
    "the host of the broker": (dashboard(publicURL=URL), "give the dashboard a host of its own"),
    "the host of the broker at another port": (
        dashboard(publicURL=f"{URL}:8443"),
        "give the dashboard a host of its own",
    ),
    "the host of the broker in another case": (
        dashboard(publicURL="https://GATEWAY.example.com"),
        "give the dashboard a host of its own",
    ),
    "a host of the broker's Ingress": (
        with_needed(
            {"dashboard": DASHBOARD, "ingress": {"hosts": [{"host": "dashboard.example.com"}]}}
        ),
        "give the dashboard a host of its own",
    ),
    "another gateway": (
        dashboard(publicURLGateway="https://other.example.com"),
        r"publicURLGateway is not iam\.systemIssuer\.url",
    ),
    "no provider": (dashboard(dashboardIssuer={}), r"dashboardIssuer\.url is needed"),
    "no client": (dashboard(dashboardIssuer={"url": IDP}), r"dashboardIssuer\.clientId is needed"),
    "a provider by http": (
        dashboard(dashboardIssuer={"url": "http://idp.example.com", "clientId": "d"}),
        "set it to the issuer URL of your OpenID provider",
    ),
    "two clients": (
        with_needed({"dashboard": DASHBOARD, "iam": {"dashboardIssuer": {"clientId": "another"}}}),
        "are the same setting and differ: set one of them",
    ),
    "two replicas": (dashboard(replicas=2), r"set dashboard\.sharedState\.secretName"),
    "two replicas without a common key": (
        dashboard(replicas=2, sharedState={"secretName": "redis"}),
        r"dashboard\.signingKeySecret \(a key by which all read them\)",
    ),
    "a store without a key": (
        dashboard(sharedState={"secretName": "redis"}),
        r"set dashboard\.signingKeySecret",
    ),
    "a setting that has its own value": (dashboard(settings={"issuer": IDP}), "issuer"),
    "half of where people sign in": (
        with_needed({"signIn": {"issuer": IDP}}),
        r"signIn\.issuer and signIn\.clientId need each other",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_values_that_cannot_work_are_refused_with_the_value_to_set(helm: Helm, case: str) -> None:
    values, message = REFUSED[case]
    with pytest.raises(CommandFailed, match=message):
        helm.template(values)
