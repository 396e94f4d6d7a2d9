"""Real processes: right metrics with several workers, and stops that drop no accepted request."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty
from urllib.parse import urlencode

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.broker import Served, local_issuer, served, started
from tests.harness.load import under_load

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
WORKERS = pytest.mark.parametrize("workers", ["1", "2"], ids=["one worker", "two workers"])
JUNK = urlencode(
    {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": "a.b.c",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    }
).encode()


def value(broker: Served, name: str, **labels: str) -> float:
    """The sum of the samples of that name with those labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(broker.metrics())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def processes(broker: Served) -> dict[str, float]:
    """When each process began, by its name."""
    return {
        sample.labels["process"]: sample.value
        for family in text_string_to_metric_families(broker.metrics())
        for sample in family.samples
        if sample.name == "process_start_time_seconds"
    }


def children(broker: Served) -> list[int]:
    """The pids of the workers."""
    pid = broker.process.pid
    tasks = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    commands = {int(task): Path(f"/proc/{task}/cmdline").read_bytes() for task in tasks}
    return [task for task, command in commands.items() if b"spawn_main" in command]


def metric_folders(broker: Served) -> list[Path]:
    """The folders of its metrics, which it keeps open; other brokers have others."""
    held = {file.readlink() for file in Path(f"/proc/{broker.process.pid}/fd").iterdir()}
    return [path for path in held if path.match("**/shm/federation-metrics-*") and path.is_dir()]


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.1)


def heard(connection: socket.socket) -> Iterator[bytes]:
    """Everything received until the connection is closed."""
    while piece := connection.recv(65536):
        yield piece


def connect_until_refused(address: tuple[str, int]) -> None:
    """Connect again and again; connections may be reset just before they are refused."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(address, timeout=0.5).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            pass
        time.sleep(0.01)
    pytest.fail("it still accepts connections")


def logged(broker: Served) -> Iterator[dict[str, object]]:
    while True:
        try:
            yield json.loads(broker.lines.get_nowait())
        except Empty:
            return


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Served]:
    flags = ("--metrics-port", "0", "--failed-exchanges", "0", "--trusted-proxies", "127.0.0.1")
    with served(tmp_path, "--workers", "2", *flags) as up:
        until(lambda: set(processes(up)) == {"parent", "0", "1"})
        until(lambda: value(up, "federation_ready") == 1)
        yield up


class TestMetrics:
    @WORKERS
    def test_totals_are_the_number_of_requests(self, tmp_path: Path, workers: str) -> None:
        with served(tmp_path, "--workers", workers, "--metrics-port", "0") as up:
            assert [up.exchange().status_code for _ in range(20)] == [200] * 20
            assert [up.exchange("a.b.c").status_code for _ in range(5)] == [400] * 5
            assert value(up, "federation_exchanges_total", outcome="granted") == 20
            assert value(up, "federation_exchanges_total", reason="malformed_token") == 5
            assert value(up, "federation_exchange_duration_seconds_count") == 25
            assert value(up, "federation_catalog_documents", kind="Role") == 1

    def test_both_of_two_workers_count(self, two: Served) -> None:
        with under_load(f"{two.url}/oauth/token", JUNK) as load:
            time.sleep(1)
        assert not load.dropped
        told = value(two, "federation_exchanges_total", reason="malformed_token")
        assert told == len(load.statuses)
        (folder,) = metric_folders(two)
        assert len(list(folder.glob("counter_*.db"))) == 2

    def test_a_killed_worker_is_replaced_and_its_counts_stay(self, two: Served) -> None:
        with under_load(f"{two.url}/oauth/token", JUNK) as load:
            time.sleep(0.5)
        before = value(two, "federation_exchanges_total", reason="malformed_token")
        assert before == len(load.statuses)
        began = processes(two)
        os.kill(children(two)[0], signal.SIGKILL)
        until(lambda: set(processes(two)) == set(began) and processes(two) != began)
        assert value(two, "federation_exchanges_total", reason="malformed_token") == before
        until(lambda: value(two, "federation_ready") == 1)
        two.exchange("a.b.c")
        assert value(two, "federation_exchanges_total", reason="malformed_token") == before + 1

    @WORKERS
    def test_a_stop_removes_the_metric_files_and_frees_the_port(
        self, tmp_path: Path, workers: str
    ) -> None:
        with served(tmp_path, "--workers", workers, "--metrics-port", "0") as up:
            up.metrics()
            port, made = up.metrics_port, metric_folders(up)
            assert made or workers == "1"
            assert up.stop() == 0
        assert not [folder for folder in made if folder.exists()]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port or 0))

    def test_a_metrics_port_in_use_is_reported_before_anything_starts(self, tmp_path: Path) -> None:
        (tmp_path / "documents").mkdir()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = subprocess.run(  # noqa: S603  our own program
                [sys.executable, "-m", "federation", "serve", "--port", "0",
                 "--documents", str(tmp_path / "documents"), "--state", str(tmp_path / "state"),
                 "--metrics-port", str(port)],
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
        assert done.returncode == 2
        assert f"cannot listen on 127.0.0.1 port {port}" in done.stderr
        assert not (tmp_path / "state").exists()


class TestSupervisor:
    def test_workers_free_the_port_when_their_parent_is_killed(self, two: Served) -> None:
        with two.connect() as connection:
            address = connection.getpeername()
        workers = children(two)
        two.process.kill()
        try:
            connect_until_refused(address)
        finally:  # a worker that lives on would hold this test up
            for pid in workers:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


class TestReadiness:
    def test_a_restarted_broker_is_ready_once_it_has_fetched_keys(self, tmp_path: Path) -> None:
        with local_issuer() as issuer, started(tmp_path, issuer) as up:
            until(lambda: httpx2.get(f"{up.url}/readyz").status_code == 200)
            (issuers,) = httpx2.get(f"{up.url}/readyz").json()["issuers"].values()
            assert issuers["keys"] > 0

    @WORKERS
    def test_the_metrics_port_says_how_each_process_is(self, tmp_path: Path, workers: str) -> None:
        with served(tmp_path, "--workers", workers, "--metrics-port", "0") as up:
            url = f"http://127.0.0.1:{up.metrics_port}"
            until(lambda: httpx2.get(f"{url}/readyz").status_code == 200)
            told = httpx2.get(f"{url}/readyz").json()
            reports = [told] if workers == "1" else list(told["workers"].values())
            assert [each["documents"]["roles"] for each in reports] == [1] * int(workers)
            assert httpx2.get(f"{url}/livez").json() == {"status": "ok"}
            if workers == "2":
                os.kill(up.workers()[0], signal.SIGKILL)
                until(lambda: httpx2.get(f"{url}/readyz").status_code == 503)
                until(lambda: httpx2.get(f"{url}/readyz").status_code == 200)

    @pytest.mark.parametrize("path", ["/readyz", "/livez"])
    def test_what_a_proxy_forwards_gets_the_status_alone(self, tmp_path: Path, path: str) -> None:
        with served(tmp_path) as up, up.connect() as connection:
            connection.sendall(
                b"GET %b HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\n"
                b"Connection: close\r\n\r\n" % path.encode()
            )
            with connection.makefile("rb") as answer:
                body = answer.read().partition(b"\r\n\r\n")[2]
            assert set(json.loads(body)) == {"status"}

    @pytest.mark.parametrize("path", ["/%72eadyz", "/%6civez"])
    def test_a_path_in_disguise_is_another_path(self, tmp_path: Path, path: str) -> None:
        """A reverse proxy that keeps `/readyz` to itself passes these on."""
        with served(tmp_path) as up:
            answer = httpx2.get(f"{up.url}{path}")
        assert answer.status_code == 404
        assert set(answer.json()) == {"error", "error_description", "reason", "request_id"}


class TestStopping:
    @WORKERS
    def test_under_load_every_accepted_request_is_answered(
        self, tmp_path: Path, workers: str
    ) -> None:
        with served(tmp_path, "--workers", workers, "--failed-exchanges", "0") as up:
            with under_load(f"{up.url}/oauth/token", JUNK, clients=24) as load:
                time.sleep(2)
                assert up.stop() == 0
            assert load.refused.is_set()
            assert load.dropped == []
            assert set(Counter(load.statuses)) == {400}
            assert load.closed_with_warning >= 12
        # A reset connection's request was never read: each exchange in the log was answered.
        exchanges = [line for line in logged(up) if line["event"] == "exchange refused"]
        assert len(exchanges) == len(load.statuses)

    @WORKERS
    def test_a_request_in_progress_is_finished(self, tmp_path: Path, workers: str) -> None:
        with served(tmp_path, "--workers", workers) as up, up.connect() as connection:
            head = (
                f"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Length: {len(JUNK)}\r\n"
                "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
            )
            connection.sendall(head.encode() + JUNK[:10])
            time.sleep(0.5)
            up.process.send_signal(signal.SIGTERM)
            time.sleep(2)
            connection.sendall(JUNK[10:])
            answer = connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert b"connection: close" in answer.lower()
            assert up.process.wait(timeout=30) == 0

    @WORKERS
    def test_new_connections_are_refused_while_it_stops(self, tmp_path: Path, workers: str) -> None:
        with served(tmp_path, "--workers", workers) as up, up.connect() as connection:
            connection.sendall(
                b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n"
            )
            time.sleep(0.5)
            up.process.send_signal(signal.SIGTERM)
            connect_until_refused(connection.getpeername())
            connection.sendall(b"x")
            assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")
            assert up.process.wait(timeout=30) == 0

    @WORKERS
    def test_idle_connections_do_not_hold_it_up(self, tmp_path: Path, workers: str) -> None:
        with served(tmp_path, "--workers", workers) as up:
            idle = [up.connect() for _ in range(10)]
            idle[0].sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
            began = time.monotonic()
            assert up.stop() == 0
            assert time.monotonic() - began < 6
            for connection in idle:
                connection.close()

    def test_a_request_on_an_idle_connection_is_answered_as_its_last(self, tmp_path: Path) -> None:
        with served(tmp_path) as up, up.connect() as connection:
            ask = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
            connection.sendall(ask)
            assert b"connection: close" not in connection.recv(65536).lower()
            up.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            connection.sendall(ask)
            assert b"connection: close" in b"".join(heard(connection)).lower()
            assert up.process.wait(timeout=30) == 0


def test_a_graceful_shutdown_needs_no_capability() -> None:
    """The documented deployments drop all of them."""
    dropped = ["--inh-caps=-all", *(["--bounding-set=-all"] if os.geteuid() == 0 else [])]
    done = subprocess.run(  # noqa: S603  our own words
        ["setpriv", *dropped, sys.executable, "-m", "pytest",  # noqa: S607  wherever it is
         "-q", "-p", "no:cacheprovider", "tests/test_shutdown.py"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_one_id_goes_from_the_ingress_to_the_journal_and_the_log(two: Served) -> None:
    token = two.job()
    answer = httpx2.post(
        f"{two.url}/oauth/token",
        data={
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": token,
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        },
        headers={"X-Request-Id": "from-the-ingress"},
    )
    assert answer.headers["x-request-id"] == "from-the-ingress"
    told = [line for line in logged(two) if line.get("request_id") == "from-the-ingress"]
    assert [line["event"] for line in told] == ["audit"]
    written = "".join(path.read_text() for path in (two.state / "audit").glob("*.jsonl"))
    assert written.count('"from-the-ingress"') == 1
    assert token not in written + json.dumps(told)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_the_alert_rules_are_valid_for_prometheus() -> None:
    rules = ROOT / "deploy" / "monitoring" / "alerts.yaml"
    done = subprocess.run(  # noqa: S603  our own file
        ["promtool", "check", "rules", str(rules)],  # noqa: S607  wherever it is
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
