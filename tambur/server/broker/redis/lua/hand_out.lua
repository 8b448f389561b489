-- needs: last_place
-- Publish, and keep the publication in one of two logs. A node that lost its link reads on there. The place key has a field
-- for each log with its newest place, and each entry has the place of the one before. So a node notices trimmed entries.
local function entry_bytes(channel, data)
  return #channel + #data + ENTRY_BYTES
end

local function hand_out(log, log_key, place_key, channel, data, step, kept)
  local place = string.format('%.0f', last_place(place_key) + step)
  local oldest = string.format('%.0f', place - kept)
  local before = redis.call('HGET', place_key, log) or '0'
  redis.call('HSET', place_key, 'last', place, log, place)
  redis.call('XADD', log_key, 'MINID', '~', oldest, place .. '-0', 'before', before, 'channel', channel, 'data', data)
  redis.call('EXPIRE', log_key, RECENT_S)
  return redis.call('PUBLISH', channel, place .. ' ' .. data)
end
