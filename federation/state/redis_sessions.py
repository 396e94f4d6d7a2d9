"""
People's sessions in Redis, shared by all replicas of the dashboard.

The scripts use no other command than those of the tokens' store, so its user needs no further
right. A tag is a sorted set of the keys that carry it, by the time of their end.

A Redis that went back to older data, as a replica does that is promoted too early, may have a
session again that had ended. A sign-out revoked its tokens, as far as broker and provider answered; a
session that ended in another way has tokens that nobody revoked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from federation.state.redis import RedisStore
from federation.state.sessions import OF_ONE_TAG

KEPT = "{federation}:session:"
TAGGED = "{federation}:session-tag:"

PUT = """
-- Keeps ARGV[1] in KEYS[1] for ARGV[2] ms. KEYS[2], KEYS[3], … are its tags: the key's score is
-- ARGV[3], the millisecond in which it ends at the latest. Of more than ARGV[4] keys with one tag,
-- those that end first are deleted.
redis.call('SET', KEYS[1], ARGV[3] .. ' ' .. ARGV[1], 'PX', ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for place = 2, #KEYS do
  local tag = KEYS[place]
  redis.call('ZADD', tag, ARGV[3], KEYS[1])
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', tag, '-inf', string.format('%d', now))) do
    redis.call('ZREM', tag, gone)
  end
  for _, old in ipairs(redis.call('ZREVRANGE', tag, ARGV[4], -1)) do
    redis.call('DEL', old)
    redis.call('ZREM', tag, old)
  end
  local last = redis.call('ZREVRANGE', tag, 0, 0, 'WITHSCORES')[2] or now
  redis.call('PEXPIRE', tag, string.format('%d', last - now + 1000))
end
return 1
"""
GET = """
-- Returns what KEYS[1] holds, and keeps it for ARGV[1] ms from now, but not beyond its end (0: as
-- long as before).
local held = redis.call('GET', KEYS[1])
if not held then return false end
local ends, value = string.match(held, '^(%d+) (.*)$')
if ARGV[1] ~= '0' then
  local time = redis.call('TIME')
  local left = ends - time[1] * 1000 - math.floor(time[2] / 1000)
  redis.call('PEXPIRE', KEYS[1], string.format('%d', math.min(ARGV[1], left)))
end
return value
"""
REPLACE = """
-- Replaces what KEYS[1] holds by ARGV[1], for ARGV[2] ms. Returns 0 if it holds nothing.
local held = redis.call('GET', KEYS[1])
if not held then return 0 end
redis.call('SET', KEYS[1], string.match(held, '^%d+') .. ' ' .. ARGV[1], 'PX', ARGV[2])
return 1
"""
HOLD = """
-- Keeps KEYS[1] for ARGV[1] ms, and ends it in the millisecond ARGV[2]. Returns 0 if it is kept already.
if redis.call('SET', KEYS[1], ARGV[2] .. ' ', 'NX', 'PX', ARGV[1]) then return 1 end
return 0
"""
DELETE = """
-- Deletes KEYS[1]. Returns how many there were.
return redis.call('DEL', KEYS[1])
"""
DELETE_TAGGED = """
-- Deletes every key that carries the tag KEYS[1]. Returns how many there were.
local number = 0
for _, key in ipairs(redis.call('ZREVRANGE', KEYS[1], 0, -1)) do
  number = number + redis.call('DEL', key)
end
redis.call('DEL', KEYS[1])
return number
"""


class RedisSessions(RedisStore):
    """A session store in the Redis of its base."""

    async def put(
        self, key: str, value: str, until: float, tags: Sequence[str] = (), ends: float = 0.0
    ) -> None:
        """Keep *value*."""
        keys = [KEPT + key, *(TAGGED + tag for tag in tags)]
        last = math.ceil(max(until, ends) * 1000)
        await self._server.run(PUT, keys, value, self._for_ms(until), last, OF_ONE_TAG)

    async def get(self, key: str, until: float = 0.0) -> str | None:
        """Return the value, and keep it longer."""
        kept_ms = self._for_ms(until) if until else 0
        found = await self._server.run(GET, [KEPT + key], kept_ms)
        return None if found is None else str(found)

    async def replace(self, key: str, value: str, until: float) -> bool:
        """Replace the value if it is there."""
        return bool(await self._server.run(REPLACE, [KEPT + key], value, self._for_ms(until)) == 1)

    async def hold(self, key: str, until: float) -> bool:
        """Return True for the first caller."""
        last = math.ceil(until * 1000)
        return bool(await self._server.run(HOLD, [KEPT + key], self._for_ms(until), last) == 1)

    async def delete(self, key: str) -> bool:
        """Delete the value."""
        return bool(await self._server.run(DELETE, [KEPT + key]) == 1)

    async def delete_tagged(self, tag: str) -> int:
        """Delete what carries *tag*."""
        return int(await self._server.run(DELETE_TAGGED, [TAGGED + tag]))

    def _for_ms(self, until: float) -> int:
        return max(1, int((until - self._clock()) * 1000))
