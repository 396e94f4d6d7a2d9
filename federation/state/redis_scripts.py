"""
The keys in Redis, and the Lua scripts over them.

Each script is atomic in Redis. All keys share the hash tag `{federation}`, so that in a cluster
one node has all of them, as a script needs it.

Revoked tokens are members `"<until> <jti>"` of two sorted sets. In `REVOKED` the score is a
number that grows with each entry, so that a replica reads only what came after its last look. In
`UNTIL` it is the time of expiry, by which old entries are deleted. The newest entry always stays:
the numbers never start again while the others are there.
"""

from __future__ import annotations

EPOCH = "{federation}:epoch"
SPENT = "{federation}:spent:"
REVOKED = "{federation}:revoked"
UNTIL = "{federation}:revoked:until"
REVOKED_OF = "{federation}:revoked:of:"
PROBE = "{federation}:probe"

CLAIM = """
-- Claims KEYS[2] for ARGV[3] if the epoch in KEYS[1] is still ARGV[1].
-- Returns 1: claimed, 0: claimed by another, -1: another epoch. A repetition changes nothing.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
if redis.call('SET', KEYS[2], ARGV[3], 'NX', 'PX', ARGV[2]) then return 1 end
if redis.call('GET', KEYS[2]) == ARGV[3] then return 1 end
return 0
"""
UNDO = """
-- Gives KEYS[1] back if it was claimed for ARGV[1].
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""
START_EPOCH = """
-- Starts the epoch ARGV[2] if KEYS[1] still holds ARGV[1] (empty: none). Returns the one in force.
local epoch = redis.call('GET', KEYS[1]) or ''
if epoch == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]); return ARGV[2] end
return epoch
"""
REVOKE = """
-- Revokes the token ARGV[1], which expires at ARGV[2]. KEYS: REVOKED, UNTIL, and the number of
-- tokens revoked one by one that have the parent ARGV[3] (empty: none). Beyond ARGV[4] of them,
-- the parent is revoked instead; it expires at the same time. Returns the token that ended.
local jti, expires, parent = ARGV[1], ARGV[2], ARGV[3]
local function member(token) return expires .. ' ' .. token end
local function is_revoked(token) return redis.call('ZSCORE', KEYS[1], member(token)) end
if parent ~= '' and is_revoked(parent) then return parent end
if is_revoked(jti) then return jti end
if parent ~= '' then
  local count = redis.call('INCR', KEYS[3])
  redis.call('PEXPIRE', KEYS[3], ARGV[5])
  if count > tonumber(ARGV[4]) then jti = parent end
end
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or 0
redis.call('ZADD', KEYS[1], last + 1, member(jti))
redis.call('ZADD', KEYS[2], expires, member(jti))
return jti
"""
READ = """
-- Reads at most ARGV[3] entries of KEYS[1] after the entry ARGV[1] with the number ARGV[2] (empty:
-- from the beginning). Returns 0 if that entry is gone or has another number, so that what came
-- after it cannot be told; else 1, the number of the last entry, and the entries in JSON: one
-- string is read much faster by the client than a thousand.
local last, number = ARGV[1], ARGV[2]
if last ~= '' and tonumber(redis.call('ZSCORE', KEYS[1], last) or -1) ~= tonumber(number) then
  return {0, number, '[]'}
end
local found = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. number, '+inf', 'LIMIT', 0, ARGV[3])
if #found == 0 then return {1, number, '[]'} end
return {1, redis.call('ZSCORE', KEYS[1], found[#found]), cjson.encode(found)}
"""
WRITE_BACK = """
-- Adds the entries ARGV[2], ARGV[3], … that are missing. KEYS: REVOKED, UNTIL. Those that expired
-- more than ARGV[1] seconds ago, by the clock of Redis, are left out.
local oldest = redis.call('TIME')[1] - ARGV[1]
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or 0
for place = 2, #ARGV do
  local entry = ARGV[place]
  local expires = tonumber(string.match(entry, '^%d+'))
  if expires >= oldest and not redis.call('ZSCORE', KEYS[1], entry) then
    last = last + 1
    redis.call('ZADD', KEYS[1], last, entry)
    redis.call('ZADD', KEYS[2], expires, entry)
  end
end
return 1
"""
DELETE_EXPIRED = """
-- Deletes at most ARGV[2] entries that expired more than ARGV[1] seconds ago, by the clock of
-- Redis, which is the same for all replicas. KEYS: REVOKED, UNTIL.
local oldest = '(' .. (redis.call('TIME')[1] - ARGV[1])
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0)[1]
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', oldest, 'LIMIT', 0, ARGV[2])) do
  if entry ~= newest then
    redis.call('ZREM', KEYS[1], entry)
    redis.call('ZREM', KEYS[2], entry)
  end
end
return 1
"""
RIGHTS = """
-- Runs every command of the other scripts on KEYS[1], so that a missing right shows at once.
local key = KEYS[1]
local commands = {
  {'TIME'}, {'SET', key, '1', 'PX', 1000}, {'GET', key}, {'INCR', key}, {'PEXPIRE', key, 1000},
  {'DEL', key}, {'ZADD', key, 1, 'entry'}, {'ZSCORE', key, 'entry'}, {'ZREVRANGE', key, 0, 0},
  {'ZRANGEBYSCORE', key, 0, 0}, {'ZREM', key, 'entry'},
}
for _, command in ipairs(commands) do
  local answer = redis.pcall(unpack(command))
  if type(answer) == 'table' and answer.err then
    return redis.error_reply(answer.err .. ' (' .. command[1] .. ')')
  end
end
return 1
"""
