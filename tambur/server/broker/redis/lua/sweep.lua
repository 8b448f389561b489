-- needs: clock, remove_entry
-- Remove the users of one node that has ended.
-- KEYS: the links, when the nodes end. ARGV: the prefix of all keys, how many entries to remove at most, how many events a queue of webhooks
--       may hold; then for each app with webhooks, its scope and the queues that the event of a user who leaves is for.
-- Returns whether there may be more.
local ended = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. clock_ms, 'LIMIT', 0, 1)[1]
if not ended then
  return 0
end
local queues = {}
for i = 4, #ARGV, 2 do
  queues[ARGV[i]] = ARGV[i + 1]
end
local node_key = ARGV[1] .. 'node:' .. ended
for _, entry in ipairs(redis.call('SRANDMEMBER', node_key, ARGV[2])) do
  remove_entry(ARGV[1], node_key, entry, queues[string.match(entry, '^[^:]*')] or '', ARGV[3])
end
if redis.call('EXISTS', node_key) == 0 then
  redis.call('ZREM', KEYS[2], ended)
  redis.call('HDEL', KEYS[1], ended)
end
return 1
