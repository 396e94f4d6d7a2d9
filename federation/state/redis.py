"""
A store in Redis, shared by all replicas.

Redis can lose its data: by a restart without persistence, an eviction or a flush. It would then
accept every spent token a second time. Each claim therefore checks an epoch, a random id that
the first replica writes to Redis. A missing or different epoch means that Redis lost its data.
The replicas then start a new epoch and refuse tokens that were issued before it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from federation.errors import Reason, Refusal
from federation.providers.table import LEEWAY
from federation.state import Observe, timed
from federation.state.expiring import KEPT_LONGER_SECONDS, ExpiringSet, Freshness

_POLL_SECONDS = 0.25
_TIMEOUT_SECONDS = 2.0
_CONNECTIONS = 64
_CLAIMS_KEPT = 8192
_EPOCH, _SPENT, _REVOKED = "federation:epoch", "federation:spent:", "federation:revoked"

# Claims KEYS[2] for ARGV[3] if the epoch in KEYS[1] is still ARGV[1].
# Returns 1: claimed, 0: claimed before, -1: another epoch.
_CLAIM = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
if redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
"""
# Gives KEYS[1] back if it was claimed for ARGV[1].
_UNDO = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""
# Starts the epoch ARGV[2] if KEYS[1] still holds ARGV[1] (empty: none). Returns the epoch in force.
_START_EPOCH = """
local epoch = redis.call('GET', KEYS[1]) or ''
if epoch == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]); return ARGV[2] end
return epoch
"""


class RedisStore:
    """
    Keeps spent and revoked tokens in the Redis at *url*.

    *memory* is a file with the last epoch that this replica knew, so that a replica that was
    down while Redis lost its data notices the loss.
    """

    def __init__(
        self, url: str, clock: Callable[[], float], memory: Path, observe: Observe | None = None
    ) -> None:
        # If all connections are busy, a caller waits for one as long as for an answer.
        pool = BlockingConnectionPool.from_url(
            url,
            decode_responses=True,
            max_connections=_CONNECTIONS,
            timeout=_TIMEOUT_SECONDS,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),  # a claim whose answer was lost may have been made
        )
        self._redis = Redis.from_pool(pool)
        self._clock = clock
        self._memory = memory
        self._observe = observe
        self._epoch = memory.read_text("ascii") if memory.exists() else ""
        self._claims: dict[str, str] = {}
        """Claims of this replica that it may still have to give back."""
        self._undo: dict[str, str] = {}
        """Claims to give back as soon as Redis answers."""
        self._revoked = ExpiringSet()
        self._fresh = Freshness()

    async def spend(self, key: str, until: float, issued: float) -> bool:
        """Claim *key*. Return True for the first caller of all replicas."""
        kept_ms = max(1, int((until - self._clock() + KEPT_LONGER_SECONDS) * 1000))
        with timed(self._observe, "spend"):
            for _ in range(2):
                if issued - LEEWAY.total_seconds() < self._lost_at():
                    raise _unavailable("it lost its memory after this token was issued")
                answer = await self._claim(key, kept_ms)
                if answer != -1:
                    return answer == 1
                await self._learn_epoch()
            raise _unavailable("it loses its memory again and again")

    async def restore(self, key: str) -> None:
        """Give *key* back now, or as soon as Redis answers."""
        if claim := self._claims.pop(key, None):
            self._undo[key] = claim
        with timed(self._observe, "restore"):
            await self._undo_claims()

    async def revoke(self, jti: str, until: float) -> None:
        """Remember that *jti* was revoked. Other replicas know within a second."""
        with timed(self._observe, "revoke"):
            await self._do(self._redis.zadd(_REVOKED, {jti: until}))
        self._revoked.add(jti, until, self._clock())

    async def revoked(self, jti: str) -> bool:
        """Return whether *jti* was revoked."""
        if jti not in self._revoked and self._fresh.stale():
            await self._look()
        return jti in self._revoked

    async def run(self) -> None:
        """Poll for revoked tokens and undo claims that are due, until cancelled."""
        this = asyncio.current_task()
        # Before Python 3.12 `wait_for`, which the client uses, can swallow a cancellation
        # (gh-86296). The shutdown would then wait for this task for ever.
        while this is None or not this.cancelling():
            with suppress(Refusal):
                await self._look()
                await self._undo_claims()
            await asyncio.sleep(_POLL_SECONDS)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _look(self) -> None:
        """Read all revoked tokens, and write those back that Redis lost."""
        began, now = time.monotonic(), self._clock()
        await self._do(self._redis.zremrangebyscore(_REVOKED, 0, now - KEPT_LONGER_SECONDS))
        there = dict(await self._do(self._redis.zrange(_REVOKED, 0, -1, withscores=True)))
        for jti, until in there.items():
            self._revoked.add(jti, until, now)
        if lost := {jti: until for jti, until in self._revoked.items() if jti not in there}:
            await self._do(self._redis.zadd(_REVOKED, lost))
        self._fresh.seen(began)

    async def _claim(self, key: str, kept_ms: int) -> object:
        """Run `_CLAIM`. If no answer arrives, the claim may exist, so mark it to be undone."""
        claim, answer = secrets.token_hex(8), None
        try:
            answer = await self._do(
                self._redis.eval(_CLAIM, 2, _EPOCH, _SPENT + key, self._epoch, kept_ms, claim)
            )
        finally:
            if answer is None:
                self._undo[key] = claim
        if answer == 1:
            self._claims[key] = claim
            while len(self._claims) > _CLAIMS_KEPT:
                del self._claims[next(iter(self._claims))]
        return answer

    async def _undo_claims(self) -> None:
        for key, claim in list(self._undo.items()):
            await self._do(self._redis.eval(_UNDO, 1, _SPENT + key, claim))
            self._undo.pop(key, None)

    def _lost_at(self) -> float:
        """Return when Redis was last found without its data, 0 if never."""
        return float(self._epoch.partition(":")[2] or 0)

    async def _learn_epoch(self) -> None:
        """Read the epoch of Redis, or start a new one if Redis has none or lost its data."""
        known = self._epoch
        there = await self._do(self._redis.get(_EPOCH)) or ""
        lost_at = self._clock() if known else 0.0
        if not there or (known and float(there.partition(":")[2] or 0) == 0.0 and there != known):
            new = f"{secrets.token_hex(8)}:{lost_at}"
            there = await self._do(self._redis.eval(_START_EPOCH, 1, _EPOCH, there, new))
        self._epoch = str(there)
        self._memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._memory.write_text(self._epoch, "ascii")

    async def _do(self, command: Awaitable[Any]) -> Any:
        """Return the answer to *command*. Raises: Refusal with `state_unavailable`."""
        try:
            return await command
        except (RedisError, OSError, TimeoutError) as error:
            raise _unavailable(type(error).__name__) from error


def _unavailable(why: str) -> Refusal:
    return Refusal(Reason.STATE_UNAVAILABLE, evidence={"shared-state": why})
