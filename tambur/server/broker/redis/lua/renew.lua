-- needs: last_place
-- Renew the node's lease.
-- KEYS: the links, the leases, the place key. ARGV: node, number of its link, length of the lease in milliseconds, the node's
--       channel, the first line of the reply that is published there; the rest of it is the last place.
-- Returns the end of the lease before and the new one, in milliseconds since 1970.
local before = redis.call('ZSCORE', KEYS[2], ARGV[1])
local until_ms = clock_ms + ARGV[3]
redis.call('ZADD', KEYS[2], until_ms, ARGV[1])
redis.call('PUBLISH', ARGV[4], ARGV[5] .. last_place(KEYS[3]))
return {before or '', string.format('%.0f', until_ms)}
