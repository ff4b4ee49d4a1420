-- Takes what a request costs from every bucket, or, where one does not hold enough, from none.
-- KEYS: the buckets. Each holds when it will be full, in microseconds since 1970.
-- ARGV: for each bucket the microseconds in which it fills, and those that the cost is worth.
-- Says for each how long to wait and what it lacked before, in microseconds.
-- It runs for every request, so it calls and formats as little as it can.
local call, format = redis.call, string.format
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local kept = call('MGET', unpack(KEYS))
local answers, after, passes = {}, {}, true
for i = 1, #KEYS do
  local fill = ARGV[2 * i - 1] + 0
  local lack = (kept[i] or now) - now
  if lack < 0 then lack = 0 elseif lack > fill then lack = fill end
  after[i] = lack + ARGV[2 * i]
  local wait = after[i] - fill
  if wait > 0 then passes = false else wait = 0 end
  answers[2 * i - 1], answers[2 * i] = wait, lack
end
if passes then
  for i = 1, #KEYS do
    local full_at = now + after[i]
    call('SET', KEYS[i], format('%d', full_at), 'PXAT', format('%d', full_at / 1000 + 1))
  end
end
return answers
