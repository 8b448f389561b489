-- needs: place, process
-- The epoch of the shard: docs/explanation/recovery.md explains its proof. It is proven unless the shard has a field "until".
local function announce(prefix)
  local found = redis.call('HMGET', prefix .. 'shard', 'epoch', 'until', 'last')
  redis.call('PUBLISH', prefix .. 'nodes', found[1] .. ' ' .. ((found[2] or evicts) and '0' or '1') .. ' ' .. found[3])
end

local function begin_epoch(prefix, epoch)
  local shard = prefix .. 'shard'
  redis.call('HSET', shard, 'epoch', epoch, 'begun', next_place(shard), 'process', process)
  redis.call('HDEL', shard, 'until', 'fork', 'is_known')
  redis.call('DEL', prefix .. 'unheard')
end

-- End the waiting for a proof. "epoch" is the name of a new epoch, if one must begin.
local function conclude(prefix, epoch)
  local found = redis.call('HMGET', prefix .. 'shard', 'until', 'is_known')
  if not found[1] then
    return
  end
  if redis.call('EXISTS', prefix .. 'unheard') == 0 and found[2] then
    redis.call('HDEL', prefix .. 'shard', 'until', 'is_known')
  elseif redis.call('EXISTS', prefix .. 'unheard') == 0 or clock_ms > tonumber(found[1]) then
    begin_epoch(prefix, epoch)
  else
    return
  end
  announce(prefix)
end
