-- needs: in_time, keep, owner, admit
-- Claim a nonce and publish.
-- KEYS: the app's claims of one second; the app's number of claims; its token bucket.
-- ARGV: deadline, channel or "" to claim only, data, nonce, signature, timestamp, now, seconds that a claim is kept, claims that the
--       app may have, publishes a second or "" for no limit, the prefix of all keys, the app's scope, the log, its budget, messages that
--       the log may have, bytes that the budget may have, subscriber ID of a private message or "".
-- Returns the outcome, the seconds after which to try again, how many nodes listen to the channel, and the last place.
local nonce, signature, prefix, scope = ARGV[4], ARGV[5], ARGV[11], ARGV[12]
local channel = owners_channel(prefix, scope, ARGV[17], ARGV[2])

local taken = redis.call('HGET', KEYS[1], nonce)
if taken then
  local nodes = redis.call('PUBSUB', 'NUMSUB', channel)[2]
  local last = redis.call('HGET', prefix .. 'shard', 'last') or '0'
  return {taken == signature and 'replayed' or 'nonce_reused', '0', nodes, last}
end

local outcome, retry_after_s = admit(KEYS, {
  nonce = nonce, value = signature, timestamp = tonumber(ARGV[6]), now = tonumber(ARGV[7]), kept_s = tonumber(ARGV[8]),
  max_claims = tonumber(ARGV[9]), per_s = tonumber(ARGV[10]), count = 1,
})
if outcome then
  return {outcome, retry_after_s, 0, '0'}
end
if channel == '' then
  return {'delivered', '0', 0, '0'}
end
local log = {scope = scope, name = ARGV[13], budget = ARGV[14], max_messages = tonumber(ARGV[15]), max_bytes = tonumber(ARGV[16])}
local place, nodes = hand_out(prefix, log, channel, ARGV[3])
return {'delivered', '0', nodes, place}
