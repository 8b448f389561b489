-- needs: in_time, keep, channel, admit
-- Publish some messages of a batch. The claim holds the signature, and until all are published also their number so far.
-- ARGV: deadline, the prefix of all keys, the app's scope, nonce, signature, timestamp, now, seconds that a claim is kept, claims that
--       the app may have, publishes a second or "" for no limit, how many messages come before these, how many the batch has; and of each
--       message: log, its budget, messages that the log may have, bytes that the budget may have, data.
-- Returns the outcome, the seconds after which to try again, how many messages of the batch are published, and the last place.
local prefix, scope, nonce, signature = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local keys = claim_keys(prefix, scope, ARGV[6])
local before, total = tonumber(ARGV[11]), tonumber(ARGV[12])
local PER_MESSAGE, FIRST = 5, 13

local published = before
local claimed = redis.call('HGET', keys[1], nonce)
if not claimed then
  -- Only a Redis that lost data has no claim of a batch that was begun. Nothing is published twice.
  local outcome, retry_after_s = admit(keys, {
    nonce = nonce, value = signature .. ' ' .. before, timestamp = tonumber(ARGV[6]), now = tonumber(ARGV[7]), kept_s = tonumber(ARGV[8]),
    max_claims = tonumber(ARGV[9]), per_s = tonumber(ARGV[10]), count = total,
  })
  if outcome then
    return {outcome, retry_after_s, before, '0'}
  end
elseif string.sub(claimed, 1, #signature) ~= signature then
  return {'nonce_reused', '0', before, '0'}
elseif claimed == signature then
  published = total
else
  published = math.max(before, tonumber(string.sub(claimed, #signature + 2)))
end

local place = redis.call('HGET', prefix .. 'shard', 'last') or '0'
local outcome = 'replayed'
local last = before + (#ARGV - FIRST + 1) / PER_MESSAGE
while published < last do
  local at = FIRST + PER_MESSAGE * (published - before)
  local log = {
    scope = scope, name = ARGV[at], budget = ARGV[at + 1], max_messages = tonumber(ARGV[at + 2]), max_bytes = tonumber(ARGV[at + 3]),
  }
  place = hand_out(prefix, log, channel_of(prefix, scope, log.name), ARGV[at + 4])
  published = published + 1
  outcome = 'delivered'
end
if outcome == 'delivered' then
  redis.call('HSET', keys[1], nonce, published == total and signature or signature .. ' ' .. published)
end
return {outcome, '0', published, place}
