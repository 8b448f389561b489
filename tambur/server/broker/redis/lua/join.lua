-- needs: fence
-- Add one connection to presence, and announce the user's first one.
-- KEYS: the links, the entries of the node, the stream's users. ARGV: node, number of its link, entry, user ID, the stream's
--       channel, the node's channel, the first line of the reply that is published there, or "" for none.
-- The reply goes through the node's channel, which puts it in its place among the events.
if redis.call('SADD', KEYS[2], ARGV[3]) == 1 and redis.call('HINCRBY', KEYS[3], ARGV[4], 1) == 1 then
  redis.call('PUBLISH', ARGV[5], 'up\n' .. ARGV[4])
end
if ARGV[7] ~= '' then
  redis.call('PUBLISH', ARGV[6], ARGV[7] .. table.concat(redis.call('HKEYS', KEYS[3]), '\n'))
end
