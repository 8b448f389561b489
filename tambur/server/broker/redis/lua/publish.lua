-- needs: in_time, keep
-- Claim a nonce and publish.
-- KEYS: the app's claims of one second; the app's number of claims; its token bucket.
-- ARGV: deadline, channel or "" to claim only, data, nonce, signature, timestamp, now, seconds that a claim is kept, claims that the
--       app may have, publishes a second or "" for no limit, the prefix of all keys, the app's scope, the log, its budget, messages that
--       the log may have, bytes that the budget may have, subscriber ID of a private message or "".
-- Returns the outcome, the seconds after which to try again, how many nodes listen to the channel, and the last place.
local nonce, signature, timestamp, now = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local kept_s, max_claims, per_s = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])

local prefix, channel = ARGV[11], ARGV[2]
if ARGV[17] ~= '' then
  local owner = redis.call('HGET', prefix .. 'owner:' .. ARGV[12] .. ':' .. ARGV[17], 'node')
  if owner then
    channel = prefix .. 'node:' .. owner
  end
end

local taken = redis.call('HGET', KEYS[1], nonce)
if taken then
  local nodes = redis.call('PUBSUB', 'NUMSUB', channel)[2]
  local last = redis.call('HGET', prefix .. 'shard', 'last') or '0'
  return {taken == signature and 'replayed' or 'nonce_reused', '0', nodes, last}
end

local tokens
local clock = time[1] + time[2] / 1000000
if per_s then
  local bucket = redis.call('HMGET', KEYS[3], 'tokens', 'filled_at')
  tokens = math.max(1, per_s)
  if bucket[1] then
    tokens = math.min(tokens, bucket[1] + math.max(0, clock - bucket[2]) * per_s)
  end
  if tokens < 1 then
    return {'rate_limited', tostring((1 - tokens) / per_s), 0, '0'}
  end
end

local total = tonumber(redis.call('HGET', KEYS[2], 'total') or 0)
if total >= max_claims or redis.call('EXISTS', KEYS[1]) == 0 then
  local counts = redis.call('HGETALL', KEYS[2])
  local oldest = timestamp
  for i = 1, #counts, 2 do
    local second = tonumber(counts[i])
    if second and second < now - kept_s then
      total = redis.call('HINCRBY', KEYS[2], 'total', -counts[i + 1])
      redis.call('HDEL', KEYS[2], counts[i])
    elseif second then
      oldest = math.min(oldest, second)
    end
  end
  if total >= max_claims then
    return {'full', tostring(oldest + kept_s + 1 - now), 0, '0'}
  end
end

redis.call('HSET', KEYS[1], nonce, signature)
redis.call('EXPIRE', KEYS[1], math.max(1, timestamp + kept_s + 1 - now))
redis.call('HINCRBY', KEYS[2], 'total', 1)
redis.call('HINCRBY', KEYS[2], timestamp, 1)
redis.call('EXPIRE', KEYS[2], 2 * kept_s + 1)
if per_s then
  redis.call('HSET', KEYS[3], 'tokens', tokens - 1, 'filled_at', string.format('%.6f', clock))
  redis.call('EXPIRE', KEYS[3], math.ceil(math.max(1, per_s) / per_s) + 1)
end
if channel == '' then
  return {'delivered', '0', 0, '0'}
end
local log = {scope = ARGV[12], name = ARGV[13], budget = ARGV[14], max_messages = tonumber(ARGV[15]), max_bytes = tonumber(ARGV[16])}
local place, nodes = hand_out(prefix, log, channel, ARGV[3])
return {'delivered', '0', nodes, place}
