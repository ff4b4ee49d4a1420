-- Counts requests, one after the other. Each takes what it costs from all of its buckets, or, where one does not hold
-- enough, from none.
-- KEYS: the buckets of all requests. Each holds when it will be full, in microseconds since 1970.
-- ARGV: for each bucket the microseconds in which it fills. Then for each request how many buckets it takes from, and for
-- each of those its place among KEYS and the microseconds that the cost is worth.
-- Says for each of those how long to wait and what it lacked before, in microseconds.
-- It runs for every request, so it calls and formats as little as it can.
local call, format = redis.call, string.format
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local kept = call('MGET', unpack(KEYS))
local fill, lack, taken = {}, {}, {}
for bucket = 1, #KEYS do
  local full, lacks = ARGV[bucket] + 0, (kept[bucket] or now) - now
  if lacks < 0 then lacks = 0 elseif lacks > full then lacks = full end
  fill[bucket], lack[bucket] = full, lacks
end
local answers, said, at = {}, 0, #KEYS + 1
while at <= #ARGV do
  local last, passes = at + 2 * ARGV[at], true
  for i = at + 1, last, 2 do
    local bucket = ARGV[i] + 0
    local wait = lack[bucket] + ARGV[i + 1] - fill[bucket]
    if wait > 0 then passes = false else wait = 0 end
    answers[said + 1], answers[said + 2] = wait, lack[bucket]
    said = said + 2
  end
  if passes then
    for i = at + 1, last, 2 do
      local bucket = ARGV[i] + 0
      lack[bucket] = lack[bucket] + ARGV[i + 1]
      taken[bucket] = true
    end
  end
  at = last + 1
end
for bucket in pairs(taken) do
  local full_at = now + lack[bucket]
  call('SET', KEYS[bucket], format('%d', full_at), 'PXAT', format('%d', full_at / 1000 + 1))
end
return answers
