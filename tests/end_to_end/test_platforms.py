"""
The broker runs where platforms put it: as any user, without rights, on a read-only root.

A mount namespace and `setpriv` do what container runtimes and systemd do. The folders of the state
are made as each platform makes them.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from federation.config import Settings, variable
from federation.demo.issuer import LocalIssuer
from federation.demo.stage import serving
from tests.harness.broker import AUDIENCE, Served, documents_for, local_issuer
from tests.harness.openfaas import SampleUpstream
from tests.harness.process import ROOT, in_thread, until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="to become other users takes root"),
]

UNIT = ROOT / "deploy" / "systemd" / "federation.service"

# Everything is read-only but the state. Only then does the user change, and every right goes.
_CONFINED = """
set -e
mount --make-rprivate /
{mount}
mount --bind / /mnt
for folder in $CLOSED; do
  mount -t tmpfs -o mode=0755 opened "/mnt$folder"
done
for folder in $READ; do
  mkdir -p "/mnt$folder"
  mount --bind "$folder" "/mnt$folder"
  mount -o remount,bind,ro "/mnt$folder"
done
for folder in $CLOSED /; do
  mount -o remount,bind,ro "/mnt$folder"
done
mount --rbind /dev /mnt/dev
mount --rbind /proc /mnt/proc
mount --bind "$STATE" "/mnt$STATE"
exec chroot /mnt setpriv --reuid {uid} --regid {gid} --{groups} --no-new-privs \
  --bounding-set=-all --inh-caps=-all --ambient-caps=-all env HOME=/ "$@"
"""


@dataclass(frozen=True)
class Platform:
    """A user, and the folder that the platform gives it for the state."""

    name: str
    uid: int
    gid: int
    state: Callable[[Path], None]
    groups: str = "clear-groups"
    mount: str = ""


def _owned(uid: int, gid: int, mode: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        os.chown(folder, uid, gid)
        folder.chmod(mode)

    return make


RANDOM = 1000650000
FS_GROUP = _owned(0, RANDOM, 0o2775)
EMPTY_DIR = 'mount -t tmpfs -o mode=0777 state "$STATE"'
PLATFORMS = [
    Platform("systemd's DynamicUser", 61234, 61234, _owned(61234, 61234, 0o700)),
    Platform("docker run --user", 1000, 1000, _owned(1000, 1000, 0o755)),
    Platform("OpenShift, an emptyDir", RANDOM, 0, _owned(0, 0, 0o777), f"groups={RANDOM}", EMPTY_DIR),
]  # fmt: skip


class Confined(Served):
    """A broker on a platform."""

    def __init__(self, folder: Path, issuer: LocalIssuer, platform: Platform) -> None:
        super().__init__(folder, documents_for(issuer), "--metrics-port=0", issuer=issuer)
        self.state.mkdir(exist_ok=True)
        script = _CONFINED.format(
            uid=platform.uid, gid=platform.gid, groups=platform.groups, mount=platform.mount
        )
        read = [Path(sys.base_prefix), Path(sys.prefix), ROOT, folder]
        self._environ = {
            "STATE": str(self.state),
            "READ": " ".join(map(str, read)),
            "CLOSED": " ".join(sorted({str(each) for path in read for each in _closed(path)})),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.command = ["unshare", "--mount", "sh", "-c", script, "confined", *self.command]


def _closed(path: Path) -> list[Path]:
    """The highest folder above *path* that users other than its owner may not enter, if any."""
    return [each for each in reversed(path.parents) if not each.stat().st_mode & 0o001][:1]


@pytest.fixture(name="issuer", scope="module")
def _issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as issuer:
        yield issuer


@pytest.fixture(name="folder")
def _folder() -> Iterator[Path]:
    """A folder that every user may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o755)
        yield Path(made)


@contextmanager
def running(folder: Path, issuer: LocalIssuer, platform: Platform) -> Iterator[Confined]:
    broker = Confined(folder, issuer, platform)
    with broker.running():
        yield broker


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda each: each.name)
def test_a_job_is_admitted(folder: Path, issuer: LocalIssuer, platform: Platform) -> None:
    (folder / "state").mkdir()
    platform.state(folder / "state")
    with running(folder, issuer, platform) as broker:
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{broker.pid}/status").read_text("ascii").splitlines()
        )
        assert status["Uid"].split() == [str(platform.uid)] * 4
        assert status["Gid"].split() == [str(platform.gid)] * 4
        assert status["NoNewPrivs"] == "1"
        for kind in ("CapEff", "CapPrm", "CapInh", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == 0, kind
        assert broker.exchange().status_code == 200
        assert broker.status("/readyz") == 200
        assert broker.unexpected_errors() == []
        assert broker.stop() == 0


def test_a_volume_serves_the_next_random_user_too(folder: Path, issuer: LocalIssuer) -> None:
    """A namespace that is made anew has another range of users. fsGroup gives the files to them."""
    (folder / "state").mkdir()
    FS_GROUP(folder / "state")
    kids = []
    for uid in (RANDOM, RANDOM + 10000):
        platform = Platform("OpenShift", uid, 0, FS_GROUP, f"groups={RANDOM}")
        with running(folder, issuer, platform) as broker:
            assert broker.exchange().status_code == 200
            jwks = httpx2.get(f"{broker.url}/.well-known/jwks.json").json()
            kids.append([key["kid"] for key in jwks["keys"]])
        for path in (folder / "state").rglob("*"):  # as the kubelet does at each mount
            path.chmod(path.stat().st_mode | (0o2070 if path.is_dir() else 0o060))
    assert kids[0] == kids[1]


@pytest.mark.parametrize(
    ("state", "groups"),
    [(_owned(0, 0, 0o755), "clear-groups"), (_owned(65532, 65532, 0o700), "clear-groups")],
    ids=["root's", "the image's own user's"],
)
def test_a_folder_that_is_somebody_elses_is_told_with_the_command_that_mends_it(
    folder: Path, issuer: LocalIssuer, state: Callable[[Path], None], groups: str
) -> None:
    (folder / "state").mkdir()
    state(folder / "state")
    broker = Confined(folder, issuer, Platform("docker", RANDOM, 0, state, groups))
    with pytest.raises(RuntimeError, match="did not start"):
        broker.start()
    told = broker.output()
    assert f"chown -R {RANDOM} {folder / 'state'}" in told
    assert "Errno" not in told
    assert "Traceback" not in told


def _ipv6_only(*words: str) -> subprocess.CompletedProcess[str]:
    """Run *words* in a network that has the address ::1 and no other."""
    lines = "ip link set lo up && ip addr del 127.0.0.1/8 dev lo && exec"
    return subprocess.run(  # noqa: S603  our own words
        ["unshare", "--net", "sh", "-c", f'{lines} "$@"', "sh", *words],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_everything_works_where_there_is_only_ipv6(tmp_path: Path) -> None:
    story = textwrap.dedent("""
        import sys
        from tests.end_to_end.test_platforms import ipv6_story
        ipv6_story(sys.argv[1])
        print("told to the end")
    """)
    done = _ipv6_only(sys.executable, "-W", "error", "-c", story, str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("told to the end\n")


def ipv6_story(folder: str) -> None:
    """An exchange by the client, a call through the broker, and metrics, all over ::1."""
    with _served_at_ipv6() as (issuer, upstream):
        flags = ("--host=::1", "--metrics-port=0", f"--upstream={upstream}")
        broker = OnIpv6(Path(folder) / "broker", documents_for(issuer), *flags, issuer=issuer)
        with broker.running():
            (Path(folder) / "token").write_text(broker.job())
            done = subprocess.run(  # noqa: S603  our own words
                [sys.executable, "-m", "federation", "exchange", "--url", broker.url,
                 "--token", f"{folder}/token", "--audience", AUDIENCE],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.stdout.count(".") == 2, done.stderr
            assert httpx2.get(f"{broker.url}/healthz").status_code == 200
            metrics = f"http://[::1]:{broker.metrics_port}"
            assert until(
                lambda: httpx2.get(f"{metrics}/readyz").json()["status"] != "unavailable", 20
            )
            assert "federation_ready 1" in httpx2.get(f"{metrics}/metrics").text


class OnIpv6(Served):
    """A broker at ::1."""

    @property
    def url(self) -> str:
        """Its URL."""
        return f"http://[::1]:{self.port}"

    def status(self, path: str) -> int:
        """Status of the answer to a GET; 0 if there is none."""
        with suppress(httpx2.TransportError):
            return httpx2.get(f"{self.url}{path}").status_code
        return 0


@contextmanager
def _served_at_ipv6() -> Iterator[tuple[LocalIssuer, str]]:
    """A CI issuer and a gateway at ::1."""

    @asynccontextmanager
    async def both() -> AsyncIterator[tuple[LocalIssuer, str]]:
        async with AsyncExitStack() as stack:
            listeners = [
                stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
                for _ in range(2)
            ]
            urls = [f"http://[::1]:{each.getsockname()[1]}" for each in listeners]
            issuer = LocalIssuer(urls[0])
            await stack.enter_async_context(serving(issuer.app, listeners[0]))
            await stack.enter_async_context(serving(SampleUpstream().app, listeners[1]))
            yield issuer, urls[1]

    with in_thread(both) as served:
        yield served


class TestSystemd:
    def analyzed(self, tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
        unit = tmp_path / UNIT.name
        unit.write_text(
            UNIT.read_text("utf-8").replace("/opt/federation/bin/federation", "/bin/true")
        )
        program = shutil.which("systemd-analyze")
        assert program, "systemd-analyze is needed: .ci/install installs it"
        return subprocess.run(  # noqa: S603  our own words
            [program, "--no-pager", *words, str(unit)], capture_output=True, text=True, check=False
        )

    def test_systemd_understands_every_line(self, tmp_path: Path) -> None:
        done = self.analyzed(tmp_path, "verify")
        assert (done.returncode, done.stderr) == (0, "")

    def test_the_service_is_confined(self, tmp_path: Path) -> None:
        done = self.analyzed(tmp_path, "security", "--offline=yes", "--threshold=15")
        assert done.returncode == 0, done.stdout

    def test_every_setting_of_its_environment_exists(self) -> None:
        lines = (UNIT.with_suffix(".env")).read_text("utf-8").splitlines()
        named = {line.partition("=")[0] for line in lines if line and not line.startswith("#")}
        assert named <= {variable(field) for field in Settings.model_fields}
