"""The broker with documents from the Kubernetes API: its start, its readiness, and its metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from click.testing import CliRunner, Result
from starlette.applications import Starlette

from federation.app import build
from federation.cli import main
from federation.config import Settings, api_server_of_the_pod, read_settings
from federation.errors import SettingsRefused
from federation.sources.kubernetes.access import SERVICE_ACCOUNT
from tests.harness.broker import form, logged
from tests.harness.documents import DOCUMENTS
from tests.harness.fake_kube import NAMESPACE, FakeKube, fake_kube
from tests.harness.issuer import FakeKey
from tests.test_kubernetes_source import ISSUER, POLICY, ROLE, eventually

NOWHERE = {"KUBERNETES_SERVICE_HOST": None, "KUBERNETES_SERVICE_PORT": None}


def kubeconfig(folder: Path, server: str = "https://10.0.0.1:6443", **user: object) -> Path:
    content = {
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": user or {"token": "token"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "here",
    }
    path = folder / "kubeconfig"
    path.touch(0o600)
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


# Settings


def problems(**given: str | list[str]) -> list[str]:
    with pytest.raises(SettingsRefused) as caught:
        read_settings(given, {})
    return list(caught.value.problems)


def test_a_namespace_of_kubernetes_is_enough() -> None:
    settings = read_settings({"kubernetes_namespace": "openfaas"}, {})
    assert (settings.documents, settings.kubernetes_namespace) == ((), "openfaas")


@pytest.mark.parametrize("name", ["Openfaas", "a/b", "a.b", "-a", "a" * 64, "../kube-system"])
def test_a_malformed_namespace_is_refused(name: str) -> None:
    (told,) = problems(kubernetes_namespace=name)
    assert told.startswith(
        "kubernetes-namespace: a namespace has at most 63 lower-case letters, digits and hyphens"
    )
    assert "--kubernetes-namespace" in told


def test_a_kubeconfig_alone_is_refused(tmp_path: Path) -> None:
    told = problems(kubeconfig=str(kubeconfig(tmp_path)))
    assert "kubeconfig is for kubernetes-namespace; set --kubernetes-namespace too" in told


def test_a_kubeconfig_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path)
    path.chmod(0o666)
    (told,) = problems(kubernetes_namespace="openfaas", kubeconfig=str(path))
    assert "every user of this machine can write" in told


def test_the_api_server_of_a_pod_is_in_its_environment() -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    assert api_server_of_the_pod(environ) == ("10.0.0.1", "443")
    assert api_server_of_the_pod({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) is None


# The start


def serve(folder: Path, *flags: str, environ: Mapping[str, str | None] = NOWHERE) -> Result:
    words = ["serve", "--port=0", f"--state={folder / 'state'}", *flags]
    return CliRunner(env=environ).invoke(main, words)


def refusal_of(result: Result) -> str:
    """The one sentence that a start was refused with."""
    assert result.exit_code == 2, result.output
    return result.stderr.partition("Error: ")[2].strip()


def test_outside_a_cluster_a_kubeconfig_is_asked_for(tmp_path: Path) -> None:
    told = refusal_of(serve(tmp_path, "--kubernetes-namespace=openfaas"))
    assert "\n" not in told
    assert told.startswith("kubernetes-namespace: this is no pod of a cluster")
    assert told.endswith("set --kubeconfig or FEDERATION_KUBECONFIG")


@pytest.mark.skipif(SERVICE_ACCOUNT.exists(), reason="this is a pod with a token")
def test_a_pod_without_its_token_is_refused(tmp_path: Path) -> None:
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    told = refusal_of(serve(tmp_path, "--kubernetes-namespace=openfaas", environ=pod))
    assert "\n" not in told
    assert told.startswith(f"kubernetes-namespace: {SERVICE_ACCOUNT}")
    assert "automountServiceAccountToken" in told


def test_a_kubeconfig_that_is_not_there_is_refused(tmp_path: Path) -> None:
    flags = ("--kubernetes-namespace=openfaas", "--kubeconfig=/nowhere")
    assert "/nowhere does not exist" in refusal_of(serve(tmp_path, *flags))


def test_a_kubeconfig_that_runs_a_program_is_refused(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, exec={"command": "touch", "args": [str(tmp_path / "ran")]})
    flags = ("--kubernetes-namespace=openfaas", f"--kubeconfig={path}")
    told = refusal_of(serve(tmp_path, *flags))
    assert told.startswith(
        f"kubeconfig: {path}: the current context's user runs a program to get a token (exec)"
    )
    assert "tokenFile" in told
    assert "\n" not in told
    assert not (tmp_path / "ran").exists()


def test_a_token_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, tokenFile="token")
    flags = ("--kubernetes-namespace=openfaas", f"--kubeconfig={path}")
    told = refusal_of(serve(tmp_path, *flags))
    assert told == f"kubeconfig: {tmp_path / 'token'} cannot be read: No such file or directory"


def test_documents_in_files_are_checked_at_the_start_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "documents.yaml").write_text("kind: Nothing\n", "utf-8")
    path, file = kubeconfig(tmp_path), tmp_path / "documents.yaml"
    flags = ("--kubernetes-namespace=openfaas", f"--kubeconfig={path}", f"--documents={file}")
    result = serve(tmp_path, *flags)
    assert result.exit_code == 1
    assert "nothing was started" in result.stderr


# Running


@asynccontextmanager
async def running(
    kube: FakeKube, folder: Path, **settings: Any
) -> AsyncIterator[tuple[Starlette, httpx2.AsyncClient]]:
    path = kubeconfig(folder, kube.url)
    app = build(
        Settings(
            kubernetes_namespace=NAMESPACE, kubeconfig=path, state=folder / "state", **settings
        )
    )
    transport = httpx2.ASGITransport(app, client=("127.0.0.1", 1))
    async with (
        httpx2.AsyncClient(transport=transport, base_url="http://localhost:8080") as client,
        app.router.lifespan_context(app),
    ):
        yield app, client


async def with_objects(kube: FakeKube) -> None:
    # Pinned, since no issuer is within reach: without a key of any issuer it is not ready.
    await kube.put("JwtIssuer", "ci", {**ISSUER, "jwks": {"keys": [FakeKey().jwk()]}})
    await kube.put("Policy", "viewer", POLICY)
    await kube.put("Role", "deployer", ROLE)


async def readiness(client: httpx2.AsyncClient) -> tuple[int, dict[str, Any]]:
    answer = await client.get("/readyz")
    return answer.status_code, answer.json()


def gauge(app: Starlette, name: str, **labels: str) -> float | None:
    found: float | None = app.state.metrics.registry.get_sample_value(f"federation_{name}", labels)
    return found


def test_before_the_first_list_it_is_not_ready_and_exchanges_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        async with fake_kube() as kube:
            kube.silent = True
            (tmp_path / "documents.yaml").write_text(DOCUMENTS, "utf-8")
            files = (tmp_path / "documents.yaml",)
            async with running(kube, tmp_path, documents=files) as (_app, client):
                status, told = await readiness(client)
                assert (status, told["status"]) == (503, "unavailable")
                why = "namespace openfaas was not read from the Kubernetes API yet"
                assert told["unavailable"] == [f"documents: {why}"]
                assert told["kubernetes"]["adopted"] is False
                answer = await client.post("/oauth/token", data=form("a.b.c"))
                assert answer.status_code == 503
                assert answer.json()["reason"] == "documents_unavailable"
                assert "Retry-After" in answer.headers

    with logged():
        asyncio.run(story())


def test_an_object_that_refuses_tokens_needs_mending_and_leaves_it_ready(tmp_path: Path) -> None:
    async def story() -> None:
        async with fake_kube() as kube:
            await with_objects(kube)
            await kube.put("Role", "unreadable", {**ROLE, "condition": 1})
            async with running(kube, tmp_path) as (app, client):
                source = app.state.broker.source
                await source.first_adopted()
                await eventually(lambda: not app.state.health.starting)
                status, told = await readiness(client)
                assert (status, told["status"]) == (200, "degraded")
                why = "jobs are refused because of 1 object with errors; see not_in_force"
                assert f"kubernetes: {why}" in told["degraded"]
                assert told["kubernetes"]["not_in_force"][0].startswith("Role/unreadable: ")

    with logged():
        asyncio.run(story())


def test_while_the_api_server_is_away_it_is_ready_and_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with fake_kube() as kube:
            await with_objects(kube)
            async with running(kube, tmp_path) as (app, client):
                source = app.state.broker.source
                await source.first_adopted()
                await eventually(lambda: not app.state.health.starting, 10)
                await eventually(lambda: gauge(app, "kubernetes_followed") == 1)
                _status, told = await readiness(client)
                assert told["kubernetes"]["objects"] == {"Accepted": 3}
                assert gauge(app, "kubernetes_objects", reason="Accepted") == 3
                kube.silent = True
                kube.cut()
                await eventually(lambda: source.following().trouble)
                status, told = await readiness(client)
                assert (status, told["status"]) == (200, "degraded")
                assert any(each.startswith("kubernetes: ") for each in told["degraded"])
                assert told["kubernetes"]["last_contact_seconds"] < 10
                await eventually(lambda: gauge(app, "kubernetes_followed") == 0)

    with logged():
        asyncio.run(story())


def test_a_broker_is_no_issuer_of_its_own_and_sends_no_file_of_its_own(tmp_path: Path) -> None:
    async def story() -> None:
        async with fake_kube() as kube:
            await with_objects(kube)
            own = {**ISSUER, "iss": "http://127.0.0.1:8080"}
            await kube.put("JwtIssuer", "own", own)
            thief = {**ISSUER, "iss": "https://thief.test", "bearerTokenFile": "/etc/passwd"}
            await kube.put("JwtIssuer", "thief", thief)
            async with running(kube, tmp_path) as (app, _client):
                source = app.state.broker.source
                await source.first_adopted()
                assert source.current().issuers.keys() == {ISSUER["iss"]}
                codes = {
                    name: [problem.code for problem in verdict.problems]
                    for (_kind, name), verdict in source.snapshot.united.verdicts.items()
                }
                assert "D026" in codes["own"]
                assert "D027" in codes["thief"]

    with logged():
        asyncio.run(story())


def test_a_reload_lists_the_objects_anew(tmp_path: Path) -> None:
    async def story() -> None:
        async with fake_kube() as kube:
            await with_objects(kube)
            async with running(kube, tmp_path) as (app, _client):
                await app.state.broker.source.first_adopted()
                await eventually(lambda: kube.watches["roles"])
                app.state.reload()
                await eventually(lambda: set(kube.lists.values()) == {2})

    with logged():
        asyncio.run(story())
