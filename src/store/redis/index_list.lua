-- KEYS: index. ARGV: the prefix of all keys and channels, the pattern of the channels, the member that is the mark, for how many seconds
-- it is believed, and the largest numbers of boundaries, of boundaries that only a channel names, and of bytes in a name. Changes nothing.
-- The mark's score is the time of the last scan, below zero, so that it comes first; all names have the score zero, so that they follow
-- in their order.
local members = redis.pcall('ZRANGE', KEYS[1], 0, tonumber(ARGV[5]), 'WITHSCORES')
local channels = redis.pcall('PUBSUB', 'CHANNELS', ARGV[2])
if members.err or channels.err then
  return { 'useless' }
end
local seconds = math.floor(now() / 1000)
local age = members[1] == ARGV[3] and seconds + tonumber(members[2])
local is_complete = age and age >= 0 and age < tonumber(ARGV[4])
local answer, is_known = { '', whole(seconds) }, {}
for index = 1, #members, 2 do
  local name = members[index]
  if name ~= ARGV[3] and #name <= tonumber(ARGV[7]) then
    answer[#answer + 1] = name
    is_known[name] = true
  end
end
local others = 0
for _, channel in ipairs(channels) do
  local name = string.sub(channel, #ARGV[1] + 1)
  -- With a tab it is a group of candidates, whose boundary has a channel of its own.
  if #name <= tonumber(ARGV[7]) and not is_known[name] and not string.find(name, '\t', 1, true) then
    others = others + 1
    if others > tonumber(ARGV[6]) then
      is_complete = false
      break
    end
    answer[#answer + 1] = name
  end
end
answer[1] = is_complete and 'complete' or 'incomplete'
return answer
