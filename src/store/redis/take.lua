-- KEYS: record. ARGV: what was seen of it (id, term, nonce, state, required replicas) and of the server (incarnation; attachments
-- and commands, both empty where replicas do not matter); then the channel, the least and the largest term, and the new record
-- (version, id, name, host, port, ttl, nonce, the number of all replicas, the number of required ones), and the index with the name
-- of the boundary in it.
local key = KEYS[1]
local present, epoch, replicas = server_state()
local seen = redis.pcall('HMGET', key, 'id', 'term', 'nonce', 'state', 'required', 'incarnation')
if seen.err then
  return unread(seen)
end
local same = present == ARGV[6]
for index = 1, 5 do
  same = same and (seen[index] or '') == ARGV[index]
end
if ARGV[7] ~= '' then
  same = same and epoch[1] == tonumber(ARGV[7]) and epoch[2] >= tonumber(ARGV[8])
end
if not same then
  return { 'changed' }
end
local time = now()
local term = math.max((tonumber(seen[2] or 0) or 0) + 1, time, tonumber(ARGV[10]))
if not (term <= tonumber(ARGV[11])) then
  return { 'overflow' }
end
-- Between a record of another incarnation, or a vacant one, and this one there may have been leaders that were forgotten since.
local previous_term = seen[6] == present and seen[4] ~= 'vacant' and seen[2] or ''
redis.call('HSET', key,
  'version', ARGV[12], 'state', 'held', 'id', ARGV[13], 'name', ARGV[14], 'host', ARGV[15], 'port', ARGV[16],
  'ttl', ARGV[17], 'nonce', ARGV[18], 'replicas', ARGV[19], 'required', ARGV[20], 'term', whole(term),
  'since', whole(time), 'renewed', whole(time), 'incarnation', present, 'epoch', joined(epoch), 'former', previous_term)
enter(ARGV[21], ARGV[22])
-- A crowd is told later, by the candidate: it would be awake just when the command starts.
local untold = crowd(ARGV[9])
if untold == 0 then
  announce(ARGV[9], 'taken')
end
return { 'taken', whole(term), present, joined(epoch), joined(replicas), whole(untold) }
