-- needs: in_time
-- Continue a session on this node.
-- ARGV: deadline, the prefix of all keys, the app's scope, subscriber ID, node, number of the client's key, seconds for which the owner
--       is remembered. Returns the owner before, and how often the session was resumed. Returns 0 if a later key was used or the
--       session was ended.
if redis.call('ZSCORE', ARGV[2] .. 'revoked-subscribers:' .. ARGV[3], ARGV[4]) then
  return 0
end
local key = ARGV[2] .. 'owner:' .. ARGV[3] .. ':' .. ARGV[4]
local found = redis.call('HMGET', key, 'node', 'number')
if found[2] and tonumber(found[2]) > tonumber(ARGV[6]) then
  return 0
end
redis.call('HSET', key, 'node', ARGV[5], 'number', ARGV[6])
redis.call('EXPIRE', key, ARGV[7])
return {found[1] or string.sub(ARGV[4], 1, 8), redis.call('HINCRBY', key, 'resumes', 1)}
