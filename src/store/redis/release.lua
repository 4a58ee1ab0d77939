-- KEYS: record. ARGV: id, by what it is known to be ours ('term', 'nonce' or 'id') and which, nonce, channel, and where our last
-- credited renewal was executed (incarnation and epoch, both empty: what the record says is right). Then the candidate that the
-- record is left to, and for how many milliseconds, both empty if to none. An elect that does not know a reservation keeps its
-- fields when it takes the record: the term says which free record they belong to. Then another nonce by which it may be ours,
-- that of the renewal that was sent with the take; empty if none was.
-- By the id alone only when its candidate is dead.
local key = KEYS[1]
local seen = redis.pcall('HMGET', key, 'id', 'state', 'term', 'nonce')
if seen.err then
  return unread(seen)
end
local ours = seen[1] == ARGV[1] and seen[2] == 'held'
if ARGV[2] == 'term' then
  ours = ours and seen[3] == ARGV[3]
elseif ARGV[2] == 'nonce' then
  ours = ours and (seen[4] == ARGV[3] or ARGV[10] ~= '' and seen[4] == ARGV[10])
end
if ours then
  redis.call('HSET', key, 'state', 'free', 'nonce', ARGV[4], 'renewed', whole(now()))
  if ARGV[6] ~= '' then
    redis.call('HSET', key, 'incarnation', ARGV[6], 'epoch', ARGV[7])
  end
  if ARGV[8] ~= '' then
    redis.call('HSET', key, 'successor', ARGV[8], 'within', ARGV[9], 'reserved', seen[3])
  end
  announce(ARGV[5], 'freed')
end
return { ours and 'freed' or 'not ours' }
