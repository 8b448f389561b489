-- needs: fence, tell
-- Add one connection to presence, and announce the user's first one.
-- KEYS: the links, the entries of the node, the stream's users. ARGV: node, number of its link, entry, the prefix of all keys, the
--       node's channel, the first line of the reply that is published there, or "" for none, the queues of webhooks that the event
--       of a user who joins is for, how many events a queue may hold.
-- The reply goes through the node's channel, which puts it in its place among the events.
local scope, user_id = string.match(ARGV[3], '^([^\n]*)\n([^\n]*)\n')
if redis.call('SADD', KEYS[2], ARGV[3]) == 1 and redis.call('HINCRBY', KEYS[3], user_id, 1) == 1 then
  tell(ARGV[4], scope, user_id, 'up', ARGV[7], ARGV[8])
end
if ARGV[6] ~= '' then
  redis.call('PUBLISH', ARGV[5], ARGV[6] .. table.concat(redis.call('HKEYS', KEYS[3]), '\n'))
end
