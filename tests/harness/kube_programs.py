"""
The programs of the Kubernetes tests: where they are, and `python -m tests.harness.kube_programs`
to build those that are missing.

kube-apiserver and etcd are built from `tests/end_to_end/kube`, helm and kube-score by
`go install`, and kubectl comes from PyPI with the extra `kube`. What is built is kept outside of
the checkout, in a folder named by what it was built from, so that it is built once.
`KUBEBUILDER_ASSETS` may name a folder with a kube-apiserver and an etcd to use instead.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.harness.built_programs import cache, made, run, skip_without, tell

SOURCE = Path(__file__).parents[1] / "end_to_end" / "kube"
GO = (1, 26)
"""The version of Go that builds the programs: their modules ask for it."""

SERVERS = ("kube-apiserver", "etcd")
TOOLS: Mapping[str, tuple[str, str]] = {
    "helm3": ("helm.sh/helm/v3/cmd/helm", "v3.22.0"),
    "helm4": ("helm.sh/helm/v4/cmd/helm", "v4.3.1"),
    "kube-score": ("github.com/zegl/kube-score/cmd/kube-score", "v1.20.0"),
}
_CACHE = cache("kube")
_VERSION = re.compile(r"k8s\.io/kubernetes v(?P<version>(\d+)\.(\d+)\.\d+)")


def servers() -> Path:
    """The folder in which kube-apiserver and etcd are, or will be."""
    if given := os.environ.get("KUBEBUILDER_ASSETS"):
        return Path(given)
    inputs = hashlib.sha256()
    for name in ("go.mod", "go.sum", "main.go"):
        inputs.update((SOURCE / name).read_bytes())
    return _CACHE / f"servers-{inputs.hexdigest()[:16]}"


def tool(name: str) -> Path:
    """The path at which one of `TOOLS` is, or will be."""
    module, version = TOOLS[name]
    return _CACHE / f"{name}-{version}" / module.rpartition("/")[2]


def kubectl() -> Path:
    """The path of kubectl: that of this Python's environment, else of the machine."""
    beside = Path(sys.executable).parent / "kubectl"
    return beside if beside.exists() else Path(shutil.which("kubectl") or beside)


def missing() -> list[str]:
    """The names of the programs that are not there."""
    places = {name: servers() / name for name in SERVERS}
    places |= {name: tool(name) for name in TOOLS} | {"kubectl": kubectl()}
    return [name for name, path in places.items() if not os.access(path, os.X_OK)]


def need(*names: str) -> None:
    """Skip the test if one of the programs *names* is missing; fail it where KUBE_ALL is set."""
    skip_without(set(names) & set(missing()), "kube", must="KUBE_ALL")


# Building


def build() -> None:
    """Build what is missing. Raises: SystemExit with what to do if it cannot be built."""
    absent = missing()
    if "kubectl" in absent:
        raise SystemExit("kubectl is missing: run `pip install --editable '.[kube]'`")
    if not absent:
        return
    go = _go()
    if set(SERVERS) & set(absent):
        _build_servers(go)
    for name in sorted(set(TOOLS) & set(absent)):
        _install(go, name)


def _go() -> str:
    wanted = ".".join(map(str, GO))
    go = shutil.which("go")
    shown = _version(go) if go else "no Go was found"
    found = re.search(r"go(\d+)\.(\d+)[.\d]*$", shown)
    if go is None or found is None or (int(found[1]), int(found[2])) < GO:
        raise SystemExit(
            f"Go {wanted} or newer is needed: {shown}\n"
            f"Install it from https://go.dev/dl/ and put its bin folder first into PATH, or let Go"
            f" 1.21 or newer fetch it: GOTOOLCHAIN=auto make kube\n"
            "Or set KUBEBUILDER_ASSETS to a folder with a kube-apiserver and an etcd."
        )
    return go


def _version(go: str) -> str:
    """The version that Go takes for the modules of `SOURCE`, or what it says instead."""
    words = [go, "env", "GOVERSION"]
    done = subprocess.run(words, cwd=SOURCE, capture_output=True, text=True, check=False)  # noqa: S603  our own words
    return (done.stdout or done.stderr).strip()


def _build_servers(go: str) -> None:
    if "KUBEBUILDER_ASSETS" in os.environ:
        raise SystemExit(f"KUBEBUILDER_ASSETS: no kube-apiserver and etcd in {servers()}")
    found = _VERSION.search((SOURCE / "go.mod").read_text("utf-8"))
    assert found, "go.mod names no version of Kubernetes"
    flags = {
        "k8s.io/component-base/version.gitVersion": f"v{found['version']}",
        "k8s.io/component-base/version.gitMajor": found[2],
        "k8s.io/component-base/version.gitMinor": found[3],
        "k8s.io/client-go/pkg/version.gitVersion": f"v{found['version']}",
    }
    linked = " ".join(("-s -w", *(f"-X {name}={value}" for name, value in flags.items())))
    tell("Building kube-apiserver and etcd (once, 5 to 10 minutes) ...")
    with made(servers()) as folder:
        _go_run(
            [go, "build", "-trimpath", "-ldflags", linked, "-o", f"{folder}/kube-apiserver", "."]
        )
        (folder / "etcd").symlink_to("kube-apiserver")


def _install(go: str, name: str) -> None:
    module, version = TOOLS[name]
    tell(f"Building {name} {version} (once, 1 to 3 minutes) ...")
    with made(tool(name).parent) as folder:
        _go_run([go, "install", "-trimpath", f"{module}@{version}"], GOBIN=str(folder))


def _go_run(words: list[str], **environ: str) -> None:
    # CGO off: no C compiler is needed. -p 2: more needs gigabytes of memory at a time.
    own = {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -p=2"}
    run(words, SOURCE, **own, **environ)


if __name__ == "__main__":
    build()
    tell(f"kube-apiserver and etcd: {servers()}")
    tell("\n".join(f"{name}: {tool(name)}" for name in TOOLS))
