-- needs: epoch
-- A new link begins. "renew" follows.
-- KEYS, ARGV: those of "renew".
local prefix, node = ARGV[6], ARGV[1]
if tonumber(redis.call('HGET', KEYS[1], node) or 0) > tonumber(ARGV[2]) then
  return redis.error_reply('LINK ' .. ARGV[2] .. ' of this node has a successor')
end
redis.call('HSET', KEYS[1], node, ARGV[2])

local known_process, known_epoch, seen = ARGV[8], ARGV[9], tonumber(ARGV[10])
local shard = prefix .. 'shard'
local found = redis.call('HMGET', shard, 'epoch', 'process', 'last', 'until')
if not found[1] then
  begin_epoch(prefix, ARGV[7])
elseif found[2] ~= process then
  if not found[4] then
    redis.call('HSET', shard, 'fork', found[3])
    redis.call('DEL', prefix .. 'unheard')
  end  -- otherwise some nodes have not been heard since an earlier process, which had a lower fork
  redis.call('HSET', shard, 'process', process, 'until', string.format('%.0f', clock_ms + ARGV[11]))
  redis.call('HDEL', shard, 'is_known')
  for _, leased in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    if (redis.call('HGET', KEYS[1], leased) or '0') ~= '0' then  -- neither stopped nor cut off
      redis.call('SADD', prefix .. 'unheard', leased)
    end
  end
end
found = redis.call('HMGET', shard, 'fork', 'begun', 'epoch')
if known_process ~= '' and known_process ~= process and seen > math.max(found[1] or 0, found[2]) then
  begin_epoch(prefix, ARGV[7])
else
  redis.call('SREM', prefix .. 'unheard', node)
  if known_epoch == found[3] and redis.call('HEXISTS', shard, 'until') == 1 then
    redis.call('HSET', shard, 'is_known', 1)
  end
  conclude(prefix, ARGV[7])
end
next_place(shard)  -- a Redis that lacks this entry is recognized
announce(prefix)
