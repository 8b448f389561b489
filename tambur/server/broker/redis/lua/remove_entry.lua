-- Remove one connection from presence, and announce the user's last one.
local function remove_entry(prefix, node_key, entry)
  if redis.call('SREM', node_key, entry) == 0 then
    return
  end
  local scope, user_id = string.match(entry, '^([^\n]*)\n([^\n]*)\n')
  local present_key = prefix .. 'present:' .. scope
  if redis.call('HINCRBY', present_key, user_id, -1) <= 0 then
    redis.call('HDEL', present_key, user_id)
    redis.call('PUBLISH', prefix .. 'stream:' .. scope, 'down\n' .. user_id)
  end
end
