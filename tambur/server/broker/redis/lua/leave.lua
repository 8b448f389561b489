-- needs: fence, remove_entry
-- KEYS: the links, the entries of the node. ARGV: node, number of its link, entry, the prefix of all keys, the queues of webhooks that
--       the event of a user who leaves is for, how many events a queue may hold.
remove_entry(ARGV[4], KEYS[2], ARGV[3], ARGV[5], ARGV[6])
