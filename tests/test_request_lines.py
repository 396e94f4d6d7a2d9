"""A request line that came before is decided like one that is new."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from federation.gateway.request_lines import RequestLines
from federation.gateway.routes import match, read
from tests.harness.gateway import Front

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH")
TARGETS = (
    "/system/functions?namespace=dev",
    "/system/functions?namespace=dev&namespace=staging",
    "/system/functions?Namespace=dev",
    "/system/functions",
    "/system/function/figlet?namespace=dev",
    "/system/function/figlet",
    "/system/function/..%2fsecrets",
    "/system/function/",
    "/system/logs?name=figlet&namespace=dev&follow=false",
    "/system/logs?namespace=dev",
    "/system/namespaces",
    "/system/namespace/dev",
    "/system/info",
    "/system/secrets?namespace=dev",
    "/healthz",
    "/function/figlet.dev",
    "/function/figlet.dev/a/b?c=d",
    "/function/figlet.dev/../x",
    "/function/figlet",
    "/function/",
    "/nothing",
)
HEADERS: tuple[dict[str, str], ...] = (
    {},
    {"content-type": "text/plain"},
    {"content-encoding": "gzip"},
    {"x-forwarded-for": "192.0.2.1"},
    {"content-length": "0"},
)
BODIES = (b"", b"x", b"{}")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("functions", ["authorize", "open"])
def test_it_gets_the_same_answer_and_has_the_same_effect(
    tmp_path: Path, functions: str, seed: int
) -> None:
    """Whatever came before it, with whichever headers, body and token."""
    chosen = random.Random(seed)  # noqa: S311  it chooses tests
    grants = ("Function:*", "dev:*"), ("Function:List", "staging:*"), ("*", "*")
    long = Front(tmp_path / "long", functions=functions)
    for number in range(40):
        method, target = chosen.choice(METHODS), chosen.choice(TARGETS)
        headers, body = chosen.choice(HEADERS), chosen.choice(BODIES)
        grant = chosen.choice(grants)
        fresh = Front(tmp_path / f"fresh-{number}", functions=functions)
        long.sample.received.clear()
        told = []
        for front in (long, long, fresh):
            answer = front.call(
                method, target, front.grant(grant), content=body, headers=dict(headers)
            )
            said = answer.text.partition(" Request id")[0]
            told.append((answer.status_code, said if answer.status_code >= 400 else ""))
        assert told[0] == told[1] == told[2], (method, target, headers, body)
        sent = [(r.method, r.target, bytes(r.body)) for r in (*long.received, *fresh.received)]
        assert len(set(sent)) <= 1


def test_few_and_short_lines_are_remembered() -> None:
    """A caller decides how many there are, and how long."""
    lines = RequestLines()
    method, path, query = "GET", b"/function/a.dev/" + b"x" * 600, b""
    matched = match(method, path, query, [])
    call = read(matched, b"", default_namespace="dev")
    lines.remember((method, path, query), matched, call)
    assert lines.get((method, path, query)) is None
    for number in range(2500):
        lines.remember((method, b"/function/a.dev", b"%d" % number), matched, call)
    kept = [n for n in range(2500) if lines.get((method, b"/function/a.dev", b"%d" % n))]
    assert kept[-1] == 2499
    assert len(kept) <= 1000
