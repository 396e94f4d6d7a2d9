"""
A real Kubernetes API server on loopback: kube-apiserver and etcd as two processes.

There are no controllers: nobody makes a namespace's ServiceAccount `default`, no Pod starts,
nothing is garbage-collected, and a deleted namespace stays in `Terminating`.
"""

from __future__ import annotations

import json
import signal
import ssl
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.harness import kube_programs
from tests.harness.certificates import Authority
from tests.harness.process import ROOT, Process, free_port

ADMIN = "token-of-the-administrator"
GROUP = "iam.openfaas.com"

Object = Mapping[str, Any]


class CommandFailed(Exception):
    """A program ended with an exit code other than 0. The text is what it printed."""


class _Etcd(Process):
    def __init__(self, folder: Path) -> None:
        self.port, peer = free_port(), f"http://127.0.0.1:{free_port()}"
        self.url = f"http://127.0.0.1:{self.port}"
        flags = {
            "data-dir": str(folder / "data"),
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
            "log-level": "error",
        }
        words = [str(kube_programs.servers() / "etcd"), "--unsafe-no-fsync"]
        super().__init__([*words, *(f"--{name}={value}" for name, value in flags.items())], folder)

    def is_up(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/health", timeout=2).status_code == 200
        except httpx2.HTTPError:
            return False


class Cluster(Process):
    """
    An API server with an etcd of its own. `kill`, `start` and `send` are about the API server.

    Stop it with `kill`: on SIGTERM it waits up to a minute for watches to end. *flags* are more
    flags for kube-apiserver.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.etcd = _Etcd(folder / "etcd")
        self.ca = folder / "ca.crt"
        """The CA of its certificate. Pods have it as a file too."""
        self.kubeconfig = folder / "kubeconfig"
        """The administrator's kubeconfig, with a token."""
        self._authorities = 0
        super().__init__([str(kube_programs.servers() / "kube-apiserver")], folder)
        self.new_authority()
        self._write_keys()
        self.write_kubeconfig(ADMIN, self.kubeconfig)
        self.command += [*(f"--{name}={value}" for name, value in self._flags().items()), *flags]

    def _flags(self) -> Mapping[str, object]:
        return {
            "etcd-servers": self.etcd.url,
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "secure-port": self.port,
            "service-cluster-ip-range": "10.0.0.0/24",
            "endpoint-reconciler-type": "none",
            "tls-cert-file": self.folder / "tls.crt",
            "tls-private-key-file": self.folder / "tls.crt",
            "client-ca-file": self.folder / "clients" / "ca.pem",
            "token-auth-file": self.folder / "tokens.csv",
            "authorization-mode": "RBAC",
            "service-account-issuer": self.url,
            "api-audiences": self.url,
            "service-account-key-file": self.folder / "accounts.key",
            "service-account-signing-key-file": self.folder / "accounts.key",
        }

    def _write_keys(self) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
        (self.folder / "accounts.key").write_bytes(
            key.private_bytes(pem, form, serialization.NoEncryption())
        )
        (self.folder / "tokens.csv").write_text(f"{ADMIN},admin,admin,system:masters\n", "ascii")
        self.clients = Authority(self.folder / "clients")
        """The authority of client certificates. `clients.client(folder)` is of nobody with rights."""

    def new_authority(self) -> None:
        """
        Give it a certificate of a new CA, and replace the CA's file.

        A running API server takes the new certificate by itself, within a minute.
        """
        self._authorities += 1
        made = Authority(self.folder / f"authority-{self._authorities}")
        (self.folder / "tls.crt").write_bytes((made.certificate.parent / "server.pem").read_bytes())
        self.ca.write_bytes(made.certificate.read_bytes())

    def is_up(self) -> bool:
        """True if it says that it is ready."""
        try:
            return self.request("GET", "/readyz").status_code == 200
        except httpx2.HTTPError:
            return False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it and its etcd inside the `with` block."""
        try:
            self.etcd.start()
            self.start()
            yield
        finally:
            if self.exit_code is None:
                self.send(signal.SIGCONT)
            self.kill()
            self.etcd.kill()

    # Asking it

    def request(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        *,
        token: str = ADMIN,
        content_type: str = "application/json",
    ) -> httpx2.Response:
        """Send a request as the owner of *token*: by itself the administrator."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        content = json.dumps(body).encode() if body is not None else None
        if content:
            headers["Content-Type"] = content_type
        trusted = ssl.create_default_context(cafile=str(self.ca))
        with httpx2.Client(verify=trusted, trust_env=False, timeout=30) as client:
            return client.request(method, self.url + path, content=content, headers=headers)

    def kubectl(self, *words: str, given: str = "", kubeconfig: Path | None = None) -> str:
        """Run kubectl with *given* on its standard input. Raises: CommandFailed."""
        chosen = str(kubeconfig or self.kubeconfig)
        return run([str(kube_programs.kubectl()), "--kubeconfig", chosen, *words], given)

    def apply(self, *objects: Object, words: Sequence[str] = ()) -> str:
        """`kubectl apply` *objects*. Raises: CommandFailed."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self.kubectl("apply", *words, "-f", "-", given=json.dumps(listed))

    def apply_crds(self, path: Path = ROOT / "deploy" / "crds.yaml") -> str:
        """Apply CustomResourceDefinitions as the docs say, and wait until they are in force."""
        words = ("--server-side", "--field-manager=federation-crds", "-f", str(path))
        told = self.kubectl("apply", *words)
        self.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(path))
        return told

    def get(self, resource: str, name: str, namespace: str = "default") -> dict[str, Any]:
        """An object as the API server has it, as `kubectl get -o json` shows it."""
        shown = self.kubectl("-n", namespace, "get", resource, name, "-o", "json")
        found: dict[str, Any] = json.loads(shown)
        return found

    # Namespaces, accounts and rights

    def create_namespace(self, name: str) -> None:
        """Create a namespace."""
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def create_account(
        self, namespace: str, name: str, rules: Sequence[Object] = (), *, anywhere: bool = False
    ) -> None:
        """Create a ServiceAccount with the RBAC *rules*, in its namespace or *anywhere*."""
        metadata = {"namespace": namespace, "name": name}
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        if rules:
            self.grant(namespace, name, rules, anywhere=anywhere)

    def grant(
        self, namespace: str, name: str, rules: Sequence[Object], *, anywhere: bool = False
    ) -> None:
        """Make *rules* the rights of a ServiceAccount. No rules take its rights away."""
        prefix = "Cluster" if anywhere else ""
        metadata = {"name": f"{namespace}-{name}"} | ({} if anywhere else {"namespace": namespace})
        group = "rbac.authorization.k8s.io"
        self.apply(
            {
                "apiVersion": f"{group}/v1",
                "kind": f"{prefix}Role",
                "metadata": metadata,
                "rules": list(rules),
            },
            {
                "apiVersion": f"{group}/v1",
                "kind": f"{prefix}RoleBinding",
                "metadata": metadata,
                "roleRef": {
                    "apiGroup": group,
                    "kind": f"{prefix}Role",
                    "name": metadata["name"],
                },
                "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": name}],
            },
        )

    def token(
        self, namespace: str, name: str, audience: str | None = None, seconds: int = 3600
    ) -> str:
        """A new token of a ServiceAccount. The API server takes it if *audience* is left out."""
        words = ["--audience", audience] if audience else []
        return self.kubectl(
            *("-n", namespace, "create", "token", name, "--duration", f"{seconds}s"), *words
        ).strip()

    def pod_folder(self, folder: Path, namespace: str, name: str) -> Path:
        """Make *folder* as a pod of a ServiceAccount has it mounted: token, ca.crt, namespace."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(self.token(namespace, name), "ascii")
        (folder / "ca.crt").write_bytes(self.ca.read_bytes())
        (folder / "namespace").write_text(namespace, "ascii")
        return folder

    def write_kubeconfig(self, token: str, path: Path) -> Path:
        """Write a kubeconfig with *token* to *path*."""
        cluster = {"server": self.url, "certificate-authority": str(self.ca)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
        path.touch(0o600)
        path.write_text(yaml.safe_dump(content), "utf-8")
        return path


@contextmanager
def cluster_running(folder: Path, *flags: str) -> Iterator[Cluster]:
    """Run a cluster of one's own inside the `with` block, to do with it what one likes."""
    kube_programs.need(*kube_programs.SERVERS, "kubectl")
    cluster = Cluster(folder, *flags)
    with cluster.running():
        yield cluster


def run(words: Sequence[str], given: str = "") -> str:
    """Run a program and return what it printed, errors last. Raises: CommandFailed."""
    done = subprocess.run(  # noqa: S603  our own words
        words, input=given, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        raise CommandFailed(done.stdout + done.stderr)
    return done.stdout + done.stderr
