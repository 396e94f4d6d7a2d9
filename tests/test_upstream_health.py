"""The upstream's health: why calls would fail there, and what counts as well."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from federation.gateway import upstream_health
from federation.gateway.client import ConnectionPool
from federation.gateway.upstream import BasicAuth, Upstream
from federation.gateway.upstream_health import password_problem, upstream_problem
from tests.harness.process import free_port
from tests.harness.raw_server import http_answer, raw_server


def problem_at(answer: bytes | None, auth: BasicAuth | None = None) -> tuple[str, list[str]]:
    """The problem of an upstream that gives *answer* or none, and the paths it was asked for."""

    async def story() -> tuple[str, list[str]]:
        async def reply(_path: str, writer: asyncio.StreamWriter) -> None:
            if answer is None:
                await asyncio.sleep(30)
            writer.write(answer or b"")

        async with raw_server(reply) as (url, asked):
            return await ask(url, auth), asked

    return asyncio.run(story())


async def ask(url: str, auth: BasicAuth | None = None) -> str:
    pool = ConnectionPool(url, 10, 60)
    try:
        return await upstream_problem(Upstream(pool, pool, pool, auth))
    finally:
        await pool.aclose()


@pytest.mark.parametrize(
    "status", ["200 OK", "204 No Content", "401 Unauthorized", "404 Not Found"]
)
def test_an_upstream_that_answers_is_well(status: str) -> None:
    assert problem_at(http_answer("", status)) == ("", ["/healthz"])


def test_one_that_says_it_is_not_well_is_not() -> None:
    problem, _ = problem_at(http_answer("", "503 Service Unavailable"))
    assert problem == "GET /healthz is answered with 503"


def test_one_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_health, "_SECONDS", 0.2)
    assert problem_at(None)[0] == "no answer within 0.2 s"


def test_one_that_hangs_up_is_not_well() -> None:
    assert problem_at(b"")[0] == "it closed the connection before its answer was complete"


def test_one_that_is_not_there_is_not_well() -> None:
    problem = asyncio.run(ask(f"http://127.0.0.1:{free_port()}"))
    assert problem == "nothing listens there (connection refused); check host and port"


def test_without_its_password_calls_would_fail_and_it_is_not_asked(tmp_path: Path) -> None:
    problem, asked = problem_at(http_answer(""), BasicAuth(tmp_path))
    assert problem.startswith("its password cannot be read")
    assert asked == []


def test_a_password_that_the_api_does_not_take_is_told_without_it(tmp_path: Path) -> None:
    (tmp_path / "basic-auth-user").write_text("admin")
    (tmp_path / "basic-auth-password").write_text("hunter2")

    async def story(auth: BasicAuth | None, status: str) -> str:
        async def reply(_path: str, writer: asyncio.StreamWriter) -> None:
            writer.write(http_answer("", status))

        async with raw_server(reply) as (url, asked):
            pool = ConnectionPool(url, 10, 60)
            try:
                problem = await password_problem(Upstream(pool, pool, pool, auth))
            finally:
                await pool.aclose()
            assert asked == ["/system/info"]
            return problem

    refused = asyncio.run(story(BasicAuth(tmp_path), "401 Unauthorized"))
    assert refused.startswith("its API answers 401 to the password; ")
    assert "hunter2" not in refused
    without = asyncio.run(story(None, "401 Unauthorized"))
    assert without.endswith("; set --upstream-secrets")
    assert asyncio.run(story(BasicAuth(tmp_path), "200 OK")) == ""
    assert asyncio.run(story(BasicAuth(tmp_path), "404 Not Found")) == ""
