-- Charges requests one after the other. A request takes its costs from all of its buckets or, if
-- one of them does not hold enough, from none.
-- KEYS: the buckets of all requests. The value of each is when it will be full, in microseconds
-- since 1970.
-- ARGV: for each bucket the microseconds in which it fills. Then for each request the number of its
-- charges, and for each charge the index of the bucket in KEYS and the microseconds that the cost
-- is worth.
-- Returns for each charge how long to wait and the deficit before it, in microseconds. This runs
-- for every request, so it calls and formats as little as possible.
local call, format = redis.call, string.format
local time = call('TIME')
local now = time[1] * 1000000 + time[2]
local stored = call('MGET', unpack(KEYS))
local fill, deficit, charged = {}, {}, {}
for bucket = 1, #KEYS do
  local full, missing = ARGV[bucket] + 0, (stored[bucket] or now) - now
  if missing < 0 then missing = 0 elseif missing > full then missing = full end
  fill[bucket], deficit[bucket] = full, missing
end
local replies, length, at = {}, 0, #KEYS + 1
while at <= #ARGV do
  local last, passes = at + 2 * ARGV[at], true
  for i = at + 1, last, 2 do
    local bucket = ARGV[i] + 0
    local wait = deficit[bucket] + ARGV[i + 1] - fill[bucket]
    if wait > 0 then passes = false else wait = 0 end
    replies[length + 1], replies[length + 2] = wait, deficit[bucket]
    length = length + 2
  end
  if passes then
    for i = at + 1, last, 2 do
      local bucket = ARGV[i] + 0
      deficit[bucket] = deficit[bucket] + ARGV[i + 1]
      charged[bucket] = true
    end
  end
  at = last + 1
end
for bucket in pairs(charged) do
  local full_at = now + deficit[bucket]
  call('SET', KEYS[bucket], format('%d', full_at), 'PXAT', format('%d', full_at / 1000 + 1))
end
return replies
