"""Readiness: the broker is ready if it can answer exchanges; other problems are only listed."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest

from federation.audit.event import Trail
from federation.audit.journal import FileJournal
from federation.errors import Problem, Reason, Refusal, Severity
from federation.state.memory import MemoryStore
from tests.harness.broker import BrokenStore, InProcess
from tests.harness.builders import NOW
from tests.harness.issuer import answering
from tests.harness.journal_writer import sign

Told = TypeVar("Told")


class SilentStore(MemoryStore):
    """A store that never answers."""

    async def revoked(self, _jti: str) -> bool:
        await asyncio.Event().wait()
        raise AssertionError


def ready(broker: InProcess) -> tuple[int, dict[str, Any]]:
    answer = broker.ask("GET", "/readyz")
    return answer.status_code, answer.json()


def up(broker: InProcess, story: Callable[[httpx2.AsyncClient], Awaitable[Told]]) -> Told:
    """The result of *story* while the broker runs as it does in a server."""

    async def within(client: httpx2.AsyncClient) -> Told:
        async with broker.app.router.lifespan_context(broker.app):
            return await story(client)

    return broker.tell(within)


def test_a_healthy_broker_is_ready_without_problems() -> None:
    status, said = ready(InProcess())
    assert (status, said["status"]) == (200, "ok")
    assert said["unavailable"] == said["degraded"] == []


def test_a_store_that_cannot_answer_makes_it_unready_and_says_why() -> None:
    class Down(BrokenStore):
        async def revoked(self, _jti: str) -> bool:
            raise Refusal(Reason.STATE_UNAVAILABLE, evidence={"shared-state": "ConnectionError"})

    status, said = ready(InProcess(state=Down))
    assert (status, said["status"]) == (503, "unavailable")
    assert said["unavailable"] == ["store: ConnectionError"]


def test_a_store_that_does_not_answer_makes_it_unready_within_a_second() -> None:
    status, said = ready(InProcess(state=SilentStore))
    assert status == 503
    assert said["unavailable"] == ["store: no answer within a second"]


def test_a_journal_that_cannot_be_written_makes_it_unready_and_says_why(tmp_path: Path) -> None:
    broker = InProcess()
    (tmp_path / "audit").write_text("in the way")
    journal = FileJournal(tmp_path / "audit", 1 << 24, sign=sign)
    broker.app.state.health.journal = journal
    with pytest.raises(Refusal):
        asyncio.run(journal.record(Trail("id", "GET", "/", NOW).event(200)))
    status, said = ready(broker)
    assert status == 503
    assert said["unavailable"][0].startswith("audit journal: ")


def test_a_journal_that_cannot_be_sealed_leaves_it_ready_and_says_why(tmp_path: Path) -> None:
    def no_key(_payload: Mapping[str, object]) -> str:
        raise OSError(errno.EIO, "Input/output error")

    async def story() -> None:
        await journal.record(Trail("id", "GET", "/", NOW).event(200))
        await journal.aclose()

    broker = InProcess()
    journal = FileJournal(tmp_path / "audit", 1 << 24, sign=no_key)
    broker.app.state.health.journal = journal
    asyncio.run(story())
    status, said = ready(broker)
    assert (status, said["status"], said["unavailable"]) == (200, "degraded", [])
    assert said["degraded"] == ["audit journal: segments cannot be sealed: Input/output error"]


def test_documents_that_were_not_adopted_leave_it_ready() -> None:
    broker = InProcess()
    broker.source.refused = (Problem("x.yaml", 3, "D001", Severity.ERROR, "broken"),)
    status, said = ready(broker)
    assert (status, said["status"]) == (200, "degraded")
    assert said["degraded"] == ["documents: the last set was not adopted"]


def test_issuers_without_keys_leave_it_ready_and_are_named() -> None:
    broker = InProcess()
    broker.github.discovery = answering(500)

    async def story(client: httpx2.AsyncClient) -> dict[str, Any]:
        for _ in range(100):
            answer = await client.get("/readyz")
            if answer.status_code == 200:
                return dict(answer.json())
            await asyncio.sleep(0.05)
        raise AssertionError(answer.text)

    said = up(broker, story)
    assert said["status"] == "degraded"
    (told,) = said["degraded"]
    assert told.startswith("keys of github: none held; ")


def test_the_broker_is_not_ready_before_its_first_key_fetch() -> None:
    broker = InProcess()
    there = asyncio.Event()

    async def slow(request: httpx2.Request) -> httpx2.Response:
        await there.wait()
        return await broker.github.good_discovery(request)

    broker.github.discovery = slow

    async def story(client: httpx2.AsyncClient) -> list[int]:
        await asyncio.sleep(0.1)
        before = await client.get("/readyz")
        assert before.json()["unavailable"] == ["starting: the issuers' keys are being fetched"]
        alive = await client.get("/livez")
        there.set()
        await asyncio.sleep(0.1)
        after = await client.get("/readyz")
        return [before.status_code, alive.status_code, after.status_code]

    assert up(broker, story) == [503, 200, 200]
