-- Remove an event from a queue of webhooks. KEYS: the events, and when they are due. ARGV: the version.
redis.call('ZREMRANGEBYSCORE', KEYS[1], ARGV[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
