-- "process" names one process of Redis, and the history from which it was last promoted. "evicts" says whether Redis may remove keys
-- by itself. Then nothing proves that a log is complete.
local server, replication = redis.call('INFO', 'server'), redis.call('INFO', 'replication')
local process = string.match(server, 'run_id:(%w+)') .. ' ' .. (string.match(replication, 'master_replid2:(%w+)') or '') .. ' '
  .. (string.match(replication, 'second_repl_offset:(%-?%d+)') or '')
local memory = redis.call('INFO', 'memory')
local evicts = string.match(memory, 'maxmemory:(%d+)') ~= '0' and string.match(memory, 'maxmemory_policy:(%w+)') ~= 'noeviction'
