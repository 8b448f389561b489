-- A new link takes the lease. "renew" follows.
if tonumber(redis.call('HGET', KEYS[1], ARGV[1]) or 0) > tonumber(ARGV[2]) then
  return redis.error_reply('LINK ' .. ARGV[2] .. ' of this node has a successor')
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
