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


PATH = b"/function/a.dev"


def remembered(lines: RequestLines, path: bytes, query: bytes) -> bool:
    """Remember a line. True if it is known then, with what it was remembered with."""
    matched = match("GET", PATH, b"", [])
    call = read(matched, b"", default_namespace="dev")
    lines.remember(("GET", path, query), matched, call)
    known = lines.get(("GET", path, query))
    assert known in (None, (matched, call))
    return known is not None


@pytest.mark.parametrize("in_path", [0, 100, 512 - len(PATH)])
def test_a_long_line_is_not_remembered(in_path: int) -> None:
    """A caller decides how long it is. Path and query count together."""
    path = PATH + b"x" * in_path
    query = b"x" * (512 - len(path))
    assert remembered(RequestLines(), path, query)
    assert not remembered(RequestLines(), path, query + b"x")
    assert not remembered(RequestLines(), path + b"x", query)


def test_a_thousand_lines_are_remembered_and_then_it_starts_anew() -> None:
    """A caller decides how many there are."""
    lines = RequestLines()

    def known() -> list[int]:
        return [n for n in range(1001) if lines.get(("GET", PATH, b"%d" % n)) is not None]

    for number in range(1000):
        assert remembered(lines, PATH, b"%d" % number)
    assert known() == list(range(1000))
    assert remembered(lines, PATH, b"1000")
    assert known() == [1000]


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
