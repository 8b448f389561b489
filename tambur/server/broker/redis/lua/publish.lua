-- needs: in_time, keep, channel, admit
-- Claim a nonce and publish.
-- ARGV: deadline, the prefix of all keys, the app's scope, nonce, signature, timestamp, now, seconds that a claim is kept, claims that
--       the app may have, publishes a second or "" for no limit; the log or "" to claim only, its budget, messages that the log may
--       have, bytes that the budget may have, data.
-- Returns the outcome, the seconds after which to try again, how many nodes listen to the channel, and the last place.
local prefix, scope, nonce, signature, name = ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[11]
local keys = claim_keys(prefix, scope, ARGV[6])

local taken = redis.call('HGET', keys[1], nonce)
if taken then
  local nodes = redis.call('PUBSUB', 'NUMSUB', channel_of(prefix, scope, name))[2]
  local last = redis.call('HGET', prefix .. 'shard', 'last') or '0'
  return {taken == signature and 'replayed' or 'nonce_reused', '0', nodes, last}
end

local outcome, retry_after_s = admit(keys, {
  nonce = nonce, value = signature, timestamp = tonumber(ARGV[6]), now = tonumber(ARGV[7]), kept_s = tonumber(ARGV[8]),
  max_claims = tonumber(ARGV[9]), per_s = tonumber(ARGV[10]), count = 1,
})
if outcome then
  return {outcome, retry_after_s, 0, '0'}
end
if name == '' then
  return {'delivered', '0', 0, '0'}
end
local log = {scope = scope, name = name, budget = ARGV[12], max_messages = tonumber(ARGV[13]), max_bytes = tonumber(ARGV[14])}
local place, nodes = hand_out(prefix, log, channel_of(prefix, scope, name), ARGV[15])
return {'delivered', '0', nodes, place}
