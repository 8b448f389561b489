-- needs: in_time, keep, owner, admit
-- Publish some messages of a batch. The claim holds the signature, and until all are published also their number so far.
-- KEYS: the app's claims of one second; the app's number of claims; its token bucket.
-- ARGV: deadline, nonce, signature, timestamp, now, seconds that a claim is kept, claims that the app may have, publishes a second or ""
--       for no limit, the prefix of all keys, the app's scope, how many messages come before these, how many the batch has; and of each
--       message: channel, data, log, its budget, messages that the log may have, bytes that the budget may have, subscriber ID of a
--       private message or "".
-- Returns the outcome, the seconds after which to try again, how many messages of the batch are published, and the last place.
local nonce, signature, prefix, scope = ARGV[2], ARGV[3], ARGV[9], ARGV[10]
local before, total = tonumber(ARGV[11]), tonumber(ARGV[12])
local PER_MESSAGE, FIRST = 7, 13

local published = before
local claimed = redis.call('HGET', KEYS[1], nonce)
if not claimed then
  -- Only a Redis that lost data has no claim of a batch that was begun. Nothing is published twice.
  local outcome, retry_after_s = admit(KEYS, {
    nonce = nonce, value = signature .. ' ' .. before, timestamp = tonumber(ARGV[4]), now = tonumber(ARGV[5]), kept_s = tonumber(ARGV[6]),
    max_claims = tonumber(ARGV[7]), per_s = tonumber(ARGV[8]), count = total,
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
    scope = scope, name = ARGV[at + 2], budget = ARGV[at + 3], max_messages = tonumber(ARGV[at + 4]), max_bytes = tonumber(ARGV[at + 5]),
  }
  place = hand_out(prefix, log, owners_channel(prefix, scope, ARGV[at + 6], ARGV[at]), ARGV[at + 1])
  published = published + 1
  outcome = 'delivered'
end
if outcome == 'delivered' then
  redis.call('HSET', KEYS[1], nonce, published == total and signature or signature .. ' ' .. published)
end
return {outcome, '0', published, place}
