"""Documents and callers that would make a change late: very many faults, and very many requests."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from federation.documents.assemble import assemble
from federation.documents.parse import parse
from federation.sources.files import FileSource
from tests.harness.builders import GITHUB
from tests.harness.documents import DEPLOY, as_text, document, issuer, role


def test_a_role_with_very_many_faults_is_read_in_time_that_grows_with_them() -> None:
    def seconds(keys: int) -> float:
        values = [f" v{number}" for number in range(1000)]  # each begins with a space
        condition = {"StringEqual": {f"jwt:c{number}": values for number in range(keys)}}
        spec = {"policy": ["deploy"], "principal": {"jwt:iss": GITHUB}, "condition": condition}
        text = as_text(issuer("github", GITHUB), DEPLOY, document("Role", "faulty", spec))
        parsed = parse("set.yaml", text.encode())
        began = time.thread_time()
        assert len(assemble([parsed]).problems) >= 1000 * keys
        return time.thread_time() - began

    few, many = seconds(4), seconds(32)
    assert many < 3 * 8 * few


def test_a_caller_keeps_no_right_longer_by_sending_many_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = [role(f"r{number}", GITHUB, f"b{number}") for number in range(3000)]
    text = as_text(issuer("github", GITHUB), DEPLOY, *roles)
    path = tmp_path / "set.yaml"

    async def seconds() -> float:
        path.write_text(text)
        adopted = asyncio.Event()
        source = FileSource([path], on_change=lambda _assembled: adopted.set())
        watching = asyncio.create_task(source.watch())
        path.write_text(text.replace("b1500", "another"))
        began = time.perf_counter()
        source.reload()
        await asyncio.wait_for(adopted.wait(), 60)
        watching.cancel()
        return time.perf_counter() - began

    quiet = asyncio.run(seconds())
    busy_cores = 2
    monkeypatch.setattr(
        time, "process_time", lambda: time.thread_time() + busy_cores * time.perf_counter()
    )
    assert asyncio.run(seconds()) < 3 * quiet + 0.2
