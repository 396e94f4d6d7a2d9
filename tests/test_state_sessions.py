"""The promises that every session store keeps."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from federation.state import sqlite_sessions
from federation.state.redis_sessions import RedisSessions
from federation.state.sessions import OF_ONE_TAG, MemorySessions, SessionStore
from federation.state.sqlite_sessions import SqliteSessions
from tests.harness.clock import Clock
from tests.harness.redis import ask_redis, empty_redis, redis_server

Clocked = Callable[[], float]
Open = Callable[[Clocked], SessionStore]
Story = Callable[[SessionStore, Clock], Awaitable[None]]

KINDS = ("memory", "sqlite", "redis")
LASTING = ("sqlite", "redis")


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis for these tests."""
    with redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens a store of the kind that the test names."""
    match request.param:
        case "memory":
            return MemorySessions
        case "sqlite":
            return lambda clock: SqliteSessions(tmp_path / "db", clock)
        case _:
            port: int = request.getfixturevalue("redis_port")
            empty_redis(port)
            return lambda clock: RedisSessions(
                f"redis://127.0.0.1:{port}/0", clock, tmp_path / "epoch"
            )


any_store = pytest.mark.parametrize("opened", KINDS, indirect=True)
lasting_store = pytest.mark.parametrize("opened", LASTING, indirect=True)


def tell(opened: Open, story: Story) -> None:
    """Run *story* with a store whose background work runs, as in a server."""

    async def told() -> None:
        clock = Clock(time.time())  # Redis has a clock of its own
        store = opened(clock)
        running = asyncio.create_task(store.run())
        try:
            await story(store, clock)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await store.aclose()

    asyncio.run(asyncio.wait_for(told(), 30))


async def passes(clock: Clock, seconds: float) -> None:
    """Let so much time pass, for the store's clock and for Redis."""
    clock.advance(seconds)
    await asyncio.sleep(seconds)


@any_store
def test_what_was_put_is_there_until_it_is_deleted(opened: Open) -> None:
    async def story(store: SessionStore, clock: Clock) -> None:
        assert await store.get("a") is None
        await store.put("a", "one", clock() + 60)
        assert await store.get("a") == "one"
        await store.put("a", "two \N{SNOWMAN}\n", clock() + 60)
        assert await store.get("a") == "two \N{SNOWMAN}\n"
        assert await store.delete("a")
        assert await store.get("a") is None
        assert not await store.delete("a")

    tell(opened, story)


@any_store
def test_what_expired_is_not_there(opened: Open) -> None:
    async def story(store: SessionStore, clock: Clock) -> None:
        await store.put("a", "one", clock() + 0.5)
        await store.put("b", "two", clock() + 60)
        await passes(clock, 0.6)
        assert await store.get("a") is None
        assert not await store.replace("a", "new", clock() + 60)
        assert not await store.delete("a")
        assert await store.get("b") == "two"

    tell(opened, story)


@any_store
def test_a_look_keeps_it_longer_but_not_beyond_its_end(opened: Open) -> None:
    async def story(store: SessionStore, clock: Clock) -> None:
        await store.put("idle", "value", clock() + 1, ends=clock() + 60)
        await store.put("ends", "value", clock() + 1, ends=clock() + 2)
        for key in ("idle", "ends"):
            assert await store.get(key, clock() + 30) == "value"
        await passes(clock, 1.2)
        assert await store.get("idle", clock() + 30) == "value"
        await passes(clock, 1)
        assert await store.get("ends") is None
        assert await store.get("idle") == "value"

    tell(opened, story)


@any_store
def test_what_was_deleted_is_not_brought_back_by_a_replacement(opened: Open) -> None:
    async def story(store: SessionStore, clock: Clock) -> None:
        await store.put("a", "one", clock() + 60)
        assert await store.replace("a", "two", clock() + 60)
        assert await store.get("a") == "two"
        await store.delete("a")
        assert not await store.replace("a", "three", clock() + 60)
        assert await store.get("a") is None

    tell(opened, story)


@any_store
def test_a_replacement_keeps_end_and_tags(opened: Open) -> None:
    async def story(store: SessionStore, clock: Clock) -> None:
        await store.put("a", "one", clock() + 60, ["alice"], clock() + 60)
        assert await store.replace("a", "two", clock() + 60)
        assert await store.delete_tagged("alice") == 1
        await store.put("b", "one", clock() + 1, [], clock() + 1)
        assert await store.replace("b", "two", clock() + 1)
        await store.get("b", clock() + 60)
        await passes(clock, 1.1)
        assert await store.get("b") is None

    tell(opened, story)


@any_store
def test_one_caller_holds_a_key_until_it_lets_go_or_time_is_up(opened: Open) -> None:
    async def story(store: SessionStore, clock: Clock) -> None:
        told = await asyncio.gather(*(store.hold("a", clock() + 60) for _ in range(20)))
        assert told.count(True) == 1
        await store.delete("a")
        assert await store.hold("a", clock() + 0.5)
        assert not await store.hold("a", clock() + 60)
        await passes(clock, 0.6)
        assert await store.hold("a", clock() + 60)

    tell(opened, story)


@any_store
def test_a_tag_deletes_all_that_carry_it_and_nothing_else(opened: Open) -> None:
    async def story(store: SessionStore, clock: Clock) -> None:
        until = clock() + 60
        await store.put("a1", "v", until, ["alice", "s1"], until)
        await store.put("a2", "v", until, ["alice", "s2"], until)
        await store.put("b1", "v", until, ["bob"], until)
        await store.put("none", "v", until)
        assert await store.delete_tagged("s1") == 1
        assert await store.get("a1") is None
        assert await store.get("a2") == "v"
        assert await store.delete_tagged("alice") == 1
        assert await store.delete_tagged("alice") == 0
        assert [await store.get(key) for key in ("a2", "b1", "none")] == [None, "v", "v"]

    tell(opened, story)


@any_store
def test_a_tag_lasts_as_long_as_the_longest_that_carries_it(opened: Open) -> None:
    async def story(store: SessionStore, clock: Clock) -> None:
        await store.put("long", "v", clock() + 60, ["alice"], clock() + 60)
        await store.put("short", "v", clock() + 0.2, ["alice"], clock() + 0.2)
        await passes(clock, 1.2)
        assert await store.delete_tagged("alice") == 1
        assert await store.get("long") is None

    tell(opened, story)


@any_store
def test_one_person_keeps_a_bounded_number_of_sessions(opened: Open) -> None:
    async def story(store: SessionStore, clock: Clock) -> None:
        for number in range(OF_ONE_TAG + 5):
            until = clock() + 600 + number
            await store.put(f"k{number}", "v", until, ["alice"], until)
        await store.put("bob", "v", clock() + 60, ["bob"], clock() + 60)
        assert [await store.get(f"k{number}") for number in range(5)] == [None] * 5
        assert await store.get("k5") == "v"
        assert await store.delete_tagged("alice") == OF_ONE_TAG
        assert await store.get("bob") == "v"

    tell(opened, story)


@lasting_store
def test_another_process_sees_the_same(opened: Open) -> None:
    async def story(store: SessionStore, clock: Clock) -> None:
        other = opened(clock)
        try:
            await store.put("a", "one", clock() + 60, ["alice"], clock() + 60)
            assert await other.get("a") == "one"
            told = await asyncio.gather(*(s.hold("h", clock() + 60) for s in (store, other) * 10))
            assert told.count(True) == 1
            assert await other.delete_tagged("alice") == 1
            assert await store.get("a") is None
        finally:
            await other.aclose()

    tell(opened, story)


@lasting_store
def test_it_survives_a_restart(opened: Open) -> None:
    async def before(store: SessionStore, clock: Clock) -> None:
        await store.put("a", "one", clock() + 60)

    async def after(store: SessionStore, _clock: Clock) -> None:
        assert await store.get("a") == "one"

    tell(opened, before)
    tell(opened, after)


def test_sqlite_deletes_what_expired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_sessions, "_SWEEP_SECONDS", 0.01)
    place = tmp_path / "db"

    async def story(store: SessionStore, clock: Clock) -> None:
        await store.put("old", "v", clock() + 1, ["alice"], clock() + 1)
        await store.put("new", "v", clock() + 60, ["alice"], clock() + 60)
        clock.advance(2)
        with closing(sqlite3.connect(place)) as connection:
            for _ in range(200):
                rows = connection.execute("SELECT key FROM kept").fetchall()
                if rows == [("new",)]:
                    break
                await asyncio.sleep(0.02)
            assert rows == [("new",)]
            assert connection.execute("SELECT key FROM tagged").fetchall() == [("new",)]

    tell(lambda clock: SqliteSessions(place, clock), story)


def test_redis_needs_no_more_rights_than_the_store_of_tokens(
    redis_port: int, tmp_path: Path
) -> None:
    empty_redis(redis_port)
    rights = (
        "+eval +get +set +del +incr +pexpire +time +zadd +zrem +zscore +zrevrange +zrangebyscore"
        " +info"
    )
    rule = f"ACL SETUSER limited on >word ~{{federation}}:* {rights}"
    assert ask_redis(redis_port, rule) == "+OK"

    async def story(store: SessionStore, clock: Clock) -> None:
        until = clock() + 60
        await store.put("a", "v", until, ["alice"], until)
        assert await store.get("a", until) == "v"
        assert await store.replace("a", "w", until)
        assert await store.hold("h", until)
        assert await store.delete("h")
        assert await store.delete_tagged("alice") == 1

    url = f"redis://limited:word@127.0.0.1:{redis_port}/0"
    tell(lambda clock: RedisSessions(url, clock, tmp_path / "epoch"), story)
