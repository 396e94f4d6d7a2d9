"""The promises of docs/reverse-proxies.md about its configurations, with the real programs."""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx2
import pytest

from tests.harness.gateway import Fronted, fronted
from tests.harness.process import ROOT, until
from tests.harness.reverse_proxies.documented import CADDY, HAPROXY, NGINX, PAGE, Documented

pytestmark = pytest.mark.e2e

MADE_UP = "192.0.2.77"
MIB = 1 << 20


@pytest.fixture(scope="module", name="front")
def _front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    flags = ("--trusted-proxies", "127.0.0.1", "--failed-exchanges", "1000000", "--access-log=on")
    with fronted(tmp_path_factory.mktemp("broker"), *flags) as up:
        up.reset()
        yield up


@dataclass(frozen=True)
class Through:
    """A broker, and a client of the proxy in front of it."""

    front: Fronted
    http: httpx2.Client


@pytest.fixture(
    scope="module", name="through", params=[NGINX, CADDY, HAPROXY], ids=lambda each: each.program
)
def _through(request: pytest.FixtureRequest, front: Fronted) -> Iterator[Through]:
    proxy: Documented = request.param
    with ExitStack() as stack:
        url, ca = stack.enter_context(proxy.running(front.broker.url))
        context = ssl.create_default_context(cafile=ca)
        client = httpx2.Client(base_url=url, verify=context, timeout=30, trust_env=False)
        yield Through(front, stack.enter_context(client))


def test_a_caller_cannot_choose_its_address(through: Through) -> None:
    headers = {"X-Forwarded-For": MADE_UP, "Forwarded": f"for={MADE_UP}", "X-Real-IP": MADE_UP}
    answer = through.http.post("/oauth/token", data={"x": "y"}, headers=headers)
    logged = partial(access_lines, through.front, answer.json()["request_id"])
    assert until(lambda: bool(logged()), 10)
    assert [line["client"] for line in logged()] == ["127.0.0.1"]


def access_lines(front: Fronted, request_id: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in front.broker.output().splitlines() if '"access"' in line]
    return [line for line in lines if line["request_id"] == request_id]


def test_a_function_gets_the_callers_address_and_scheme_from_the_proxy(through: Through) -> None:
    headers = {"X-Forwarded-For": MADE_UP, "X-Forwarded-Proto": "gopher", "Forwarded": "for=x"}
    through.front.reset()
    through.http.get("/function/figlet.dev", headers=headers).raise_for_status()
    state = through.front.state()
    (headers_of,) = [h for r, h in zip(state["received"], state["headers"], strict=True)
                     if r == "GET /function/figlet.dev"]  # fmt: skip
    given = dict(headers_of)
    assert given["x-forwarded-for"] == "127.0.0.1, 127.0.0.1"
    assert given["x-forwarded-proto"] == "https"
    assert given["x-forwarded-host"].startswith("127.0.0.1")
    assert "forwarded" not in given


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/readyz?x", "/%72eadyz", "//readyz"])
def test_health_is_not_published(through: Through, path: str) -> None:
    answer = through.http.get(path)
    # The broker asks for a token for a path that it does not know.
    assert answer.status_code in {401, 404}
    assert "status" not in answer.text


def test_what_faas_cli_asks_first_is_published(through: Through) -> None:
    assert through.http.get("/healthz").status_code == 200
    assert through.http.get("/.well-known/openid-configuration").status_code == 200


def test_a_caller_cannot_choose_its_request_id(through: Through) -> None:
    answer = through.http.post("/oauth/token", data={"x": "y"}, headers={"X-Request-Id": "mine"})
    assert answer.json()["request_id"] == answer.headers["x-request-id"] != "mine"


def test_the_longest_token_reaches_the_broker(through: Through) -> None:
    password = "a" * (16 * 1024)
    basic = base64.b64encode(f"token:{password}".encode()).decode()
    answer = through.http.get("/system/functions", headers={"Authorization": f"Basic {basic}"})
    assert (answer.status_code, answer.headers["www-authenticate"][:6]) == (401, "Bearer")


def test_the_largest_bodies_reach_the_broker(through: Through) -> None:
    headers = {"Authorization": f"Bearer {through.front.token()}"}
    deployed = {"service": "large", "image": "i:1", "namespace": "dev", "labels": {}}
    deployed["labels"] = {"padding": "x" * (9 * MIB)}
    answer = through.http.post("/system/functions", json=deployed, headers=headers)
    assert answer.status_code == 202, answer.text[:300]
    sent = through.http.post("/function/figlet.dev", content=bytes(12 * MIB))
    assert (sent.status_code, sent.headers["x-received-bytes"]) == (200, str(12 * MIB))


def test_a_path_reaches_the_broker_as_it_was_sent(through: Through) -> None:
    """A proxy that cleans a path first would hide from the broker what it refuses."""
    for path in ("/system//functions", "/system/%66unctions", "/function/figlet.dev/%2e%2e/x"):
        headers = {"Authorization": f"Bearer {through.front.token()}"}
        answer = through.http.get(path, headers=headers)
        assert answer.status_code == 403, path
        assert answer.headers["x-request-id"], path


def test_a_followed_log_arrives_line_by_line(through: Through) -> None:
    headers = {"Authorization": f"Bearer {through.front.token()}"}
    path = "/system/logs?follow=true&name=figlet&namespace=dev"
    with through.http.stream("GET", path, headers=headers) as log:
        lines = log.iter_lines()
        assert "deployed figlet" in next(lines)
        began = time.monotonic()
        through.front.directly("POST", "/function/figlet.dev/live")
        assert any("figlet.dev/live" in line for line in lines)
        assert time.monotonic() - began < 5


def test_the_configuration_in_deploy_is_the_one_that_is_run_here() -> None:
    tried = re.search(
        r"^## Caddy\n\n```text\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    assert tried
    assert tried[1] in (ROOT / "docs" / "deploy.md").read_text("utf-8")
