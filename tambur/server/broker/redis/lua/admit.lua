-- needs: clock
-- The keys of an app's claims of one second, of its number of claims, and of its token bucket.
local function claim_keys(prefix, scope, timestamp)
  local total = prefix .. 'claims:' .. scope
  return {total .. ':' .. timestamp, total, prefix .. 'rate:' .. scope}
end

-- Claim a nonce, and count publishes. Returns nothing, or why not and the seconds after which to try again.
-- keys: as claim_keys makes them.
-- request: nonce, value (what the claim holds), timestamp, now, kept_s (seconds that a claim is kept), max_claims (claims that the
--          app may have), per_s (publishes a second, or nil for no limit), count (of publishes: one token admits them all).
local function admit(keys, request)
  local per_s, now, kept_s, timestamp = request.per_s, request.now, request.kept_s, request.timestamp
  local tokens
  local clock = time[1] + time[2] / 1000000
  if per_s then
    local bucket = redis.call('HMGET', keys[3], 'tokens', 'filled_at')
    tokens = math.max(1, per_s)
    if bucket[1] then
      tokens = math.min(tokens, bucket[1] + math.max(0, clock - bucket[2]) * per_s)
    end
    if tokens < 1 then
      return 'rate_limited', tostring((1 - tokens) / per_s)
    end
  end

  local total = tonumber(redis.call('HGET', keys[2], 'total') or 0)
  local is_new_second = redis.call('EXISTS', keys[1]) == 0
  if total >= request.max_claims or is_new_second then
    local counts = redis.call('HGETALL', keys[2])
    local oldest = timestamp
    for i = 1, #counts, 2 do
      local second = tonumber(counts[i])
      if second and second < now - kept_s then
        total = redis.call('HINCRBY', keys[2], 'total', -counts[i + 1])
        redis.call('HDEL', keys[2], counts[i])
      elseif second then
        oldest = math.min(oldest, second)
      end
    end
    if total >= request.max_claims then
      return 'full', tostring(oldest + kept_s + 1 - now)
    end
  end

  redis.call('HSET', keys[1], request.nonce, request.value)
  redis.call('HINCRBY', keys[2], 'total', 1)
  redis.call('HINCRBY', keys[2], timestamp, 1)
  if is_new_second then
    redis.call('EXPIRE', keys[1], math.max(1, timestamp + kept_s + 1 - now))
    redis.call('EXPIRE', keys[2], 2 * kept_s + 1)
  end
  if per_s then
    tokens = tokens - request.count
    redis.call('HSET', keys[3], 'tokens', tokens, 'filled_at', string.format('%.6f', clock))
    redis.call('EXPIRE', keys[3], math.ceil((math.max(1, per_s) - math.min(0, tokens)) / per_s) + 1)
  end
end
