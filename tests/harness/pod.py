"""
Runs a rendered pod's container as a process of this machine: its environment, arguments, volumes,
user and groups are those of the manifest. It needs root and Linux.

The volumes are made as a kubelet makes them (files behind the link `..data`, the group of
`fsGroup`), and mounted at their paths in a mount namespace of the process's own.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.harness.helm import Manifest
from tests.harness.kube import Cluster
from tests.harness.process import ROOT, Process

Files = Mapping[str, str]

# The checkout, Python and its libraries may be in a folder that only root may enter.
_ENTER = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/source /mnt/libraries /mnt/python
mount --bind "$SOURCE" /mnt/source
mount --bind "$LIBRARIES" /mnt/libraries
mount --bind "$PYTHON" /mnt/python
while [ "$1" != -- ]; do
  mount --bind "$1" "$2"
  [ "$3" = rw ] || mount -o remount,bind,ro "$2"
  shift 3
done
shift
exec setpriv --reuid "$RUN_AS" --regid "$GROUP" --groups "$GROUPS_TOO" --no-new-privs \
  --inh-caps=-all --bounding-set=-all env -i "$@"
"""


@dataclass(frozen=True)
class World:
    """The sources of the pod's volumes."""

    cluster: Cluster
    secrets: Mapping[str, Files] = field(default_factory=dict)
    config_maps: Mapping[str, Files] = field(default_factory=dict)


class Container(Process):
    """
    The container of a pod, with the port at which its probes ask it.

    *replaced* are its variables, and its arguments such as `--host=…`, that have other values on
    this machine.
    """

    def __init__(
        self, pod: Manifest, folder: Path, world: World, port: int, replaced: Mapping[str, str]
    ) -> None:
        self._pod, self._world = pod, world
        self.spec: Mapping[str, Any] = pod["spec"]
        [self.container] = self.spec["containers"]
        # A kubelet has Secrets and tokens in memory, so that each is a mount of its own.
        self.volumes = Path(tempfile.mkdtemp(prefix="federation-pod-", dir="/dev/shm"))
        self._port, self._replaced = port, replaced
        given = {entry["name"]: self._value(entry) for entry in self.container.get("env", ())}
        self._variables = {
            **{name: replaced.get(name, value) for name, value in given.items()},
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(world.cluster.port),
        }
        self._fill_all()
        super().__init__(self._words(), folder, self._around())

    def _value(self, entry: Mapping[str, Any]) -> str:
        if "valueFrom" not in entry:
            return str(entry.get("value", ""))
        of = entry["valueFrom"]["secretKeyRef"]
        return self._world.secrets[of["name"]][of["key"]]

    def url(self, path: str) -> str:
        """The address of *path* at the port of its probes."""
        scheme = self.container["readinessProbe"]["httpGet"].get("scheme", "HTTP").lower()
        return f"{scheme}://127.0.0.1:{self._port}{path}"

    def is_up(self) -> bool:
        """True if its readiness probe succeeds. As a kubelet's, it does not check certificates."""
        probe = self.container["readinessProbe"]["httpGet"]
        with suppress(httpx2.HTTPError), httpx2.Client(verify=False, trust_env=False) as client:
            return client.get(self.url(probe["path"]), timeout=2).status_code == 200
        return False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it inside the `with` block. Its volumes are gone afterwards."""
        try:
            with _mount_points(self.container), super().running():
                yield
        finally:
            shutil.rmtree(self.volumes)

    # The command

    def _words(self) -> list[str]:
        mounts = [word for mount in self.container["volumeMounts"] for word in self._mount(mount)]
        python = f"/mnt/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        environ = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": "/mnt/source:/mnt/libraries",
            "LD_LIBRARY_PATH": "/mnt/python/lib",  # of a Python that was moved
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/var/lib/federation",
            **self._variables,
        }
        settings = [f"{name}={value}" for name, value in environ.items()]
        # The image's entrypoint is `federation`.
        command = self.container.get("command") or [python, "-m", "federation"]
        command = [python if word == "python" else word for word in command]
        words = ["unshare", "--mount", "sh", "-c", _ENTER, "enter", *mounts, "--", *settings]
        return [*words, *command, *map(self._argument, self.container.get("args", ()))]

    def _argument(self, word: str) -> str:
        name, equals, _ = word.partition("=")
        return f"{name}={self._replaced[name]}" if equals and name in self._replaced else word

    def _around(self) -> dict[str, str]:
        context = self.spec["securityContext"]
        return {
            "SOURCE": str(ROOT),
            "LIBRARIES": sysconfig.get_path("purelib"),
            "PYTHON": sys.base_prefix,
            "RUN_AS": str(context["runAsUser"]),
            "GROUP": str(context["runAsGroup"]),
            "GROUPS_TOO": str(context["fsGroup"]),
        }

    def _mount(self, mount: Mapping[str, Any]) -> Sequence[str]:
        access = "ro" if mount.get("readOnly") else "rw"
        return (str(self.volumes / mount["name"]), mount["mountPath"], access)

    # The volumes

    def _fill_all(self) -> None:
        for volume in self.spec.get("volumes", ()):
            folder = self.volumes / volume["name"]
            folder.mkdir(exist_ok=True)
            if "emptyDir" in volume:
                self._own(folder, 0o2775)
            else:
                self.fill(volume)

    def fill(self, volume: Mapping[str, Any]) -> None:
        """Write what is in *volume* now, as a kubelet does after a change."""
        inner = volume.get("projected") or volume.get("secret") or volume["configMap"]
        mode = inner.get("defaultMode", 0o644)
        sources = inner.get("sources") or [volume]
        folder = self.volumes / volume["name"]
        folder.chmod(0o2775)
        old = folder / "..data"
        before = old.readlink() if old.is_symlink() else None
        made = folder / f"..{len(list(folder.iterdir()))}"
        made.mkdir()
        for source in sources:
            for name, content in self._files(source).items():
                (made / name).write_text(content, "utf-8")
                self._own(made / name, mode)
                if not (folder / name).is_symlink():
                    (folder / name).symlink_to(Path("..data") / name)
        (folder / "..new").symlink_to(made.name)
        (folder / "..new").rename(old)
        if before:
            shutil.rmtree(folder / before)
        self._own(made, 0o2755)
        self._own(folder, 0o3777)

    def _own(self, path: Path, mode: int) -> None:
        """Give *path* to root and the pod's group, which may do what its owner may."""
        os.chown(path, 0, self.spec["securityContext"]["fsGroup"])
        path.chmod(mode | (mode & 0o700) >> 3 if path.is_dir() else mode | 0o040)

    def _files(self, source: Mapping[str, Any]) -> dict[str, str]:
        metadata = self._pod["metadata"]
        if token := source.get("serviceAccountToken"):
            account = (metadata["namespace"], self.spec["serviceAccountName"])
            audience, seconds = token.get("audience"), token["expirationSeconds"]
            return {token["path"]: self._world.cluster.token(*account, audience, seconds)}
        if fields := source.get("downwardAPI"):
            return {item["path"]: metadata["namespace"] for item in fields["items"]}
        if secret := source.get("secret"):
            named = secret.get("secretName") or secret["name"]
            return _chosen(self._world.secrets[named], secret)
        return _chosen(self._config_map(source["configMap"]["name"]), source["configMap"])

    def _config_map(self, name: str) -> Files:
        if name == "kube-root-ca.crt":  # which a controller puts into each namespace
            return {"ca.crt": self._world.cluster.ca.read_text("ascii")}
        return self._world.config_maps[name]


def _chosen(files: Files, source: Mapping[str, Any]) -> dict[str, str]:
    items = source.get("items")
    return {i["path"]: files[i["key"]] for i in items} if items else dict(files)


@contextmanager
def _mount_points(container: Mapping[str, Any]) -> Iterator[None]:
    """Make the folders that the container's volumes are mounted at, while inside the `with`."""
    made: list[Path] = []
    for mount in container["volumeMounts"]:
        path = Path(mount["mountPath"])
        made += [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for folder in sorted(made, reverse=True):
            with suppress(OSError):
                folder.rmdir()
