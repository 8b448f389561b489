-- needs: clock
-- The floors of an app's logs: for each log "FLOOR" while it has messages, otherwise "FLOOR SECOND". Since that second nobody needs
-- the log; it is in the future while a node needs it. The field "" is the floor of all logs that have no field.
local function read_floor(prefix, scope, name)
  local found = redis.call('HMGET', prefix .. 'floors:' .. scope, name, '')
  local floor = found[1] and string.match(found[1], '^%d+') or found[2] or 0
  local begun = redis.call('HGET', prefix .. 'shard', 'begun') or 0
  return string.format('%.0f', math.max(floor, begun))
end

local function write_floor(prefix, scope, name, floor, second)
  redis.call('HSET', prefix .. 'floors:' .. scope, name, second and floor .. ' ' .. second or floor)
end

local function forget_floor(prefix, scope, name, value)
  local key = prefix .. 'floors:' .. scope
  local floor = tonumber(string.match(value, '^%d+'))
  if floor > tonumber(redis.call('HGET', key, '') or 0) then
    redis.call('HSET', key, '', string.format('%.0f', floor))
  end
  redis.call('HDEL', key, name)
end

-- If there are more floors than the limit, look at some, and forget those that nobody needs. Returns whether any was forgotten.
local function bound_floors(prefix, scope, limit, count)
  local key = prefix .. 'floors:' .. scope
  local is_any = false
  if redis.call('HLEN', key) > limit then
    local some = redis.call('HRANDFIELD', key, count, 'WITHVALUES')
    for i = 1, #some, 2 do
      local second = string.match(some[i + 1], ' (%d+)$')
      if some[i] ~= '' and second and tonumber(second) <= tonumber(time[1]) then
        forget_floor(prefix, scope, some[i], some[i + 1])
        is_any = true
      end
    end
  end
  return is_any
end

-- Remember the floor of a log, since a node needs it for so many seconds.
-- limit: floors that the app may have.
local function need_floor(prefix, scope, name, seconds, limit)
  write_floor(prefix, scope, name, read_floor(prefix, scope, name), string.format('%.0f', time[1] + seconds))
  bound_floors(prefix, scope, tonumber(limit), 10)
end
