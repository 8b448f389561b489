-- The channel of a message: that of the node that continues the session of a private message's subscriber, if there is one.
-- subscriber_id: of a private message, otherwise ''.
local function owners_channel(prefix, scope, subscriber_id, channel)
  if subscriber_id ~= '' then
    local owner = redis.call('HGET', prefix .. 'owner:' .. scope .. ':' .. subscriber_id, 'node')
    if owner then
      return prefix .. 'node:' .. owner
    end
  end
  return channel
end
