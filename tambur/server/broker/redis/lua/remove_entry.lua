-- needs: tell
-- Remove one connection from presence, and announce the user's last one. queues, max_events: see "tell".
local function remove_entry(prefix, node_key, entry, queues, max_events)
  if redis.call('SREM', node_key, entry) == 0 then
    return
  end
  local scope, user_id = string.match(entry, '^([^\n]*)\n([^\n]*)\n')
  local present_key = prefix .. 'present:' .. scope
  if redis.call('HINCRBY', present_key, user_id, -1) <= 0 then
    redis.call('HDEL', present_key, user_id)
    tell(prefix, scope, user_id, 'down', queues, max_events)
  end
end
