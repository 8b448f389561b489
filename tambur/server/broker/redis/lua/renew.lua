-- needs: epoch
-- Renew the node's lease.
-- KEYS: the links, the leases. ARGV: node, number of its link, length of the lease in milliseconds, the node's channel, the first line
--       of the reply that is published there, whose rest is the last place; the prefix of all keys, the name of an epoch that may
--       begin. Then for "enter": the process, the epoch and the highest place that the node knows, and for how many milliseconds a
--       proof may take.
-- Returns the end of the lease before and the new one, in milliseconds since 1970, the process, the epoch, whether it is proven,
-- and whether Redis may evict keys.
if redis.call('HGET', ARGV[6] .. 'shard', 'process') ~= process then
  return redis.error_reply('PROCESS of Redis is another one')
end
-- A node that no longer listens is cut off, until it enters again. So it acknowledges nothing any more.
local channels = {}
for _, node in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  channels[#channels + 1] = ARGV[6] .. 'node:' .. node
end
if channels[1] then
  local listening = redis.call('PUBSUB', 'NUMSUB', unpack(channels))
  for i = 1, #listening, 2 do
    local node = string.match(listening[i], '[^:]*$')
    if listening[i + 1] == 0 and node ~= ARGV[1] and redis.call('HEXISTS', KEYS[1], node) == 1 then
      redis.call('HSET', KEYS[1], node, 0)
    end
  end
end
conclude(ARGV[6], ARGV[7])
local before = redis.call('ZSCORE', KEYS[2], ARGV[1])
local until_ms = clock_ms + ARGV[3]
redis.call('ZADD', KEYS[2], until_ms, ARGV[1])
local state = redis.call('HMGET', ARGV[6] .. 'shard', 'last', 'epoch', 'until')
redis.call('PUBLISH', ARGV[4], ARGV[5] .. state[1])
return {before or '', string.format('%.0f', until_ms), process, state[2], (state[3] or evicts) and 0 or 1, evicts and 1 or 0}
