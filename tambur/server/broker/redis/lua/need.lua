-- needs: floors
-- Remember the floors of logs, and say in its turn among the messages which place is the last.
-- ARGV: the prefix of all keys, the node's channel, the first line of the reply that is published there or "" for no reply, for how
--       many seconds a node needs the logs, floors that an app may have, then scope and name of each log.
for i = 6, #ARGV, 2 do
  need_floor(ARGV[1], ARGV[i], ARGV[i + 1], ARGV[4], ARGV[5])
end
if ARGV[3] ~= '' then
  redis.call('PUBLISH', ARGV[2], ARGV[3] .. (redis.call('HGET', ARGV[1] .. 'shard', 'last') or '0'))
end
