-- KEYS: index. ARGV: the member that is the mark, when the scan has begun in seconds since 1970, and the names that it has found. All in
-- one script: an index that is deleted meanwhile must not be left with the mark and without the names.
for index = 3, #ARGV do
  local added = redis.pcall('ZADD', KEYS[1], 0, ARGV[index])
  if type(added) == 'table' and added.err then
    return { 'useless' }
  end
end
local marked = redis.pcall('ZADD', KEYS[1], -tonumber(ARGV[2]), ARGV[1])
return { type(marked) == 'table' and marked.err and 'useless' or 'complete' }
