-- needs: floors, keep
-- Read a log from its newest entry backwards, until MAX_READ_BYTES are read by the script.
-- ttl: the oldest place that has not expired is this many microseconds ago. since, upper: entries above the first place and up to the
-- second one are wanted.
-- Returns the floor of the log, or that of the entries that were read if it is higher; whether the log has no older ones; entries from
-- the newest to the oldest.
local bytes_read = 0

local function read_log(prefix, scope, name, ttl, since, upper)
  local key = prefix .. 'log:' .. scope .. ':' .. name
  local expired = time[1] * 1000000 + time[2] - ttl
  local floor = tonumber(read_floor(prefix, scope, name))
  local entries = {}
  local first = -1
  while true do
    local some = redis.call('LRANGE', key, first - 15, first)
    for i = #some, 1, -1 do
      local place = tonumber(place_of(some[i]))
      if place <= expired then
        floor = math.max(floor, place)
        return {string.format('%.0f', floor), 1, entries}
      elseif place <= since then
        return {string.format('%.0f', math.max(floor, since)), 0, entries}
      elseif place <= upper then
        if bytes_read > MAX_READ_BYTES then
          return {string.format('%.0f', math.max(floor, place)), 0, entries}
        end
        bytes_read = bytes_read + #some[i]
        entries[#entries + 1] = some[i]
      end
    end
    if #some < 16 then
      return {string.format('%.0f', floor), 1, entries}
    end
    first = first - 16
  end
end

