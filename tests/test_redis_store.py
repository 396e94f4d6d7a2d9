"""The store in Redis: what replicas read, loss of data, failover, and a Redis that cannot be used."""

from __future__ import annotations

import asyncio
import math
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    MovedError,
    OutOfMemoryError,
    ReadOnlyError,
)

from federation.app import check_shared_state
from federation.config import Settings
from federation.errors import Reason, Refusal, SettingsRefused
from federation.providers.table import LEEWAY
from federation.state.expiring import KEPT_LONGER_SECONDS
from federation.state.redis import RedisStore
from federation.state.redis_errors import unusable_by
from federation.state.redis_scripts import EPOCH, REVOKED, UNTIL
from federation.state.redis_server import info_problem, mode_in
from tests.harness.broker import logged
from tests.harness.certificates import Authority
from tests.harness.clock import Clock
from tests.harness.raw_server import serving
from tests.harness.redis import ask_redis, empty_redis, redis_cluster, redis_server
from tests.harness.signing import signing_key

NOW = float(int(time.time()))
EXPIRES = NOW + 3600


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a Redis for these tests."""
    with redis_server(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.fixture(autouse=True)
def _empty(port: int) -> None:
    empty_redis(port)


class Replicas:
    """Stores that share a Redis, each with a clock of its own."""

    def __init__(self, port: int, folder: Path) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        self.clock = Clock(NOW)
        self._folder = folder
        self._number = 0

    @asynccontextmanager
    async def up(
        self,
        name: str = "",
        *,
        runs: bool = True,
        clock: Callable[[], float] | None = None,
        replicas: int = 0,
    ) -> AsyncIterator[RedisStore]:
        """Run a store; one with a *name* finds the memory that an earlier one left."""
        self._number += 1
        memory = self._folder / (name or str(self._number)) / "epoch"
        store = RedisStore(self.url, clock or self.clock, memory, replicas=replicas)
        running = asyncio.create_task(store.run()) if runs else None
        try:
            yield store
        finally:
            if running:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            await store.aclose()


@pytest.fixture
def two(port: int, tmp_path: Path) -> Replicas:
    """Opens replicas at the Redis of these tests."""
    return Replicas(port, tmp_path)


def tell(story: Awaitable[None]) -> None:
    """Run *story* in an event loop."""

    async def told() -> None:
        await asyncio.wait_for(story, 60)

    asyncio.run(told())


async def until(holds: Callable[[], Awaitable[bool]], seconds: float = 5.0) -> None:
    """Wait until *holds*."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110  another process changes
            await asyncio.sleep(0.02)


def entry(jti: str, expires: float = EXPIRES) -> str:
    return f"{math.ceil(expires)} {jti}"


def fill(port: int, count: int, expires: float = EXPIRES) -> None:
    """Put *count* revocations into Redis, as other replicas do."""
    script = (
        f"for n = 1, {count} do local m = '{math.ceil(expires)} j' .. n"
        f" redis.call('ZADD', '{REVOKED}', n, m)"
        f" redis.call('ZADD', '{UNTIL}', {math.ceil(expires)}, m) end"
    )
    assert ask_redis(port, f'EVAL "{script}" 0') == "$-1"


def written(port: int) -> int:
    """The bytes that Redis has sent to all its clients."""
    found = re.search(r"total_net_output_bytes:(\d+)", ask_redis(port, "INFO stats"))
    assert found
    return int(found[1])


def held(port: int) -> int:
    """The number of revocations in Redis."""
    return int(ask_redis(port, f"ZCARD {REVOKED}").removeprefix(":"))


def reason(refused: pytest.ExceptionInfo[Refusal]) -> str:
    assert refused.value.reason is Reason.STATE_UNAVAILABLE
    return str(refused.value.evidence["shared-state"])


class TestReading:
    def test_a_replica_that_starts_learns_every_revocation(self, port: int, two: Replicas) -> None:
        async def story() -> None:
            fill(port, 5000)
            async with two.up() as store:
                assert await store.revoked("j1")
                assert await store.revoked("j5000")
                assert not await store.revoked("j5001")

        tell(story())

    def test_what_was_read_is_not_read_again(self, port: int, two: Replicas) -> None:
        async def story() -> None:
            fill(port, 20_000)  # 400 kB
            async with two.up() as store:
                assert await store.revoked("j20000")
                before = written(port)
                await asyncio.sleep(2.0)
                assert await store.revoked("j20000")
                assert written(port) - before < 40_000, "8 polls read almost nothing"

        tell(story())

    @pytest.mark.alone
    def test_many_revocations_hold_the_event_loop_for_moments_only(
        self, port: int, two: Replicas
    ) -> None:
        async def story() -> None:
            fill(port, 50_000)
            async with two.up() as store:
                worst = 0.0
                done = asyncio.create_task(store.revoked("nobody"))
                while not done.done():
                    began = time.perf_counter()
                    await asyncio.sleep(0)
                    worst = max(worst, time.perf_counter() - began)
                assert not await done
                assert worst < 0.1

        tell(story())

    def test_many_requests_that_need_a_fresh_view_cause_one_look(
        self, port: int, two: Replicas
    ) -> None:
        async def story() -> None:
            fill(port, 20_000)
            async with two.up(runs=False) as store:
                before = written(port)
                await asyncio.gather(*(store.revoked(f"none{n}") for n in range(50)))
                assert written(port) - before < 1_500_000, "once 400 kB, not 50 times"

        tell(story())

    def test_a_request_that_gives_up_does_not_end_the_look_of_the_others(
        self, port: int, two: Replicas
    ) -> None:
        async def story() -> None:
            fill(port, 20_000)
            async with two.up(runs=False) as store:
                first = asyncio.create_task(store.revoked("j20000"))
                await asyncio.sleep(0.01)
                second = asyncio.create_task(store.revoked("j20000"))
                await asyncio.sleep(0)
                first.cancel()
                assert await second

        tell(story())


class TestLoss:
    def test_all_revocations_return_after_a_flush(self, port: int, two: Replicas) -> None:
        async def story() -> None:
            fill(port, 1500)
            async with two.up() as store, two.up():
                await store.revoke("mine", EXPIRES)
                assert await store.revoked("j1500")
                await asyncio.sleep(0.6)
                ask_redis(port, "FLUSHALL")

                async def returned() -> bool:
                    return held(port) == 1501

                await until(returned)
                async with two.up() as new:
                    assert await new.revoked("mine")
                    assert await new.revoked("j1")

        tell(story())

    def test_a_revocation_that_a_failover_lost_returns(self, port: int, two: Replicas) -> None:
        # A replica of Redis was promoted before it had the last entries. Their numbers are then
        # given to other entries, so that a number alone does not tell what is new.
        async def story() -> None:
            async with two.up() as store:
                await store.revoke("kept", EXPIRES)
                await store.revoke("lost", EXPIRES)
                await asyncio.sleep(0.6)
                for key in (REVOKED, UNTIL):
                    assert ask_redis(port, f'ZREM {key} "{entry("lost")}"') == ":1"
                async with two.up(runs=False) as other:
                    await other.revoke("new", EXPIRES)

                async def all_there() -> bool:
                    return held(port) == 3 and await store.revoked("new")

                await until(all_there)

        tell(story())

    def test_a_replica_with_older_data_starts_an_epoch(self, port: int, two: Replicas) -> None:
        async def story() -> None:
            async with two.up("one") as store:
                assert await store.spend("a", EXPIRES, NOW)
                ask_redis(port, "FLUSHALL")
                two.clock.advance(60)
                with pytest.raises(Refusal):
                    await store.spend("a", EXPIRES, NOW)
            ask_redis(port, f"SET {EPOCH} first:0.0")  # Redis went back to the data before that
            async with two.up("one") as store:
                two.clock.advance(60)
                with pytest.raises(Refusal) as caught:
                    await store.spend("b", EXPIRES, NOW + 60 + LEEWAY.total_seconds())
                assert "no data" in reason(caught)

        tell(story())

    def test_an_empty_redis_is_one_that_was_emptied(self, port: int, two: Replicas) -> None:
        # A new pod has no memory of the epoch. If it is the first to reach a Redis that lost its
        # data, it must not take what was spent before.
        async def story() -> None:
            async with two.up() as old:
                assert await old.spend("a", EXPIRES, NOW)
                ask_redis(port, "FLUSHALL")
                two.clock.advance(5)
                async with two.up() as new:
                    with pytest.raises(Refusal) as caught:
                        await new.spend("a", EXPIRES, NOW)
                    assert "no data" in reason(caught)
                    assert "are refused" in await new.check()
                    two.clock.advance(LEEWAY.total_seconds())
                    assert await new.check() == ""
                    assert await new.spend("b", EXPIRES, two.clock())

        tell(story())

    def test_a_memory_that_cannot_be_read_is_that_of_a_new_replica(
        self, two: Replicas, tmp_path: Path
    ) -> None:
        for name, content in {"text": b"garbage", "bytes": b"\xff", "cut": b"first:"}.items():
            (tmp_path / name).mkdir()
            (tmp_path / name / "epoch").write_bytes(content)

            async def story(name: str = name) -> None:
                async with two.up(name) as store:
                    assert await store.spend(name, EXPIRES, NOW)
                    assert not await store.spend(name, EXPIRES, NOW)

            tell(story())

    def test_without_a_place_for_its_memory_nothing_is_spent(
        self, two: Replicas, tmp_path: Path
    ) -> None:
        (tmp_path / "blocked").write_text("in the way")

        async def story() -> None:
            async with two.up("blocked/folder") as store:
                with pytest.raises(Refusal) as caught:
                    await store.check()
                assert "cannot be written: Not a directory" in reason(caught)

        tell(story())

    @pytest.mark.parametrize("content", ["garbage", "nan:nan", "x:inf"])
    def test_an_epoch_that_no_broker_wrote_is_named(
        self, port: int, two: Replicas, content: str
    ) -> None:
        ask_redis(port, f"SET {EPOCH} {content}")

        async def story() -> None:
            async with two.up() as store:
                with pytest.raises(Refusal) as caught:
                    await store.check()
                assert "delete that key" in reason(caught)

        tell(story())

    def test_replicas_whose_clocks_differ_agree_on_an_epoch(self, port: int, two: Replicas) -> None:
        async def story() -> None:
            behind = Clock(NOW - 20)
            async with two.up() as store, two.up(clock=behind) as slow:
                for replica in (store, slow):
                    assert await replica.spend("a", EXPIRES, NOW + 100) == (replica is store)
                for _ in range(3):
                    ask_redis(port, "FLUSHALL")
                    with pytest.raises(Refusal):
                        await slow.spend("a", EXPIRES, NOW - 100)
                    with pytest.raises(Refusal):
                        await store.spend("a", EXPIRES, NOW - 100)
                assert await store.spend("b", EXPIRES, NOW + 100)
                assert not await slow.spend("b", EXPIRES, NOW + 100)

        tell(story())


class TestExpiry:
    def test_expired_entries_are_deleted_but_for_the_newest(self, port: int, two: Replicas) -> None:
        async def story() -> None:
            fill(port, 500, NOW - KEPT_LONGER_SECONDS - 60)

            async def deleted() -> bool:
                return held(port) == 1

            async with two.up() as store:
                await until(deleted)
                await store.revoke("next", EXPIRES)
                number = ask_redis(port, f'ZSCORE {REVOKED} "{entry("next")}"').split()[-1]
                assert float(number) == 501, "numbers go on"

        tell(story())

    def test_a_replica_whose_clock_is_ahead_deletes_nothing(self, port: int, two: Replicas) -> None:
        async def story() -> None:
            fill(port, 10, EXPIRES)
            async with two.up(clock=Clock(NOW + 86_400)) as store:
                await store.revoked("nobody")
                await asyncio.sleep(0.6)
                assert held(port) == 10

        tell(story())

    def test_what_expired_is_not_written_back(self, port: int, two: Replicas) -> None:
        async def story() -> None:
            fill(port, 10, NOW - KEPT_LONGER_SECONDS - 60)
            async with two.up() as store:
                await store.revoke("live", EXPIRES)
                await asyncio.sleep(0.6)
                ask_redis(port, "FLUSHALL")

                async def returned() -> bool:
                    return held(port) > 0

                await until(returned)
                await asyncio.sleep(0.6)
                assert held(port) == 1

        tell(story())


def unusable(
    store_port: int, folder: Path, user: str = "", *, database: int = 0, replicas: int = 0
) -> str:
    """Why the Redis at *store_port* cannot be used; exchanges must then fail with the same."""
    found = []

    async def story() -> None:
        url = f"redis://{user}127.0.0.1:{store_port}/{database}"
        store = RedisStore(url, Clock(NOW), folder / "epoch", replicas=replicas)
        try:
            found.append(await store.unusable())
            if found[0]:
                for ask in (store.spend("a", EXPIRES, NOW + 100), store.check()):
                    with pytest.raises(Refusal) as caught:
                        await ask
                    assert reason(caught) == found[0]
            else:
                assert await store.spend("a", EXPIRES, NOW + 100)
                await store.revoke("r", EXPIRES, "p")
                assert await store.revoked("r")
        finally:
            await store.aclose()

    tell(story())
    return found[0]


class TestUnusable:
    @pytest.mark.parametrize(
        "policy", ["allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random"]
    )
    @pytest.mark.parametrize("limit", ["0", "100mb"])
    def test_a_policy_that_evicts(self, port: int, tmp_path: Path, policy: str, limit: str) -> None:
        ask_redis(port, f"CONFIG SET maxmemory {limit}")
        ask_redis(port, f"CONFIG SET maxmemory-policy {policy}")
        try:
            told = unusable(port, tmp_path)
        finally:
            ask_redis(port, "CONFIG SET maxmemory-policy noeviction")
            ask_redis(port, "CONFIG SET maxmemory 0")
        assert policy in told
        assert "noeviction" in told

    def test_a_policy_that_changes_later(
        self, port: int, two: Replicas, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("federation.state.redis._INSPECT_SECONDS", 0.1)

        async def story() -> None:
            async with two.up() as store:
                assert await store.check() == ""
                ask_redis(port, "CONFIG SET maxmemory-policy allkeys-lru")

                async def refuses() -> bool:
                    try:
                        return bool(await store.check())
                    except Refusal as refused:
                        return "allkeys-lru" in str(refused.evidence["shared-state"])

                async def accepts() -> bool:
                    return not await refuses()

                try:
                    await until(refuses)
                finally:
                    ask_redis(port, "CONFIG SET maxmemory-policy noeviction")
                await until(accepts)

        tell(story())

    @pytest.mark.parametrize(
        ("rights", "told"),
        [
            ("+@all -eval", "eval"),
            ("+@all -zadd", "zadd"),
            ("+@all -incr", "incr"),
            ("+@all -info -config", "info"),
            ("+@all resetkeys ~other:*", "permissions to access"),
        ],
    )
    def test_a_right_is_missing(self, port: int, tmp_path: Path, rights: str, told: str) -> None:
        keys = "" if "resetkeys" in rights else "~*"
        assert ask_redis(port, f"ACL SETUSER broker on >secret-1 {keys} {rights}") == "+OK"
        try:
            problem = unusable(port, tmp_path, "broker:secret-1@")
        finally:
            ask_redis(port, "ACL DELUSER broker")
        assert told in problem.lower()
        assert "secret-1" not in problem

    @pytest.mark.parametrize(
        "rights",
        [
            pytest.param("+@all -config -@dangerous +info", id="no CONFIG"),
            pytest.param("+@all -info", id="no INFO"),
            pytest.param(
                "+eval +info +get +set +del +incr +pexpire +time +zadd +zrem +zscore"
                " +zrevrange +zrangebyscore",
                id="those in the docs",
            ),
        ],
    )
    def test_rights_that_are_enough(self, port: int, tmp_path: Path, rights: str) -> None:
        assert ask_redis(port, f"ACL SETUSER broker on >p ~{{federation}}:* {rights}") == "+OK"
        try:
            assert unusable(port, tmp_path, "broker:p@") == ""
        finally:
            ask_redis(port, "ACL DELUSER broker")

    def test_a_right_is_missing_that_only_acknowledgement_needs(
        self, port: int, tmp_path: Path
    ) -> None:
        rights = "on >p ~{federation}:* +@all -wait"
        assert ask_redis(port, f"ACL SETUSER broker {rights}") == "+OK"
        try:
            assert unusable(port, tmp_path, "broker:p@") == ""
            assert "wait" in unusable(port, tmp_path, "broker:p@", replicas=1)
        finally:
            ask_redis(port, "ACL DELUSER broker")

    def test_a_right_that_is_taken_later_makes_it_unavailable_at_once(
        self, port: int, two: Replicas
    ) -> None:
        two.url = f"redis://broker:p@127.0.0.1:{port}/0"
        ask_redis(port, "ACL SETUSER broker on >p ~* +@all")

        async def story() -> None:
            async with two.up() as store:
                assert await store.check() == ""
                ask_redis(port, "ACL SETUSER broker -eval")
                with pytest.raises(Refusal) as caught:
                    await store.check()
                assert "'eval'" in reason(caught)
                ask_redis(port, "ACL SETUSER broker +eval")

                async def usable() -> bool:
                    with suppress(Refusal):
                        return await store.check() == ""
                    return False

                await until(usable, 10)

        try:
            tell(story())
        finally:
            ask_redis(port, "ACL DELUSER broker")

    @pytest.mark.parametrize("database", [16, 20, 9999])
    def test_a_database_that_it_does_not_have(
        self, port: int, tmp_path: Path, database: int
    ) -> None:
        told = unusable(port, tmp_path, database=database)
        assert f"the URL names database {database}" in told

    def test_a_database_that_its_user_may_not_choose(self, port: int, tmp_path: Path) -> None:
        ask_redis(port, "ACL SETUSER broker on >p ~* +@all -select")
        try:
            assert "'select'" in unusable(port, tmp_path, "broker:p@", database=1)
        finally:
            ask_redis(port, "ACL DELUSER broker")

    @pytest.mark.parametrize("command", ["CONFIG", "EVAL"])
    def test_a_managed_service_that_lacks_a_command(self, tmp_path: Path, command: str) -> None:
        with redis_server(tmp_path / "redis", **{"rename-command": f'{command} ""'}) as managed:
            ask_redis(managed, "ACL SETUSER blind on >p ~* +@all -info")
            if command == "CONFIG":
                assert unusable(managed, tmp_path) == "", "INFO tells the policy"
                told = unusable(managed, tmp_path, "blind:p@")
                assert "neither by INFO nor by CONFIG GET" in told
            else:
                told = unusable(managed, tmp_path)
                assert told == "it answered: unknown command 'EVAL'"

    def test_a_wrong_password(self, port: int, tmp_path: Path) -> None:
        ask_redis(port, "ACL SETUSER broker on >secret-1 ~* +@all")
        try:
            problem = unusable(port, tmp_path, "broker:secret-2@")
        finally:
            ask_redis(port, "ACL DELUSER broker")
        assert "password" in problem
        assert "secret-2" not in problem

    @pytest.mark.parametrize(
        ("info", "told"),
        [
            ({"redis_version": "4.0.14", "maxmemory_policy": "noeviction"}, "too old"),
            ({"redis_version": "7.0.15"}, "does not say"),
            ({"redis_version": "7.0.15", "maxmemory_policy": "noeviction"}, None),
            ({"redis_version": "5.0.0", "maxmemory_policy": "noeviction"}, None),
            ({"maxmemory_policy": "noeviction"}, None),
        ],
    )
    def test_what_a_server_says_of_itself(self, info: dict[str, str], told: str | None) -> None:
        problem = info_problem(info)
        assert told in problem if problem and told else problem is told, problem

    @pytest.mark.parametrize(
        ("url", "sentence"),
        [
            ("redis://127.0.0.1:9/0", "it refuses the connection"),
            ("redis://nowhere.invalid/0", "its host name is not known"),
            ("rediss://127.0.0.1:{port}/0", "whether it speaks TLS"),
        ],
    )
    def test_one_that_cannot_be_reached_is_told_with_what_to_check(
        self, port: int, tmp_path: Path, url: str, sentence: str
    ) -> None:
        async def story() -> None:
            store = RedisStore(url.format(port=port), Clock(NOW), tmp_path / "epoch")
            try:
                with pytest.raises(Refusal) as caught:
                    await store.check()
                assert sentence in reason(caught)
            finally:
                await store.aclose()

        tell(story())

    def test_a_ca_without_key_identifiers_is_trusted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As everywhere else: Python 3.13 refuses it by default, which is done here too."""
        authority, spoken = Authority(tmp_path / "ca"), bytearray()
        default = ssl.create_default_context

        def strict() -> ssl.SSLContext:
            context = default()
            context.verify_flags |= ssl.VERIFY_X509_STRICT
            return context

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            spoken.extend(await reader.read(100))
            writer.close()

        async def story() -> None:
            listener = socket.create_server(("127.0.0.1", 0))
            port = listener.getsockname()[1]
            url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={authority.certificate}"
            async with serving(serve, listener, authority.server()):
                store = RedisStore(url, Clock(NOW), tmp_path / "epoch")
                with pytest.raises(Refusal):
                    await store.check()
                await store.aclose()

        monkeypatch.setattr(ssl, "create_default_context", strict)
        tell(story())
        assert spoken.startswith(b"*")

    def test_one_that_is_away_is_not_unusable(self, tmp_path: Path) -> None:
        async def story() -> None:
            store = RedisStore("redis://127.0.0.1:9/0", Clock(NOW), tmp_path / "epoch")
            try:
                with pytest.raises(Refusal):
                    await store.unusable()
            finally:
                await store.aclose()

        tell(story())


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[int]]:
    """The ports of a node with every slot and of one with none."""
    with redis_cluster(tmp_path_factory.mktemp("cluster")) as ports:
        yield ports


class TestCluster:
    @pytest.mark.parametrize("node", [0, 1], ids=["the node with the slots", "another node"])
    def test_any_node_can_be_in_the_url(
        self, cluster: Sequence[int], node: int, tmp_path: Path
    ) -> None:
        empty_redis(cluster[0])
        replicas = Replicas(cluster[node], tmp_path)

        async def story() -> None:
            async with replicas.up() as store, replicas.up() as other:
                assert await store.unusable() == ""
                assert await store.check() == ""
                assert await store.spend("a", EXPIRES, NOW)
                assert not await other.spend("a", EXPIRES, NOW)
                await store.restore("a")
                assert await other.spend("a", EXPIRES, NOW)
                for number in range(1500):
                    await store.revoke(f"r{number}", EXPIRES)

                async def known() -> bool:
                    return await other.revoked("r1499")

                await until(known)

        tell(story())

    @pytest.mark.parametrize("node", [0, 1])
    def test_a_cluster_that_does_not_say_so_is_noticed(
        self, cluster: Sequence[int], node: int, tmp_path: Path
    ) -> None:
        # A user without INFO cannot ask for the mode; CONFIG GET tells the policy.
        for each in cluster:
            ask_redis(each, "ACL SETUSER blind on >p ~* +@all -info")
        empty_redis(cluster[0])
        assert unusable(cluster[node], tmp_path, "blind:p@") == ""

    @pytest.mark.parametrize("right", ["cluster", "command", "eval"])
    @pytest.mark.parametrize("node", [0, 1])
    def test_a_right_is_missing(
        self, cluster: Sequence[int], node: int, right: str, tmp_path: Path
    ) -> None:
        for each in cluster:
            ask_redis(each, f"ACL SETUSER lacks-{right} on >p ~* +@all -{right}")
        told = unusable(cluster[node], tmp_path, f"lacks-{right}:p@")
        assert "its user lacks a right" in told
        assert right in told

    def test_it_has_one_database(self, cluster: Sequence[int], tmp_path: Path) -> None:
        assert "a cluster has 0 alone" in unusable(cluster[0], tmp_path, database=3)

    def test_a_policy_that_evicts_is_noticed(self, cluster: Sequence[int], tmp_path: Path) -> None:
        ask_redis(cluster[0], "CONFIG SET maxmemory-policy allkeys-lru")
        try:
            assert "allkeys-lru" in unusable(cluster[1], tmp_path)
        finally:
            ask_redis(cluster[0], "CONFIG SET maxmemory-policy noeviction")

    def test_acknowledgement_is_asked_of_the_node_with_the_slots(
        self, cluster: Sequence[int], tmp_path: Path
    ) -> None:
        empty_redis(cluster[0])
        replicas = Replicas(cluster[1], tmp_path)

        async def story() -> None:
            async with replicas.up(replicas=1) as store:
                with pytest.raises(Refusal) as caught:
                    await store.spend("a", EXPIRES, NOW)
                assert reason(caught) == "0 of 1 replicas acknowledged in time"

        tell(story())


@pytest.mark.parametrize(
    ("info", "mode"),
    [
        ({"redis_mode": "standalone"}, "standalone"),
        ({"redis_mode": "cluster"}, "cluster"),
        ({"server_name": "valkey", "server_mode": "cluster"}, "cluster"),
        ({"redis_version": "7.2.4"}, None),
    ],
    ids=["Redis", "a cluster of Redis", "a cluster of Valkey 8", "neither"],
)
def test_a_server_tells_its_mode_under_one_of_two_names(
    info: dict[str, str], mode: str | None
) -> None:
    assert mode_in(info) == mode


class TestAcknowledgement:
    """Claims that replicas of Redis must have (`WAIT`)."""

    def test_a_claim_counts_when_enough_replicas_have_it(
        self, port: int, two: Replicas, tmp_path: Path
    ) -> None:
        async def story() -> None:
            async with two.up(replicas=1) as store:
                assert await store.spend("a", EXPIRES, NOW)
                assert not await store.spend("a", EXPIRES, NOW)
                assert await store.check() == ""

        with redis_server(tmp_path / "replica", replicaof=f"127.0.0.1 {port}") as replica:
            deadline = time.monotonic() + 20
            while "master_link_status:up" not in ask_redis(replica, "INFO replication"):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            tell(story())

    def test_else_it_is_given_back(self, port: int, two: Replicas) -> None:
        async def story() -> None:
            async with two.up(replicas=1) as store, two.up() as other:
                for ask in (store.spend("a", EXPIRES, NOW), store.check()):
                    with pytest.raises(Refusal) as caught:
                        await ask
                    assert reason(caught) == "0 of 1 replicas acknowledged in time"

                async def given_back() -> bool:
                    return await other.spend("a", EXPIRES, NOW)

                await until(given_back)

        tell(story())

    def test_else_it_can_be_made_again_at_once(
        self, port: int, two: Replicas, tmp_path: Path
    ) -> None:
        async def story() -> None:
            async with two.up("same") as store:
                await store.check()  # it knows the epoch from now on
            async with two.up("same", replicas=1, runs=False) as store:
                with pytest.raises(Refusal):
                    await store.spend("a", EXPIRES, NOW)
                with redis_server(tmp_path / "replica", replicaof=f"127.0.0.1 {port}"):
                    linked(port)
                    assert await store.spend("a", EXPIRES, NOW)
                    await store._undo_claims()
                    assert not await store.spend("a", EXPIRES, NOW), "it was granted"

        tell(story())

    def test_else_each_of_several_is_given_back(self, two: Replicas) -> None:
        async def story() -> None:
            async with two.up("same") as other:
                await other.check()
                async with two.up("same", replicas=1, runs=False) as store:
                    for _ in range(3):
                        with pytest.raises(Refusal):
                            await store.spend("a", EXPIRES, NOW)
                    await store._undo_claims()
                    assert await other.spend("a", EXPIRES, NOW)

        tell(story())

    def test_else_claims_without_number_take_no_memory(
        self, two: Replicas, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The oldest is not given back: its token stays used until it expires."""
        monkeypatch.setattr("federation.state.redis._CLAIMS_KEPT", 2)

        async def story() -> None:
            async with two.up("same") as other:
                await other.check()
                async with two.up("same", replicas=1, runs=False) as store:
                    for key in ("a", "b", "c"):
                        with pytest.raises(Refusal):
                            await store.spend(key, EXPIRES, NOW)
                    await store._undo_claims()
                    given_back = [await other.spend(key, EXPIRES, NOW) for key in ("a", "b", "c")]
                    assert given_back == [False, True, True]

        tell(story())


def linked(port: int) -> None:
    """Wait until the Redis at *port* has a replica that answers."""
    deadline = time.monotonic() + 20
    while "state=online" not in ask_redis(port, "INFO replication"):
        assert time.monotonic() < deadline
        time.sleep(0.05)


class TestStart:
    """`serve` looks at the shared state before it serves."""

    @staticmethod
    def settings(url: str, folder: Path, wait: int = 0) -> Settings:
        folder.mkdir(exist_ok=True)
        key = signing_key(folder)
        return Settings(
            documents=(folder,),
            issuer_url="https://gateway.example.com",
            state=folder / "state",
            shared_state=SecretStr(url),
            signing_key=(key,),
            shared_state_wait=wait,
        )

    def test_a_redis_that_can_be_used_is_no_problem(self, port: int, tmp_path: Path) -> None:
        check_shared_state(self.settings(f"redis://127.0.0.1:{port}/0", tmp_path))

    def test_one_that_evicts_stops_the_start_and_says_what_to_do(
        self, port: int, tmp_path: Path
    ) -> None:
        ask_redis(port, "CONFIG SET maxmemory-policy allkeys-lfu")
        try:
            with pytest.raises(SettingsRefused) as caught:
                check_shared_state(self.settings(f"redis://127.0.0.1:{port}/0", tmp_path))
        finally:
            ask_redis(port, "CONFIG SET maxmemory-policy noeviction")
        (told,) = caught.value.problems
        assert told.startswith("shared-state: ")
        assert "CONFIG SET maxmemory-policy noeviction" in told

    @pytest.mark.parametrize(
        ("user", "database"),
        [("nobody:hunter2@", "0"), ("", "99")],
        ids=["a password", "a database"],
    )
    def test_one_that_does_not_take_the_url_stops_it_and_no_secret_is_told(
        self, port: int, tmp_path: Path, user: str, database: str
    ) -> None:
        url = f"redis://{user}127.0.0.1:{port}/{database}"
        with pytest.raises(SettingsRefused) as caught:
            check_shared_state(self.settings(url, tmp_path))
        assert "hunter2" not in str(caught.value)

    def test_one_that_is_away_or_not_yet_loaded_does_not_stop_it(self, tmp_path: Path) -> None:
        with logged() as log:
            check_shared_state(self.settings("redis://:hunter2@127.0.0.1:9/0", tmp_path))
        assert "does not answer" in log.getvalue()
        assert "hunter2" not in log.getvalue()

    def test_missing_replicas_do_not_stop_it(self, port: int, tmp_path: Path) -> None:
        url = f"redis://127.0.0.1:{port}/0"
        check_shared_state(self.settings(url, tmp_path, wait=2))

    @pytest.mark.parametrize(
        "error",
        [
            ReadOnlyError("READONLY"), BusyLoadingError("LOADING"), MovedError("1 127.0.0.1:1"),
            ClusterDownError("CLUSTERDOWN"), OutOfMemoryError("OOM"), ConnectionError("refused"),
            TimeoutError(),
        ],
        ids=lambda error: type(error).__name__,
    )  # fmt: skip
    def test_errors_that_pass_do_not_stop_it(self, error: Exception) -> None:
        assert unusable_by(error) is None

    def test_an_upgrade_from_keys_of_other_names_refuses_older_tokens(
        self, port: int, tmp_path: Path
    ) -> None:
        ask_redis(port, "FLUSHALL")
        ask_redis(port, "SET federation:epoch old:0.0")
        ask_redis(port, "SET federation:spent:a claim")
        (tmp_path / "epoch").write_text("old:0.0")

        async def story() -> None:
            store = RedisStore(f"redis://127.0.0.1:{port}/0", Clock(NOW), tmp_path / "epoch")
            with pytest.raises(Refusal) as caught:
                await store.spend("a", EXPIRES, NOW)
            assert "no data" in reason(caught)
            await store.aclose()

        tell(story())
