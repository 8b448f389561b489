-- needs: read_log
-- Read logs, from their newest entries backwards, until MAX_READ_BYTES are read.
-- ARGV: the prefix of all keys, the epoch, the node, the node's channel, the first line of the reply that is published there, then for
--       each log its scope, its name, the oldest place that has not expired is this many microseconds ago, "since" and "upper":
--       entries above the first place and up to the second are wanted.
-- Returns the last place, and for each log: its floor, or that of the entries that were read if that is higher; whether the log has
-- no older ones; entries from the newest to the oldest. 0 instead for a log that was not read, and 1 for one of another node's session.
-- Returns 0 if the epoch is another one.
local prefix, node = ARGV[1], ARGV[3]
if redis.call('HGET', prefix .. 'shard', 'epoch') ~= ARGV[2] then
  return 0
end
local last = redis.call('HGET', prefix .. 'shard', 'last')

local function read(scope, name, ttl, since, upper)
  local id = string.match(name, '^private:(.*)')
  if id then
    local owner = redis.call('HGET', prefix .. 'owner:' .. scope .. ':' .. id, 'node') or string.sub(id, 1, 8)
    if owner ~= node then
      return 1
    end
  end
  return read_log(prefix, scope, name, ttl, since, upper)
end

local results = {last}
for i = 6, #ARGV, 5 do
  results[#results + 1] = bytes_read > MAX_READ_BYTES and 0
    or read(ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]))
end
redis.call('PUBLISH', ARGV[4], ARGV[5] .. last)
return results
