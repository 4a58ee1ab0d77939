-- KEYS: record. ARGV: nothing, and then it changes nothing; or what to write if there is no record, so that every candidate can
-- wait on it: version, a random id, ttl, term, nonce, the number of replicas that was seen last, and the index with the name of the
-- boundary in it.
local key = KEYS[1]
local fields = redis.pcall('HGETALL', key)
if fields.err then
  return unread(fields)
end
local present, epoch, replicas = server_state()
if #fields == 0 and ARGV[1] then
  local time = whole(now())
  redis.call('HSET', key,
    'version', ARGV[1], 'state', 'vacant', 'id', ARGV[2], 'name', '', 'host', '', 'port', '', 'ttl', ARGV[3],
    'term', ARGV[4], 'nonce', ARGV[5], 'since', time, 'renewed', time, 'incarnation', present, 'epoch', joined(epoch),
    'replicas', ARGV[6], 'former', '')
  enter(ARGV[7], ARGV[8])
  fields = redis.call('HGETALL', key)
end
local size = 0
for _, text in ipairs(fields) do
  size = size + #text
end
if #fields > 512 or size > 16384 then
  return { 'large', cut(redis.call('HGET', key, 'name')) }
end
return { present, whole(now()), joined(epoch), joined(replicas), fields }
