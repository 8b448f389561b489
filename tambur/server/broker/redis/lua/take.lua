-- needs: clock, drop_events
-- Take events of a queue of webhooks that are due, and see to it that they are due again when the lease ends.
-- ARGV: the prefix of all keys, the queue, how many events to take at most, length of the lease in milliseconds.
-- Returns the events, milliseconds until the next one is due or "", how many wait, seconds since the oldest one, and how many were
-- dropped since the last call.
local prefix, queue = ARGV[1], ARGV[2]
local events_key, due_key = prefix .. 'events:' .. queue, prefix .. 'due:' .. queue
local oldest_kept = string.format('%.0f', (time[1] - EVENTS_S) * 1000000)
local expired = redis.call('ZRANGEBYSCORE', events_key, '-inf', '(' .. oldest_kept, 'LIMIT', 0, 1000)
if #expired > 0 then
  drop_events(prefix, queue, expired)
end
local taken = {}
for _, version in ipairs(redis.call('ZRANGEBYSCORE', due_key, '-inf', clock_ms, 'LIMIT', 0, ARGV[3])) do
  taken[#taken + 1] = redis.call('ZRANGEBYSCORE', events_key, version, version)[1]
  redis.call('ZADD', due_key, clock_ms + ARGV[4], version)
end
local next_due = redis.call('ZRANGE', due_key, 0, 0, 'WITHSCORES')[2]
local oldest = redis.call('ZRANGE', events_key, 0, 0, 'WITHSCORES')[2]
local dropped = redis.call('HGET', prefix .. 'dropped', queue)
if dropped then
  redis.call('HDEL', prefix .. 'dropped', queue)
end
local next_ms = next_due and string.format('%.0f', math.max(0, next_due - clock_ms)) or ''
local oldest_s = oldest and tostring(math.max(0, time[1] - oldest / 1000000)) or '0'
return {taken, next_ms, redis.call('ZCARD', events_key), oldest_s, tonumber(dropped or 0)}
