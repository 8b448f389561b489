-- needs: in_time
-- Remember disconnected subscribers and a user, by the time of their disconnect.
-- KEYS: the app's revoked subscribers, its revoked users. ARGV: deadline, for how many milliseconds subscribers and users are
--       remembered, the user or "" for none, then subscriber IDs. Returns the time in milliseconds since 1970.
for i = 1, 2 do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', string.format('%.0f', clock_ms - ARGV[1 + i]))
end
local now = string.format('%.0f', clock_ms)
if ARGV[4] ~= '' then
  redis.call('ZADD', KEYS[2], now, ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
for i = 5, #ARGV do
  redis.call('ZADD', KEYS[1], now, ARGV[i])
end
if #ARGV >= 5 then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return clock_ms
