"""The harness's Kubernetes API server is a real one: it can be asked, killed and started again."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from tests.harness.kube import Cluster, CommandFailed, cluster_running

pytestmark = pytest.mark.e2e


def test_a_service_account_has_the_rights_that_it_was_given(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create_namespace("harness")
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    cluster.create_account("harness", "reader", rules)
    account = cluster.write_kubeconfig(cluster.token("harness", "reader"), tmp_path / "kubeconfig")
    words = ("-n", "harness", "get", "configmaps")
    cluster.kubectl(*words, kubeconfig=account)
    cluster.grant("harness", "reader", [])
    with pytest.raises(CommandFailed, match="Forbidden"):
        cluster.kubectl(*words, kubeconfig=account)


def test_what_was_applied_is_there_after_a_crash(tmp_path: Path) -> None:
    with cluster_running(tmp_path) as cluster:
        cluster.create_namespace("kept")
        cluster.kill()
        with pytest.raises(httpx2.HTTPError):
            cluster.request("GET", "/readyz")
        cluster.start()
        assert cluster.get("namespace", "kept")["metadata"]["name"] == "kept"
