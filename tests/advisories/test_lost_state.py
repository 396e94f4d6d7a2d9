"""
A state database that is removed or replaced under running workers.

Each worker went on with its own file, so that one subject token was granted once by each.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from federation.errors import Reason, Refusal
from federation.state.sqlite import SqliteStore
from tests.harness.broker import InProcess, form
from tests.harness.builders import NOW
from tests.harness.clock import Clock

UNTIL = NOW + 335
FILES = ("state.db", "state.db-wal", "state.db-shm")

Workers = tuple[SqliteStore, SqliteStore]


def removed(place: Path) -> None:
    for name in FILES:
        (place / name).unlink(missing_ok=True)


def removed_without_its_log(place: Path) -> None:
    (place / "state.db").unlink()


def log_removed(place: Path) -> None:
    (place / "state.db-wal").unlink()


def replaced_by_an_empty_one(place: Path) -> None:
    removed(place)
    with closing(sqlite3.connect(place / "state.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def replaced_by_a_copy(place: Path) -> None:
    shutil.copy(place / "state.db", place / "copy")
    (place / "copy").replace(place / "state.db")


def moved_with_its_folder(place: Path) -> None:
    place.rename(place.with_name("away"))
    place.mkdir()


LOSSES = (
    removed,
    removed_without_its_log,
    log_removed,
    replaced_by_an_empty_one,
    replaced_by_a_copy,
    moved_with_its_folder,
)


def tell(place: Path, story: Callable[[Workers], Awaitable[None]]) -> None:
    """Run *story* with the stores of two workers that share the state in *place*."""

    async def told() -> None:
        workers = tuple(SqliteStore(place / "state.db", Clock(NOW)) for _ in range(2))
        running = [asyncio.create_task(worker.run()) for worker in workers]
        try:
            await story((workers[0], workers[1]))
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for worker in workers:
                await worker.aclose()

    asyncio.run(asyncio.wait_for(told(), 20))


async def refused(worker: SqliteStore, key: str) -> str:
    with pytest.raises(Refusal) as caught:
        await worker.spend(key, UNTIL, NOW)
    assert caught.value.reason is Reason.STATE_UNAVAILABLE
    return str(caught.value.evidence)


@pytest.mark.parametrize("lose", LOSSES)
def test_no_token_is_granted_twice_after_the_database_is_lost(
    tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    place = tmp_path / "state"

    async def story(workers: Workers) -> None:
        one, two = workers
        assert await one.spend("a", UNTIL, NOW)
        assert not await two.spend("a", UNTIL, NOW)
        lose(place)
        for _ in range(3):
            for worker in workers:
                assert "removed or replaced" in await refused(worker, "b")
                assert "removed or replaced" in await refused(worker, "a")

    tell(place, story)


def test_a_worker_that_lost_its_connection_does_not_go_on_with_another_file(
    tmp_path: Path,
) -> None:
    async def story(workers: Workers) -> None:
        one, _ = workers
        assert await one.spend("a", UNTIL, NOW)
        with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await refused(one, "b")  # it closes the connection and will open another
            other.execute("ROLLBACK")
        removed(tmp_path)
        assert "removed or replaced" in await refused(one, "a")
        assert not (tmp_path / "state.db").exists()

    tell(tmp_path, story)


def test_a_database_that_is_put_back_is_used_again(tmp_path: Path) -> None:
    async def story(workers: Workers) -> None:
        one, two = workers
        assert await one.spend("a", UNTIL, NOW)
        assert await two.spend("b", UNTIL, NOW)
        for name in FILES:
            (tmp_path / name).rename(tmp_path / f"{name}.away")
        await refused(one, "c")
        for name in FILES:
            (tmp_path / f"{name}.away").rename(tmp_path / name)
        assert not await one.spend("b", UNTIL, NOW)
        assert not await two.spend("a", UNTIL, NOW)
        assert await two.spend("c", UNTIL, NOW)

    tell(tmp_path, story)


def test_readiness_says_that_the_database_is_lost(tmp_path: Path) -> None:
    broker = InProcess(state=lambda clock: SqliteStore(tmp_path / "state.db", clock))
    first, second = broker.job(), broker.job()

    async def story(client: httpx2.AsyncClient) -> tuple[int, int, tuple[str, ...]]:
        async with broker.app.router.lifespan_context(broker.app):
            granted = await client.post("/oauth/token", data=form(first))
            removed(tmp_path)
            await asyncio.sleep(1.2)
            report = await broker.app.state.health.report()
            late = await client.post("/oauth/token", data=form(second))
            return granted.status_code, late.status_code, report.unavailable

    granted, late, unavailable = broker.tell(story)
    assert (granted, late) == (200, 503)
    assert any("state.db was removed or replaced" in problem for problem in unavailable)
