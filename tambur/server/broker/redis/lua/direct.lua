-- needs: in_time, hand_out
-- Publish a direct message. It takes one place for any size, so it pushes nothing out of the other log.
-- KEYS: the log of direct messages, the place key. ARGV: deadline, channel, data.
local bytes = entry_bytes(ARGV[2], ARGV[3])
local kept = bytes
if redis.call('EXISTS', KEYS[1]) == 1 then
  kept = kept + (redis.call('HGET', KEYS[2], 'direct_bytes') or 0)
end
while kept > MAX_DIRECT_BYTES do
  local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
  if not oldest then
    kept = bytes
    break
  end
  kept = kept - entry_bytes(oldest[2][4], oldest[2][6])
  redis.call('XDEL', KEYS[1], oldest[1])
end
redis.call('HSET', KEYS[2], 'direct_bytes', kept)
hand_out('direct', KEYS[1], KEYS[2], ARGV[2], ARGV[3], 1, MAX_RECENT_BYTES)
