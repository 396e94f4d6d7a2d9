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
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)

from federation.errors import Reason, Refusal
from federation.state.redis_scripts import EPOCH, PROBE, RIGHTS
from federation.state.sharing import SharedRun

TIMEOUT_SECONDS = 2.0
_WAIT_MS = 1000
_CONNECTIONS = 64
_MESSAGE_CHARS = 200
_POLICY = "maxmemory-policy"
_OLDEST = (5, 0)  # before it, a script that asks for the time may not write

_ERRORS = (
    RedisError,
    RedisClusterException,
    OSError,
    TimeoutError,
    RuntimeError,  # of uvloop, if a connection is closed while the client begins to use it
)
_PASSING = (
    AskError,  # and MovedError: the cluster's slots move
    BusyLoadingError,
    ClusterDownError,  # and MasterDownError
    OutOfMemoryError,
    ReadOnlyError,  # during a failover
    TryAgainError,
)
"""Answers of a Redis that can be used a little later."""


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
            client = await self._chosen()
            async with self._place():
                return await client.eval(script, len(keys), *keys, *args)
        except _ERRORS as error:
            raise unavailable(_why(error)) from error

    async def run_acknowledged(self, script: str, keys: Sequence[str], *args: str | float) -> Any:
        """
        Return the result of *script* when enough replicas have what it wrote.

        Raises: Refusal with `state_unavailable`, also if too few replicas have it. What the script
        wrote must then be undone.
        """
        if not self._replicas:
            return await self.run(script, keys, *args)
        try:
            client = await self._chosen()
            async with self._place():
                # WAIT is about the writes of its own connection, which a pipeline keeps.
                answer, acknowledged = await self._waited(client, script, keys, args)
        except _ERRORS as error:
            raise unavailable(_why(error)) from error
        if int(acknowledged) < self._replicas:
            raise unavailable(f"{acknowledged} of {self._replicas} replicas acknowledged in time")
        return answer

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
            async with self._place():
                await client.eval(RIGHTS, 1, PROBE)
        except _ERRORS as error:
            if problem := unusable_by(error):
                raise Unusable(problem) from error
            raise unavailable(_why(error)) from error

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

    async def _chosen(self) -> Redis | RedisCluster:
        if self._client is None:
            await self._find_out_mode()
        assert self._client is not None  # noqa: S101  `_choose_client` sets it or raises
        return self._client

    async def _choose_client(self) -> None:
        try:
            mode = dict(await self._single.info("server")).get("redis_mode")
        except NoPermissionError:
            mode = None  # `inspect` says what is missing
        self._client = self._connect_cluster() if mode == "cluster" else self._single

    def _connect(self) -> Redis:
        # If all connections are busy, a caller waits for one as long as for an answer.
        pool = BlockingConnectionPool.from_url(
            self._url,
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
            protocol=2,  # every Redis and every proxy speaks it
            decode_responses=True,
            max_connections=_CONNECTIONS + 1,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 1),  # once: the node may have handed its slots over
        )

    async def _waited(
        self,
        client: Redis | RedisCluster,
        script: str,
        keys: Sequence[str],
        args: Sequence[str | float],
    ) -> tuple[Any, Any]:
        if isinstance(client, RedisCluster):
            await client.initialize()
            batch = client.pipeline()
            node = client.get_node_from_key(EPOCH)
            batch.execute_command("EVAL", script, len(keys), *keys, *args, target_nodes=node)
            batch.execute_command("WAIT", self._replicas, _WAIT_MS, target_nodes=node)
            # A redirected script would run where this WAIT did not wait.
            answer, acknowledged = await batch.execute(allow_redirections=False)
        else:
            pipe = client.pipeline(transaction=False)
            pipe.eval(script, len(keys), *keys, *args)
            pipe.wait(self._replicas, _WAIT_MS)
            answer, acknowledged = await pipe.execute()
        return answer, acknowledged

    async def _info(self, client: Redis | RedisCluster) -> Mapping[str, Any]:
        """What Redis says of itself; at least its eviction policy, which CONFIG GET knows too."""
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
        except NoPermissionError as error:
            raise Unusable(
                "its user may run neither INFO nor CONFIG GET, so nobody can tell whether it"
                " evicts spent tokens; grant it +info"
            ) from error
        return {"maxmemory_policy": config.get(_POLICY), **info}


def info_problem(info: Mapping[str, Any]) -> str | None:
    """Why a Redis that says *info* of itself cannot be used; None if it can be."""
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
            " again; run: CONFIG SET maxmemory-policy noeviction"
        )
    return None


def unusable_by(error: Exception) -> str | None:
    """Why a Redis that answers with *error* cannot be used; None if the error may pass."""
    if isinstance(error, AuthenticationError | AuthorizationError):
        return "it does not accept the user and password of the URL"
    if isinstance(error, _PASSING) or not isinstance(error, ResponseError):
        return None
    if isinstance(error, NoPermissionError):
        return f"its user lacks a right: {_text(error)}"
    return f"it answered: {_text(error)}"


def unavailable(why: str) -> Refusal:
    """The refusal of a request that Redis could not decide."""
    return Refusal(Reason.STATE_UNAVAILABLE, evidence={"shared-state": why})


def _why(error: Exception) -> str:
    """The kind of *error*, with the text of an answer; that of other errors may hold the URL."""
    name = type(error).__name__
    return f"{name}: {_text(error)}" if isinstance(error, ResponseError) else name


def _text(error: Exception) -> str:
    return str(error)[:_MESSAGE_CHARS]
