"""The admission webhook as a real API server calls it."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from federation.admission.endpoint import Endpoint, build
from federation.admission.neighbours import NeighbourReader
from federation.admission.renewal import Certificates, Place, server_context
from federation.admission.server import server_of
from federation.sources.kubernetes.connection import Connection
from tests.harness.admission import NAMESPACE, PINNED, issuer, policy, role
from tests.harness.kube import ADMIN, Cluster, CommandFailed
from tests.harness.process import ROOT, Server, in_thread, until

pytestmark = pytest.mark.e2e

NAME = "federation-admission"


def described() -> list[dict[str, Any]]:
    """The objects that docs/kubernetes.md says the webhook needs."""
    page = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    texts = re.findall(r"^```yml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (text,) = [each for each in texts if "ValidatingWebhookConfiguration" in each]
    return list(yaml.safe_load_all(text))


@pytest.fixture(name="prepared", scope="module")
def _prepared(cluster: Cluster) -> Cluster:
    """The cluster with everything that the webhook needs but itself."""
    cluster.create_namespace(NAMESPACE)
    cluster.apply(*(each for each in described() if not each["kind"].startswith("Validating")))
    return cluster


def configure(cluster: Cluster, port: int, name: str = NAME) -> None:
    """Let the API server call the webhook at *port*. No Service leads out of the cluster here."""
    (configuration,) = [each for each in described() if each["kind"].startswith("Validating")]
    configuration["metadata"]["name"] = name
    for webhook in configuration["webhooks"]:
        webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}/review"}
    cluster.apply(configuration)


class Webhook(Server):
    """`federation admission` as a process with the rights of its ServiceAccount."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        account = cluster.write_kubeconfig(cluster.token(NAMESPACE, NAME), folder / "kubeconfig")
        words = [
            "federation",
            "admission",
            "--port=0",
            f"--namespace={NAMESPACE}",
            f"--kubeconfig={account}",
        ]
        super().__init__([*words, "--host-name=127.0.0.1"], folder)

    def ready(self, cluster: Cluster) -> bool:
        """True if it says so, under a certificate that API servers trust."""
        return get(self.port, "/readyz", bundle_of(cluster)) == 200


def bundle_of(cluster: Cluster, name: str = NAME) -> str:
    """The CAs by which the API server trusts the webhook, in PEM; empty if none yet."""
    configuration = cluster.get("validatingwebhookconfiguration", name)
    (webhook,) = configuration["webhooks"]
    return base64.b64decode(webhook["clientConfig"].get("caBundle", "")).decode("ascii")


def get(port: int, path: str, trusted: str) -> int:
    """The status of the answer to a GET over TLS; 0 if there is none."""
    if not trusted:
        return 0
    context = ssl.create_default_context(cadata=trusted)
    try:
        with httpx2.Client(verify=context, trust_env=False) as client:
            return client.get(f"https://127.0.0.1:{port}{path}").status_code
    except httpx2.HTTPError:
        return 0


@pytest.fixture(name="webhook", scope="module")
def _webhook(prepared: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    """The webhook, called by the API server."""
    webhook = Webhook(prepared, tmp_path_factory.mktemp("webhook"))
    with webhook.running():
        configure(prepared, webhook.port)
        assert until(lambda: webhook.ready(prepared), 30), webhook.output()
        yield webhook
        prepared.kubectl("delete", "validatingwebhookconfiguration", NAME)


@pytest.fixture(name="empty", autouse=True)
def _empty(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test begins and ends without objects."""
    yield
    if "prepared" in request.fixturenames:
        cluster: Cluster = request.getfixturevalue("prepared")
        cluster.kubectl("-n", NAMESPACE, "delete", "--all", "openfaas-iam")


def test_a_role_that_admits_strangers_is_refused_at_apply(
    prepared: Cluster, webhook: Webhook
) -> None:
    prepared.apply(issuer("github"), policy("deploy"))
    with pytest.raises(CommandFailed, match=r"denied the request: T002 condition: anybody can"):
        prepared.apply(role("open", ref="refs/heads/main"))
    assert '"errors":["T002"]' in webhook.output()


@pytest.mark.usefixtures("webhook")
def test_objects_may_come_in_any_order(prepared: Cluster) -> None:
    said = prepared.apply(role("early", **PINNED))
    assert "role.iam.openfaas.com/early created" in said
    assert "Warning: T001" in said
    assert "Warning: D011 policy[0]" in said
    assert "Warning" not in prepared.apply(policy("deploy"))
    assert "Warning" not in prepared.apply(issuer("github"))
    later = role("early", **{**PINNED, "ref": "refs/heads/other"})
    assert "Warning" not in prepared.apply(later)


@pytest.mark.usefixtures("webhook")
def test_a_bad_role_does_not_pass_by_coming_before_its_issuer(prepared: Cluster) -> None:
    with pytest.raises(CommandFailed, match="T002"):
        prepared.apply(role("open", ref="refs/heads/main"))


@pytest.mark.usefixtures("webhook")
def test_all_of_a_set_is_applied_at_once_without_a_wrong_warning(prepared: Cluster) -> None:
    for number in range(10):
        said = prepared.apply(
            issuer("idp", iss=f"https://idp-{number}.example", provider="keycloak"),
            policy(f"deploy-{number}"),
            role(
                "octo",
                policy=f"deploy-{number}",
                iss=f"https://idp-{number}.example",
                sub="0b3f4a6e-4f6f-4a4e-9d5e-0a8ad0c2ad01",
                azp="deployer",
            ),
        )
        assert "T001" not in said
        assert "D011" not in said


@pytest.mark.usefixtures("webhook")
def test_a_second_issuer_with_one_iss_is_a_warning(prepared: Cluster) -> None:
    prepared.apply(issuer("github"))
    said = prepared.apply(issuer("github-new-name"))
    assert "Warning: D010 iss" in said
    assert "JwtIssuer/github already" in said


@pytest.mark.usefixtures("webhook")
def test_another_namespace_is_not_judged(prepared: Cluster) -> None:
    prepared.create_namespace("elsewhere")
    open_role = role("open", ref="refs/heads/main")
    open_role["metadata"]["namespace"] = "elsewhere"
    assert "created" in prepared.apply(open_role)


def test_while_it_is_down_only_changed_specs_are_refused(
    prepared: Cluster, webhook: Webhook
) -> None:
    prepared.apply(issuer("github"), policy("deploy"), policy("spare"), role("octo", **PINNED))
    words = ("-n", NAMESPACE)
    webhook.kill()
    try:
        with pytest.raises(CommandFailed, match="failed calling webhook"):
            prepared.apply(policy("another"))
        with pytest.raises(CommandFailed, match="failed calling webhook"):
            prepared.apply(role("octo", **{**PINNED, "ref": "refs/heads/other"}))
        prepared.kubectl(*words, "label", "iamrole", "octo", "team=a")
        prepared.kubectl(*words, "annotate", "jwti", "github", "note=b")
        prepared.apply(role("octo", **PINNED))  # the same spec once more
        status = {"status": {"observedGeneration": 1}}
        patched = prepared.request(
            "PATCH",
            f"/apis/iam.openfaas.com/v1/namespaces/{NAMESPACE}/roles/octo/status",
            status,
            content_type="application/merge-patch+json",
        )
        assert patched.status_code == 200, patched.text
        prepared.kubectl(*words, "delete", "iampol", "spare")
    finally:
        webhook.start()
        configure(prepared, webhook.port)
        assert until(lambda: webhook.ready(prepared), 30), webhook.output()
    assert "created" in prepared.apply(policy("another"))


def test_it_has_no_other_rights(prepared: Cluster, webhook: Webhook) -> None:
    account = webhook.folder / "kubeconfig"

    def may(*words: str) -> bool:
        try:
            said = prepared.kubectl("auth", "can-i", *words, kubeconfig=account)
        except CommandFailed:
            return False
        return "yes" in said.splitlines()

    own = ("-n", NAMESPACE)
    assert may("update", f"secrets/{NAME}", *own)
    assert may("patch", f"validatingwebhookconfigurations/{NAME}")
    assert not may("get", "secrets/basic-auth", *own)
    assert not may("create", "secrets", *own)
    assert not may("patch", "validatingwebhookconfigurations/of-another")
    assert not may("create", "validatingwebhookconfigurations")
    assert not may("get", "roles.iam.openfaas.com", *own)
    assert not may("list", "jwtissuers.iam.openfaas.com", "-n", "kube-system")


def test_it_ends_on_sigterm_and_a_restart_needs_no_new_certificate(
    prepared: Cluster, webhook: Webhook
) -> None:
    before = bundle_of(prepared)
    assert webhook.stop() == 0
    webhook.start()
    configure(prepared, webhook.port)
    assert until(lambda: webhook.ready(prepared), 30), webhook.output()
    assert bundle_of(prepared) == before


def test_a_thousand_reviews(prepared: Cluster, webhook: Webhook) -> None:
    prepared.apply(issuer("github"), policy("deploy"))
    path = f"/apis/iam.openfaas.com/v1/namespaces/{NAMESPACE}/roles?dryRun=All"
    trusted = ssl.create_default_context(cafile=str(prepared.ca))
    headers = {"Authorization": f"Bearer {ADMIN}"}
    took = []
    with httpx2.Client(verify=trusted, trust_env=False, headers=headers) as client:
        for number in range(1000):
            began = time.perf_counter()
            answer = client.post(prepared.url + path, json=role(f"octo-{number}", **PINNED))
            took.append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 201, answer.text
    lines = [json.loads(line) for line in webhook.output().splitlines() if "octo-" in line]
    judged = sorted(line["milliseconds"] for line in lines if line["event"] == "object judged")
    assert len(judged) == 1000
    took.sort()
    figures = {"apply": took, "review": judged}
    (webhook.folder / "figures").write_text(
        "".join(
            f"{name}: median {each[500]:.1f} ms, 99 of 100 within {each[990]:.1f} ms\n"
            for name, each in figures.items()
        ),
        "utf-8",
    )
    assert judged[990] < 1000


class Replica:
    """A webhook in this process, whose certificates live for seconds. No connection is kept."""

    def __init__(self, kubeconfig: Path, place: Place) -> None:
        self.connection = Connection.of_kubeconfig(kubeconfig, NAMESPACE)
        self.certificates = Certificates(
            self.connection,
            place,
            frozenset({"127.0.0.1"}),
            server_context(),
            lifetime=timedelta(seconds=12),
            settle=timedelta(seconds=2),
            check_every=timedelta(seconds=0.5),
        )
        self.served: set[bytes] = set()
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Replica]:
        """Serve while the block runs."""
        app = build(Endpoint(NAMESPACE, NeighbourReader(self.connection)), self.certificates)
        server = server_of(closing(app), self.certificates.context)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            running = asyncio.create_task(server._serve([listener]))
            noting = asyncio.create_task(self._note_served())
            try:
                yield self
            finally:
                server.should_exit = True
                noting.cancel()
                await running

    async def _note_served(self) -> None:
        while True:
            if self.certificates.served:
                self.served.add(self.certificates.served.certificate)
            await asyncio.sleep(0.1)


def closing(app: ASGIApp) -> ASGIApp:
    """*app*, which closes its connection after each answer, so that each review shakes hands."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await app(scope, receive, sending)

    return wrapped


@asynccontextmanager
async def alternating(ports: Sequence[int]) -> AsyncIterator[int]:
    """A port whose connections lead to each of *ports* in turn, as those of a Service do."""
    turn = cycle(ports)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", next(turn))
        await asyncio.gather(pump(reader, there_writer), pump(there_reader, writer))

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def test_two_replicas_renew_the_certificate_without_a_failed_review(
    prepared: Cluster, tmp_path: Path
) -> None:
    name = "short-lived"
    place = Place(NAMESPACE, name, name)
    metadata = {"name": name, "namespace": NAMESPACE}
    prepared.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    admin = prepared.write_kubeconfig(ADMIN, tmp_path / "kubeconfig")
    replicas = [Replica(admin, place) for _ in range(2)]

    @asynccontextmanager
    async def both() -> AsyncIterator[int]:
        async with (
            replicas[0].serving(),
            replicas[1].serving(),
            alternating([replica.port for replica in replicas]) as port,
        ):
            yield port

    with in_thread(both) as port:
        configure(prepared, port, name)
        try:
            assert until(lambda: all(each.certificates.trusted for each in replicas), 30)
            reviews, bundles = reviewed_for(27, prepared, name)
        finally:
            prepared.kubectl("delete", "validatingwebhookconfiguration", name)
    assert set(reviews) == {(201, "")}, reviews
    assert reviews.total() > 100
    # 12 s of life are renewed after 8 s, and the new certificate is served after 2 s more.
    assert all(len(replica.served) >= 3 for replica in replicas)
    assert replicas[0].served == replicas[1].served
    assert max(each.count("BEGIN CERTIFICATE") for each in bundles) == 2


def reviewed_for(
    seconds: float, cluster: Cluster, name: str
) -> tuple[Counter[tuple[int, str]], set[str]]:
    """Count the answers in *seconds*, and return the sets of CAs that were trusted meanwhile."""
    path = f"/apis/iam.openfaas.com/v1/namespaces/{NAMESPACE}/policies?dryRun=All"
    answers: Counter[tuple[int, str]] = Counter()
    bundles: set[str] = set()
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        answer = cluster.request("POST", path, policy("judged"))
        good = answer.status_code == 201
        answers[answer.status_code, "" if good else answer.text] += 1
        if answers.total() % 10 == 0:
            bundles.add(bundle_of(cluster, name))
        time.sleep(0.1)
    return answers, bundles
