-- needs: in_time, keep
-- Publish a direct message. ARGV: deadline, prefix, channel, data, scope, log, budget, messages that the log may have, bytes that the
-- budget may have. Returns the place.
local log = {scope = ARGV[5], name = ARGV[6], budget = ARGV[7], max_messages = tonumber(ARGV[8]), max_bytes = tonumber(ARGV[9])}
return (hand_out(ARGV[2], log, ARGV[3], ARGV[4]))
