-- needs: in_time, read_log
-- Continue a session on this node, which needs the log of its private messages from then on.
-- ARGV: deadline, the prefix of all keys, the app's scope, subscriber ID, node, number of the client's key, seconds for which the owner
--       is remembered, the node's channel, the first line of the reply that is published there, for how many seconds the log is needed,
--       floors that the app may have, the epoch, the oldest place that has not expired is this many microseconds ago, "since": entries
--       above this place are wanted, or "" for none, and the question to the node that had the session, without its end.
-- Returns how many nodes were asked, how often the session was resumed, and what read_log returns, or 0 if the log was not read.
-- Returns 0 if a later key was used or the session was ended.
local prefix, scope, id, node = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if redis.call('ZSCORE', prefix .. 'revoked-subscribers:' .. scope, id) then
  return 0
end
local key = prefix .. 'owner:' .. scope .. ':' .. id
local found = redis.call('HMGET', key, 'node', 'number', 'resumes')
if found[2] and tonumber(found[2]) > tonumber(ARGV[6]) then
  return 0
end
-- The number of the client's key tells what Redis may have forgotten.
local resumes = math.max(tonumber(found[3] or '0'), math.floor(tonumber(ARGV[6]) / KEYS_OF_CONNECTION)) + 1
redis.call('HSET', key, 'node', node, 'number', ARGV[6], 'resumes', resumes)
redis.call('EXPIRE', key, ARGV[7])
-- All private messages after this place reach the new owner, after this message.
redis.call('PUBLISH', ARGV[8], ARGV[9] .. (redis.call('HGET', prefix .. 'shard', 'last') or '0'))
local owner = found[1] or string.sub(id, 1, 8)
local asked = owner ~= node and redis.call('PUBLISH', prefix .. 'node:' .. owner, ARGV[15] .. resumes) or 0
local log = 'private:' .. id
need_floor(prefix, scope, log, ARGV[10], ARGV[11])
local part = 0
if ARGV[14] ~= '' and redis.call('HGET', prefix .. 'shard', 'epoch') == ARGV[12] then
  part = read_log(prefix, scope, log, tonumber(ARGV[13]), tonumber(ARGV[14]), math.huge)
end
return {asked, resumes, part}
