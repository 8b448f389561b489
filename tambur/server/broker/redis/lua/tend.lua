-- needs: keep
-- Drop the expired entries of an app, and forget floors that nobody has needed for long.
-- ARGV: the prefix of all keys, the app's scope, seconds for which a floor is remembered, floors that the app may have, a cursor into
--       the floors, then each budget and for how many microseconds it keeps entries. Returns the next cursor, and
--       whether more entries may have expired.
local prefix, scope = ARGV[1], ARGV[2]
local looks = TENDED_AT_ONCE
for i = 6, #ARGV, 2 do
  local budget, expired = ARGV[i], time[1] * 1000000 + time[2] - ARGV[i + 1]
  while looks > 0 do
    looks = looks - 1
    local name, place = oldest_log(prefix, scope, budget)
    if not name then
      redis.call('HDEL', prefix .. 'bytes', budget)  -- nodes may have counted by different configurations
      break
    elseif place > expired then
      break
    end
    local key, count = prefix .. 'log:' .. scope .. ':' .. name, 1
    while count < TENDED_AT_ONCE do
      local entry = redis.call('LINDEX', key, count)
      if not entry or tonumber(place_of(entry)) > expired then
        break
      end
      count = count + 1
    end
    redis.call('HINCRBY', prefix .. 'bytes', budget, -lose(prefix, scope, budget, name, count))
  end
end
local floors = prefix .. 'floors:' .. scope
local found = redis.call('HSCAN', floors, ARGV[5], 'COUNT', TENDED_AT_ONCE)
for i = 1, #found[2], 2 do
  local name, value = found[2][i], found[2][i + 1]
  local second = string.match(value, ' (%d+)$')
  if name ~= '' and second and second + ARGV[3] <= tonumber(time[1])
    and redis.call('EXISTS', prefix .. 'log:' .. scope .. ':' .. name) == 0 then
    forget_floor(prefix, scope, name, value)
  end
end
for _ = 1, TENDED_AT_ONCE do
  if not bound_floors(prefix, scope, tonumber(ARGV[4]), TENDED_AT_ONCE) then
    break
  end
end
return {found[1], looks == 0 and 1 or 0}
