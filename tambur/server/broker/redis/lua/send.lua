-- needs: in_time
-- Publish without keeping: a call to another node.
-- ARGV: deadline, channel, data. Returns how many nodes listen.
return redis.call('PUBLISH', ARGV[2], ARGV[3])
