-- KEYS: record. ARGV: version, a new random id, ttl, term, nonce of a vacant record. Writes it if there is none.
local key = KEYS[1]
if redis.call('EXISTS', key) == 0 then
  local present = life()
  local time = whole(now())
  redis.call('HSET', key,
    'version', ARGV[1], 'state', 'vacant', 'id', ARGV[2], 'name', '', 'host', '', 'port', '', 'ttl', ARGV[3],
    'term', ARGV[4], 'nonce', ARGV[5], 'since', time, 'renewed', time, 'incarnation', present, 'former', '')
end
return { 'vacated' }
