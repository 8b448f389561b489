-- The channel of a log's messages. Private messages go to the node that continues the session of their subscriber; without one, to the
-- node that the subscriber ID names.
local function channel_of(prefix, scope, log)
  if string.sub(log, 1, 8) ~= 'private:' then
    return prefix .. 'stream:' .. scope .. ':' .. log
  end
  local subscriber_id = string.sub(log, 9)
  local owner = redis.call('HGET', prefix .. 'owner:' .. scope .. ':' .. subscriber_id, 'node')
  return prefix .. 'node:' .. (owner or string.sub(subscriber_id, 1, 8))
end
