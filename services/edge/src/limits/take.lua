-- Takes what a request costs from every bucket, or, where one does not hold enough, from none.
-- KEYS: the buckets. Each holds when it will be full, in microseconds since 1970.
-- ARGV: for each bucket its unit in microseconds, its burst, and the cost.
-- Says for each how long to wait and what it lacked before, in microseconds.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local kept = redis.call('MGET', unpack(KEYS))
local answers, after, passes = {}, {}, true
for i = 1, #KEYS do
  local unit, burst, cost = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local fill = unit * burst
  local lack = math.min(math.max((tonumber(kept[i]) or now) - now, 0), fill)
  after[i] = lack + unit * cost
  local wait = math.max(after[i] - fill, 0)
  passes = passes and wait == 0
  answers[2 * i - 1], answers[2 * i] = wait, lack
end
if passes then
  for i = 1, #KEYS do
    local full_at, ttl = string.format('%.0f', now + after[i]), string.format('%.0f', math.ceil(after[i] / 1000))
    redis.call('SET', KEYS[i], full_at, 'PX', ttl)
  end
end
return answers
