"""
Statuses, Events and the leader's death, by brokers that follow a real API server.

The API server writes an audit log, which says who asked for what.
"""

from __future__ import annotations

import json
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from httpx2 import Response

from federation.documents.kubernetes.unite import Standing, Verdict
from federation.documents.kubernetes.verdicts import PROBLEMS
from federation.errors import Problem, Severity
from federation.sources.kubernetes.status import desired_status
from tests.harness import documents
from tests.harness.kube import Cluster, Object, cluster_running
from tests.harness.kube_replica import Replica, issuer, make_namespace, role
from tests.harness.kube_status import kstatus
from tests.harness.kube_writes import an_object
from tests.harness.process import ROOT, until

pytestmark = pytest.mark.e2e

AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
GOOD = [issuer(), documents.DEPLOY, role()]
RESOURCES = {"JwtIssuer": "jwti", "Policy": "iampol", "Role": "iamrole"}


class Audited:
    """A cluster whose audit log can be read."""

    def __init__(self, cluster: Cluster, log: Path) -> None:
        self.cluster = cluster
        self._log = log

    def requests(self, namespace: str, since: float) -> Counter[tuple[str, str]]:
        """What the brokers of *namespace* asked for since a Unix time, by verb and resource."""
        account = f"system:serviceaccount:{namespace}:federation"
        told = [json.loads(line) for line in self._log.read_text("utf-8").splitlines()]
        return Counter(
            (line["verb"], f"{ref.get('resource')}{'/' * bool(sub)}{sub}")
            for line in told
            if line["user"]["username"] == account
            and datetime.fromisoformat(line["stageTimestamp"]).timestamp() >= since
            for ref in [line.get("objectRef", {})]
            for sub in [ref.get("subresource", "")]
        )


@pytest.fixture(name="audited", scope="module")
def _audited(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("audited")
    (folder / "policy.yaml").write_text(yaml.safe_dump(AUDIT), "utf-8")
    flags = [
        f"--audit-policy-file={folder / 'policy.yaml'}",
        f"--audit-log-path={folder / 'audit.log'}",
    ]
    with cluster_running(folder / "cluster", *flags) as cluster:
        cluster.apply_crds()
        yield Audited(cluster, folder / "audit.log")


@dataclass(frozen=True)
class Idle:
    """Two brokers of a namespace in which nothing happens, since a Unix time."""

    namespace: str
    since: float
    versions: Mapping[str, str]
    """The resourceVersion of each object at that time."""


@pytest.fixture(name="idle", scope="module", autouse=True)
def _idle(audited: Audited, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Idle]:
    """Its minute passes during the other tests."""
    cluster, namespace = audited.cluster, make_namespace(audited.cluster, "status-idle")
    with replicas(tmp_path_factory.mktemp("idle"), cluster, namespace, 2):
        apply(cluster, namespace, *GOOD)
        wait_ready(cluster, namespace, "iamrole/deployer")
        time.sleep(3)
        yield Idle(namespace, time.time(), versions(cluster, namespace))


@dataclass(frozen=True)
class Stopped:
    """Two brokers of a namespace, of which the leader was stopped by SIGSTOP."""

    namespace: str
    leader: Replica
    identity: str


@pytest.fixture(name="stopped", scope="module", autouse=True)
def _stopped(audited: Audited, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stopped]:
    """The other takes the Lease during the other tests."""
    cluster, namespace = audited.cluster, make_namespace(audited.cluster, "status-stopped")
    with replicas(tmp_path_factory.mktemp("stopped"), cluster, namespace, 2) as made:
        apply(cluster, namespace, *GOOD)
        wait_ready(cluster, namespace, "iamrole/deployer")
        first = holder(cluster, namespace)
        leader = leader_of(made, first)
        leader.send(signal.SIGSTOP)
        yield Stopped(namespace, leader, first)


@contextmanager
def replicas(folder: Path, cluster: Cluster, namespace: str, count: int = 1) -> Iterator[Any]:
    """Run *count* brokers, and end those that still run."""
    with ExitStack() as stack:
        made = [Replica(folder / f"replica-{n}", cluster, namespace) for n in range(count)]
        for each in made:
            stack.enter_context(each.running())
        yield made


def status_of(cluster: Cluster, namespace: str, kind: str, name: str) -> dict[str, Any]:
    found = cluster.get(RESOURCES[kind], name, namespace)
    status: dict[str, Any] = found.get("status", {})
    return status


def reason(cluster: Cluster, namespace: str, name: str = "deployer", kind: str = "Role") -> str:
    """Why the newest version of an object is Ready or not, empty if no broker has read it."""
    found = cluster.get(RESOURCES[kind], name, namespace)
    status = found.get("status", {})
    if status.get("observedGeneration") != found["metadata"]["generation"]:
        return ""
    return {each["type"]: str(each["reason"]) for each in status["conditions"]}["Ready"]


def apply(cluster: Cluster, namespace: str, *objects: Object) -> None:
    cluster.apply(*objects, words=("-n", namespace))


def wait_ready(cluster: Cluster, namespace: str, name: str, seconds: int = 15) -> None:
    words = ("wait", "--for=condition=Ready", f"--timeout={seconds}s", name)
    cluster.kubectl("-n", namespace, *words)


def lease(cluster: Cluster, namespace: str) -> dict[str, Any]:
    """What the Lease `federation` says, empty if there is none."""
    found = cluster.request(
        "GET", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/federation"
    ).json()
    spec: dict[str, Any] = found.get("spec", {})
    return spec


def holder(cluster: Cluster, namespace: str) -> str:
    """The identity of the leader, empty if there is none."""
    return str(lease(cluster, namespace).get("holderIdentity") or "")


def leader_of(made: list[Replica], identity: str) -> Replica:
    (leader,) = [each for each in made if identity and identity in each.output()]
    return leader


def versions(cluster: Cluster, namespace: str) -> dict[str, str]:
    """The resourceVersion of each of our objects."""
    listed = json.loads(cluster.kubectl("-n", namespace, "get", "openfaas-iam", "-o", "json"))
    return {
        f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["resourceVersion"]
        for each in listed["items"]
    }


def write_status(cluster: Cluster, namespace: str, status: Object, **metadata: str) -> Response:
    """Write the status of the Role `deployer` as the broker does."""
    return cluster.request(
        "PATCH",
        f"/apis/iam.openfaas.com/v1/namespaces/{namespace}/roles/deployer/status"
        "?fieldManager=federation&force=true",
        {
            "apiVersion": "iam.openfaas.com/v1",
            "kind": "Role",
            "metadata": {"name": "deployer", "namespace": namespace, **metadata},
            "status": status,
        },
        content_type="application/apply-patch+yaml",
    )


def test_kubectl_waits_for_each_object_and_lists_them(audited: Audited, tmp_path: Path) -> None:
    cluster, namespace = audited.cluster, make_namespace(audited.cluster, "status-good")
    with replicas(tmp_path, cluster, namespace):
        apply(cluster, namespace, *GOOD)
        for name in ("jwti/ci", "iampol/deploy", "iamrole/deployer"):
            wait_ready(cluster, namespace, name)
        table = cluster.kubectl("-n", namespace, "get", "openfaas-iam")
        for name in ("ci", "deploy", "deployer"):
            assert any(
                f"/{name} " in line and " True " in line and " Accepted " in line
                for line in table.splitlines()
            ), table
        found = cluster.get("iamrole", "deployer", namespace)
        assert kstatus(found) == "Current"
        shown = cluster.kubectl(
            *("-n", namespace, "get", "iamrole", "deployer", "-o", "json", "--show-managed-fields")
        )
        fields = json.loads(shown)["metadata"]["managedFields"]
        ours = [each["manager"] for each in fields if each.get("subresource") == "status"]
        assert ours == ["federation"]


def columns(table: str) -> list[list[str]]:
    """The words of each line, without its age."""
    return [re.split(r"\s{2,}", line.strip())[:-1] for line in table.splitlines() if line.strip()]


def test_the_docs_show_what_kubectl_shows(audited: Audited, tmp_path: Path) -> None:
    cluster, namespace = audited.cluster, make_namespace(audited.cluster, "status-docs")
    page = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    found = re.search(
        r"^\$ kubectl -n openfaas get openfaas-iam\n(.*?)^```", page, re.MULTILINE | re.DOTALL
    )
    assert found
    unpinned = documents.document(
        "Role", "preview", {"policy": ["deploy"], "principal": {"jwt:sub": ["x"]}}
    )
    shadow = role("trial")
    shadow["spec"]["effect"] = "Shadow"
    with replicas(tmp_path, cluster, namespace):
        apply(cluster, namespace, *GOOD, unpinned, role("release", "publish"), shadow)
        for name in ("deployer", "preview", "release", "trial"):
            assert until(lambda name=name: reason(cluster, namespace, name) != "", 15)  # type: ignore[misc]
        shown = cluster.kubectl("-n", namespace, "get", "openfaas-iam")
        assert columns(shown) == columns(found[1])
        described = cluster.kubectl("-n", namespace, "describe", "iamrole", "preview")
        shown_lines = {line.strip() for line in described.splitlines()}
        excerpt = re.search(r"^  Problems:\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        assert excerpt
        assert {line.strip() for line in excerpt[1].splitlines()} <= shown_lines


def test_a_refused_role_says_why_and_recovers(audited: Audited, tmp_path: Path) -> None:
    cluster, namespace = audited.cluster, make_namespace(audited.cluster, "status-bad")
    other = role("deployer") | {"spec": {"policy": ["deploy"], "principal": {"jwt:sub": ["x"]}}}
    with replicas(tmp_path, cluster, namespace):
        apply(cluster, namespace, issuer(), documents.DEPLOY, other)
        assert until(lambda: reason(cluster, namespace) == "Refused", 15)
        found = cluster.get("iamrole", "deployer", namespace)
        assert kstatus(found) == "Failed"
        (problem,) = [each for each in found["status"]["problems"] if each["severity"] == "error"]
        assert problem["code"] == "T001"
        assert until(lambda: "Refused" in cluster.kubectl(
            "-n", namespace, "events", "--for", "iamrole/deployer"), 10)  # fmt: skip
        listed = cluster.kubectl("-n", namespace, "get", "events.v1.events.k8s.io", "-o", "json")
        [event] = [
            each for each in json.loads(listed)["items"] if each["regarding"]["name"] == "deployer"
        ]
        assert (event["type"], event["reason"]) == ("Warning", "Refused")
        assert event["regarding"]["uid"] == found["metadata"]["uid"]
        assert "T001" in event["note"]
        apply(cluster, namespace, role())
        wait_ready(cluster, namespace, "iamrole/deployer")
        assert kstatus(cluster.get("iamrole", "deployer", namespace)) == "Current"


def test_objects_in_any_order_are_in_progress_until_the_last_one_came(
    audited: Audited, tmp_path: Path
) -> None:
    cluster, namespace = audited.cluster, make_namespace(audited.cluster, "status-order")
    with replicas(tmp_path, cluster, namespace):
        apply(cluster, namespace, role())
        assert until(lambda: reason(cluster, namespace) in {"Pending", "PolicyMissing"}, 15)
        assert kstatus(cluster.get("iamrole", "deployer", namespace)) == "InProgress"
        apply(cluster, namespace, documents.DEPLOY, issuer())
        wait_ready(cluster, namespace, "iamrole/deployer")


def test_the_death_of_the_leader_is_made_good_within_thirty_seconds(
    audited: Audited, tmp_path: Path
) -> None:
    cluster, namespace = audited.cluster, make_namespace(audited.cluster, "status-death")
    with replicas(tmp_path, cluster, namespace, 2) as made:
        apply(cluster, namespace, *GOOD)
        wait_ready(cluster, namespace, "iamrole/deployer")
        first = holder(cluster, namespace)
        assert lease(cluster, namespace)["leaseDurationSeconds"] == 15
        before = versions(cluster, namespace)
        leader_of(made, first).kill()
        died = time.monotonic()
        apply(cluster, namespace, role("after"))
        wait_ready(cluster, namespace, "iamrole/after", 30)
        assert time.monotonic() - died < 30
        assert holder(cluster, namespace) not in {"", first}
        after = versions(cluster, namespace)
        assert {name: after[name] for name in before} == before


def test_a_leader_that_ends_in_order_leaves_the_lease_to_another(
    audited: Audited, tmp_path: Path
) -> None:
    cluster, namespace = audited.cluster, make_namespace(audited.cluster, "status-stop")
    with replicas(tmp_path, cluster, namespace, 2) as made:
        assert until(lambda: holder(cluster, namespace) != "", 10)
        first = holder(cluster, namespace)
        leader = leader_of(made, first)
        assert leader.stop() == 0
        assert "Traceback" not in leader.output()
        ended = time.monotonic()
        assert until(lambda: holder(cluster, namespace) not in {"", first}, 8)
        assert time.monotonic() - ended < 8


def test_a_status_that_somebody_broke_is_repaired_once(audited: Audited, tmp_path: Path) -> None:
    cluster, namespace = audited.cluster, make_namespace(audited.cluster, "status-broken")
    with replicas(tmp_path, cluster, namespace):
        apply(cluster, namespace, *GOOD)
        wait_ready(cluster, namespace, "iamrole/deployer")
        broken = {"status": {"conditions": [], "observedGeneration": 99}}
        began = time.time()
        words = ("patch", "iamrole", "deployer", "--subresource=status", "--type=merge", "-p")
        cluster.kubectl("-n", namespace, *words, json.dumps(broken))
        assert until(lambda: reason(cluster, namespace) == "Accepted", 15)
        time.sleep(8)
        assert audited.requests(namespace, began)["patch", "roles/status"] == 1


def test_many_objects_are_told_of_once_each_and_the_lease_is_kept(
    audited: Audited, tmp_path: Path
) -> None:
    cluster, namespace = audited.cluster, make_namespace(audited.cluster, "status-many")
    apply(cluster, namespace, issuer(), documents.DEPLOY)
    apply(cluster, namespace, *(role(f"role-{number}") for number in range(100)))
    began = time.time()
    with replicas(tmp_path, cluster, namespace):
        first = ""
        for number in (99, 50, 0):
            wait_ready(cluster, namespace, f"iamrole/role-{number}", 40)
            first = first or holder(cluster, namespace)
        time.sleep(4)
        asked = audited.requests(namespace, began)
        assert asked["patch", "roles/status"] == 100
        assert holder(cluster, namespace) == first


def test_the_leader_writes_again_when_the_api_server_is_back(tmp_path: Path) -> None:
    with cluster_running(tmp_path / "cluster") as cluster:
        cluster.apply_crds()
        namespace = make_namespace(cluster, "status-crash")
        with replicas(tmp_path, cluster, namespace):
            apply(cluster, namespace, *GOOD)
            wait_ready(cluster, namespace, "iamrole/deployer")
            before = versions(cluster, namespace)
            cluster.kill()
            time.sleep(12)  # after 10 s it gives up the Lease
            cluster.start()
            apply(cluster, namespace, role("after"))
            wait_ready(cluster, namespace, "iamrole/after", 40)
            after = versions(cluster, namespace)
            assert {name: after[name] for name in before} == before


@pytest.mark.parametrize("text", ["x", "ﷺ", "\x00"])
def test_the_largest_status_is_one_that_the_crds_allow(audited: Audited, text: str) -> None:
    cluster, namespace = audited.cluster, "status-large"
    cluster.create_namespace(namespace)
    apply(cluster, namespace, role())
    found = cluster.get("iamrole", "deployer", namespace)
    problem = Problem("kubernetes", 0, "T002", Severity.ERROR, text * 9000, field=text * 9000)
    uid, generation = found["metadata"]["uid"], found["metadata"]["generation"]
    small = Problem("kubernetes", 0, "T002", Severity.ERROR, text)
    for problems in ((problem,) * 100, (small,) * 100):
        verdict = Verdict(Standing.REFUSED, text * 40_000, problems)
        made = an_object(generation=generation, uid=uid)
        status = desired_status(made, verdict, {}, datetime.now(UTC))
        assert status is not None
        answer = write_status(cluster, namespace, status)
        assert answer.status_code == 200, answer.text
        assert desired_status(made, verdict, answer.json()["status"], datetime.now(UTC)) is None
    assert len(answer.json()["status"]["problems"]) == PROBLEMS


def test_a_status_of_an_older_version_is_refused(audited: Audited) -> None:
    cluster, namespace = audited.cluster, "status-older"
    cluster.create_namespace(namespace)
    apply(cluster, namespace, role())
    version = cluster.get("iamrole", "deployer", namespace)["metadata"]["resourceVersion"]
    cluster.kubectl("-n", namespace, "delete", "iamrole", "deployer")
    apply(cluster, namespace, role())
    answer = write_status(cluster, namespace, {"observedGeneration": 1}, resourceVersion=version)
    assert answer.status_code == 409
    assert not status_of(cluster, namespace, "Role", "deployer")


def test_a_leader_that_was_stopped_for_a_while_writes_nothing_when_it_goes_on(
    audited: Audited, stopped: Stopped
) -> None:
    cluster, namespace, leader = audited.cluster, stopped.namespace, stopped.leader
    assert until(lambda: holder(cluster, namespace) not in {"", stopped.identity}, 30)
    second = holder(cluster, namespace)
    leader.send(signal.SIGCONT)
    apply(cluster, namespace, role("after"))
    wait_ready(cluster, namespace, "iamrole/after")
    time.sleep(6)
    assert holder(cluster, namespace) == second
    assert "this replica writes no statuses any more" in leader.output()


def test_nothing_is_written_in_sixty_idle_seconds(audited: Audited, idle: Idle) -> None:
    time.sleep(max(0.0, idle.since + 60 - time.time()))
    assert versions(audited.cluster, idle.namespace) == idle.versions
    asked = audited.requests(idle.namespace, idle.since)
    written = {what: count for what, count in asked.items() if what[0] not in {"watch", "get"}}
    assert written.keys() == {("patch", "leases")}
    # One of the two renews the Lease, each 5 s.
    assert written["patch", "leases"] <= (time.time() - idle.since) / 5 + 2
    assert not [resource for verb, resource in asked if "status" in resource]
