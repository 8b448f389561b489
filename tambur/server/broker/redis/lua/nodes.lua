-- needs: in_time
-- The nodes that run: those with a lease, without those that have stopped.
-- KEYS: the links, the leases. ARGV: deadline.
local nodes = {}
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], clock_ms, '+inf')) do
  if redis.call('HEXISTS', KEYS[1], node) == 1 then
    nodes[#nodes + 1] = node
  end
end
return nodes
