"""Metrics: their values, their names, and that no caller can create a label."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from federation.audit.journal import Status
from federation.errors import Reason, Refusal
from federation.issuers.key_ring import KeyRing, KeyStatus
from federation.server.gauges import BrokerStatus
from federation.server.metrics import Metrics
from federation.server.metrics_endpoint import (
    WorkerFiles,
    exposition,
    metrics_server,
    remove_if_abandoned,
    worker_files,
)
from federation.server.readiness import Said
from federation.sources.kubernetes.source import Following
from federation.state.sqlite import SqliteStore
from tests.harness import builders as built
from tests.harness.broker import DOCUMENTS, InProcess, catalog_of, form, logged
from tests.harness.builders import NOW, issuer
from tests.harness.clock import Clock
from tests.harness.gateway import Front, header
from tests.harness.issuer import FakeIssuer, answering

ROOT = Path(__file__).parents[1]
MONITORING = ROOT / "deploy" / "monitoring"
PAGE = ROOT / "docs" / "monitoring.md"

Labels = Mapping[str, str]


def text(metrics: Metrics, pid: int = 0) -> str:
    """The metrics of one process, as Prometheus reads them."""
    return generate_latest(exposition(metrics.registry.collect, lambda: {"0": pid})).decode()


def samples(metrics: Metrics | str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    told = metrics if isinstance(metrics, str) else text(metrics)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(told)
        for sample in family.samples
    }


def value(metrics: Metrics | str, name: str, **labels: str) -> float | None:
    return samples(metrics).get((f"federation_{name}", tuple(sorted(labels.items()))))


def _timed_store(place: Path, metrics: Metrics) -> Callable[[Callable[[], float]], SqliteStore]:
    return lambda clock: SqliteStore(place, clock, observe=metrics.stored)


def counted(broker: InProcess) -> Metrics:
    metrics: Metrics = broker.app.state.metrics
    return metrics


class TestExchanges:
    def test_a_granted_exchange(self, tmp_path: Path) -> None:
        metrics = Metrics()
        broker = InProcess(state=_timed_store(tmp_path / "db", metrics), metrics=metrics)
        broker.exchange()
        assert value(metrics, "exchanges_total", outcome="granted", reason="") == 1
        assert value(metrics, "exchange_duration_seconds_count", outcome="granted") == 1
        assert value(
            metrics, "store_duration_seconds_count", operation="spend", outcome="answered"
        ) == 1  # fmt: skip

    def test_a_refused_exchange_by_reason(self) -> None:
        broker = InProcess()
        broker.exchange("a.b.c")
        broker.post("/oauth/token", {})
        for reason in ("malformed_token", "invalid_request"):
            told = value(counted(broker), "exchanges_total", outcome="refused", reason=reason)
            assert told == 1

    def test_an_exchange_without_a_store(self, tmp_path: Path) -> None:
        metrics = Metrics()
        not_a_file = tmp_path
        broker = InProcess(state=_timed_store(not_a_file, metrics), metrics=metrics)
        broker.exchange()
        labels = {"outcome": "unavailable", "reason": "state_unavailable"}
        assert value(metrics, "exchanges_total", **labels) == 1
        assert value(
            metrics, "store_duration_seconds_count", operation="spend", outcome="unavailable"
        ) == 1  # fmt: skip

    def test_an_exchange_whose_event_cannot_be_written_counts_as_answered(self) -> None:
        broker = InProcess()
        broker.journal.failure = Refusal(Reason.AUDIT_UNAVAILABLE)
        broker.exchange()
        labels = {"outcome": "unavailable", "reason": "audit_unavailable"}
        assert value(counted(broker), "exchanges_total", **labels) == 1

    def test_a_failed_exchange(self) -> None:
        broker = InProcess()
        broker.app.state.broker.source = None
        broker.exchange()
        labels = {"outcome": "failed", "reason": "server_error"}
        assert value(counted(broker), "exchanges_total", **labels) == 1

    def test_a_rate_limited_exchange(self) -> None:
        broker = InProcess(failed_exchanges=1)
        broker.exchange("a.b.c")
        broker.exchange("a.b.c")
        labels = {"outcome": "refused", "reason": "too_many_failures"}
        assert value(counted(broker), "exchanges_total", **labels) == 1

    @pytest.mark.parametrize("reason", [None, *Reason])
    def test_every_outcome_is_exposed_before_it_first_happens(self, reason: Reason | None) -> None:
        labels = [dict(labels) for name, labels in samples(Metrics())
                  if name == "federation_exchanges_total"]  # fmt: skip
        assert (reason or "") in {each["reason"] for each in labels}


class TestGateway:
    LIST = "/system/functions?namespace=dev"

    def test_decisions_by_action_and_outcome(self, tmp_path: Path) -> None:
        front = Front(tmp_path)
        token = front.grant(("Function:List", "dev:*"))
        front.call("GET", self.LIST, token)
        front.call("GET", "/system/secrets?namespace=dev", token)
        metrics = counted(front)
        for action, outcome in (("Function:List", "allowed"), ("Secret:List", "denied")):
            assert value(metrics, "decisions_total", action=action, outcome=outcome) == 1

    def test_gateway_requests_by_status(self, tmp_path: Path) -> None:
        front = Front(tmp_path)
        front.call("GET", self.LIST, front.grant(("Function:List", "dev:*")))
        front.call("GET", self.LIST)
        front.call("GET", "/nowhere")
        metrics = counted(front)
        assert value(metrics, "gateway_requests_total", status="2xx") == 1
        assert value(metrics, "gateway_requests_total", status="4xx") == 2

    def test_requests_without_a_good_token_by_reason(self, tmp_path: Path) -> None:
        front = Front(tmp_path)
        front.call("GET", self.LIST)
        front.call("GET", self.LIST, "x")
        front.call("GET", self.LIST, front.grant(("Function:List", "dev:*")))
        for reason in ("", "malformed_token"):
            assert value(counted(front), "gateway_not_authenticated_total", reason=reason) == 1

    def test_upstream_durations_by_route(self, tmp_path: Path) -> None:
        front = Front(tmp_path)
        front.call("GET", self.LIST, front.grant(("Function:List", "dev:*")))
        front.call("GET", "/function/figlet.dev")
        front.call("GET", "/healthz")
        for route in ("system", "function", "health"):
            name = "upstream_duration_seconds_count"
            assert value(counted(front), name, route=route, outcome="answered") == 1

    @pytest.mark.parametrize(
        ("failure", "outcome"),
        [(httpx2.ConnectError("no"), "failed"), (httpx2.ReadTimeout("no"), "timed_out")],
        ids=["failed", "timed_out"],
    )
    def test_an_upstream_that_does_not_answer(
        self, tmp_path: Path, failure: Exception, outcome: str
    ) -> None:
        def fail(_request: httpx2.Request) -> httpx2.Response:
            raise failure

        front = Front(tmp_path, transport=httpx2.MockTransport(fail))
        front.call("GET", self.LIST, front.grant(("Function:List", "dev:*")))
        metrics, name = counted(front), "upstream_duration_seconds_count"
        assert value(metrics, name, route="system", outcome=outcome) == 1
        assert value(metrics, "gateway_requests_total", status="5xx") == 1


class TestKeys:
    @pytest.mark.parametrize("outcome", ["fetched", "failed"])
    def test_fetches_by_issuer_and_outcome(self, outcome: str) -> None:
        metrics, fake = Metrics(), FakeIssuer()
        if outcome == "failed":
            fake.discovery = answering(500)
        ring = KeyRing(fake.connect, Clock(), on_fetch=metrics.fetched)
        asyncio.run(ring.refresh_due([issuer(iss=fake.iss)]))
        labels = {"issuer": issuer(iss=fake.iss).name, "outcome": outcome}
        assert value(metrics, "key_fetches_total", **labels) == 1


def status_of(documents: str = DOCUMENTS, **changes: Any) -> BrokerStatus:
    journal = Status(10, 100, 90, 3, 7.5, None)
    given: dict[str, Any] = {
        "ready": True, "degraded": False, "catalog": catalog_of(documents), "adopted": NOW - 60,
        "problems": 0, "keys": {}, "journal": journal, "now": NOW, "upstream_up": True,
    }  # fmt: skip
    return BrokerStatus(**(given | changes))


class TestGauges:
    def test_every_gauge_is_exposed(self) -> None:
        metrics = Metrics()
        metrics.set_gauges(
            status_of(keys={built.GITHUB: KeyStatus(2, False, 30.0, "")}, problems=4)
        )
        told = {
            "ready": 1, "degraded": 0, "catalog_problems": 4, "upstream_up": 1,
            "catalog_adopted_timestamp_seconds": NOW - 60,
            "journal_recording": 1, "journal_used_bytes": 10, "journal_allowed_bytes": 100,
            "journal_left_bytes": 90, "journal_undelivered_events": 3,
            "journal_oldest_undelivered_seconds": 7.5,
        }  # fmt: skip
        assert {name: value(metrics, name) for name in told} == told
        assert value(metrics, "catalog_documents", kind="Role") == 6
        assert value(metrics, "issuer_keys", issuer="github") == 2
        fetched = value(metrics, "issuer_keys_fetched_timestamp_seconds", issuer="github")
        assert fetched == NOW - 30

    @pytest.mark.parametrize(("up", "told"), [(True, 1), (False, 0), (None, None)])
    def test_without_an_upstream_nothing_is_said_of_it(
        self, up: bool | None, told: float | None
    ) -> None:
        metrics = Metrics()
        assert value(metrics, "upstream_up") is None
        metrics.set_gauges(status_of(upstream_up=up))
        assert value(metrics, "upstream_up") == told

    def test_keys_that_were_never_fetched_have_no_timestamp(self) -> None:
        metrics = Metrics()
        metrics.set_gauges(status_of())
        assert value(metrics, "issuer_keys", issuer="github") == 0
        assert value(metrics, "issuer_keys_fetched_timestamp_seconds", issuer="github") is None

    def test_a_removed_issuer_is_not_exposed(self) -> None:
        metrics = Metrics()
        metrics.set_gauges(status_of(keys={built.GITHUB: KeyStatus(2, False, 30.0, "")}))
        metrics.set_gauges(status_of(catalog=built.catalog()))
        assert 'issuer="github"' not in text(metrics)

    def test_a_journal_that_cannot_be_written_is_exposed(self) -> None:
        metrics = Metrics()
        metrics.set_gauges(status_of(journal=Status(0, 100, 0, 0, 0.0, "No space left on device")))
        assert value(metrics, "journal_recording") == 0

    def test_a_running_broker_sets_its_gauges(self) -> None:
        broker = InProcess()

        async def story(_client: httpx2.AsyncClient) -> None:
            async with broker.app.router.lifespan_context(broker.app):
                await asyncio.sleep(0.2)

        broker.tell(story)
        assert value(counted(broker), "catalog_documents", kind="JwtIssuer") == 3

    def test_nothing_a_caller_sends_becomes_a_label(self, tmp_path: Path) -> None:
        front = Front(tmp_path)
        words = "a-word-of-the-caller"
        front.exchange(front.job(sub=words, repository=words, actor=words))
        front.post("/oauth/token", form(words), headers={"X-Request-Id": words})
        front.call("GET", f"/{words}", front.grant(("*", "*")), headers={"User-Agent": words})
        front.call("GET", f"/function/{words}.{words}")
        front.call(words.upper(), "/system/functions")
        assert words not in text(counted(front)).lower()


# -- several processes


def count_as_worker(worker: int, folder: Path, grants: int) -> None:
    """Run a process that counts *grants* grants as *worker*, and is then killed."""
    code = (
        "import os, signal\n"
        "from federation.server.metrics import Metrics\n"
        "from federation.server.metrics_endpoint import count_in_files_of\n"
        f"count_in_files_of({worker})\n"
        "metrics = Metrics()\n"
        f"for _ in range({grants}): metrics.exchanged(None, 0.01)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(  # noqa: S603  our own program
        [sys.executable, "-c", code],
        env={"PROMETHEUS_MULTIPROC_DIR": str(folder)},
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == -signal.SIGKILL


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[WorkerFiles]:
    with worker_files(tmp_path) as files:
        yield files


def text_of_all(shared: WorkerFiles) -> str:
    return generate_latest(exposition(shared.collect, dict)).decode()


class TestSeveralProcesses:
    def test_totals_are_of_all_workers_and_outlive_each(self, shared: WorkerFiles) -> None:
        for worker, grants in enumerate((2, 3)):
            count_as_worker(worker, shared.path, grants)
        for worker in range(3):
            told = text_of_all(shared)
            assert value(told, "exchanges_total", outcome="granted", reason="") == 5
            assert value(told, "exchange_duration_seconds_count", outcome="granted") == 5
            shared.ended(worker)

    def test_a_worker_that_ended_has_no_gauges(self, shared: WorkerFiles) -> None:
        count_as_worker(0, shared.path, 1)
        assert value(text_of_all(shared), "ready") == 0
        shared.ended(0)
        assert value(text_of_all(shared), "ready") is None

    def test_restarts_add_no_files_and_lose_no_counts(self, shared: WorkerFiles) -> None:
        for _ in range(3):
            count_as_worker(0, shared.path, 1)
            shared.ended(0)
        assert {path.name for path in shared.path.iterdir()} == {"counter_0.db", "histogram_0.db"}
        told = text_of_all(shared)
        assert value(told, "exchanges_total", outcome="granted", reason="") == 3
        assert value(told, "exchange_duration_seconds_count", outcome="granted") == 3

    def test_the_directory_is_removed_at_the_end(self, tmp_path: Path) -> None:
        with worker_files(tmp_path) as files:
            assert files.path.is_dir()
        assert not files.path.exists()

    def test_the_next_start_removes_the_directory_of_a_killed_broker_only(
        self, shared: WorkerFiles, tmp_path: Path
    ) -> None:
        names = ("metrics-left", "new-metrics-left", "new-metrics-young")
        left, old, young = folders = [shared.path.parent / f"federation-{name}" for name in names]
        try:
            for folder in folders:
                folder.mkdir()
            for folder in (old, shared.path):
                long_ago = time.time() - 3600
                os.utime(folder, (long_ago, long_ago))
            with worker_files(tmp_path):
                assert not left.exists(), "it was locked once, and is no more"
                assert not old.exists()
                assert young.exists(), "its broker may not have locked it yet"
                assert shared.path.exists()
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)

    def test_workers_of_a_killed_broker_remove_its_directory(self, tmp_path: Path) -> None:
        with worker_files(tmp_path) as files:
            remove_if_abandoned(files.path)
            assert files.path.exists()
            moved = files.path.with_name("federation-metrics-moved")
            moved.mkdir()
            remove_if_abandoned(moved)
            assert not moved.exists()
        remove_if_abandoned(files.path)

    def test_workers_that_serve_are_counted(self, shared: WorkerFiles) -> None:
        told = generate_latest(exposition(shared.collect, dict, lambda: (1, 2))).decode()
        assert value(told, "workers", state="serving") == 1
        assert value(told, "workers", state="configured") == 2


# -- the port


class TestPort:
    @pytest.fixture
    def url(self) -> Iterator[str]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            registry = exposition(Metrics().registry.collect, dict)
            reports = {"0": Said(time.monotonic(), {"status": "degraded", "degraded": ["keys"]})}
            with metrics_server(listener, registry, lambda: reports):
                yield f"http://127.0.0.1:{port}"

    def test_it_says_how_the_broker_is_in_full(self, url: str) -> None:
        alive, ready = httpx2.get(f"{url}/livez"), httpx2.get(f"{url}/readyz")
        assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
        assert (ready.status_code, ready.json()) == (
            200,
            {"status": "degraded", "degraded": ["keys"]},
        )
        assert ready.headers["content-type"] == "application/json"

    def test_it_serves_metrics_and_nothing_else(self, url: str) -> None:
        answer = httpx2.get(f"{url}/metrics?x=y")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert "federation_exchanges_total" in answer.text
        assert httpx2.get(f"{url}/").status_code == 404
        assert httpx2.post(f"{url}/metrics").status_code == 501

    def test_it_does_not_name_its_software(self, url: str) -> None:
        for path in ("/metrics", "/"):
            assert "python" not in str(httpx2.get(f"{url}{path}").headers).lower()

    def test_silent_connections_do_not_block_it_for_long(self, url: str) -> None:
        place = httpx2.URL(url)
        silent = [socket.create_connection((place.host, place.port or 0)) for _ in range(20)]
        try:
            for _ in range(100):
                try:
                    assert httpx2.get(f"{url}/metrics", timeout=10).status_code == 200
                    break
                except httpx2.TransportError:
                    time.sleep(0.1)
            else:
                pytest.fail("it was held up")
        finally:
            for connection in silent:
                connection.close()


# -- names


@cache
def exposed() -> str:
    """The metrics of a broker in which each event has happened."""
    metrics = Metrics()
    metrics.exchanged(None, 0.1)
    metrics.revoked("revoked")
    metrics.decided("Function:List", True)
    metrics.answered(200)
    metrics.forwarded("system", "answered", 0.1)
    metrics.fetched(issuer(), True)
    metrics.stored("spend", True, 0.1)
    metrics.reloaded(True)
    metrics.event_lost()
    following = Following("here", True, (), 1.0, {}, 0, ())
    keys = {built.GITHUB: KeyStatus(2, False, 30.0, "")}
    metrics.set_gauges(status_of(keys=keys, following=following))
    return text(metrics, os.getpid())


@cache
def families() -> dict[str, str]:
    """Every metric with its kind."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): family.type
        for family in text_string_to_metric_families(exposed())
    }


def series() -> set[str]:
    """Every name that a query may use."""
    names = set()
    for name, kind in families().items():
        suffixes = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        names |= {name + suffix for suffix in suffixes}
    return names


def alerts() -> list[Mapping[str, Any]]:
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text("utf-8"))
    return [rule for group in rules["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    dashboard = json.loads((MONITORING / "grafana.json").read_text("utf-8"))
    shown = [t["expr"] for panel in dashboard["panels"] for t in panel.get("targets", ())]
    return shown + [alert["expr"] for alert in alerts()]


def names_in(query: str) -> set[str]:
    return set(re.findall(r"\b(?:federation|process)_[a-z_]+", query))


@pytest.mark.parametrize("query", queries())
def test_every_name_in_the_dashboard_and_the_alerts_is_exposed(query: str) -> None:
    named = names_in(query)
    assert named or query.startswith("up{")
    assert named <= series()


def test_every_alert_has_a_severity_and_a_description() -> None:
    assert len({alert["alert"] for alert in alerts()}) == len(alerts())
    for alert in alerts():
        assert alert["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "description"} <= alert["annotations"].keys()
        assert re.fullmatch(r"[0-9]+m", alert["for"])


FIGURES = {
    *("federation_shadow_role_admissions_total", "federation_revocations_total"),
    *("federation_decisions_total", "federation_gateway_requests_total"),
    *("federation_gateway_not_authenticated_total", "federation_build_info"),
    # Each of these is beside one that an alert reads.
    *("federation_key_fetches_total", "federation_catalog_reloads_total"),
    *("federation_catalog_adopted_timestamp_seconds", "federation_catalog_documents"),
    *("federation_journal_used_bytes", "federation_journal_undelivered_events"),
}
"""Metrics that need no operator, whatever their value."""


def test_every_metric_of_what_somebody_must_mend_has_an_alert() -> None:
    ends = re.compile("_(?:bucket|count|sum)$")
    named = {ends.sub("", name) for alert in alerts() for name in names_in(alert["expr"])}
    ours = {name for name in families() if name.startswith("federation_")}
    assert ours - named == FIGURES


_MATCHER = re.compile(r'(\w+)(=~|!=|=)"([^"]*)"')
_ADDED = {"job", "instance"}
"""Labels that Prometheus adds when it scrapes."""


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: str(alert["alert"]))
def test_every_label_and_value_in_an_alert_is_one_of_its_metric(alert: Mapping[str, Any]) -> None:
    told = [(name, dict(labels)) for name, labels in samples(exposed())]
    for name, matchers in re.findall(r"\b((?:federation|process)_\w+)\{([^}]*)\}", alert["expr"]):
        for label, operator, sought in _MATCHER.findall(matchers):
            values = {labels.get(label) for each, labels in told if each == name}
            for one in sought.split("|") if label not in _ADDED else ():
                assert one in values, f"{label}{operator}{one}"
    named = names_in(alert["expr"])
    known = {label for name, labels in told if name in named for label in labels} | _ADDED
    written = " ".join(alert["annotations"].values())
    grouped = re.findall(r"by \(([^)]*)\)", alert["expr"])
    assert set(re.findall(r"\$labels\.(\w+)", written)) <= known
    for labels in grouped:
        assert set(re.findall(r"\w+", labels)) <= known
        assert set(re.findall(r"\$labels\.(\w+)", written)) <= set(re.findall(r"\w+", labels))


def test_every_metric_but_those_of_processes_is_on_the_dashboard() -> None:
    shown = (MONITORING / "grafana.json").read_text("utf-8")
    missing = {name for name in families() if name.startswith("federation_")}
    assert not {name for name in missing if name not in shown}


def test_every_metric_is_in_the_docs_with_its_kind_and_labels() -> None:
    page = PAGE.read_text("utf-8")
    for name, kind in families().items():
        row = rf"^\| `{name}` \| {kind} \|" if name.startswith("federation_") else rf"`{name}`"
        assert re.search(row, page, re.MULTILINE), name


def test_every_metric_in_the_docs_is_exposed() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert {name for name in rows if name.startswith("federation_")} <= families().keys()


def test_every_label_is_in_the_docs() -> None:
    page = PAGE.read_text("utf-8")
    labels = {label for _, labels in samples(Metrics()) for label, _ in labels} - {"le"}
    assert all(f"`{label}`" in page for label in labels)


# -- one id


def test_a_request_id_is_the_same_in_answer_log_event_and_upstream(tmp_path: Path) -> None:
    front = Front(tmp_path, trusted_proxies="127.0.0.0/8")
    deployment = {"service": "figlet", "image": "figlet:2", "namespace": "dev"}
    with logged() as log:
        answer = front.call(
            "PUT",
            "/system/functions",
            front.grant(("Function:*", "dev:*")),
            json=deployment,
            headers={"X-Request-Id": "from-the-ingress.1"},
        )
    assert answer.is_success, answer.text
    assert answer.headers["x-request-id"] == "from-the-ingress.1"
    assert front.journal.events[-1].request_id == "from-the-ingress.1"
    assert header(front.received[-1], "x-request-id") == b"from-the-ingress.1"
    assert [line for line in lines(log.getvalue()) if line.get("request_id")] == [
        line for line in lines(log.getvalue()) if line.get("request_id") == "from-the-ingress.1"
    ]
    assert "from-the-ingress.1" in log.getvalue()


@pytest.mark.parametrize("given", [None, "", "two words", "x" * 65, "a\\b"])
def test_a_request_id_is_made_if_none_or_an_unusable_one_arrives(
    tmp_path: Path, given: str | None
) -> None:
    front = Front(tmp_path, trusted_proxies="127.0.0.0/8")
    headers = {} if given is None else {"X-Request-Id": given}
    with logged() as log:
        answer = front.post(
            "/oauth/token", form(front.job(ref="refs/heads/topic")), headers=headers
        )
    made = answer.json()["request_id"]
    assert re.fullmatch(r"[0-9a-f]{32}", made)
    assert answer.headers["x-request-id"] == made
    assert front.journal.events[-1].request_id == made
    assert {line["request_id"] for line in lines(log.getvalue()) if "request_id" in line} == {made}


def lines(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.splitlines()]


@pytest.mark.parametrize(
    ("target", "status", "event"),
    [
        pytest.param("/system/functions?namespace=dev", 403, "gateway request refused", id="denied"),
        pytest.param("/nowhere?secret=word", 403, "gateway request refused", id="not mapped"),
        pytest.param("/system/functions?namespace=a&namespace=b&secret=word", 403,
                     "gateway request refused", id="ambiguous"),
    ],
)  # fmt: skip
def test_a_refused_gateway_request_is_logged(
    tmp_path: Path, target: str, status: int, event: str
) -> None:
    front = Front(tmp_path)
    token = front.grant(("Function:Get", "dev:*"))
    with logged() as log:
        answer = front.call("GET", target, token)
    assert answer.status_code == status
    (line,) = [line for line in lines(log.getvalue()) if line["event"] == event]
    assert line["request_id"] == answer.headers["x-request-id"]
    assert (line["method"], line["response_code"]) == ("GET", status)
    assert line["sub"].startswith("fed:")
    assert line["sentence"] in answer.text
    assert token not in log.getvalue()
    assert "secret" not in log.getvalue()


def test_a_gateway_request_without_a_valid_token_is_logged(tmp_path: Path) -> None:
    front = Front(tmp_path)
    with logged() as log:
        answer = front.call("GET", "/system/functions", "not.a.token")
    assert answer.status_code == 401
    (line,) = lines(log.getvalue())
    assert (line["event"], line["reason"]) == ("gateway request refused", "malformed_token")


def test_a_failed_gateway_request_is_logged(tmp_path: Path) -> None:
    def fail(_request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("no")

    front = Front(tmp_path, transport=httpx2.MockTransport(fail))
    with logged() as log:
        answer = front.call(
            "GET", "/system/functions?namespace=dev", front.grant(("Function:List", "dev:*"))
        )
    assert answer.status_code == 502
    (line,) = [one for one in lines(log.getvalue()) if one["event"] == "gateway request failed"]
    assert line["request_id"] == answer.headers["x-request-id"]
    assert line["level"] == "warning"
