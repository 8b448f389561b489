-- needs: clock
-- A place counts bytes, starting at the clock. If Redis loses its data, new places are above all former ones.
local function last_place(place_key)
  local last = redis.call('HGET', place_key, 'last')
  if not last then
    last = string.format('%.0f', time[1] * 1000000 + time[2])
    redis.call('HSET', place_key, 'first', last, 'last', last)
  end
  return last
end
