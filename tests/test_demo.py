"""The demo, run as a new user runs it, and the small gateway that it starts."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from federation.demo.upstream import DemoGateway


def test_one_job_is_admitted_and_one_refused_and_nothing_is_left(tmp_path: Path) -> None:
    environ = {name: v for name, v in os.environ.items() if not name.startswith("FEDERATION_")}
    done = subprocess.run(
        [sys.executable, "-m", "federation", "demo"],
        cwd=tmp_path,
        env={**environ, "TMPDIR": str(tmp_path), "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "admitted" in done.stdout
    assert "refused" in done.stdout
    assert "No policies found for subject" in done.stdout
    assert "All as it should be." in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    # Neither a token nor anything that a next run could trip over stays behind.
    assert not re.search(r"eyJ[A-Za-z0-9_-]{20,}\.", done.stdout + done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_the_first_line_does_not_wait_for_the_servers_to_be_imported() -> None:
    code = "import sys, federation.cli.demo; print({'federation.app', 'uvicorn'} & {*sys.modules})"
    done = subprocess.run(  # noqa: S603  our own words
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "set()\n"


FIGLET = {"service": "figlet", "image": "figlet:1", "namespace": "dev"}


class TestGateway:
    @staticmethod
    def asked(*requests: tuple[Any, ...], given: str = "secret") -> list[httpx2.Response]:
        transport = httpx2.ASGITransport(DemoGateway("admin", "secret").app)

        async def ask() -> list[httpx2.Response]:
            auth = ("admin", given)
            async with httpx2.AsyncClient(
                transport=transport, base_url="http://gateway.test", auth=auth
            ) as client:
                return [
                    await client.request(method, target, json=body[0] if body else None)
                    for method, target, *body in requests
                ]

        return asyncio.run(ask())

    def test_a_function_is_created_updated_and_listed_in_its_namespace(self) -> None:
        *changes, there, elsewhere = self.asked(
            ("PUT", "/system/functions", FIGLET),
            ("POST", "/system/functions", FIGLET),
            ("POST", "/system/functions", FIGLET),
            ("PUT", "/system/functions", {**FIGLET, "image": "figlet:2"}),
            ("GET", "/system/functions?namespace=dev"),
            ("GET", "/system/functions"),
        )
        assert [answer.status_code for answer in changes] == [404, 202, 409, 202]
        assert changes[0].text == "function figlet not found"
        assert [function["image"] for function in there.json()] == ["figlet:2"]
        assert elsewhere.json() == []

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
    def test_a_caller_without_the_password_is_refused(self, method: str) -> None:
        (answer,) = self.asked((method, "/system/functions", FIGLET), given="guessed")
        assert answer.status_code == 401

    def test_it_says_that_it_is_healthy(self) -> None:
        (answer,) = self.asked(("GET", "/healthz"), given="")
        assert (answer.status_code, answer.text) == (200, "OK")
