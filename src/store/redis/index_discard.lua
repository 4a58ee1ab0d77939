-- KEYS: index. ARGV: the prefix of all keys, and names whose record was not there. Compared again, since one may have been created.
for index = 2, #ARGV do
  local fields = redis.pcall('HGETALL', ARGV[1] .. ARGV[index])
  if not fields.err and #fields == 0 then
    redis.pcall('ZREM', KEYS[1], ARGV[index])
  end
end
return { 'discarded' }
