"""
The connection to Redis, and whether that Redis can be relied on.

A single server and a cluster are used alike. Which of the two it is, is asked at the first contact.

Redis answers and yet cannot be used if it may evict keys, if the user lacks a right, or if it is
too old. Each of these would make spent tokens new again, or fail at the first exchange, so
`inspect` looks for them.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import MovedError, NoPermissionError, ResponseError

from federation.errors import Reason, Refusal
from federation.state.redis_errors import ERRORS, TIMEOUT_SECONDS, answer, told, unusable_by
from federation.state.redis_scripts import EPOCH, PROBE, RIGHTS
from federation.state.sharing import SharedRun

_WAIT_MS = 1000
_CONNECTIONS = 64
_POLICY = "maxmemory-policy"
_OLDEST = (5, 0)  # before it, a script that asks for the time may not write

Answer = TypeVar("Answer")


class Unusable(Exception):
    """Redis answers and cannot be used. The message is a sentence for the operator."""


class RedisServer:
    """
    Runs scripts in the Redis at *url*.

    With *replicas* above 0, `run_acknowledged` succeeds only if so many replicas have the write.
    """

    def __init__(self, url: str, replicas: int = 0) -> None:
        self._url = url
        self._replicas = replicas
        self._client: Redis | RedisCluster | None = None
        self._single = self._connect()
        self._places = asyncio.Semaphore(_CONNECTIONS)
        self._find_out_mode = SharedRun(self._choose_client)

    async def run(self, script: str, keys: Sequence[str], *args: str | float) -> Any:
        """Return the result of *script*. Raises: Refusal with `state_unavailable`."""
        try:
            return await self._ask(lambda client: client.eval(script, len(keys), *keys, *args))
        except ERRORS as error:
            raise unavailable(told(error)) from error

    async def run_acknowledged(self, script: str, keys: Sequence[str], *args: str | float) -> Any:
        """
        Return the result of *script* when enough replicas have what it wrote.

        Raises: Refusal with `state_unavailable`, also if too few replicas have it. What the script
        wrote must then be undone.
        """
        if not self._replicas:
            return await self.run(script, keys, *args)
        try:
            # WAIT is about the writes of its own connection, which a pipeline keeps.
            found, acknowledged = await self._ask(
                lambda client: self._waited(client, script, keys, args, self._replicas)
            )
        except ERRORS as error:
            raise unavailable(told(error)) from error
        if int(acknowledged) < self._replicas:
            raise unavailable(f"{acknowledged} of {self._replicas} replicas acknowledged in time")
        return found

    async def inspect(self) -> None:
        """
        Find out whether Redis can be relied on.

        Raises: Unusable; Refusal with `state_unavailable` if Redis cannot be asked now.
        """
        try:
            client = await self._chosen()
            info = await self._info(client)
            if problem := info_problem(info):
                raise Unusable(problem)
            await self._ask(self._try_rights)
        except ERRORS as error:
            if problem := unusable_by(error):
                raise Unusable(problem + self._about_database(error)) from error
            raise unavailable(told(error)) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._find_out_mode.aclose()
        await self._single.aclose()
        if isinstance(self._client, RedisCluster):
            await self._client.aclose()

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        """Wait for one of the connections, as long as for an answer: a cluster's pool does not."""
        async with asyncio.timeout(TIMEOUT_SECONDS):
            await self._places.acquire()
        try:
            yield
        finally:
            self._places.release()

    async def _ask(self, question: Callable[[Redis | RedisCluster], Awaitable[Answer]]) -> Answer:
        """Put *question* to the client, with one of its connections."""
        client = await self._chosen()
        try:
            async with self._place():
                return await question(client)
        except MovedError:
            if client is not self._single:
                raise
        # Only a node of a cluster answers so. It may not have said that it is one.
        if self._client is self._single:
            self._client = self._connect_cluster()
        client = await self._chosen()
        async with self._place():
            return await question(client)

    async def _chosen(self) -> Redis | RedisCluster:
        if self._client is None:
            await self._find_out_mode()
        assert self._client is not None  # noqa: S101  `_choose_client` sets it or raises
        return self._client

    async def _choose_client(self) -> None:
        try:
            mode = mode_in(await self._single.info("server"))
        except NoPermissionError:
            mode = None  # `inspect` says what is missing
        self._client = self._connect_cluster() if mode == "cluster" else self._single

    def _about_database(self, error: Exception) -> str:
        """A hint for an answer that came while the database was chosen."""
        database = self._single.connection_pool.connection_kwargs.get("db", 0)
        if not database or not isinstance(error, ResponseError):
            return ""
        return (
            f" (the URL names database {database}: a server has 0 to 15 unless it is set"
            " otherwise, and a cluster has 0 alone)"
        )

    def _connect(self) -> Redis:
        # If all connections are busy, a caller waits for one as long as for an answer.
        pool = BlockingConnectionPool.from_url(
            self._url,
            **_verification(self._url),
            protocol=2,  # every Redis and every proxy speaks it
            decode_responses=True,
            max_connections=_CONNECTIONS,
            timeout=TIMEOUT_SECONDS,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),  # the caller is told at once
        )
        return Redis.from_pool(pool)

    def _connect_cluster(self) -> RedisCluster:
        return RedisCluster.from_url(
            self._url,
            **_verification(self._url),
            protocol=2,  # every Redis and every proxy speaks it
            decode_responses=True,
            max_connections=_CONNECTIONS + 1,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),  # once: the node may have handed its slots over
        )

    async def _try_rights(self, client: Redis | RedisCluster) -> None:
        """Run every command that the store runs."""
        if self._replicas:
            await self._waited(client, RIGHTS, (PROBE,), (), replicas=0)  # waits for none
        else:
            await client.eval(RIGHTS, 1, PROBE)

    async def _waited(
        self,
        client: Redis | RedisCluster,
        script: str,
        keys: Sequence[str],
        args: Sequence[str | float],
        replicas: int,
    ) -> tuple[Any, Any]:
        if isinstance(client, RedisCluster):
            await client.initialize()
            batch = client.pipeline()
            node = client.get_node_from_key(EPOCH)
            batch.execute_command("EVAL", script, len(keys), *keys, *args, target_nodes=node)
            batch.execute_command("WAIT", replicas, _WAIT_MS, target_nodes=node)
            # A redirected script would run where this WAIT did not wait.
            found, acknowledged = await batch.execute(allow_redirections=False)
        else:
            pipe = client.pipeline(transaction=False)
            pipe.eval(script, len(keys), *keys, *args)
            pipe.wait(replicas, _WAIT_MS)
            found, acknowledged = await pipe.execute()
        return found, acknowledged

    async def _info(self, client: Redis | RedisCluster) -> Mapping[str, Any]:
        """Return the INFO of Redis; at least its eviction policy, which CONFIG GET knows too."""
        node: dict[str, Any] = {}
        if isinstance(client, RedisCluster):
            await client.initialize()
            node = {"target_nodes": client.get_node_from_key(EPOCH)}
        info: dict[str, Any] = {}
        with suppress(NoPermissionError):
            info |= await client.info(**node)
        if _POLICY.replace("-", "_") in info:
            return info
        try:
            config = await client.config_get(_POLICY, **node)
        except ResponseError as error:  # managed services have no CONFIG
            if not unusable_by(error):
                raise
            raise Unusable(
                f"it tells its {_POLICY} neither by INFO nor by CONFIG GET, so nobody can tell"
                f" whether it evicts spent tokens; grant its user +info ({answer(error)})"
            ) from error
        return {"maxmemory_policy": config.get(_POLICY), **info}


def mode_in(info: Mapping[str, Any]) -> str | None:
    """Return the mode that a server tells by *info*, such as `cluster`. Valkey has its own name."""
    mode = info.get("redis_mode") or info.get("server_mode")
    return None if mode is None else str(mode)


def info_problem(info: Mapping[str, Any]) -> str | None:
    """Return why a Redis whose INFO is *info* cannot be used; None if it can be."""
    version = str(info.get("redis_version", ""))
    numbers = re.match(r"([0-9]+)\.([0-9]+)", version)
    if numbers and (int(numbers[1]), int(numbers[2])) < _OLDEST:
        return f"Redis {version[:20]} is too old; version 5.0 or newer is needed"
    policy = str(info.get("maxmemory_policy") or "")
    if not policy:
        return "it does not say its maxmemory-policy, so it may evict spent tokens"
    if policy != "noeviction":
        # Also without maxmemory: a limit can be set at any time, and evicts at once.
        return (
            f"its maxmemory-policy is {policy[:40]}, so it may evict spent tokens and accept them"
            " again; run: CONFIG SET maxmemory-policy noeviction (of a managed service, set it in"
            " the parameters of the instance)"
        )
    return None


def unavailable(why: str) -> Refusal:
    """The refusal of a request that Redis could not decide."""
    return Refusal(Reason.STATE_UNAVAILABLE, evidence={"shared-state": why})


def _verification(url: str) -> dict[str, Any]:
    """
    Return the arguments by which a certificate is judged as everywhere else (`outbound.trust`).

    Python 3.13 refuses CAs without key identifiers, as managed Redis services have them.
    """
    strict = [ssl.VERIFY_X509_STRICT]
    return {"ssl_exclude_verify_flags": strict} if url.lower().startswith("rediss:") else {}
