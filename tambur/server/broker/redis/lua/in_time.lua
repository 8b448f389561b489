-- needs: clock
-- Refuse calls past their deadline, for instance after Redis was paused. The node has answered "unavailable" by then.
-- Refuse calls of a link that was cut, too ("renew"): what its node acknowledged must come before the cut.
-- ARGV[1]: the deadline by Redis' own clock, in milliseconds since 1970; the node, the number of its link, the key of the links.
do
  local deadline, node, link, links = string.match(ARGV[1], '^(%d+) (%w+) (%d+) (.*)$')
  if clock_ms > tonumber(deadline) then
    return redis.error_reply('LATE by ' .. clock_ms - deadline .. ' ms')
  elseif redis.call('HGET', links, node) ~= link then
    return redis.error_reply('LINK ' .. link .. ' of this node was cut')
  end
end
