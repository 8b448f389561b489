-- Remove events from a queue of webhooks, and count them as dropped. entries: the members of the queue.
local function drop_events(prefix, queue, entries)
  for _, entry in ipairs(entries) do
    redis.call('ZREM', prefix .. 'events:' .. queue, entry)
    redis.call('ZREM', prefix .. 'due:' .. queue, string.match(entry, '^%d+'))
  end
  redis.call('HINCRBY', prefix .. 'dropped', queue, #entries)
end
