-- KEYS: record. ARGV: what was seen (life, id, term, nonce, state; an empty id if there was no record), then the
-- channel, the least term, and the new record (version, id, name, host, port, ttl, nonce).
local key = KEYS[1]
local present, replicas = life()
local seen = redis.pcall('HMGET', key, 'id', 'term', 'nonce', 'state', 'incarnation')
if seen.err then
  return unread(seen)
end
local same = present == ARGV[1]
for index = 1, 4 do
  same = same and (seen[index] or '') == ARGV[index + 1]
end
if not same then
  return { 'changed' }
end
local time = now()
local term = math.max((tonumber(seen[2] or 0) or 0) + 1, time, tonumber(ARGV[7]))
if not (term < 9007199254740992) then
  return { 'overflow' }
end
replicas = most(key, replicas)
-- Between a record of another life and this one there may have been leaders that were forgotten since.
local former = seen[5] == present and seen[2] or ''
redis.call('HSET', key,
  'version', ARGV[8], 'state', 'held', 'id', ARGV[9], 'name', ARGV[10], 'host', ARGV[11], 'port', ARGV[12],
  'ttl', ARGV[13], 'nonce', ARGV[14], 'term', whole(term), 'since', whole(time), 'renewed', whole(time),
  'incarnation', present, 'replicas', whole(replicas), 'former', former)
announce(ARGV[6], 'taken')
return { 'taken', whole(term), whole(replicas) }
