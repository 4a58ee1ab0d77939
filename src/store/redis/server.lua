-- `replication` is that section of INFO, which every script has read by now.
--
-- The present incarnation of the server, the epoch of its replicas (how often one has attached, and the commands processed so
-- far, whose fall shows that the counters were reset), and how many replicas follow it. Another incarnation may remember less
-- than this one.
--
-- A replica counts as attached with an address of its own that others can connect to, once it has confirmed something. As prompt
-- count those of them that have confirmed something lately. What confirms without such an address is a stranger to be told apart
-- from them: WAIT counts it as well.
local function server_state()
  local server = redis.call('INFO', 'server')
  local stats = redis.call('INFO', 'stats')
  local run = string.match(server, 'run_id:(%w+)') or ''
  local history = string.match(replication, 'master_replid:(%w+)') or ''
  local function counter(name)
    return tonumber(string.match(stats, name .. ':(%d+)') or 0)
  end
  local lags, attached, prompt, strangers = {}, 0, 0, 0
  for line in string.gmatch(replication, 'slave%d+:([^\r\n]*)') do
    local address = (string.match(line, 'ip=([^,]*)') or '') .. ' ' .. (string.match(line, 'port=(%d+)') or '0')
    local lag = tonumber(string.match(line, 'lag=(%d+)') or 1000)
    if string.find(line, 'state=online', 1, true) and tonumber(string.match(line, 'offset=(%d+)') or 0) > 0 then
      if string.find(address, '^ ') or string.find(address, ' 0+$') then
        strangers = strangers + 1
      else
        attached = attached + (lags[address] and 0 or 1)
        lags[address] = math.min(lag, lags[address] or lag)
      end
    end
  end
  for _, lag in pairs(lags) do
    prompt = prompt + (lag <= 2 and 1 or 0)
  end
  local epoch = { counter('sync_full') + counter('sync_partial_ok'), counter('total_commands_processed') }
  return run .. '/' .. history, epoch, { attached, prompt, strangers }
end

-- Milliseconds since 1970: for people, and as the floor of a term. Nothing else depends on it.
local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function whole(number)
  return string.format('%.0f', number)
end

-- Numbers in one text.
local function joined(numbers)
  local texts = {}
  for index, number in ipairs(numbers) do
    texts[index] = whole(number)
  end
  return table.concat(texts, '/')
end

-- A text as far as it is shown.
local function cut(text)
  return string.sub(text or '', 1, 256)
end

-- What a script returns when its key could not be read: another program's value is an answer, all else an error. A text that
-- expires is returned in part, with the milliseconds that it has left, where the user may read it: it may be large.
local function unread(reply)
  if string.find(reply.err, 'WRONGTYPE', 1, true) then
    local text, left = redis.pcall('GETRANGE', KEYS[1], 0, 64), redis.pcall('PTTL', KEYS[1])
    if type(text) == 'string' and type(left) == 'number' and left >= 0 then
      return { 'foreign', text, whole(left) }
    end
    return { 'foreign' }
  end
  return reply
end

-- Enters a boundary into the index for observers. No election depends on it: a candidate may lack the right, the key may hold something
-- else, and observers scan then.
local function enter(index, name)
  redis.pcall('ZADD', index, 0, name)
end

-- A hint: a candidate that may not hear it, or say it, goes on asking.
local function announce(channel, word)
  redis.pcall('PUBLISH', channel, word)
end

-- How many listen on a channel, if that is a crowd: what is announced to it wakes so many processes at once. 0 otherwise, and where the
-- user may not ask.
local function crowd(channel)
  local counts = redis.pcall('PUBSUB', 'NUMSUB', channel)
  local listeners = not counts.err and tonumber(counts[2]) or 0
  return listeners > 16 and listeners or 0
end
