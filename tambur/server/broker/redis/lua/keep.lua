-- needs: place, floors
-- Logs. An entry is "PLACE DATA", as subscribers receive it. "kept" has each log with messages, by the place of its oldest one or by
-- an earlier place.
local function place_of(entry)
  return string.match(entry, '^%d+')
end

-- Drop the oldest entries of a log, and raise its floor. Returns by how much the bytes of its budget shrink.
-- keeps: whether the log certainly has more entries.
local function lose(prefix, scope, budget, name, count, keeps)
  local key = prefix .. 'log:' .. scope .. ':' .. name
  local lost = redis.call('LPOP', key, count)
  local bytes = 0
  for _, entry in ipairs(lost) do
    bytes = bytes + #entry + ENTRY_BYTES
  end
  local second = nil
  if not keeps and redis.call('EXISTS', key) == 0 then
    redis.call('ZREM', prefix .. 'kept:' .. budget, name)
    bytes = bytes + LOG_BYTES + 2 * #name
    second = time[1]
  end
  write_floor(prefix, scope, name, place_of(lost[#lost]), second)
  return bytes
end

-- The log of a budget with the oldest entry, and the place of that entry; nil if there is no entry.
local function oldest_log(prefix, scope, budget)
  while true do
    local found = redis.call('ZRANGE', prefix .. 'kept:' .. budget, 0, 0, 'WITHSCORES')
    if not found[1] then
      return nil
    end
    local first = redis.call('LINDEX', prefix .. 'log:' .. scope .. ':' .. found[1], 0)
    if not first then
      -- The log was removed by hand. It may have held anything.
      redis.call('ZREM', prefix .. 'kept:' .. budget, found[1])
      write_floor(prefix, scope, found[1], redis.call('HGET', prefix .. 'shard', 'last'), time[1])
    elseif tonumber(place_of(first)) == tonumber(found[2]) then
      return found[1], tonumber(found[2])
    else
      redis.call('ZADD', prefix .. 'kept:' .. budget, place_of(first), found[1])
    end
  end
end

-- Give a message its place, keep it in a log, and publish it. Returns the place, and how many nodes listen to the channel.
-- log: scope (API_KEY/APP_ID), name, budget, max_messages, and max_bytes of the budget.
local function hand_out(prefix, log, channel, data)
  local place = next_place(prefix .. 'shard')
  local entry = place .. ' ' .. data
  if log.max_messages == 0 then
    write_floor(prefix, log.scope, log.name, place, time[1])
  else
    local count = redis.call('RPUSH', prefix .. 'log:' .. log.scope .. ':' .. log.name, entry)
    local bytes = #entry + ENTRY_BYTES
    if count == 1 then
      redis.call('ZADD', prefix .. 'kept:' .. log.budget, place, log.name)
      bytes = bytes + LOG_BYTES + 2 * #log.name
    elseif count > log.max_messages then
      bytes = bytes - lose(prefix, log.scope, log.budget, log.name, count - log.max_messages, true)
    end
    bytes = redis.call('HINCRBY', prefix .. 'bytes', log.budget, bytes)
    while bytes > log.max_bytes do
      local oldest = oldest_log(prefix, log.scope, log.budget)
      if not oldest then
        redis.call('HDEL', prefix .. 'bytes', log.budget)
        break
      end
      bytes = redis.call('HINCRBY', prefix .. 'bytes', log.budget, -lose(prefix, log.scope, log.budget, oldest, 1))
    end
  end
  return place, redis.call('PUBLISH', channel, entry)
end
