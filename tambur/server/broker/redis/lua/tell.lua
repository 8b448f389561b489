-- needs: clock, drop_events
-- Tell the subscribers, and the queues of webhooks, that a user joined or left.
-- word: up or down. queues: the names of the queues that take this event, separated by spaces.
local function tell(prefix, scope, user_id, word, queues, max_events)
  redis.call('PUBLISH', prefix .. 'stream:' .. scope, word .. '\n' .. user_id)
  if queues == '' then
    return
  end
  local version = math.max(time[1] * 1000000 + time[2], (redis.call('GET', prefix .. 'version') or 0) + 1)
  version = string.format('%.0f', version)
  redis.call('SET', prefix .. 'version', version)
  for queue in string.gmatch(queues, '%S+') do
    local events_key, due_key = prefix .. 'events:' .. queue, prefix .. 'due:' .. queue
    redis.call('ZADD', events_key, version, version .. '\n' .. word .. '\n' .. scope .. '\n' .. user_id)
    redis.call('ZADD', due_key, clock_ms, version)
    local extra = redis.call('ZCARD', events_key) - max_events
    if extra > 0 then
      drop_events(prefix, queue, redis.call('ZRANGE', events_key, 0, math.min(extra, 1000) - 1))
    end
    redis.call('EXPIRE', events_key, EVENTS_S + 3600)
    redis.call('EXPIRE', due_key, EVENTS_S + 3600)
  end
end
