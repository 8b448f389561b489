-- needs: clock
-- Let an event of a queue of webhooks be due again. KEYS: when its events are due. ARGV: the version, milliseconds from now.
redis.call('ZADD', KEYS[1], 'XX', clock_ms + ARGV[2], ARGV[1])
