-- KEYS: record. ARGV: id, term, nonce, channel, and what the record says of its leader from now on: name, host, port.
local key = KEYS[1]
local seen = redis.pcall('HMGET', key, 'id', 'term', 'state', 'nonce', 'ttl', 'name', 'host', 'port')
if seen.err then
  return unread(seen)
end
if seen[1] ~= ARGV[1] or seen[2] ~= ARGV[2] or seen[3] ~= 'held' then
  return { 'lost', seen[1] or '', seen[3] or '', seen[6] or '' }
end
local _, replicas = life()
replicas = most(key, replicas)
-- One that comes late must not bring back a version that somebody has seen before.
if tonumber(ARGV[3]) > (tonumber(seen[4]) or 0) then
  local same = seen[6] == ARGV[5] and seen[7] == ARGV[6] and seen[8] == ARGV[7]
  redis.call('HSET', key, 'nonce', ARGV[3], 'renewed', whole(now()), 'replicas', whole(replicas),
    'name', ARGV[5], 'host', ARGV[6], 'port', ARGV[7])
  announce(ARGV[4], same and 'renewed' or 'renamed')
end
return { 'renewed', seen[5] or '', whole(replicas) }
