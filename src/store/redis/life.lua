-- The present life of the server, and how many replicas follow it. Another life may remember less than this one.
local function life()
  local server = redis.call('INFO', 'server')
  local replication = redis.call('INFO', 'replication')
  local run = string.match(server, 'run_id:(%w+)') or ''
  local history = string.match(replication, 'master_replid:(%w+)') or ''
  local _, replicas = string.gsub(replication, 'slave%d+:[^\r\n]*state=online', '')
  return run .. '/' .. history, replicas
end

-- Milliseconds since 1970: for people, and as the floor of a term. Nothing else depends on it.
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

-- The most replicas that the record has ever seen.
local function most(key, replicas)
  return math.max(replicas, tonumber(redis.call('HGET', key, 'replicas') or 0) or 0)
end

-- What a script returns when its key could not be read: somebody else's value is an answer, all else an error.
local function unread(reply)
  if string.find(reply.err, 'WRONGTYPE', 1, true) then
    return { 'foreign' }
  end
  return reply
end

-- A hint: whoever may not hear it, or say it, goes on asking.
local function announce(channel, word)
  redis.pcall('PUBLISH', channel, word)
end
