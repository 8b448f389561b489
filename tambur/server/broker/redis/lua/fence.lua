-- A former link may still have commands in transit. They must not undo its successor's changes.
-- KEYS[1]: the links. ARGV: node, number of its link.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return redis.error_reply('LINK ' .. ARGV[2] .. ' of this node is not known, or no more')
end
