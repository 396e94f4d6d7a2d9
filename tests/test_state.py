"""The promises that every store keeps, and those of SQLite and Redis."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from federation.errors import Reason, Refusal
from federation.providers.table import LEEWAY
from federation.state import ONE_BY_ONE, Observe, Store, sqlite
from federation.state.expiring import KEPT_LONGER_SECONDS
from federation.state.memory import MemoryStore
from federation.state.redis import RedisStore
from federation.state.sqlite import SqliteStore
from federation.state.sqlite_errors import told
from tests.harness.clock import Clock
from tests.harness.process import ROOT
from tests.harness.redis import ask_redis, empty_redis, redis_server

NOW = 1_800_000_000.0
UNTIL = NOW + 335

Clocked = Callable[[], float]
Open = Callable[[Clocked], Store]
Story = Callable[[Store, Clock], Awaitable[None]]

KINDS = ("memory", "sqlite", "redis")
LASTING = ("sqlite", "redis")


@pytest.fixture(scope="module")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis for these tests."""
    with redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture
def redis(redis_port: int, tmp_path: Path) -> Open:
    """Opens a store in a Redis without tokens, whose epoch began long ago."""
    empty_redis(redis_port)
    url = f"redis://127.0.0.1:{redis_port}/0"
    return lambda clock: RedisStore(url, clock, tmp_path / "epoch")


@pytest.fixture
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens a store of the kind that the test names."""
    match request.param:
        case "memory":
            return MemoryStore
        case "sqlite":
            return lambda clock: SqliteStore(tmp_path / "db", clock)
        case _:
            store: Open = request.getfixturevalue("redis")
            return store


any_store = pytest.mark.parametrize("opened", KINDS, indirect=True)
lasting_store = pytest.mark.parametrize("opened", LASTING, indirect=True)


def tell(opened: Open, story: Story) -> None:
    """Run *story* with a store whose background work runs, as in a server."""

    async def told() -> None:
        clock = Clock(NOW)
        store = opened(clock)
        running = asyncio.create_task(store.run())
        try:
            await story(store, clock)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await store.aclose()

    asyncio.run(asyncio.wait_for(told(), 20))


@any_store
def test_only_the_first_caller_spends_a_key(opened: Open) -> None:
    async def story(store: Store, _clock: Clock) -> None:
        assert await store.spend("a", UNTIL, NOW)
        assert not await store.spend("a", UNTIL, NOW)
        assert await store.spend("b", UNTIL, NOW)

    tell(opened, story)


@any_store
@pytest.mark.parametrize("seconds", [-300, -0.5, 0.5, 86400])
def test_a_key_is_spent_whatever_time_the_next_caller_says(opened: Open, seconds: float) -> None:
    # Two tokens with one `jti` are one token, also if their issuer gave them another `exp`.
    async def story(store: Store, _clock: Clock) -> None:
        assert await store.spend("a", UNTIL, NOW)
        assert not await store.spend("a", UNTIL + seconds, NOW)
        await store.restore("a")
        assert await store.spend("a", UNTIL + seconds, NOW)

    tell(opened, story)


@any_store
def test_exactly_one_of_many_concurrent_callers_spends_a_key(opened: Open) -> None:
    async def story(store: Store, _clock: Clock) -> None:
        for key in ("a", "b", "c"):
            told = await asyncio.gather(*(store.spend(key, UNTIL, NOW) for _ in range(100)))
            assert told.count(True) == 1

    tell(opened, story)


@any_store
def test_a_key_that_was_given_back_can_be_spent_once_more(opened: Open) -> None:
    async def story(store: Store, _clock: Clock) -> None:
        assert await store.spend("a", UNTIL, NOW)
        await store.restore("a")
        assert await store.spend("a", UNTIL, NOW)
        assert not await store.spend("a", UNTIL, NOW)

    tell(opened, story)


@any_store
def test_a_key_that_was_spent_again_stays_spent_until_its_new_time(opened: Open) -> None:
    async def story(store: Store, clock: Clock) -> None:
        assert await store.spend("a", UNTIL - 300, NOW)
        await store.restore("a")
        assert await store.spend("a", UNTIL, NOW)
        clock.advance(200)
        assert not await store.spend("a", UNTIL, NOW)

    tell(opened, story)


@any_store
def test_giving_back_an_unspent_key_changes_nothing(opened: Open) -> None:
    async def story(store: Store, _clock: Clock) -> None:
        await store.restore("a")
        assert await store.spend("a", UNTIL, NOW)

    tell(opened, story)


@any_store
@pytest.mark.parametrize(
    "passed",
    [pytest.param(0, id="at once"), pytest.param(334.9, id="until the last moment")],
)
def test_a_key_stays_spent_until_its_time(opened: Open, passed: float) -> None:
    async def story(store: Store, clock: Clock) -> None:
        assert await store.spend("a", UNTIL, NOW)
        clock.advance(passed)
        assert not await store.spend("a", UNTIL, NOW)

    tell(opened, story)


@any_store
def test_a_clock_that_goes_back_frees_no_spent_key(opened: Open) -> None:
    async def story(store: Store, clock: Clock) -> None:
        assert await store.spend("a", UNTIL, NOW)
        clock.advance(-3600)
        assert not await store.spend("a", UNTIL, NOW)

    tell(opened, story)


@any_store
def test_a_revoked_token_is_known_at_once_and_no_other_is(opened: Open) -> None:
    async def story(store: Store, _clock: Clock) -> None:
        assert not await store.revoked("a")
        await store.revoke("a", UNTIL)
        assert await store.revoked("a")
        assert not await store.revoked("b")

    tell(opened, story)


@any_store
def test_revoking_twice_is_revoking_once(opened: Open) -> None:
    async def story(store: Store, _clock: Clock) -> None:
        await store.revoke("a", UNTIL)
        await store.revoke("a", UNTIL)
        assert await store.revoked("a")

    tell(opened, story)


@any_store
def test_few_tokens_of_one_parent_are_revoked_one_by_one_then_the_parent(opened: Open) -> None:
    async def story(store: Store, _clock: Clock) -> None:
        for number in range(ONE_BY_ONE):
            assert await store.revoke(f"f{number}", UNTIL, "parent") == f"f{number}"
        assert await store.revoke("f0", UNTIL, "parent") == "f0", "it was revoked before"
        assert not await store.revoked("parent")
        assert await store.revoke("other", UNTIL, "another") == "other"
        assert await store.revoke("one more", UNTIL, "parent") == "parent"
        assert await store.revoked("parent")
        assert not await store.revoked("one more"), "its parent takes no more room"

    tell(opened, story)


@any_store
def test_a_check_leaves_every_key_free(opened: Open) -> None:
    async def story(store: Store, _clock: Clock) -> None:
        assert [await store.check() for _ in range(3)] == [""] * 3
        assert await store.spend("a", UNTIL, NOW)
        assert await store.check() == ""
        assert not await store.spend("a", UNTIL, NOW)

    tell(opened, story)


@any_store
def test_spent_and_revoked_are_different_things(opened: Open) -> None:
    async def story(store: Store, _clock: Clock) -> None:
        await store.revoke("a", UNTIL)
        assert await store.spend("a", UNTIL, NOW)
        assert await store.spend("b", UNTIL, NOW)
        assert not await store.revoked("b")

    tell(opened, story)


@any_store
@pytest.mark.parametrize(
    "key",
    ["", "a'; DROP TABLE spent; --", "k" * 10_000, "\N{SNOWMAN}", "a\0b", "%", "_"],
    ids=["empty", "SQL", "long", "not ASCII", "NUL", "percent", "underscore"],
)
def test_any_text_can_be_a_key_and_is_compared_exactly(opened: Open, key: str) -> None:
    async def story(store: Store, _clock: Clock) -> None:
        assert await store.spend(key, UNTIL, NOW)
        assert not await store.spend(key, UNTIL, NOW)
        assert await store.spend(key + "x", UNTIL, NOW)
        await store.revoke(key, UNTIL)
        assert await store.revoked(key)
        assert not await store.revoked(key + "x")

    tell(opened, story)


@any_store
def test_a_caller_that_gives_up_leaves_the_store_whole(opened: Open) -> None:
    async def story(store: Store, _clock: Clock) -> None:
        hasty = [asyncio.create_task(store.spend("a", UNTIL, NOW)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in hasty:
            task.cancel()
        await asyncio.gather(*hasty, return_exceptions=True)
        assert await store.spend("b", UNTIL, NOW)
        assert not await store.spend("b", UNTIL, NOW)

    tell(opened, story)


@any_store
def test_run_ends_when_it_is_cancelled_at_any_moment(opened: Open) -> None:
    async def cancelled(after_turns: int) -> None:
        store = opened(Clock(NOW))
        running = asyncio.create_task(store.run())
        for _ in range(after_turns):
            await asyncio.sleep(0)
        running.cancel()
        _, left = await asyncio.wait({running}, timeout=2)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await store.aclose()
        assert not left, f"after {after_turns} turns of the loop it went on"

    for turns in range(30):
        asyncio.run(cancelled(turns))


@lasting_store
def test_spent_and_revoked_tokens_survive_a_restart(opened: Open) -> None:
    async def before(store: Store, _clock: Clock) -> None:
        await store.spend("a", UNTIL, NOW)
        await store.revoke("r", UNTIL)

    async def after(store: Store, _clock: Clock) -> None:
        assert not await store.spend("a", UNTIL, NOW)
        assert await store.revoked("r")

    tell(opened, before)
    tell(opened, after)


@any_store
def test_each_of_many_concurrent_claims_gets_its_own_answer(opened: Open) -> None:
    async def story(store: Store, clock: Clock) -> None:
        assert await together(store, "abc") == [True, True, True]
        assert await together(store, "adde") == [False, True, False, True]
        assert await together(store, [str(n) for n in range(100)]) == [True] * 100
        assert await together(store, "abcde") == [False] * 5

    async def together(store: Store, keys: Iterable[str]) -> list[bool]:
        return await asyncio.gather(*(store.spend(key, UNTIL, NOW) for key in keys))

    tell(opened, story)


@lasting_store
def test_two_stores_on_the_same_data_never_both_spend_a_key(opened: Open) -> None:
    async def story(store: Store, clock: Clock) -> None:
        other = opened(clock)
        try:
            told = await asyncio.gather(
                *(s.spend(str(n), UNTIL, NOW) for n in range(50) for s in (store, other))
            )
            assert told.count(True) == 50
        finally:
            await other.aclose()

    tell(opened, story)


@lasting_store
def test_a_revocation_by_another_store_is_known_within_a_second(opened: Open) -> None:
    async def story(store: Store, clock: Clock) -> None:
        assert not await store.revoked("a")
        other = opened(clock)
        try:
            await other.revoke("a", UNTIL)
        finally:
            await other.aclose()
        await asyncio.sleep(1.1)
        assert await store.revoked("a")

    tell(opened, story)


class TestSqlite:
    def test_the_file_and_its_folder_are_made(self, tmp_path: Path) -> None:
        place = tmp_path / "deep" / "er" / "db"

        async def story(store: Store, _clock: Clock) -> None:
            assert await store.spend("a", UNTIL, NOW)

        tell(lambda clock: SqliteStore(place, clock), story)
        assert place.exists()

    @pytest.mark.parametrize("fault", ["under a file", "a folder", "not a database"])
    def test_a_path_that_cannot_hold_the_file_is_a_refusal(
        self, tmp_path: Path, fault: str
    ) -> None:
        place = tmp_path / "db"
        match fault:
            case "under a file":
                (tmp_path / "file").write_text("x")
                place = tmp_path / "file" / "db"
            case "a folder":
                place.mkdir()
            case _:
                place.write_bytes(b"this is no database, but long enough to be read as one" * 100)

        async def story(store: Store, _clock: Clock) -> None:
            questions: list[Callable[[], Awaitable[object]]] = [
                lambda: store.spend("a", UNTIL, NOW),
                lambda: store.restore("a"),
                lambda: store.revoke("a", UNTIL),
                lambda: store.revoked("a"),
            ]
            for ask in questions:
                with pytest.raises(Refusal) as caught:
                    await ask()
                assert caught.value.reason is Reason.STATE_UNAVAILABLE

        tell(lambda clock: SqliteStore(place, clock), story)

    @pytest.mark.parametrize("existed", [False, True])
    def test_its_owner_alone_can_read_the_files(self, tmp_path: Path, existed: bool) -> None:
        place = tmp_path / "db"

        def modes() -> dict[str, int]:
            return {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}

        old = os.umask(0)
        try:
            if existed:  # as an earlier version left it
                with closing(sqlite3.connect(place)) as connection:
                    connection.execute("PRAGMA journal_mode = WAL")
                place.chmod(0o644)

            async def story(store: Store, _clock: Clock) -> None:
                assert await store.spend("a", UNTIL, NOW)
                assert modes() == dict.fromkeys(("db", "db-wal", "db-shm"), 0o600)

            tell(lambda clock: SqliteStore(place, clock), story)
        finally:
            os.umask(old)

    def test_only_rows_that_expired_long_ago_are_deleted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite, "_LOOK_SECONDS", 0.0)  # each poll sweeps one of 256 slices
        place = tmp_path / "db"
        old = [*(f"{number:02x}f" for number in range(256)), "", "00", "zz", "~"]
        new = [f"{key}-new" for key in old]

        async def story(store: Store, clock: Clock) -> None:
            for key in old:
                assert await store.spend(key, NOW, NOW)
            for key in new:
                assert await store.spend(key, NOW + KEPT_LONGER_SECONDS, NOW)
            await store.revoke("old", NOW)
            await store.revoke("new", NOW + KEPT_LONGER_SECONDS)
            clock.now = NOW + KEPT_LONGER_SECONDS + 1
            with closing(sqlite3.connect(place)) as connection:
                for _ in range(200):
                    if connection.execute("SELECT count(*) FROM spent").fetchone() == (len(new),):
                        break
                    await asyncio.sleep(0.05)

        tell(lambda clock: SqliteStore(place, clock), story)
        with closing(sqlite3.connect(place)) as connection:
            assert {key for (key,) in connection.execute("SELECT key FROM spent")} == set(new)
            assert connection.execute("SELECT jti FROM revoked").fetchall() == [("new",)]

    def test_nothing_is_written_outside_the_folder_of_the_file(self, tmp_path: Path) -> None:
        if not (strace := shutil.which("strace")):
            pytest.skip("strace is not installed")
        place, trace = tmp_path / "state" / "db", tmp_path / "trace"
        command = [strace, "-f", "-e", "trace=openat,open,creat,mkdir,rename", "-o", str(trace)]
        program = f"from tests.test_state import busy; busy({str(place)!r})"
        command += [sys.executable, "-B", "-c", program]
        ran = subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, check=False)  # noqa: S603
        if b"PTRACE" in ran.stderr:
            pytest.skip("this system forbids strace")
        assert ran.returncode == 0, ran.stderr
        _, began, after = trace.read_text().partition(f'"{place.parent}"')
        assert began, "the folder was made"
        written = re.findall(r'"([^"]*)", [^)]*O_(?:WRONLY|RDWR|CREAT)', after)
        assert str(place) in written
        assert [path for path in written if not path.startswith(f"{place.parent}/")] == []

    def test_a_spent_key_reaches_the_file_within_seconds(self, tmp_path: Path) -> None:
        # A power cut may take the write-ahead log with it; what reached the file itself stays.
        async def story(store: Store, _clock: Clock) -> None:
            assert await store.spend("a", UNTIL, NOW)
            for _ in range(50):
                await asyncio.sleep(0.1)
                (tmp_path / "left").write_bytes((tmp_path / "db").read_bytes())
                if "a" in keys(tmp_path / "left"):
                    return
            raise AssertionError("it is in the write-ahead log alone")

        def keys(place: Path) -> set[str]:
            with closing(sqlite3.connect(f"{place.as_uri()}?immutable=1", uri=True)) as found:
                try:
                    return {key for (key,) in found.execute("SELECT key FROM spent")}
                except sqlite3.Error:
                    return set()

        tell(lambda clock: SqliteStore(tmp_path / "db", clock), story)

    def test_each_operation_of_a_caller_is_timed_once(self, tmp_path: Path) -> None:
        seen: list[tuple[str, bool]] = []
        _operate_on(
            lambda clock: SqliteStore(tmp_path / "db", clock, observe=_noting(seen)), waits=0.6
        )
        assert seen == [("spend", True), ("restore", True), ("revoke", True)]

    def test_a_locked_file_is_a_refusal_and_the_store_recovers(self, tmp_path: Path) -> None:
        async def story(store: Store, _clock: Clock) -> None:
            assert await store.spend("a", UNTIL, NOW)
            with closing(sqlite3.connect(tmp_path / "db", isolation_level=None)) as other:
                other.execute("BEGIN EXCLUSIVE")
                with pytest.raises(Refusal) as caught:
                    await store.spend("b", UNTIL, NOW)
                other.execute("ROLLBACK")
            assert caught.value.reason is Reason.STATE_UNAVAILABLE
            assert await store.spend("b", UNTIL, NOW)
            assert not await store.spend("a", UNTIL, NOW)

        tell(lambda clock: SqliteStore(tmp_path / "db", clock), story)


def busy(place: str) -> None:
    """Do everything that a store does, with many keys at once. Another process runs it."""

    async def story(store: Store, clock: Clock) -> None:
        keys = [hashlib.sha256(b"%d" % number).hexdigest() for number in range(3000)]
        for again in (True, False):
            told = await asyncio.gather(*(store.spend(key, UNTIL, NOW) for key in keys))
            assert set(told) == {again}
        await asyncio.gather(*(store.restore(key) for key in keys[:1000]))
        await asyncio.gather(*(store.revoke(key, UNTIL, key[:1]) for key in keys[:500]))
        assert await store.check() == ""
        clock.now = UNTIL + KEPT_LONGER_SECONDS + 1
        await asyncio.sleep(1.5)  # in which polls delete, and a checkpoint is made

    tell(lambda clock: SqliteStore(Path(place), clock), story)


def _noting(seen: list[tuple[str, bool]]) -> Observe:
    """An observer that notes each operation and whether it was answered."""

    def observe(operation: str, answered: bool, seconds: float) -> None:
        assert 0 <= seconds < 20
        seen.append((operation, answered))

    return observe


def _operate_on(opened: Open, waits: float = 0.0) -> None:
    """Spend, restore, revoke and ask; a refusal of one does not stop the others."""

    async def story(store: Store, _clock: Clock) -> None:
        with suppress(Refusal):
            await store.spend("a", UNTIL, NOW)
        with suppress(Refusal):
            await store.restore("a")
        with suppress(Refusal):
            await store.revoke("a", UNTIL)
        with suppress(Refusal):
            await store.revoked("b")
        await asyncio.sleep(waits)  # polls and sweeps are not operations of a caller

    tell(opened, story)


class TestRedis:
    def test_each_operation_of_a_caller_is_timed_once(
        self, redis_port: int, tmp_path: Path
    ) -> None:
        empty_redis(redis_port)
        seen: list[tuple[str, bool]] = []
        url = f"redis://127.0.0.1:{redis_port}/0"
        _operate_on(lambda clock: RedisStore(url, clock, tmp_path / "epoch", _noting(seen)), 0.6)
        assert seen == [("spend", True), ("restore", True), ("revoke", True)]

    def test_an_operation_without_an_answer_is_timed_as_unavailable(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        seen: list[tuple[str, bool]] = []
        url = f"redis://127.0.0.1:{port}/0"
        _operate_on(lambda clock: RedisStore(url, clock, tmp_path / "epoch", _noting(seen)))
        # Nothing was claimed, so there is nothing to give back.
        assert seen == [("spend", False), ("restore", True), ("revoke", False)]

    def test_after_a_loss_of_data_older_tokens_are_refused(
        self, redis: Open, redis_port: int
    ) -> None:
        async def story(store: Store, clock: Clock) -> None:
            assert await store.spend("a", UNTIL, NOW)
            ask_redis(redis_port, "FLUSHALL")
            clock.advance(5)
            for key in ("a", "never seen"):
                with pytest.raises(Refusal) as caught:
                    await store.spend(key, UNTIL, NOW)
                assert caught.value.reason is Reason.STATE_UNAVAILABLE
            younger = NOW + 5 + LEEWAY.total_seconds()
            assert await store.spend("b", UNTIL, younger)
            assert not await store.spend("b", UNTIL, younger)

        tell(redis, story)

    def test_a_replica_that_was_down_notices_a_loss_of_data(
        self, redis: Open, redis_port: int
    ) -> None:
        async def before(store: Store, _clock: Clock) -> None:
            assert await store.spend("a", UNTIL, NOW)

        async def after(store: Store, _clock: Clock) -> None:
            with pytest.raises(Refusal) as caught:
                await store.spend("a", UNTIL, NOW)
            assert caught.value.reason is Reason.STATE_UNAVAILABLE

        tell(redis, before)
        ask_redis(redis_port, "FLUSHALL")
        tell(redis, after)

    def test_revocations_are_written_back_after_a_loss_of_data(
        self, redis: Open, redis_port: int, tmp_path: Path
    ) -> None:
        async def story(store: Store, clock: Clock) -> None:
            await store.revoke("a", UNTIL)
            ask_redis(redis_port, "FLUSHALL")
            await asyncio.sleep(0.8)
            url = f"redis://127.0.0.1:{redis_port}/0"
            other = RedisStore(url, clock, tmp_path / "other")
            try:
                assert await other.revoked("a")
            finally:
                await other.aclose()

        tell(redis, story)

    def test_an_unreachable_redis_is_a_refusal(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]

        async def story(store: Store, _clock: Clock) -> None:
            questions: list[Callable[[], Awaitable[object]]] = [
                lambda: store.spend("a", UNTIL, NOW),
                lambda: store.revoke("a", UNTIL),
                lambda: store.revoked("a"),
            ]
            for ask in questions:
                with pytest.raises(Refusal) as caught:
                    await ask()
                assert caught.value.reason is Reason.STATE_UNAVAILABLE

        tell(lambda clock: RedisStore(f"redis://127.0.0.1:{port}/0", clock, tmp_path / "l"), story)


class TestWhatIsWrongWithTheFile:
    """A store that cannot be used says why and what to do; SQLite's own words do not."""

    @staticmethod
    def told(path: Path) -> str:
        async def story() -> str:
            store = SqliteStore(path, Clock(NOW))
            try:
                with pytest.raises(Refusal) as caught:
                    await store.check()
                return str(caught.value.evidence["store"])
            finally:
                await store.aclose()

        return asyncio.run(story())

    def test_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        path = tmp_path / "state.db"
        path.write_text("not a database, and long enough to have a header" * 40)
        assert "is no database of SQLite: stop every worker" in self.told(path)

    def test_a_database_that_is_damaged(self, tmp_path: Path) -> None:
        path = tmp_path / "state.db"

        async def filled() -> None:
            store = SqliteStore(path, Clock(NOW))
            for number in range(500):
                await store.spend(f"{number:064x}", NOW + 900, NOW)
            await store.aclose()

        asyncio.run(filled())
        content = bytearray(path.read_bytes())
        for page in range(4096, len(content), 4096):
            content[page : page + 64] = b"\xff" * 64
        path.write_bytes(content)
        assert "is damaged: stop every worker" in self.told(path)

    def test_a_folder_in_its_place(self, tmp_path: Path) -> None:
        (tmp_path / "state.db").mkdir()
        assert "cannot be opened: check that the state folder exists" in self.told(
            tmp_path / "state.db"
        )

    def test_a_file_in_place_of_its_folder(self, tmp_path: Path) -> None:
        (tmp_path / "state").write_text("x")
        assert "is not a folder; name another folder" in self.told(tmp_path / "state" / "state.db")

    def test_a_process_that_holds_the_lock(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("federation.state.sqlite._BUSY_SECONDS", 0.1)
        path = tmp_path / "state.db"

        async def made() -> None:
            store = SqliteStore(path, Clock(NOW))
            await store.check()
            await store.aclose()

        asyncio.run(made())
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            assert "is locked by another process" in self.told(path)

    def test_a_full_disk(self, tmp_path: Path) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        assert (
            told(error, tmp_path) == f"there is no space left for {tmp_path}; make room on its disk"
        )
