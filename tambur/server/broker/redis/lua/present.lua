-- Ask who is present.
-- KEYS: the stream's users. ARGV: the node's channel, the first line of the reply that is published there.
redis.call('PUBLISH', ARGV[1], ARGV[2] .. table.concat(redis.call('HKEYS', KEYS[1]), '\n'))
