"""A broker that follows a real Kubernetes API server: live changes, and every kind of outage."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from federation.sources.kubernetes.connection import Connection
from federation.sources.kubernetes.crd_check import crd_problem
from federation.sources.kubernetes.source import KubernetesSource
from tests.harness import documents
from tests.harness.broker import Served, local_issuer, refusal, said
from tests.harness.kube import ADMIN, GROUP, Cluster, cluster_running
from tests.harness.kube_replica import RIGHTS
from tests.harness.process import ROOT, until

pytestmark = pytest.mark.e2e

PLURALS = ["jwtissuers", "policies", "roles"]


def crds() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((ROOT / "deploy" / "crds.yaml").read_text("utf-8")))


def apply_crds(cluster: Cluster, given: Sequence[Mapping[str, Any]]) -> None:
    words = ["--server-side", "--force-conflicts", "--field-manager=federation-crds"]
    cluster.apply(*given, words=words)
    cluster.kubectl(
        *("wait", "--for=condition=Established", "--timeout=30s"),
        *(f"crd/{plural}.{GROUP}" for plural in PLURALS),
    )


class Follower(Served):
    """`federation serve` as the ServiceAccount `broker`, with documents of the API alone."""

    def __init__(self, folder: Path, cluster: Cluster, namespace: str, *flags: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.token = folder / "token"
        kubeconfig = folder / "kubeconfig"
        cluster.write_kubeconfig("", kubeconfig)
        content = yaml.safe_load(kubeconfig.read_text("utf-8"))
        content["users"][0]["user"] = {"tokenFile": "token"}
        kubeconfig.write_text(yaml.safe_dump(content), "utf-8")
        super().__init__(
            folder,
            "",
            f"--kubernetes-namespace={namespace}",
            f"--kubeconfig={kubeconfig}",
            "--metrics-port=0",
            "--failed-exchanges=0",
            *flags,
            environ={"NO_PROXY": "127.0.0.1"},
        )
        self.command.remove(f"--documents={self.documents}")

    def health(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.get("/readyz")[1])
        return told

    def is_ready(self) -> bool:
        return self.status("/readyz") == 200

    def is_well(self) -> bool:
        return self.is_ready() and not self.health()["degraded"]

    def gauge(self, name: str) -> float:
        lines = self.metrics().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


class World:
    """A namespace of a cluster with objects that let jobs of an issuer deploy, and a broker."""

    def __init__(self, cluster: Cluster, folder: Path, namespace: str) -> None:
        self.cluster, self.folder, self.namespace = cluster, folder, namespace
        self.iss = ""
        cluster.create_namespace(namespace)
        cluster.create_account(namespace, "broker", RIGHTS)

    def apply(self, *given: Mapping[str, Any]) -> None:
        self.cluster.apply(*(self._here(each) for each in given))

    def delete(self, resource: str, name: str) -> None:
        self.cluster.kubectl("-n", self.namespace, "delete", resource, name)

    def apply_good(self, iss: str) -> None:
        self.iss = iss
        self.apply(
            documents.issuer("local", iss), documents.DEPLOY, documents.role("deployer", iss)
        )

    def follower(self, name: str, *flags: str) -> Follower:
        """A broker that is not started, and that knows no issuer."""
        follower = Follower(self.folder / name, self.cluster, self.namespace, *flags)
        follower.token.write_text(self.cluster.token(self.namespace, "broker"), "ascii")
        return follower

    def send(self, method: str, resource: str, body: Mapping[str, Any]) -> None:
        """Write an object as a client does that does not ask for unknown fields to be refused."""
        patching = method == "PATCH"
        content_type = "application/merge-patch+json" if patching else "application/json"
        path = f"/apis/{GROUP}/v1/namespaces/{self.namespace}/{resource}"
        answer = self.cluster.request(method, path, body, content_type=content_type)
        assert answer.is_success, answer.text

    def ready(self, resource: str, name: str) -> tuple[str, str, str]:
        """Reason and message of `Ready` of an object's newest version, and `Stalled`."""
        found = self.cluster.get(resource, name, self.namespace)
        status = found.get("status", {})
        if status.get("observedGeneration") != found["metadata"]["generation"]:
            return "", "", ""
        by_type = {each["type"]: each for each in status["conditions"]}
        ready = by_type["Ready"]
        return ready["reason"], ready["message"], by_type["Stalled"]["status"]

    def _here(self, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**given, "metadata": {**given["metadata"], "namespace": self.namespace}}

    @contextmanager
    def broker(self, *flags: str, ready: bool = True, name: str = "broker") -> Iterator[Follower]:
        """Run a broker that trusts an issuer by objects that are there already."""
        follower = self.follower(name, *flags)
        with local_issuer() as issuer:
            follower._issuer = issuer
            self.apply_good(issuer.iss("github"))
            with follower.running():
                if ready:
                    assert until(follower.is_ready, 20), follower.health()
                yield follower
        assert follower.unexpected_errors() == []


@pytest.fixture(name="world")
def _world(cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> World:
    return World(cluster, tmp_path, f"ns-{abs(hash(request.node.name)) % 10**8}")


@pytest.fixture(name="own", scope="module")
def _own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_running(tmp_path_factory.mktemp("own")) as cluster:
        yield cluster


@pytest.fixture(name="own_world")
def _own_world(own: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> World:
    """A cluster that the test may do anything with. The next test mends it."""
    if not own.is_up():
        own.kill()
        own.start()
    apply_crds(own, crds())
    return World(own, tmp_path, f"ns-{abs(hash(request.node.name)) % 10**8}")


def seconds_until(holds: Callable[[], bool], most: float = 10, *, look_each: float = 0.02) -> float:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < most, "it never came true"
        time.sleep(look_each)
    return time.monotonic() - began


async def close(connection: Connection) -> None:
    await connection.aclose()
    await asyncio.sleep(0.1)  # or the loop ends before TLS has said goodbye


def granted(broker: Follower) -> bool:
    return broker.exchange().status_code == 200


class Load:
    """Exchanges one after the other, in a thread, and what they were answered."""

    def __init__(self, broker: Follower, pause_seconds: float = 0) -> None:
        self.statuses: list[int] = []
        self._broker, self._pause_seconds = broker, pause_seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._ended.wait(self._pause_seconds):
            self.statuses.append(self._broker.exchange().status_code)

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ended.set()
        self._thread.join()

    def check(self) -> None:
        assert len(self.statuses) > 20
        assert set(self.statuses) == {200}


class Frozen:
    """A broker under load whose API server stopped answering when these tests began."""

    def __init__(self, world: World, broker: Follower, load: Load) -> None:
        self.world, self.broker, self.load = world, broker, load
        self._noticing = threading.Thread(target=self._notice)
        self.noticed_seconds = 0.0
        """How long the broker took to notice it."""
        world.cluster.send(signal.SIGSTOP)
        self._noticing.start()

    def _notice(self) -> None:
        self.noticed_seconds = seconds_until(lambda: not self.broker.is_well(), 90, look_each=0.5)

    def wait(self) -> None:
        """Wait until the broker noticed it."""
        self._noticing.join()


@pytest.fixture(name="frozen", scope="module", autouse=True)
def _frozen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Frozen]:
    """A minute passes until a silent API server is noticed, so it passes during other tests."""
    folder = tmp_path_factory.mktemp("frozen")
    with ExitStack() as stack:
        cluster = stack.enter_context(cluster_running(folder / "cluster"))
        apply_crds(cluster, crds())
        world = World(cluster, folder, "openfaas")
        broker = stack.enter_context(world.broker())
        frozen = Frozen(world, broker, stack.enter_context(Load(broker, 0.2)))
        yield frozen
        frozen.wait()


# Live changes


def test_objects_alone_are_enough_and_a_change_is_live_within_two_seconds(world: World) -> None:
    with world.broker() as broker:
        assert granted(broker)
        world.delete("roles.iam.openfaas.com", "deployer")
        assert seconds_until(lambda: not granted(broker)) < 2
        world.apply(documents.role("deployer", world.iss))
        assert seconds_until(lambda: granted(broker)) < 2
        told = broker.health()
        assert (told["status"], told["kubernetes"]["objects"]) == ("ok", {"Accepted": 3})
        accepted = 'federation_kubernetes_objects{reason="Accepted"}'
        seconds_until(lambda: broker.gauge(accepted) == 3)
        assert broker.gauge("federation_kubernetes_followed") == 1
        assert broker.gauge("federation_kubernetes_last_contact_seconds") < 60


def test_objects_of_another_namespace_are_not_read(world: World) -> None:
    with world.broker() as broker:
        other = World(world.cluster, world.folder / "other", f"{world.namespace}-other")
        other.apply(documents.role("intruder", world.iss))
        time.sleep(2)
        assert broker.health()["kubernetes"]["objects"] == {"Accepted": 3}


def test_files_and_objects_are_united(world: World) -> None:
    file = world.folder / "policy.yaml"
    statement = {"sid": "a", "effect": "Allow", "action": ["System:Info"], "resource": ["*"]}
    in_file = documents.document("Policy", "in-a-file", {"statement": [statement]})
    file.write_text(documents.as_text(in_file), "utf-8")
    with world.broker(f"--documents={file}") as broker:
        role = documents.document(
            "Role",
            "second",
            {
                "policy": ["in-a-file"],
                "condition": {"StringEqual": {"jwt:iss": [world.iss], "jwt:sub": ["a"]}},
            },
        )
        world.apply(role)
        seconds_until(lambda: broker.health()["kubernetes"]["objects"] == {"Accepted": 4})
        in_file["metadata"] = {"name": "renamed"}
        file.write_text(documents.as_text(in_file), "utf-8")
        seconds_until(lambda: broker.health()["kubernetes"]["objects"].get("PolicyMissing") == 1)


def test_each_of_several_workers_follows_and_one_that_died_comes_back(world: World) -> None:
    with world.broker("--workers=2") as broker:
        assert until(lambda: len(broker.workers()) == 2, 20)
        # Each worker lists for itself, and answers 503 until it has.
        seconds_until(lambda: all(granted(broker) for _ in range(10)), 20)
        os.kill(broker.workers()[0], signal.SIGKILL)
        assert until(lambda: len(broker.workers()) == 2, 20)
        seconds_until(lambda: all(granted(broker) for _ in range(10)), 20)
        world.delete("roles.iam.openfaas.com", "deployer")
        seconds_until(lambda: not any(granted(broker) for _ in range(10)), 20)


def test_every_replica_reads_and_decides(world: World) -> None:
    with world.broker(name="first") as first:
        second = world.follower("second")
        second._issuer = first._issuer
        with second.running():
            seconds_until(lambda: granted(second))
            assert granted(first)
            world.delete("roles.iam.openfaas.com", "deployer")
            assert seconds_until(lambda: not granted(first) and not granted(second)) < 3


def test_a_kubeconfig_with_a_ca_and_a_client_certificate_in_it(world: World) -> None:
    certificate, key = world.cluster.clients.client(world.folder / "client")
    group = "rbac.authorization.k8s.io"
    world.apply(
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "by-certificate"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": f"{world.namespace}-broker"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": "the broker"}],
        }
    )
    with local_issuer() as issuer:
        follower = world.follower("by-certificate")
        follower._issuer = issuer
        path = follower.folder / "kubeconfig"
        content = yaml.safe_load(path.read_text("utf-8"))
        cluster = content["clusters"][0]["cluster"]
        cluster["certificate-authority-data"] = _base64(Path(cluster.pop("certificate-authority")))
        shown = {"client-certificate-data": certificate, "client-key-data": key}
        content["users"][0]["user"] = {name: _base64(file) for name, file in shown.items()}
        path.write_text(yaml.safe_dump(content), "utf-8")
        world.apply_good(issuer.iss("github"))
        with follower.running():
            seconds_until(follower.is_ready, 20)
            assert granted(follower)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


# One bad object


def test_a_bad_object_does_not_stop_the_others_and_its_deny_holds(world: World) -> None:
    never = documents.policy("never", {"effect": "Deny", "action": ["Secret:*"], "resource": ["*"]})
    with world.broker() as broker:
        careful = documents.role("deployer", world.iss)
        careful["spec"]["policy"] = ["deploy", "never"]  # type: ignore[index]
        world.apply(never, careful)
        seconds_until(lambda: given_policies(broker) == ["deploy", "never"])
        world.send("PATCH", "policies/never", {"spec": {"statements": []}})
        seconds_until(lambda: world.ready("iampol", "never")[0] == "Invalid")
        assert given_policies(broker) == ["deploy", "never"]
        # Others are followed as before.
        world.apply(documents.role("second", world.iss, "other"))
        seconds_until(lambda: broker.health()["kubernetes"]["objects"].get("Accepted") == 4)
        # A process that never read a good version cannot know what it denies.
        cold = world.follower("cold")
        cold._issuer = broker._issuer
        with cold.running():
            seconds_until(cold.is_ready)
            assert refusal(cold.exchange()) == (400, "policy_missing")
            world.send("PATCH", "policies/never", {"spec": {"statements": None}})
            seconds_until(lambda: granted(cold))
            assert given_policies(cold) == ["deploy", "never"]


def given_policies(broker: Follower) -> object:
    return said(broker.access_token())["policy"]


def test_a_typo_of_a_client_that_does_not_validate_is_refused_and_told(world: World) -> None:
    with world.broker() as broker:
        typo = documents.role("typo", world.iss, "feature/login")
        typo["spec"]["conditon"] = {"StringEqual": {"jwt:actor": ["octocat"]}}  # type: ignore[index]
        world.send("POST", "roles", typo)
        seconds_until(lambda: world.ready("iamrole", "typo")[0] == "Invalid")
        reason, message, stalled = world.ready("iamrole", "typo")
        assert (reason, stalled) == ("Invalid", "True")
        assert "refuses the tokens that it would admit" in message
        [problem] = world.cluster.get("iamrole", "typo", world.namespace)["status"]["problems"]
        assert (problem["code"], problem["severity"]) == ("D005", "error")
        assert problem["field"] == "conditon"
        assert "condition" in problem["message"] + problem.get("hint", "")
        assert refusal(broker.exchange(broker.job("feature"))) == (400, "policy_missing")
        assert granted(broker)
        assert broker.health()["kubernetes"]["objects"] == {"Accepted": 3, "Invalid": 1}


def test_of_two_issuers_with_one_iss_the_oldest_is_in_force(world: World) -> None:
    with world.broker() as broker:
        time.sleep(1.1)  # the API server's times have whole seconds
        world.apply(documents.issuer("another", world.iss, aud=["https://elsewhere.example"]))
        seconds_until(lambda: world.ready("jwti", "another")[0] == "Conflict")
        assert "the older JwtIssuer local" in world.ready("jwti", "another")[1]
        assert granted(broker)
        world.delete("jwti", "local")
        seconds_until(lambda: world.ready("jwti", "another")[0] == "Accepted")
        assert refusal(broker.exchange()) == (400, "wrong_audience")


# Outages


def test_killed_and_restarted_under_load(own_world: World) -> None:
    world = own_world
    with world.broker() as broker:
        with Load(broker) as load:
            world.cluster.kill()
            seconds_until(lambda: not broker.is_well())
            assert broker.is_ready()
            time.sleep(2)
            world.cluster.start()
            seconds_until(broker.is_well, 60)
        load.check()
        world.delete("roles.iam.openfaas.com", "deployer")
        assert seconds_until(lambda: not granted(broker)) < 2


def test_without_a_first_list_there_is_no_exchange(own_world: World) -> None:
    world = own_world
    with local_issuer() as issuer:
        iss = issuer.iss("github")
        file = world.folder / "whole.yaml"
        file.write_text(
            documents.as_text(
                documents.issuer("local", iss), documents.DEPLOY, documents.role("deployer", iss)
            ),
            "utf-8",
        )
        broker = world.follower("cold", f"--documents={file}")
        broker._issuer = issuer
        world.cluster.kill()
        with broker.running():
            seconds_until(lambda: bool(broker.health()["degraded"]))
            assert broker.status("/readyz") == 503
            assert "was not read" in broker.health()["unavailable"][0]
            # Also for an issuer whose documents are all in a file.
            assert refusal(broker.exchange()) == (503, "documents_unavailable")
            world.cluster.start()
            seconds_until(broker.is_ready, 60)
            assert granted(broker)


def test_rights_taken_away_are_told_and_the_last_set_serves(world: World) -> None:
    with world.broker() as broker:
        world.cluster.grant(world.namespace, "broker", [])
        broker.send(signal.SIGHUP)  # a watch that runs is not asked for its rights again
        seconds_until(lambda: len(broker.health()["degraded"]) >= 3, 20)
        assert any("HTTP 403" in each for each in broker.health()["degraded"])
        assert broker.is_ready()
        assert granted(broker)
        told = "Kubernetes objects cannot be followed; those read before stay in use"
        seconds_until(lambda: told in broker.output())
        seconds_until(lambda: broker.gauge("federation_kubernetes_followed") == 0)
        world.cluster.grant(world.namespace, "broker", RIGHTS)
        seconds_until(broker.is_well, 40)


def test_too_many_requests_are_passing_trouble(world: World) -> None:
    limits = limits_of(world.namespace)
    with world.broker() as broker:
        world.cluster.apply(*limits)
        try:
            # The API server takes its time to learn of the limit.
            seconds_until(lambda: reloaded(broker, "HTTP 429"), 30)
            assert broker.is_ready()
            assert granted(broker)
        finally:
            world.cluster.kubectl(
                "delete", *(f"{each['kind']}/{each['metadata']['name']}" for each in limits)
            )
        seconds_until(broker.is_well, 60)
        world.delete("roles.iam.openfaas.com", "deployer")
        assert seconds_until(lambda: not granted(broker)) < 2


def limits_of(namespace: str) -> list[dict[str, Any]]:
    """What makes the API server answer 429 to everything that the broker asks for."""
    group, metadata = "flowcontrol.apiserver.k8s.io", {"name": f"none-for-{namespace}"}
    account = {"namespace": namespace, "name": "broker"}
    everything = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}
    limited = {
        "nominalConcurrencyShares": 0,
        "lendablePercent": 0,
        "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Reject"},
    }
    rule = {
        "subjects": [{"kind": "ServiceAccount", "serviceAccount": account}],
        "resourceRules": [everything | {"clusterScope": True}],
    }
    flow = {
        "priorityLevelConfiguration": metadata,
        "matchingPrecedence": 2,
        "rules": [rule],
    }
    return [
        {
            "apiVersion": f"{group}/v1",
            "kind": "PriorityLevelConfiguration",
            "metadata": metadata,
            "spec": {"type": "Limited", "limited": limited},
        },
        {"apiVersion": f"{group}/v1", "kind": "FlowSchema", "metadata": metadata, "spec": flow},
    ]


def reloaded(broker: Follower, wanted: str) -> bool:
    """Let the broker list everything anew, and return whether its trouble is *wanted* then."""
    broker.send(signal.SIGHUP)
    time.sleep(0.5)
    return wanted in str(broker.health()["degraded"])


class Forgetful(httpx2.AsyncBaseTransport):
    """Requests to a real API server, of which one watch asks for what happened long ago."""

    def __init__(self, ca: Path) -> None:
        trusted = ssl.create_default_context(cafile=str(ca))
        self._inner = httpx2.AsyncHTTPTransport(verify=trusted)
        self.forget = False
        self.answers: list[tuple[str, int, bytes]] = []
        """Path, status and, of an answer to an old question, the text of each answer."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        old = self.forget and "watch" in request.url.params
        if old:
            self.forget = False
            request = httpx2.Request(
                request.method,
                request.url.copy_set_param("resourceVersion", "1"),
                headers=request.headers,
                extensions=request.extensions,
            )
        response = await self._inner.handle_async_request(request)
        text = b""
        if old:
            text = await response.aread()
            await response.aclose()
            response = httpx2.Response(response.status_code, content=text)
        self.answers.append((request.url.path, response.status_code, text))
        return response

    async def aclose(self) -> None:
        """Do nothing: of clients that were opened at once, all but one are closed again."""

    async def close(self) -> None:
        await self._inner.aclose()


def test_a_history_that_the_api_server_forgot_costs_a_new_list(world: World) -> None:
    world.apply_good("https://ci.example.com")
    kubeconfig = world.cluster.write_kubeconfig(ADMIN, world.folder / "kubeconfig")
    connection = Connection.of_kubeconfig(kubeconfig, world.namespace)
    connection.transport = transport = Forgetful(world.cluster.ca)

    async def story() -> None:
        source = KubernetesSource(connection)
        transport.forget = True
        running = asyncio.create_task(source.run())
        try:
            async with asyncio.timeout(20):
                await source.first_adopted()
                await asyncio.sleep(2)
                assert source.following().trouble == ()
                await asyncio.to_thread(world.delete, "roles.iam.openfaas.com", "deployer")
                seen = source.snapshot
                while source.current().roles:
                    seen = await source.changed(seen)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await transport.close()
            await close(connection)

    asyncio.run(story())
    [(path, text)] = [(path, text) for path, _, text in transport.answers if text]
    assert b"too old resource version" in text
    assert b'"code":410' in text
    asked = [each for each, _, _ in transport.answers if each == path]
    assert len(asked) == 4  # each list and each watch twice


def test_a_token_that_was_replaced_is_used(world: World) -> None:
    with world.broker() as broker:
        account = (world.namespace, "broker")
        world.delete("serviceaccount", "broker")
        world.cluster.create_account(*account, RIGHTS)  # whose old tokens are void
        # The API server remembers a good token for 10 s.
        seconds_until(lambda: reloaded(broker, "HTTP 401"), 30)
        assert granted(broker)
        renewed = broker.token.with_name("renewed")
        renewed.write_text(world.cluster.token(*account), "ascii")
        renewed.replace(broker.token)
        seconds_until(broker.is_well, 40)
        world.delete("roles.iam.openfaas.com", "deployer")
        assert seconds_until(lambda: not granted(broker)) < 2


def test_a_ca_that_was_replaced_is_used(own_world: World) -> None:
    world = own_world
    with world.broker() as broker:
        world.cluster.kill()
        world.cluster.new_authority()
        world.cluster.start()
        seconds_until(broker.is_well, 60)
        world.delete("roles.iam.openfaas.com", "deployer")
        assert seconds_until(lambda: not granted(broker)) < 2


# CRDs of somebody else


def foreign_crds() -> list[dict[str, Any]]:
    """CRDs of the same names that know neither a status nor the effect of a statement."""
    made = crds()
    for crd in made:
        version = crd["spec"]["versions"][0]
        version.pop("subresources", None)
        version.pop("additionalPrinterColumns", None)
        spec = {"type": "object", "properties": {"iss": {"type": "string"}}}
        version["schema"]["openAPIV3Schema"] = {"type": "object", "properties": {"spec": spec}}
    return made


def without_status() -> list[dict[str, Any]]:
    made = crds()
    made[2]["spec"]["versions"][0].pop("subresources")
    return made


def without_a_field() -> list[dict[str, Any]]:
    made = crds()
    schema = made[1]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    statement = schema["properties"]["statement"]["items"]
    statement.pop("x-kubernetes-preserve-unknown-fields")
    statement["properties"].pop("condition")
    for each in (schema, statement):  # rules that name it
        each.pop("x-kubernetes-validations", None)
    return made


def test_a_lost_status_or_a_pruned_field_is_enough_to_be_foreign(own_world: World) -> None:
    world = own_world
    connection = Connection.of_kubeconfig(world.cluster.kubeconfig, world.namespace)

    def problem() -> str:
        async def asked() -> str:
            try:
                return await crd_problem(connection)
            finally:
                await close(connection)

        return asyncio.run(asked())

    seconds_until(lambda: problem() == "")
    apply_crds(world.cluster, without_status())
    seconds_until(lambda: "they lack roles/status;" in problem(), 30)
    apply_crds(world.cluster, without_a_field())
    seconds_until(lambda: "they lack Policy.spec.statement[].condition" in problem(), 30)
    apply_crds(world.cluster, crds())
    seconds_until(lambda: problem() == "", 30)


def test_crds_of_another_chart_hold_the_last_set_and_are_told(own_world: World) -> None:
    world = own_world
    with world.broker() as broker:
        apply_crds(world.cluster, foreign_crds())
        seconds_until(lambda: "the CRDs are not those" in str(broker.health()["degraded"]), 60)
        assert broker.is_ready()
        # An event, through which the API server sends a Policy without its statements.
        world.cluster.kubectl("-n", world.namespace, "annotate", "policy", "deploy", "a=b")
        time.sleep(2)
        assert granted(broker)
        cold = world.follower("cold")
        with cold.running():
            time.sleep(3)
            assert cold.status("/readyz") == 503
            assert "the CRDs are not those" in str(cold.health()["degraded"])
            apply_crds(world.cluster, crds())
            world.apply_good(world.iss)
            seconds_until(cold.is_ready, 60)
        seconds_until(broker.is_well, 60)


def test_a_crd_that_was_deleted_with_its_objects_holds_the_last_set(own_world: World) -> None:
    world = own_world
    with world.broker() as broker:
        world.cluster.kubectl("delete", "crd", f"roles.{GROUP}")
        seconds_until(lambda: "they lack roles" in str(broker.health()["degraded"]), 40)
        time.sleep(2)
        assert granted(broker)
        apply_crds(world.cluster, crds())
        world.apply_good(world.iss)
        seconds_until(broker.is_well, 60)
        assert granted(broker)


# At the end, when it had its minute


def test_an_api_server_that_stopped_answering_is_noticed_and_followed_again(
    frozen: Frozen,
) -> None:
    world, broker, load = frozen.world, frozen.broker, frozen.load
    frozen.wait()
    assert 5 < frozen.noticed_seconds < 75
    assert broker.is_ready()
    assert broker.gauge("federation_kubernetes_last_contact_seconds") > 5
    seconds_until(lambda: broker.gauge("federation_kubernetes_followed") == 0)
    load.check()
    world.cluster.send(signal.SIGCONT)
    seconds_until(broker.is_well, 60)
    load.check()
    world.delete("roles.iam.openfaas.com", "deployer")
    assert seconds_until(lambda: not granted(broker)) < 2
