"""
Build the image from the Dockerfile with buildah, without a daemon, and run it.

The base image is made here from Debian's packages, under the name of the real one. The image runs
with its own configuration, with a read-only root, and can write to its volume only.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from federation.demo.issuer import LocalIssuer
from tests.harness.broker import AUDIENCE, documents_for, form, local_issuer
from tests.harness.ci_runner import ROOT
from tests.harness.process import free_port, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="to build and mount an image takes root"),
]

_BASE = next(
    line.split()[1]
    for line in (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    if line.startswith("FROM ")
)
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_MAKE_BASE = """
ln -s python3 /usr/bin/python
"""
_ENTER = """
set -e
mount --make-rprivate /
mount --bind "$ROOT" "$ROOT"
mount --bind "$DOCUMENTS" "$ROOT/etc/federation"
mount --bind "$STATE" "$ROOT/var/lib/federation"
mount --bind /dev "$ROOT/dev"
mount -o remount,bind,ro "$ROOT"
exec chroot --userspec="$RUN_AS" "$ROOT" env -i "$@"
"""


@dataclass(frozen=True)
class Image:
    """A built image with its root mounted."""

    root: Path
    config: Mapping[str, Any]
    health: Sequence[str]

    def start(
        self, place: Path, command: Sequence[str], *, user: str = "", **variables: str
    ) -> subprocess.Popen[str]:
        """
        Start *command* on a read-only root, with *place* as its volume.

        It runs as *user* if one is given, else as the image's, and the volume is that user's.
        """
        for name in ("documents", "state"):
            (place / name).mkdir(exist_ok=True)
        uid, gid = (int(number) for number in (user or self.config["User"]).split(":"))
        os.chown(place / "state", uid, gid)
        environ = [*self.config["Env"], *(f"{name}={value}" for name, value in variables.items())]
        return subprocess.Popen(  # noqa: S603  our own image
            [_tool("unshare"), "--mount", _tool("sh"), "-c", _ENTER, "enter", *environ, *command],
            env={
                "PATH": os.environ["PATH"],
                "ROOT": str(self.root),
                "DOCUMENTS": str(place / "documents"),
                "STATE": str(place / "state"),
                "RUN_AS": user or self.config["User"],
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, place: Path, command: Sequence[str], **variables: str) -> tuple[int, str]:
        """Run *command*, and return its exit code and output."""
        process = self.start(place, command, **variables)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output


@pytest.fixture(name="image", scope="module")
def _image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    folder = tmp_path_factory.mktemp("image")
    store = ("--root", str(folder / "store"), "--runroot", str(folder / "run"))

    def buildah(*arguments: str) -> str:
        return _run([_tool("buildah"), *store, "--storage-driver", "vfs", *arguments]).strip()

    _make_base(folder, buildah)
    isolated = ("--isolation", "chroot", "--network", "host", "--pull-never")
    buildah(
        "build", *isolated, "--format", "docker", "--quiet", "--tag", "federation:test", str(ROOT)
    )
    container = buildah("from", "--pull-never", "federation:test")
    try:
        root = Path(buildah("mount", container))
        (root / "etc" / "federation").mkdir()  # a container runtime makes its mount points
        said = json.loads(buildah("inspect", "--type", "image", "federation:test"))
        yield Image(
            root, said["OCIv1"]["config"], said["Docker"]["config"]["Healthcheck"]["Test"][1:]
        )
    finally:
        buildah("umount", container)
        shutil.rmtree(folder)


def _make_base(folder: Path, buildah: Any) -> None:
    """Make an image with the name of the Dockerfile's base, and with Debian's Python."""
    _run(
        [_tool("mmdebstrap"), "--quiet", "--variant=apt",
         "--include=python3,python3-pip,python3-venv,ca-certificates",
         "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
         platform.freedesktop_os_release()["VERSION_CODENAME"], str(folder / "base.tar")]
    )  # fmt: skip
    container = buildah("from", "scratch")
    buildah("add", "--quiet", container, str(folder / "base.tar"), "/")
    buildah("run", "--isolation", "chroot", container, "--", "sh", "-c", _MAKE_BASE)
    for file in (
        _CERTIFICATES,
        "/etc/pip.conf",
    ):  # so that pip works behind a proxy or a private CA, too
        if Path(file).exists():
            buildah("copy", "--quiet", container, file, file)
    buildah("config", "--env", "PATH=/usr/local/bin:/usr/bin:/bin", container)
    buildah("commit", "--quiet", "--rm", container, f"docker.io/library/{_BASE}")
    (folder / "base.tar").unlink()


@pytest.fixture(name="issuer", scope="module")
def _issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as issuer:
        yield issuer


@contextmanager
def broker(
    image: Image, place: Path, issuer: LocalIssuer, *, user: str = ""
) -> Iterator[tuple[str, Any]]:
    """Run the image with its own command; yield its URL and its process."""
    (place / "documents").mkdir()
    (place / "documents" / "all.yaml").write_text(documents_for(issuer), "utf-8")
    port = free_port()
    process = image.start(
        place,
        [*image.config["Entrypoint"], *image.config["Cmd"]],
        user=user,
        FEDERATION_HOST="127.0.0.1",
        FEDERATION_PORT=str(port),
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _await(url, process)
        yield url, process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_the_image_serves_as_its_user_on_a_read_only_root(
    image: Image, issuer: LocalIssuer, tmp_path: Path
) -> None:
    with broker(image, tmp_path, issuer) as (url, process):
        status = Path(f"/proc/{process.pid}/status").read_text("ascii")
        assert "Uid:\t65532\t65532\t65532\t65532\n" in status
        assert "Gid:\t65532\t65532\t65532\t65532\n" in status
        granted = httpx2.post(
            f"{url}/oauth/token",
            data=form(issuer.issue("github", "main", AUDIENCE)),
        )
        assert granted.status_code == 200, granted.text
        code, output = image.run(tmp_path, image.health, FEDERATION_PORT=url.rpartition(":")[2])
        assert code == 0, output
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0
    assert list((tmp_path / "state").iterdir()), "the volume holds the state"


def test_the_image_serves_as_a_random_user_of_group_0(
    image: Image, issuer: LocalIssuer, tmp_path: Path
) -> None:
    """As on OpenShift. The user has no entry in /etc/passwd."""
    with broker(image, tmp_path, issuer, user="1000650000:0") as (url, process):
        status = Path(f"/proc/{process.pid}/status").read_text("ascii")
        assert "Uid:\t1000650000\t1000650000\t1000650000\t1000650000\n" in status
        assert "Gid:\t0\t0\t0\t0\n" in status
        granted = httpx2.post(
            f"{url}/oauth/token", data=form(issuer.issue("github", "main", AUDIENCE))
        )
        assert granted.status_code == 200, granted.text


@pytest.mark.parametrize("place", ["/", "/opt/federation", "/etc/federation", "/usr/bin"])
def test_nothing_but_the_volume_can_be_written(image: Image, tmp_path: Path, place: str) -> None:
    code, _ = image.run(tmp_path, ["touch", f"{place}/x"])
    assert code != 0
    assert image.run(tmp_path, ["touch", "/var/lib/federation/x"])[0] == 0


def test_nothing_can_be_installed_into_the_image(image: Image, tmp_path: Path) -> None:
    assert image.run(tmp_path, ["python", "-m", "pip", "--version"])[0] != 0


def test_the_image_is_a_gitlab_job_image(image: Image, issuer: LocalIssuer, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "gitlab.md").read_text("utf-8")
    shown = page.split("## Without the template")[1].split("```yaml\n")[1].split("```")[0]
    job = yaml.safe_load(shown)["token"]
    assert job["image"]["entrypoint"] == [""]
    with broker(image, tmp_path, issuer) as (url, _):
        lines = "\n".join(job["script"]).replace("https://gateway.example.com", url)
        # The broker here is at another address than its tokens' audience.
        lines = lines.replace("federation exchange", f"federation exchange --audience {AUDIENCE}")
        code, output = image.run(
            tmp_path,
            ["sh", "-ec", f'{lines}\nprintf "token=%s" "$FEDERATION_TOKEN"'],
            GITLAB_CI="true",
            FEDERATION_ID_TOKEN=issuer.issue("github", "main", AUDIENCE),
        )
    assert code == 0, output
    assert output.partition("token=")[2].count(".") == 2


def _await(url: str, process: subprocess.Popen[str]) -> None:
    def answers() -> bool:
        assert process.poll() is None, process.stdout and process.stdout.read()
        with suppress(httpx2.TransportError):
            return httpx2.get(f"{url}/livez", timeout=5).status_code == 200
        return False

    assert until(answers, 30), "the image does not answer"


def _run(command: Sequence[str]) -> str:
    ran = subprocess.run(  # noqa: S603  our own commands
        command, capture_output=True, text=True, timeout=400, check=False
    )
    assert ran.returncode == 0, f"{shlex.join(command)}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def _tool(name: str) -> str:
    found = shutil.which(name)
    assert found, f"{name} is needed: .ci/install installs it ({sys.platform})"
    return found
