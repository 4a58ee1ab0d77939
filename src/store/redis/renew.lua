-- KEYS: record. ARGV: id, term, nonce, channel, and what the record says of its leader from now on: name, host, port; then where
-- its last credited renewal was executed (incarnation and epoch, both empty if none was credited yet), the required number of
-- replicas that the record must have, and a growth: the new number of all replicas, and the required one that follows from it
-- (both empty: none). A growth whose answer was lost may be in the record already. A renewal that is sent together with its take does
-- not know the term yet: that is empty, and the last argument is the nonce of the take.
local key = KEYS[1]
local seen = redis.pcall('HMGET', key, 'id', 'term', 'state', 'nonce', 'ttl', 'name', 'host', 'port', 'required', 'replicas')
if seen.err then
  return unread(seen)
end
local claim, claimed = seen[2], ARGV[2]
if claimed == '' then
  claim, claimed = seen[4], ARGV[13]
end
if seen[1] ~= ARGV[1] or claim ~= claimed or seen[3] ~= 'held' then
  return { 'lost', cut(seen[1]), cut(seen[3]), cut(seen[6]) }
end
local required, all = seen[9] or '', seen[10] or ''
if required ~= ARGV[10] and not (ARGV[11] ~= '' and required == ARGV[12]) then
  return { 'resized', cut(required) }
end
local present, epoch, replicas = server_state()
local found = tonumber(seen[4]) or 0
-- One that comes late must not bring back a version that somebody has seen before.
if tonumber(ARGV[3]) > found then
  if ARGV[11] ~= '' and replicas[2] >= tonumber(ARGV[11]) then
    all, required = ARGV[11], ARGV[12]
  end
  local same = seen[6] == ARGV[5] and seen[7] == ARGV[6] and seen[8] == ARGV[7]
  redis.call('HSET', key, 'nonce', ARGV[3], 'renewed', whole(now()), 'name', ARGV[5], 'host', ARGV[6], 'port', ARGV[7],
    'replicas', all, 'required', required)
  if ARGV[8] ~= '' then
    redis.call('HSET', key, 'incarnation', ARGV[8], 'epoch', ARGV[9])
  end
  local listeners = crowd(ARGV[4])
  if not same then
    announce(ARGV[4], listeners > 0 and 'renamed ' .. whole(listeners) or 'renamed')
  elseif ARGV[8] ~= '' or listeners == 0 then
    -- The announcement of a take, which a crowd gets later, is news enough of the renewals before the first credit.
    announce(ARGV[4], 'renewed')
  end
end
return { 'renewed', cut(seen[5]), whole(found), present, joined(epoch), joined(replicas), cut(all), cut(required) }
