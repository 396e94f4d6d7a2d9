"""
`python -m bench.kubernetes [--roles N]`: measure the broker with many Roles in a Kubernetes API.

A real API server (`make kube`) holds the Roles. It shares the machine's cores with the broker and
the client, so times are longer than in a cluster that is a machine of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx2
import uvloop

from bench import jobs, machine
from bench.progress import say
from bench.servers import await_ready, resident_mib
from federation.documents.kubernetes.crds import crds
from tests.harness.broker import AUDIENCE, Served, form
from tests.harness.kube import ADMIN, Cluster, cluster_running
from tests.harness.kube_replica import RIGHTS
from tests.harness.load import measure
from tests.harness.process import until

NAMESPACE, ACCOUNT = "bench", "broker"
GROUP = "iam.openfaas.com"
CREATING_THREADS = 16
RATE, SECONDS = 50, 12
"""Exchanges a second while latencies are measured, and for how long."""
CHANGES = 20
CHURN_PAUSE_SECONDS = 0.02
LIVE_SECONDS = 60

Figures = dict[str, str]


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.kubernetes")
    parser.add_argument("--roles", type=int, default=10_000, help="Roles in the API (10000)")
    roles = parser.parse_args(words).roles
    print(
        "Python {python}, {machine}, {cores} cores, {busy_before} busy".format(
            **machine.described()
        )
    )
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        place = Path(folder)
        with cluster_running(place / "cluster") as cluster:
            found = measured(cluster, place, roles)
    width = max(map(len, found))
    print("\n".join(["", *(f"{name:<{width}}   {value:>10}" for name, value in found.items())]))


def measured(cluster: Cluster, place: Path, roles: int) -> Figures:
    """Fill the API, start a broker, and measure it at rest and while objects change."""
    api = Api(cluster)
    api.prepare()
    found: Figures = {}
    found["the API server takes them in"] = f"{api.create(objects(roles)):.1f} s"
    with broker(cluster, place) as served:
        found["start to ready, with the first list"] = f"{await_ready(served):.1f} s"
        found["memory after the start"] = f"{resident_mib(served):.0f} MiB"
        found |= _latency(served, "at rest")
        live = _Live(served, api, roles)
        found |= _latency(served, f"with {CHANGES} changes", live.measure)
        found["a change is live after, median"] = f"{median(live.seconds):.2f} s"
        found["a change is live after, longest"] = f"{max(live.seconds):.2f} s"
        churn = _Churn(api, roles)
        found |= _latency(served, "while objects change all the time", churn.run)
        found["  changes a second"] = f"{churn.changes / SECONDS:.0f}"
        found["memory at the end"] = f"{resident_mib(served):.0f} MiB"
    return found


def objects(roles: int) -> Iterator[dict[str, Any]]:
    """An issuer with pinned keys, a Policy, and *roles* Roles, in the form of objects."""
    trusted = {"iss": jobs.ISSUER.iss, "aud": [AUDIENCE], "provider": "github"}
    yield _object("JwtIssuer", "issuer", {**trusted, "jwks": jobs.ISSUER.jwks()})
    statement = {"sid": "s", "effect": "Allow", "action": ["Function:*"], "resource": ["dev:*"]}
    yield _object("Policy", "policy", {"statement": [statement]})
    for number in range(roles):
        yield role(number)


def role(number: int, branch: str = jobs.BRANCH) -> dict[str, Any]:
    """The Role that admits jobs of `jobs.token(number)` on *branch*."""
    condition = {
        "StringEqual": {
            "jwt:iss": [jobs.ISSUER.iss],
            "jwt:repository_owner_id": [str(1_000_000 + number)],
            "jwt:repository_id": [str(5_000_000 + number)],
            "jwt:ref": [branch],
        }
    }
    return _object("Role", f"role-{number}", {"policy": ["policy"], "condition": condition})


def _object(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": metadata, "spec": dict(spec)}


class Api:
    """The API server, as its administrator over connections that stay open."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        trusted = ssl.create_default_context(cafile=str(cluster.ca))
        headers = {"Authorization": f"Bearer {ADMIN}"}
        self.client = httpx2.Client(
            base_url=cluster.url, verify=trusted, trust_env=False, headers=headers, timeout=60
        )

    def prepare(self) -> None:
        """Apply the CRDs, and make the namespace and the broker's account."""
        self.cluster.apply(*crds(), words=("--server-side",))
        self.cluster.create_namespace(NAMESPACE)
        self.cluster.create_account(NAMESPACE, ACCOUNT, RIGHTS)
        assert until(lambda: self.client.get(_path("Role")).status_code == 200, 30)

    def create(self, made: Iterator[Mapping[str, Any]]) -> float:
        """Create objects, and return the seconds that it took."""
        began = time.monotonic()
        with ThreadPoolExecutor(CREATING_THREADS) as threads:
            for number, answer in enumerate(threads.map(self.post, made)):
                answer.raise_for_status()
                if number % 2_000 == 0:
                    say(f"{number:,} objects")
        return time.monotonic() - began

    def post(self, made: Mapping[str, Any]) -> httpx2.Response:
        """Create one object."""
        return self.client.post(_path(made["kind"]), json=made)

    def put_branch(self, number: int, branch: str) -> None:
        """Change the branch of a Role, or create it."""
        wanted = role(number, branch)
        path = f"{_path('Role')}/{wanted['metadata']['name']}"
        words = {"fieldManager": "bench", "force": "true"}
        kind = {"Content-Type": "application/apply-patch+yaml"}
        self.client.patch(path, params=words, headers=kind, json=wanted).raise_for_status()


def _path(kind: str) -> str:
    plural = {"JwtIssuer": "jwtissuers", "Policy": "policies", "Role": "roles"}[kind]
    return f"/apis/{GROUP}/v1/namespaces/{NAMESPACE}/{plural}"


@contextmanager
def broker(cluster: Cluster, place: Path) -> Iterator[Served]:
    """Run a broker that reads documents from the API alone."""
    account = cluster.write_kubeconfig(cluster.token(NAMESPACE, ACCOUNT), place / "kubeconfig")
    served = Served(
        place,
        "",
        f"--kubernetes-namespace={NAMESPACE}",
        f"--kubeconfig={account}",
        f"--issuer-url={AUDIENCE}",
        "--failed-exchanges=0",
        "--metrics-port=0",
        environ={"NO_PROXY": "127.0.0.1"},
    )
    served.command = [word for word in served.command if not word.startswith("--documents=")]
    with served.running():
        yield served


def _latency(served: Served, when: str, beside: Callable[[], None] | None = None) -> Figures:
    """Exchange at a steady rate, with *beside* in another thread, and return p50 and p99."""
    requests = list(jobs.requests(RATE * SECONDS))
    thread = threading.Thread(target=beside) if beside else None
    if thread:
        thread.start()
    seen = uvloop.run(_measured_while(served, requests, thread))
    return {
        f"exchange {when}, p50": f"{seen[0]:.1f} ms",
        f"exchange {when}, p99": f"{seen[1]:.1f} ms",
    }


async def _measured_while(
    served: Served, requests: Sequence[bytes], thread: threading.Thread | None
) -> tuple[float, float]:
    seen = await measure(served.port, requests, RATE)
    if thread:
        await asyncio.to_thread(thread.join)
    return seen.p50_ms, seen.p99_ms


class _Live:
    """Changes of a Role, each until an exchange shows it."""

    def __init__(self, served: Served, api: Api, number: int) -> None:
        self.seconds: list[float] = []
        self._served, self._api, self._number = served, api, number

    def measure(self) -> None:
        """Let a job in and out again, and note how long each change took."""
        with httpx2.Client(base_url=self._served.url, trust_env=False, timeout=60) as client:
            for change in range(CHANGES):
                admitted = change % 2 == 0
                began = time.monotonic()
                self._api.put_branch(self._number, jobs.BRANCH if admitted else "refs/heads/other")
                wanted = 200 if admitted else 400
                assert until(lambda: self._status(client) == wanted, LIVE_SECONDS)  # noqa: B023
                self.seconds.append(time.monotonic() - began)

    def _status(self, client: httpx2.Client) -> int:
        token = form(jobs.token(self._number))
        status: int = client.post("/oauth/token", data=token).status_code
        return status


class _Churn:
    """Changes of Roles without a pause, as a controller makes them that goes wild."""

    def __init__(self, api: Api, roles: int) -> None:
        self.changes = 0
        self._api, self._roles = api, roles

    def run(self) -> None:
        """Change Roles, but none of those that the load uses, for as long as it is measured."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            number = 100 + self.changes % max(1, self._roles - 100)
            self._api.put_branch(number, f"refs/heads/b{self.changes}")
            self.changes += 1
            time.sleep(CHURN_PAUSE_SECONDS)


if __name__ == "__main__":
    main()
