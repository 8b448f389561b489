-- needs: clock
-- The next place of the shard: the microseconds of the clock, or one more than the last place if that is larger.
local function next_place(shard)
  local last = tonumber(redis.call('HGET', shard, 'last') or 0)
  local place = string.format('%.0f', math.max(last + 1, time[1] * 1000000 + time[2]))
  redis.call('HSET', shard, 'last', place)
  return place
end
