"""
Tokens of ServiceAccounts, from a real API server, are exchanged by a broker that knows it by files.

The API server shows its keys only to callers with a token, as most clusters do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness import documents
from tests.harness.broker import AUDIENCE, Served, refusal, said
from tests.harness.kube import Cluster
from tests.harness.kube_replica import RIGHTS
from tests.harness.process import until

pytestmark = pytest.mark.e2e

NAMESPACE = "service-account-tokens"
UID = "jwt:/kubernetes.io/serviceaccount/uid"


@pytest.fixture(name="accounts", scope="module")
def _accounts(cluster: Cluster) -> Cluster:
    """The cluster, with the namespace of these tests and its accounts."""
    cluster.create_namespace(NAMESPACE)
    for name in ("broker", "releaser", "other"):
        cluster.create_account(NAMESPACE, name)
    return cluster


class Usual(Cluster):
    """
    A cluster as most are made: its `iss` is a name that only its pods can use.

    Its discovery names the keys at the machine's address, and pods reach it at another one.
    """

    ISS = "https://kubernetes.default.svc.cluster.local"

    def _flags(self) -> Mapping[str, object]:
        return {
            **super()._flags(),
            "service-account-issuer": self.ISS,
            "service-account-jwks-uri": "https://192.0.2.10:6443/openid/v1/jwks",
            "api-audiences": self.ISS,
        }


def mounted(folder: Path, cluster: Cluster) -> Path:
    """The broker's own projected token in *folder*, linked as the kubelet links it."""
    data = folder / "tokens" / "..2026_11_27"
    cluster.pod_folder(data, NAMESPACE, "broker")
    (folder / "tokens" / "..data").symlink_to(data.name)
    (folder / "tokens" / "token").symlink_to("..data/token")
    return folder / "tokens" / "token"


def trusting(cluster: Cluster, iss: str = "", **spec: Any) -> str:
    """Documents by which the ServiceAccount `releaser` may deploy."""
    account = cluster.get("serviceaccount", "releaser", NAMESPACE)
    equal = {
        "jwt:iss": [iss or cluster.url],
        "jwt:/kubernetes.io/namespace": [NAMESPACE],
        UID: [account["metadata"]["uid"]],
    }
    given = {"policy": ["deploy"], "condition": {"StringEqual": equal}}
    return documents.as_text(
        documents.issuer(
            "cluster",
            iss or cluster.url,
            **{"provider": "kubernetes", "caBundle": cluster.ca.read_text("ascii"), **spec},
        ),
        documents.DEPLOY,
        documents.document("Role", "releaser-deploys", given),
    )


@contextmanager
def broker(folder: Path, written: str, *flags: str) -> Iterator[Served]:
    """Run a broker with the documents *written*; if there are none, it reads objects alone."""
    # No proxy of this machine is between the broker and the API server.
    environ = {"NO_PROXY": "127.0.0.1"}
    served = Served(folder, written, f"--issuer-url={AUDIENCE}", *flags, environ=environ)
    if not written:
        served.command = [each for each in served.command if "--documents" not in each]
    with served.running():
        assert until(lambda: has_asked_for_keys(served), 20)
        yield served


def has_asked_for_keys(served: Served) -> bool:
    """Whether it has documents and has asked for keys. Without any, it is not ready."""
    told = json.loads(served.get("/readyz")[1] or b'{"unavailable": ["no answer"]}')["unavailable"]
    return all(each.startswith("keys: ") for each in told)


def degraded(served: Served) -> list[str]:
    """What the broker tells the operator that it lacks."""
    told: list[str] = json.loads(served.get("/readyz")[1])["degraded"]
    return told


@pytest.mark.parametrize("keys", ["found by discovery", "at jwksUri"])
def test_a_token_of_the_service_account_that_a_role_names_is_exchanged(
    accounts: Cluster, tmp_path: Path, keys: str
) -> None:
    where = {"jwksUri": f"{accounts.url}/openid/v1/jwks"} if keys == "at jwksUri" else {}
    written = trusting(accounts, bearerTokenFile=str(mounted(tmp_path, accounts)), **where)
    with broker(tmp_path, written) as served:
        answer = served.exchange(accounts.token(NAMESPACE, "releaser", AUDIENCE))
        assert answer.status_code == 200, answer.text
        claims = said(answer.json()["access_token"])
        assert claims["sub"] == f"fed:system:serviceaccount:{NAMESPACE}:releaser"
        assert claims["fed:iss"] == accounts.url
        assert (claims["policy"], claims["role"]) == (["deploy"], ["releaser-deploys"])
        assert degraded(served) == []


def test_a_token_can_be_exchanged_again_since_it_is_a_file_that_many_requests_read(
    accounts: Cluster, tmp_path: Path
) -> None:
    written = trusting(accounts, bearerTokenFile=str(mounted(tmp_path, accounts)))
    token = accounts.token(NAMESPACE, "releaser", AUDIENCE)
    with broker(tmp_path, written) as served:
        assert [served.exchange(token).status_code for _ in range(2)] == [200, 200]


def test_other_accounts_and_tokens_for_others_are_refused(
    accounts: Cluster, tmp_path: Path
) -> None:
    written = trusting(accounts, bearerTokenFile=str(mounted(tmp_path, accounts)))
    other = accounts.token(NAMESPACE, "other", AUDIENCE)
    for_the_api_server = accounts.token(NAMESPACE, "releaser")
    accounts.kubectl("-n", NAMESPACE, "delete", "serviceaccount", "releaser")
    accounts.create_account(NAMESPACE, "releaser")
    of_the_same_name = accounts.token(NAMESPACE, "releaser", AUDIENCE)
    with broker(tmp_path, written) as served:
        assert refusal(served.exchange(other)) == (400, "no_role_admits")
        assert refusal(served.exchange(for_the_api_server)) == (400, "wrong_audience")
        made_anew = served.exchange(of_the_same_name)
        assert refusal(made_anew) == (400, "no_role_admits")
        assert UID in made_anew.json()["error_description"]


def test_without_a_bearer_token_the_keys_cannot_be_fetched_and_the_reason_says_so(
    accounts: Cluster, tmp_path: Path
) -> None:
    discovery = f"{accounts.url}/.well-known/openid-configuration"
    with broker(tmp_path, trusting(accounts)) as served:
        answer = served.exchange(accounts.token(NAMESPACE, "releaser", AUDIENCE))
        assert refusal(answer) == (503, "keys_unavailable")
        (told,) = degraded(served)
        assert told.startswith(f"keys of cluster: none held; {discovery}: answered 403")
        assert "bearerTokenFile" in told


def test_a_bearer_token_that_was_replaced_is_used_without_a_restart(
    accounts: Cluster, tmp_path: Path
) -> None:
    file = mounted(tmp_path, accounts)
    good = file.read_text("ascii")
    file.write_text("a-token-of-nobody", "ascii")
    with broker(tmp_path, trusting(accounts, bearerTokenFile=str(file))) as served:
        token = accounts.token(NAMESPACE, "releaser", AUDIENCE)
        assert refusal(served.exchange(token)) == (503, "keys_unavailable")
        assert "answered 401, though the token" in degraded(served)[0]
        file.write_text(good, "ascii")
        assert until(lambda: served.exchange(token).status_code == 200, 20)


def test_the_keys_of_a_usual_cluster_are_at_jwks_uri_and_not_where_discovery_says(
    tmp_path: Path,
) -> None:
    cluster = Usual(tmp_path / "cluster")
    with cluster.running():
        cluster.create_namespace(NAMESPACE)
        for name in ("broker", "releaser"):
            cluster.create_account(NAMESPACE, name)
        given = {"iss": Usual.ISS, "bearerTokenFile": str(mounted(tmp_path, cluster))}
        token = cluster.token(NAMESPACE, "releaser", AUDIENCE)
        with broker(tmp_path, trusting(cluster, **given, issInternal=cluster.url)) as served:
            assert refusal(served.exchange(token)) == (503, "keys_unavailable")
            assert "set jwksUri" in degraded(served)[0]
        keys = f"{cluster.url}/openid/v1/jwks"
        with broker(tmp_path, trusting(cluster, **given, jwksUri=keys)) as served:
            assert served.exchange(token).status_code == 200


def test_an_object_may_name_a_token_in_the_folder_and_no_other_file(
    accounts: Cluster, tmp_path: Path
) -> None:
    accounts.grant(NAMESPACE, "broker", RIGHTS)
    token = accounts.token(NAMESPACE, "broker")
    kubeconfig = accounts.write_kubeconfig(token, tmp_path / "kubeconfig")
    file = mounted(tmp_path, accounts)
    flags = (f"--kubernetes-namespace={NAMESPACE}", f"--kubeconfig={kubeconfig}")
    with broker(tmp_path, "", *flags, f"--bearer-token-files={file.parent}") as served:
        apply(accounts, trusting(accounts, bearerTokenFile=str(file)))
        subject = accounts.token(NAMESPACE, "releaser", AUDIENCE)
        assert until(lambda: served.exchange(subject).status_code == 200, 20)
        for other in (f"{served.state}/signing-keys", str(kubeconfig)):
            apply(accounts, trusting(accounts, bearerTokenFile=other))
            assert until(lambda: "D027" in problems(accounts), 20)
            assert refusal(served.exchange(subject)) == (400, "untrusted_issuer")
            apply(accounts, trusting(accounts, bearerTokenFile=str(file)))
            assert until(lambda: served.exchange(subject).status_code == 200, 20)


def apply(cluster: Cluster, written: str) -> None:
    """Apply documents as objects in the namespace of these tests."""
    cluster.kubectl("-n", NAMESPACE, "apply", "-f", "-", given=written)


def problems(cluster: Cluster) -> set[str]:
    """The codes of what is wrong with the JwtIssuer `cluster`."""
    status = cluster.get("jwtissuer", "cluster", NAMESPACE).get("status", {})
    return {each["code"] for each in status.get("problems", [])}
