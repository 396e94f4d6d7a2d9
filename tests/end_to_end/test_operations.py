"""Operating a broker: restarts, reloads, killed workers and wrong settings, in real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from federation.demo.issuer import LocalIssuer
from federation.tokens.signing_keys import read_pem
from tests.harness.broker import Served, documents_for, local_issuer, started
from tests.harness.process import free_port, until
from tests.test_metrics import samples

pytestmark = pytest.mark.e2e

TWO = ("--workers", "2", "--metrics-port", "0")
WORKERS = pytest.mark.parametrize("workers", [1, 2], ids=["one worker", "two workers"])
ALERTS = Path(__file__).parents[2] / "deploy" / "monitoring" / "alerts.yaml"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  where the broker puts its metrics


def events(broker: Served, *names: str) -> list[dict[str, Any]]:
    """The lines of its log, those of the events *names* if given."""
    lines = [json.loads(line) for line in broker.output().splitlines()]
    return [line for line in lines if not names or line["event"] in names]


def shared_memory(broker: Served) -> Path:
    """The directory of its metrics, which it keeps open; other brokers have others."""
    held = {file.readlink() for file in Path(f"/proc/{broker.pid}/fd").iterdir()}
    (made,) = (path for path in held if path.match(f"{SHARED_MEMORY}/federation-*"))
    return made


def readiness(broker: Served) -> Any:
    """What the metrics port says of all processes."""
    return httpx2.get(f"http://127.0.0.1:{broker.metrics_port}/readyz", timeout=20).json()


def reports(broker: Served) -> list[Any]:
    """What each worker says of itself."""
    return list(readiness(broker).get("workers", {}).values())


def metric(broker: Served, name: str, **labels: str) -> float | None:
    return samples(broker.metrics()).get((f"federation_{name}", tuple(sorted(labels.items()))))


def all_serve(broker: Served) -> bool:
    return bool(readiness(broker)["status"] != "unavailable")


def wait(broker: Served, what: str, holds: Any, seconds: float = 40) -> None:
    """Wait until *holds*, or fail with *what* and the end of the log."""
    assert until(holds, seconds), f"{what}:\n{broker.output()[-3000:]}"


@pytest.fixture
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        yield running


class TestBrokenDocuments:
    def test_killed_workers_come_back_with_the_last_good_set(
        self, tmp_path: Path, issuer: LocalIssuer
    ) -> None:
        with started(tmp_path, issuer, *TWO) as broker:
            place = broker.documents / "all.yaml"
            wait(broker, "it is not ready", lambda: all_serve(broker))
            # The last good set is not the one that the broker was started with.
            place.write_text(documents_for(issuer).replace('"deployer"', '"renamed"'))
            adopted = "documents adopted"
            wait(broker, "not adopted", lambda: len(events(broker, adopted)) == 2)
            digest = events(broker, adopted)[-1]["digest"]
            place.write_text("kind: Role\n")
            refused = "documents not adopted; the last good set stays in use"
            wait(broker, "adopted", lambda: len(events(broker, refused)) == 2)

            first = set(broker.workers())
            for pid in first:
                os.kill(pid, signal.SIGKILL)
            wait(broker, "not replaced", lambda: len(set(broker.workers()) - first) == 2)
            wait(broker, "they do not serve", lambda: all_serve(broker))

            assert [each["documents"]["digest"] for each in reports(broker)] == [digest] * 2
            assert all(each["documents"]["not_adopted"] for each in reports(broker))
            assert [broker.exchange().status_code for _ in range(8)] == [200] * 8
            assert broker.unexpected_errors() == []

            place.write_text(documents_for(issuer))
            wait(broker, "the good set is not live", lambda: readiness(broker)["status"] == "ok")

    def test_a_new_broker_does_not_start_with_them(
        self, tmp_path: Path, issuer: LocalIssuer
    ) -> None:
        with started(tmp_path, issuer, *TWO) as broker:
            (broker.documents / "all.yaml").write_text("kind: Role\n")
            wait(broker, "adopted", lambda: readiness(broker)["status"] == "degraded")
            broker.process.kill()
            broker.process.wait()
            with pytest.raises(RuntimeError, match="nothing was started"):
                broker.start()


class TestWorkersThatCannotStart:
    @staticmethod
    def damage(broker: Served) -> Path:
        """Make every later start of a worker fail, and return what to remove to undo it."""
        current = broker.state / "signing-keys" / "current"
        kept = current.with_name("kept")
        current.rename(kept)
        current.write_text("no such key")
        return kept

    def test_one_that_serves_keeps_the_broker_up(self, tmp_path: Path, issuer: LocalIssuer) -> None:
        with started(tmp_path, issuer, *TWO) as broker:
            wait(broker, "it is not ready", lambda: all_serve(broker))
            assert metric(broker, "workers", state="serving") == 2
            kept = self.damage(broker)
            os.kill(broker.workers()[0], signal.SIGKILL)
            failed = "the worker cannot start"
            wait(broker, "it started", lambda: len(events(broker, failed)) == 3)
            (problem,) = {line["problem"] for line in events(broker, failed)}
            assert problem.startswith("state: ")
            pauses = [
                line["pause_seconds"] for line in events(broker, "a worker ended; starting another")
            ]
            assert pauses[:3] == [1, 1, 2]
            assert broker.unexpected_errors() == []
            assert broker.exchange().status_code == 200
            assert metric(broker, "workers", state="serving") == 1
            assert metric(broker, "workers", state="configured") == 2
            assert readiness(broker)["status"] == "unavailable"
            kept.replace(kept.with_name("current"))
            wait(broker, "it did not start", lambda: all_serve(broker))

    def test_without_any_the_broker_ends_and_frees_the_port(
        self, tmp_path: Path, issuer: LocalIssuer
    ) -> None:
        with started(tmp_path, issuer, "--workers", "2") as broker:
            self.damage(broker)
            for pid in broker.workers():
                os.kill(pid, signal.SIGKILL)
            assert broker.ended(90) == 1
            assert "Error: no worker can be started; the log says why" in broker.output()
            with pytest.raises(ConnectionRefusedError):
                broker.connect()


def pem(path: Path) -> str:
    """Write a new signing key to *path*, and return its kid."""
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.touch(0o600)
    path.write_bytes(key)
    return read_pem(key).kid


class TestReload:
    """SIGHUP reads documents and keys again in every worker, and ends none."""

    @WORKERS
    def test_documents_and_signing_keys_are_read_again(
        self, tmp_path: Path, issuer: LocalIssuer, workers: int
    ) -> None:
        key = tmp_path / "key.pem"
        first = pem(key)
        flags = ("--workers", str(workers), "--signing-key", str(key), "--metrics-port", "0")
        with started(tmp_path, issuer, *flags) as broker:
            wait(broker, "it is not ready", lambda: all_serve(broker))
            pids = [broker.pid, *broker.workers()]

            second = pem(key)
            assert first != second
            broker.send(signal.SIGHUP)
            changed, adopted = "signing keys changed", "documents adopted"
            wait(broker, "no new key", lambda: len(events(broker, changed)) == workers)
            assert {line["signs"] for line in events(broker, changed)} == {second}
            wait(broker, "not read again", lambda: len(events(broker, adopted)) == workers)
            assert broker.exchange().status_code == 200

            key.write_text("no key at all")
            broker.send(signal.SIGHUP)
            kept = "not reloaded; the known one stays in use"
            wait(broker, "it took no key", lambda: len(events(broker, kept)) == workers)
            wait(broker, "it is not told", lambda: readiness(broker)["status"] == "degraded")
            assert broker.exchange().status_code == 200
            jwks = httpx2.get(f"{broker.url}/.well-known/jwks.json").json()
            assert [each["kid"] for each in jwks["keys"]] == [second]
            assert [broker.pid, *broker.workers()] == pids


class TestStart:
    def test_it_says_that_it_listens_when_it_does_and_as_what(
        self, tmp_path: Path, issuer: LocalIssuer
    ) -> None:
        with started(tmp_path, issuer, *TWO) as broker:
            (told,) = events(broker, "listening")
            assert told["mode"] == "exchange only"
            assert told["upstream"] is None
            assert told["workers"] == 2
            assert told["version"]
            # uvicorn says so in each worker, before it accepts.
            first = [line["event"].startswith("Started server") for line in events(broker)]
            assert first.index(True) < events(broker).index(told)

    def test_a_taken_port_hides_no_other_problem(self, tmp_path: Path) -> None:
        documents, key = tmp_path / "documents", tmp_path / "key.pem"
        documents.mkdir()
        (documents / "bad.yaml").write_text("kind: Role\n")
        key.touch(0o600)
        with ExitStack() as taken:
            ports = [
                taken.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
                for _ in range(2)
            ]
            done = subprocess.run(  # noqa: S603  our own program
                [sys.executable, "-m", "federation", "serve", "--port", str(ports[0]),
                 "--metrics-port", str(ports[1]), "--documents", str(documents),
                 "--signing-key", str(key), "--state", str(tmp_path / "state"),
                 "--audit-webhook", "https://127.0.0.1:9/", "--audit-webhook-ca", str(key),
                 "--upstream", "http://127.0.0.1:9", "--upstream-secrets", str(documents)],
                capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
        assert done.returncode == 2
        for told in (
            *(f"cannot listen on 127.0.0.1 port {port}" for port in ports),
            *("bad.yaml", "signing-key: ", "audit-webhook-ca: ", "upstream-secrets: "),
        ):
            assert told in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "state").exists()

    def test_the_metrics_port_can_have_another_address(
        self, tmp_path: Path, issuer: LocalIssuer
    ) -> None:
        flags = ("--metrics-port", str(free_port()), "--metrics-host", "127.0.0.2")
        with started(tmp_path, issuer, *flags) as broker:
            url = f"http://127.0.0.2:{broker.metrics_port}/metrics"
            assert "federation_ready" in httpx2.get(url).text
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", broker.metrics_port or 0))

    def test_one_host_can_mean_every_address(self, tmp_path: Path, issuer: LocalIssuer) -> None:
        flags = ("--host", "::", "--issuer-url", "https://gateway.example.com")
        with started(tmp_path, issuer, *flags, "--failed-exchanges", "2") as broker:
            statuses = [
                httpx2.post(f"http://{host}:{broker.port}/oauth/token", data={"x": "y"}).status_code
                for host in ("127.0.0.1", "127.0.0.1", "127.0.0.1", "[::1]")
            ]
            # The two kinds of addresses are counted apart, as they would be on two sockets.
            assert statuses == [400, 400, 429, 400]
            told = httpx2.get(f"http://127.0.0.1:{broker.port}/readyz").json()
            assert "documents" in told, "this is loopback"


@contextmanager
def answering_with(statuses: list[int]) -> Iterator[str]:
    """The URL of an upstream that answers every GET with the first of *statuses*."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


class TestUpstream:
    def test_its_health_is_told_and_leaves_the_broker_ready(
        self, tmp_path: Path, issuer: LocalIssuer
    ) -> None:
        statuses = [200]
        with (
            answering_with(statuses) as upstream,
            started(tmp_path, issuer, "--upstream", upstream, *TWO) as broker,
        ):
            wait(broker, "not up", lambda: metric(broker, "upstream_up") == 1)
            statuses[0] = 503
            wait(broker, "not told", lambda: metric(broker, "upstream_up") == 0)
            wait(broker, "not ready", lambda: metric(broker, "ready") == 1)
            wait(broker, "not degraded", lambda: readiness(broker)["status"] == "degraded")
            problem = "GET /healthz is answered with 503"
            told = [each for report in reports(broker) for each in report["degraded"]]
            assert f"upstream: {problem}" in told
            # Each worker says it once, and each asks for itself.
            ill = "the upstream is unhealthy"
            wait(broker, "one does not tell", lambda: len(events(broker, ill)) == 2)
            assert {line["problem"] for line in events(broker, ill)} == {problem}
            statuses[0] = 200
            wait(broker, "not healthy again", lambda: metric(broker, "upstream_up") == 1)
            wait(broker, "not ok again", lambda: readiness(broker)["status"] == "ok")
            assert len(events(broker, ill)) == 2

    def test_one_that_is_not_there_is_told(self, tmp_path: Path, issuer: LocalIssuer) -> None:
        flags = ("--upstream", f"http://127.0.0.1:{free_port()}", "--metrics-port", "0")
        with started(tmp_path, issuer, *flags) as broker:
            wait(broker, "not told", lambda: metric(broker, "upstream_up") == 0)
            told = httpx2.get(f"{broker.url}/readyz")
            assert (told.status_code, told.json()["status"]) == (200, "degraded")
            assert broker.exchange().status_code == 200


JOB = {"job": "federation"}

# Alerts that fire: the series of a broker, and who is reported.
FIRING: Mapping[str, tuple[Mapping[str, int | str], list[dict[str, str]]]] = {
    "FederationGone": ({}, [JOB]),
    "FederationSilent": ({'up{job="federation",instance="a"}': 1,
                          'up{job="federation",instance="b"}': 1,
                          'federation_ready{job="federation",instance="b"}': 1},
                         [JOB | {"instance": "a"}]),
    "FederationWorkersMissing": ({'federation_workers{job="federation",state="serving"}': 1,
                                  'federation_workers{job="federation",state="configured"}': 2},
                                 [JOB]),
    "FederationUpstreamDown": ({'federation_upstream_up{job="federation"}': 0}, [JOB]),
    "FederationDegraded": ({'federation_degraded{job="federation",instance="a"}': 1,
                            'federation_degraded{job="federation",instance="b"}': 0},
                           [JOB | {"instance": "a"}]),
    "FederationKubernetesObjectsNotInForce": (
        {'federation_kubernetes_objects{instance="a",reason="Accepted"}': 9,
         'federation_kubernetes_objects{instance="a",reason="Pending"}': 9,
         'federation_kubernetes_objects{instance="a",reason="Refused"}': 1,
         'federation_kubernetes_objects{instance="a",reason="Conflict"}': 0},
        [{"instance": "a", "reason": "Refused"}]),
    "FederationEventsLost": ({'federation_audit_events_lost_total{instance="a"}': "0+1",
                              'federation_audit_events_lost_total{instance="b"}': 7},
                             [{"instance": "a"}]),
    "FederationStoreFails": (
        {'federation_store_duration_seconds_count{instance="a",operation="spend",outcome="answered"}': "0+9",
         'federation_store_duration_seconds_count{instance="a",operation="spend",outcome="unavailable"}': "0+1",
         'federation_store_duration_seconds_count{instance="a",operation="revoke",outcome="unavailable"}': 7},
        [{"instance": "a", "operation": "spend"}]),
}  # fmt: skip


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize("alert", FIRING)
def test_an_alert_fires_for_what_is_wrong_alone(tmp_path: Path, alert: str) -> None:
    given, expected = FIRING[alert]
    told = {**given, 'something_else{job="federation"}': 1}
    case = {
        "interval": "1m",
        "input_series": [{"series": s, "values": f"{value}x40"} for s, value in told.items()],
        "alert_rule_test": [
            {
                "eval_time": "30m",
                "alertname": alert,
                "exp_alerts": [
                    {"exp_labels": labels | severity_of(alert)}
                    | {"exp_annotations": annotations_of(alert, labels, 1)}
                    for labels in expected
                ],
            }
        ],
    }
    rules = {"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": [case]}
    (tmp_path / "test.json").write_text(json.dumps(rules))
    done = subprocess.run(  # noqa: S603  our own file
        ["promtool", "test", "rules", str(tmp_path / "test.json")],  # noqa: S607  wherever it is
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def rule(alert: str) -> Any:
    rules = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"][0]["rules"]
    return next(each for each in rules if each["alert"] == alert)


def severity_of(alert: str) -> dict[str, str]:
    severity: dict[str, str] = rule(alert)["labels"]
    return severity


def annotations_of(alert: str, labels: dict[str, str], value: int) -> dict[str, str]:
    """The annotations as Prometheus fills them in."""
    shown = {"{{ $value }}": str(value), "{{ $labels.instance }}": ""}
    shown |= {f"{{{{ $labels.{name} }}}}": label for name, label in labels.items()}
    filled = {}
    for name, text in rule(alert)["annotations"].items():
        for mark, by in shown.items():
            text = text.replace(mark, by)  # noqa: PLW2901  one after the other
        filled[name] = text
    return filled


class TestKilledParent:
    def test_the_workers_remove_the_shared_memory(
        self, tmp_path: Path, issuer: LocalIssuer
    ) -> None:
        with started(tmp_path, issuer, *TWO) as broker:
            made = shared_memory(broker)
            broker.process.kill()
            broker.process.wait()
            assert until(lambda: not made.exists(), 30)
            assert "Traceback" not in broker.output()

    def test_the_next_start_removes_what_a_killed_broker_left(
        self, tmp_path: Path, issuer: LocalIssuer
    ) -> None:
        with started(tmp_path, issuer, *TWO) as broker:
            made = shared_memory(broker)
            for pid in (broker.pid, *broker.workers()):
                os.kill(pid, signal.SIGKILL)
            broker.process.wait()
            assert made.exists(), "nobody was left to remove it"
            broker.start()
            assert not made.exists()
            shutil.rmtree(made, ignore_errors=True)
