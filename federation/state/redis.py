"""
A store in Redis, shared by all replicas.

Redis may lose its memory: a restart without persistence, an eviction, a flush. Then it knows
of no spent token, and would take each a second time. So every claim is made only in the same
life of Redis that this replica knows: a random id that the first replica leaves there. Where
that id is gone or another, the memory is lost, a new life begins, and tokens issued before it
are refused for as long as they live.
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
from federation.state.expiring import KEPT_LONGER_SECONDS, ExpiringSet, Freshness

__all__ = ["RedisStore"]

_LOOK_SECONDS = 0.25
_TIMEOUT_SECONDS = 2.0
_CONNECTIONS = 64
_CLAIMS_KEPT = 8192
_LIFE, _SPENT, _REVOKED = "federation:life", "federation:spent:", "federation:revoked"

# Claims KEYS[2] for ARGV[3] if the life in KEYS[1] is still ARGV[1].
# 1: claimed, 0: it was claimed before, -1: the life is another.
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
# Begins the life ARGV[2] where the one in KEYS[1] is still ARGV[1] (empty: none); tells which is.
_BEGIN = """
local life = redis.call('GET', KEYS[1]) or ''
if life == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]); return ARGV[2] end
return life
"""


class RedisStore:
    """
    Spent and revoked tokens in the Redis at *url*.

    *memory* is a file in which this replica keeps the life it knew, for the time after its own
    restart.
    """

    def __init__(self, url: str, clock: Callable[[], float], memory: Path) -> None:
        # Whoever finds every connection at work waits for one, as for an answer.
        pool = BlockingConnectionPool.from_url(
            url,
            decode_responses=True,
            max_connections=_CONNECTIONS,
            timeout=_TIMEOUT_SECONDS,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),  # a claim that was cut off may have been made
        )
        self._redis = Redis.from_pool(pool)
        self._clock = clock
        self._memory = memory
        self._life = memory.read_text("ascii") if memory.exists() else ""
        self._claims: dict[str, str] = {}
        """Claims made here that may still have to be given back."""
        self._undo: dict[str, str] = {}
        """Claims to take back as soon as Redis answers."""
        self._revoked = ExpiringSet()
        self._fresh = Freshness()

    async def spend(self, key: str, until: float, issued: float) -> bool:
        """Claim *key*; True for the first caller, of all replicas."""
        kept_ms = max(1, int((until - self._clock() + KEPT_LONGER_SECONDS) * 1000))
        for _ in range(2):
            if issued - LEEWAY.total_seconds() < self._lost_at():
                raise _unavailable("it lost its memory after this token was issued")
            match await self._claim(key, kept_ms):
                case 1:
                    return True
                case 0:
                    return False
            await self._begin_life()
        raise _unavailable("it loses its memory again and again")

    async def restore(self, key: str) -> None:
        """Give *key* back; where Redis cannot be reached, as soon as it can be."""
        if claim := self._claims.pop(key, None):
            self._undo[key] = claim
        await self._undo_claims()

    async def revoke(self, jti: str, until: float) -> None:
        """Remember that *jti* was ended; here at once, in other replicas within a second."""
        await self._do(self._redis.zadd(_REVOKED, {jti: until}))
        self._revoked.add(jti, until, self._clock())

    async def revoked(self, jti: str) -> bool:
        """Whether *jti* was ended."""
        if jti not in self._revoked and self._fresh.stale():
            await self._look()
        return jti in self._revoked

    async def run(self) -> None:
        """The view of revoked tokens stays fresh until cancelled."""
        this = asyncio.current_task()
        # Before Python 3.12 `wait_for`, which the client relies on, may swallow a cancellation
        # (gh-86296), and the broker would wait for this task for ever.
        while this is None or not this.cancelling():
            with suppress(Refusal):
                await self._look()
                await self._undo_claims()
            await asyncio.sleep(_LOOK_SECONDS)

    async def aclose(self) -> None:
        """The connections are closed."""
        await self._redis.aclose()

    async def _look(self) -> None:
        """Whatever was revoked before now is known here, and in Redis if it was lost there."""
        began, now = time.monotonic(), self._clock()
        await self._do(self._redis.zremrangebyscore(_REVOKED, 0, now - KEPT_LONGER_SECONDS))
        there = dict(await self._do(self._redis.zrange(_REVOKED, 0, -1, withscores=True)))
        for jti, until in there.items():
            self._revoked.add(jti, until, now)
        if forgotten := {j: u for j, u in self._revoked.items() if j not in there}:
            await self._do(self._redis.zadd(_REVOKED, forgotten))
        self._fresh.seen(began)

    async def _claim(self, key: str, kept_ms: int) -> object:
        """What `_CLAIM` says; where no answer comes, the claim is taken back once one can."""
        claim = secrets.token_hex(8)
        try:
            said = await self._do(
                self._redis.eval(_CLAIM, 2, _LIFE, _SPENT + key, self._life, kept_ms, claim)
            )
        except BaseException:
            self._undo[key] = claim
            raise
        if said == 1:
            self._claims[key] = claim
            while len(self._claims) > _CLAIMS_KEPT:
                del self._claims[next(iter(self._claims))]
        return said

    async def _undo_claims(self) -> None:
        for key, claim in list(self._undo.items()):
            await self._do(self._redis.eval(_UNDO, 1, _SPENT + key, claim))
            self._undo.pop(key, None)

    def _lost_at(self) -> float:
        """When Redis was last found to have lost its memory; 0 where it never was."""
        return float(self._life.partition(":")[2] or 0)

    async def _begin_life(self) -> None:
        """This replica knows the life that Redis is in, a new one if it must be."""
        known = self._life
        there = await self._do(self._redis.get(_LIFE)) or ""
        lost_at = self._clock() if known else 0.0
        if not there or (known and float(there.partition(":")[2] or 0) == 0.0 and there != known):
            new = f"{secrets.token_hex(8)}:{lost_at}"
            there = await self._do(self._redis.eval(_BEGIN, 1, _LIFE, there, new))
        self._life = str(there)
        self._memory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._memory.write_text(self._life, "ascii")

    async def _do(self, asked: Awaitable[Any]) -> Any:
        try:
            return await asked
        except (RedisError, OSError, TimeoutError) as error:
            raise _unavailable(type(error).__name__) from error


def _unavailable(why: str) -> Refusal:
    return Refusal(Reason.STATE_UNAVAILABLE, evidence={"shared-state": why})
