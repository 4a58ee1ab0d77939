-- KEYS: record. ARGV: id, by what it is known to be ours ('term', 'nonce' or 'id') and which, nonce, channel, and where our last
-- credited renewal was executed (incarnation and epoch, both empty: what the record says is right). Then the candidate that the
-- record is left to, and for how many milliseconds, both empty if to none. An elect that does not know a reservation keeps its
-- fields when it takes the record: the term says which free record they belong to. Then another nonce by which it may be ours,
-- that of the renewal that was sent with the take; empty if none was. Then the number of the database.
-- By the id alone only when its candidate is dead.
--
-- A crowd is not told as a whole: all would ask at once, and one of them takes the record. Its candidates are in 64 groups with a
-- channel each. As many groups are told as have 8 listeners together, those that are told first other ones in each term; observers
-- that listen to every channel do not count. All are told if there are no 8, or if only the successor may take the record.
local function told_enough(channel, db, term)
  local groups = {}
  for number = 1, 64 do
    groups[number] = channel .. '\t' .. db .. '\t' .. whole((term + number) % 64)
  end
  local counts, listeners = redis.pcall('PUBSUB', 'NUMSUB', unpack(groups)), 0
  for index = 1, #counts, 2 do
    local members = tonumber(counts[index + 1]) or 0
    if members > 0 and listeners < 8 then
      if type(redis.pcall('PUBLISH', counts[index], 'freed')) == 'table' then
        return false
      end
      listeners = listeners + members
    end
  end
  return listeners >= 8
end

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
  local is_told = ARGV[8] == '' and crowd(ARGV[5]) > 0 and told_enough(ARGV[5], ARGV[11], tonumber(seen[3]) or 0)
  if not is_told then
    announce(ARGV[5], 'freed')
  end
end
return { ours and 'freed' or 'not ours' }
