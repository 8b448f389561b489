-- Confirm that this node owns sessions that it has resumed.
-- ARGV: the prefix of all keys, node, seconds for which an owner is remembered, then of each session: scope, subscriber ID, key number, how
--       often it was resumed.
-- Returns those that another node owns, by their number in the list.
local moved = {}
for i = 4, #ARGV, 4 do
  local key = ARGV[1] .. 'owner:' .. ARGV[i] .. ':' .. ARGV[i + 1]
  local owner = redis.call('HGET', key, 'node')
  if owner and owner ~= ARGV[2] then
    moved[#moved + 1] = (i - 4) / 4
  else
    redis.call('HSET', key, 'node', ARGV[2])
    if not owner then
      redis.call('HSET', key, 'number', ARGV[i + 2], 'resumes', ARGV[i + 3])
    end
    redis.call('EXPIRE', key, ARGV[3])
  end
end
return moved
