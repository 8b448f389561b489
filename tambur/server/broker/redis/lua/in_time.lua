-- needs: clock
-- Refuse calls past their deadline, for instance after Redis was paused. The node has answered "unavailable" by then.
-- ARGV[1]: the deadline by Redis' own clock, in milliseconds since 1970.
if clock_ms > tonumber(ARGV[1]) then
  return redis.error_reply('LATE by ' .. clock_ms - ARGV[1] .. ' ms')
end
