-- KEYS: record. Changes nothing.
local fields = redis.pcall('HGETALL', KEYS[1])
if fields.err then
  return unread(fields)
end
local present, replicas = life()
return { present, whole(now()), whole(most(KEYS[1], replicas)), fields }
