-- needs: keep
-- File logs under other budgets.
-- ARGV: the prefix of all keys, the app's scope, the budget that has the logs, then of each log its name and its new budget.
local prefix, scope, before = ARGV[1], ARGV[2], ARGV[3]
local bytes_key, PART = prefix .. 'bytes', 100
for i = 4, #ARGV, 2 do
  local name, budget = ARGV[i], ARGV[i + 1]
  local key = prefix .. 'log:' .. scope .. ':' .. name
  local first = redis.call('LINDEX', key, 0)
  local is_kept = redis.call('ZREM', prefix .. 'kept:' .. before, name) == 1
  if is_kept and not first then  -- removed by hand, as in oldest_log
    write_floor(prefix, scope, name, redis.call('HGET', prefix .. 'shard', 'last'), time[1])
  elseif is_kept then
    local bytes = LOG_BYTES + 2 * #name
    for start = 0, redis.call('LLEN', key) - 1, PART do
      for _, entry in ipairs(redis.call('LRANGE', key, start, start + PART - 1)) do
        bytes = bytes + #entry + ENTRY_BYTES
      end
    end
    redis.call('ZADD', prefix .. 'kept:' .. budget, place_of(first), name)
    redis.call('HINCRBY', bytes_key, before, -bytes)
    redis.call('HINCRBY', bytes_key, budget, bytes)
  end
end
if redis.call('EXISTS', prefix .. 'kept:' .. before) == 0 then
  redis.call('HDEL', bytes_key, before)
end
