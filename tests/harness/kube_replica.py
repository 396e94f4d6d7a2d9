"""A broker that reads its documents from a real Kubernetes API server, as a process of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from federation.documents.schema import GROUP, PLURALS
from tests.harness import documents
from tests.harness.issuer import FakeIssuer
from tests.harness.kube import Cluster, Object
from tests.harness.process import Server

ISS = "https://ci.example.com"

RIGHTS: Sequence[Object] = (
    {
        "apiGroups": [GROUP],
        "resources": [*PLURALS.values()],
        "verbs": ["get", "list", "watch"],
    },
    {
        "apiGroups": [GROUP],
        "resources": [f"{plural}/status" for plural in PLURALS.values()],
        "verbs": ["patch"],
    },
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["federation"],
        "verbs": ["get", "create", "patch"],
    },
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
)
"""All that a broker may do, in its one namespace."""


class Replica(Server):
    """`federation serve` of the objects in *namespace*, with no more rights than it needs."""

    def __init__(self, folder: Path, cluster: Cluster, namespace: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        token = cluster.token(namespace, "federation")
        options = {
            "kubernetes-namespace": namespace,
            "kubeconfig": cluster.write_kubeconfig(token, folder / "kubeconfig"),
            "state": folder / "state",
            "port": 0,
            "log-format": "json",
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        super().__init__(["federation", "serve", *words], folder, {"NO_PROXY": "127.0.0.1"})


def make_namespace(cluster: Cluster, name: str) -> str:
    """Make the namespace *name*, in which brokers have their rights."""
    cluster.create_namespace(name)
    cluster.create_account(name, "federation", RIGHTS)
    return name


def issuer() -> dict[str, Any]:
    """A JwtIssuer whose keys are pinned, so that nothing is fetched."""
    return documents.document(
        "JwtIssuer",
        "ci",
        {
            "iss": ISS,
            "aud": [documents.URL],
            "provider": "generic",
            "jwks": FakeIssuer(ISS).jwks(),
        },
    )


def role(name: str = "deployer", *policies: str, **condition: str) -> dict[str, Any]:
    """A Role that admits one subject of the issuer."""
    wanted = {"jwt:iss": [ISS], "jwt:sub": ["releaser"]}
    wanted |= {f"jwt:{claim}": [value] for claim, value in condition.items()}
    spec = {"policy": list(policies or ("deploy",)), "condition": {"StringEqual": wanted}}
    return documents.document("Role", name, spec)
