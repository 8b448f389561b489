-- needs: fence, remove_entry
-- KEYS: the links, the entries of the node. ARGV: node, number of its link, entry, the prefix of all keys.
remove_entry(ARGV[4], KEYS[2], ARGV[3])
