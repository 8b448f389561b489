"""What Redis does in one step each: the Lua scripts of the Redis broker.

A connection's presence is an entry, ``SCOPE\\nUSER_ID\\nSUBSCRIBER_ID`` with the scope
``API_KEY/APP_ID:STREAM``; no name holds a line break. Every entry stands in the set of the node that has the
connection, and is counted for its user in the hash of its stream. docs/how-to/redis.md lists all keys.
"""

from __future__ import annotations

import hashlib
from typing import Any

RECENT_S = 60
"""For how many seconds after the last publication Redis keeps the recent ones."""

MAX_RECENT_BYTES = 64 * 1024 * 1024
"""How many bytes of them Redis keeps at most, without direct messages."""

MAX_DIRECT_BYTES = 8 * 1024 * 1024
"""How many bytes of recent direct messages Redis keeps at most.

Subscribers send them, and must not be able to push out what apps publish.
"""

_ENTRY_BYTES = 64  # that one of them takes beside its channel and data


class Script:
    """One script, which Redis knows by the digest of its text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def __call__(self, *arguments: Any, keys: tuple[bytes, ...]) -> tuple[Any, ...]:
        """The command that runs it."""
        return ("EVALSHA", self.digest, len(keys), *keys, *arguments)


_CLOCK = """
local time = redis.call('TIME')
local clock_ms = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# What has been answered "unavailable" is not to be delivered after all when Redis, that was stopped for a
# while, goes on; by then perhaps nobody listens. ARGV: until when it may be, by Redis' own clock.
_IN_TIME = f"""{_CLOCK}
if clock_ms > tonumber(ARGV[1]) then
  return redis.error_reply('LATE by ' .. clock_ms - ARGV[1] .. ' ms')
end
"""

# A place counts bytes, from the clock on: if Redis forgets it, new ones are above all that it had given.
_PLACE = """
local function last_place(place_key)
  local last = redis.call('HGET', place_key, 'last')
  if not last then
    last = string.format('%.0f', time[1] * 1000000 + time[2])
    redis.call('HSET', place_key, 'first', last, 'last', last)
  end
  return last
end
"""

# From the two logs, a node that lost its link makes up for what it missed. The newest place of a log is the
# field of its name, and each entry has the place of the one before, so a node notices what was trimmed.
_HAND_OUT = f"""{_PLACE}
local function entry_bytes(channel, data)
  return #channel + #data + {_ENTRY_BYTES}
end
local function hand_out(log, log_key, place_key, channel, data, step, kept)
  local place = string.format('%.0f', last_place(place_key) + step)
  local oldest = string.format('%.0f', place - kept)
  local before = redis.call('HGET', place_key, log) or '0'
  redis.call('HSET', place_key, 'last', place, log, place)
  redis.call('XADD', log_key, 'MINID', '~', oldest, place .. '-0',
    'before', before, 'channel', channel, 'data', data)
  redis.call('EXPIRE', log_key, {RECENT_S})
  return redis.call('PUBLISH', channel, place .. ' ' .. data)
end
"""

# That places count bytes bounds what is kept.
_HAND_OUT_RECENT = f"""{_HAND_OUT}
local function hand_out_recent(log_key, place_key, channel, data)
  return hand_out('recent', log_key, place_key, channel, data, entry_bytes(channel, data), {MAX_RECENT_BYTES})
end
"""

# ARGV: until when, channel, what is published. Returns how many listen.
SEND = Script(f"""{_IN_TIME}
return redis.call('PUBLISH', ARGV[2], ARGV[3])
""")

# A direct message takes one place, whatever its size, so it pushes nothing out of the other log.
# KEYS: the recent direct messages, the place of the last publication. ARGV: until when, channel, what is
#       published.
DIRECT = Script(f"""{_IN_TIME}{_HAND_OUT}
local bytes = entry_bytes(ARGV[2], ARGV[3])
local kept = bytes
if redis.call('EXISTS', KEYS[1]) == 1 then
  kept = kept + (redis.call('HGET', KEYS[2], 'direct_bytes') or 0)
end
while kept > {MAX_DIRECT_BYTES} do
  local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if not oldest then
    kept = bytes
    break
  end
  kept = kept - entry_bytes(oldest[2][4], oldest[2][6])
  redis.call('XDEL', KEYS[1], oldest[1])
end
redis.call('HSET', KEYS[2], 'direct_bytes', kept)
hand_out('direct', KEYS[1], KEYS[2], ARGV[2], ARGV[3], 1, {MAX_RECENT_BYTES})
""")

# KEYS: the app's claims of one second; how many claims the app has; its token bucket; the recent
#       publications, the place of the last.
# ARGV: until when, channel, what is published, nonce, signature, timestamp, now, for how many seconds a
#       claim is kept, how many of the app at most, publishes/s or "".
# Returns what became of it, after how many seconds to try again, and how many nodes listen to the channel.
PUBLISH = Script(
    f"{_IN_TIME}{_HAND_OUT_RECENT}"
    """
local nonce, signature, timestamp, now = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local kept_s, max_claims, per_s = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])

local taken = redis.call('HGET', KEYS[1], nonce)
if taken then
  local nodes = redis.call('PUBSUB', 'NUMSUB', ARGV[2])[2]
  return {taken == signature and 'replayed' or 'nonce_reused', '0', nodes}
end

local tokens
local clock = time[1] + time[2] / 1000000
if per_s then
  local bucket = redis.call('HMGET', KEYS[3], 'tokens', 'filled_at')
  tokens = math.max(1, per_s)
  if bucket[1] then
    tokens = math.min(tokens, bucket[1] + math.max(0, clock - bucket[2]) * per_s)
  end
  if tokens < 1 then
    return {'rate_limited', tostring((1 - tokens) / per_s), 0}
  end
end

local total = tonumber(redis.call('HGET', KEYS[2], 'total') or 0)
if total >= max_claims or redis.call('EXISTS', KEYS[1]) == 0 then
  local counts = redis.call('HGETALL', KEYS[2])
  local oldest = timestamp
  for i = 1, #counts, 2 do
    local second = tonumber(counts[i])
    if second and second < now - kept_s then
      total = redis.call('HINCRBY', KEYS[2], 'total', -counts[i + 1])
      redis.call('HDEL', KEYS[2], counts[i])
    elseif second then
      oldest = math.min(oldest, second)
    end
  end
  if total >= max_claims then
    return {'full', tostring(oldest + kept_s + 1 - now), 0}
  end
end

redis.call('HSET', KEYS[1], nonce, signature)
redis.call('EXPIRE', KEYS[1], math.max(1, timestamp + kept_s + 1 - now))
redis.call('HINCRBY', KEYS[2], 'total', 1)
redis.call('HINCRBY', KEYS[2], timestamp, 1)
redis.call('EXPIRE', KEYS[2], 2 * kept_s + 1)
if per_s then
  redis.call('HSET', KEYS[3], 'tokens', tokens - 1, 'filled_at', string.format('%.6f', clock))
  redis.call('EXPIRE', KEYS[3], math.ceil(math.max(1, per_s) / per_s) + 1)
end
return {'delivered', '0', hand_out_recent(KEYS[4], KEYS[5], ARGV[2], ARGV[3])}
"""
)

# A link that was given up may still have commands on their way, which must not undo what its successor did.
# KEYS: the links. ARGV: node, number of its link.
_FENCE = """
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return redis.error_reply('LINK ' .. ARGV[2] .. ' of this node is not known, or no more')
end
"""

_LEAVE = """
local function leave(prefix, node_key, entry)
  if redis.call('SREM', node_key, entry) == 0 then
    return
  end
  local scope, user_id = string.match(entry, '^([^\\n]*)\\n([^\\n]*)\\n')
  local present_key = prefix .. 'present:' .. scope
  if redis.call('HINCRBY', present_key, user_id, -1) <= 0 then
    redis.call('HDEL', present_key, user_id)
    redis.call('PUBLISH', prefix .. 'stream:' .. scope, 'down\\n' .. user_id)
  end
end
"""

# KEYS: the links, the leases, the place of the last publication. ARGV: node, number of its link, for how
#       many milliseconds the lease is, the node's channel, the beginning of the answer that is
#       published there; the rest of it is that place.
# Returns until when the node's lease was, and until when it is, in milliseconds since 1970.
_LEASE = f"""{_CLOCK}{_PLACE}
local before = redis.call('ZSCORE', KEYS[2], ARGV[1])
local until_ms = clock_ms + ARGV[3]
redis.call('ZADD', KEYS[2], until_ms, ARGV[1])
redis.call('PUBLISH', ARGV[4], ARGV[5] .. last_place(KEYS[3]))
return {{before or '', string.format('%.0f', until_ms)}}
"""

# As LEASE, for the first of a link.
ENTER = Script(f"""
if tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0) > tonumber(ARGV[2]) then
  return redis.error_reply('LINK ' .. ARGV[2] .. ' of this node has a successor')
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
{_LEASE}
""")

LEASE = Script(f"{_FENCE}{_LEASE}")

# KEYS: the links, the entries of the node, the stream's users. ARGV: node, number of its link, entry,
#       user id, the stream's channel, the node's channel, the beginning of the answer that is published
#       there, or "" for none.
# That the answer goes through the node's channel puts it in its place among the events.
JOIN = Script(f"""{_FENCE}
if redis.call('SADD', KEYS[2], ARGV[3]) == 1 and redis.call('HINCRBY', KEYS[3], ARGV[4], 1) == 1 then
  redis.call('PUBLISH', ARGV[5], 'up\\n' .. ARGV[4])
end
if ARGV[7] ~= '' then
  redis.call('PUBLISH', ARGV[6], ARGV[7] .. table.concat(redis.call('HKEYS', KEYS[3]), '\\n'))
end
""")

# KEYS: the stream's users. ARGV: the node's channel, the beginning of the answer.
PRESENT = Script("""
redis.call('PUBLISH', ARGV[1], ARGV[2] .. table.concat(redis.call('HKEYS', KEYS[1]), '\\n'))
""")

# KEYS: the links, the entries of the node. ARGV: node, number of its link, entry, what all keys begin with.
LEAVE = Script(f"""{_FENCE}{_LEAVE}
leave(ARGV[4], KEYS[2], ARGV[3])
""")

# KEYS: the links, the leases. ARGV: what all keys begin with, how many entries are taken away at most.
# Returns whether there may be more.
SWEEP = Script(f"""{_CLOCK}{_LEAVE}
local ended = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. clock_ms, 'LIMIT', 0, 1)[1]
if not ended then
  return 0
end
local node_key = ARGV[1] .. 'node:' .. ended
for _, entry in ipairs(redis.call('SRANDMEMBER', node_key, ARGV[2])) do
  leave(ARGV[1], node_key, entry)
end
if redis.call('EXISTS', node_key) == 0 then
  redis.call('ZREM', KEYS[2], ended)
  redis.call('HDEL', KEYS[1], ended)
end
return 1
""")

ALL = (SEND, DIRECT, PUBLISH, ENTER, LEASE, JOIN, PRESENT, LEAVE, SWEEP)
