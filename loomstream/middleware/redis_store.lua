-- The steps of RedisStore: one script each, after what all of them share. Numbers go out as text, because Redis cuts
-- what a script gives back to whole ones. Times are the server's, in seconds.
local parts = redis.call('TIME')
local now = tonumber(parts[1]) + tonumber(parts[2]) / 1000000
local ENOUGH = 1e-6

local function text(number) return string.format('%.17g', number) end
local function field(key, name) return tonumber(redis.call('HGET', key, name) or nil) end

-- Rates. KEYS: levels, permits by the end of their lease, the first waiting calls of the processes by when they came
-- and by when they were seen last. ARGV: permit, rate and size of the requests' bucket, of the tokens', tokens.

local function refilled(name, rate, size)
  local level = field(KEYS[1], name)
  local at = field(KEYS[1], name .. '_at')
  if not level then return size end
  return math.min(size, level + (now - at) * rate)
end

local function set_level(name, level)
  redis.call('HSET', KEYS[1], name, text(level), name .. '_at', text(now))
end

local function keep(seconds)
  for _, key in ipairs(KEYS) do
    if redis.call('TTL', key) < seconds then redis.call('EXPIRE', key, math.ceil(seconds)) end
  end
end

-- Spending. KEYS: sums, reservations, uses and ends of leases by holder. ARGV: holder, limit, how long the sums are kept
-- (-1: for ever), lease.

local function sum(name) return field(KEYS[1], name) or 0 end

local function hold(holder, reserved, used)
  local old_reserved = field(KEYS[2], holder) or 0
  local old_used = field(KEYS[3], holder) or 0
  redis.call('HINCRBY', KEYS[1], 'reserved', text(reserved - old_reserved))
  redis.call('HINCRBY', KEYS[1], 'used', text(used - old_used))
  redis.call('HSET', KEYS[2], holder, text(reserved))
  redis.call('HSET', KEYS[3], holder, text(used))
end

local function lease(holder, seconds)
  redis.call('ZADD', KEYS[4], text(now + seconds), holder)
end

-- What a lapsed holder reserved and did not use is free; what it used stays counted, until it settles after all.
local function lapse()
  for _, holder in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', text(now))) do
    local used = field(KEYS[3], holder) or 0
    hold(holder, used, used)
    redis.call('ZREM', KEYS[4], holder)
  end
end

local function keep_sums()
  local seconds = tonumber(ARGV[3])
  if seconds < 0 then return end
  for _, key in ipairs(KEYS) do
    if redis.call('TTL', key) < 0 then redis.call('EXPIRE', key, seconds) end
  end
end

local function noted(reserved)
  local before = sum('most')
  local after = math.max(before, sum('spent') + sum('used'))
  redis.call('HSET', KEYS[1], 'most', text(after))
  keep_sums()
  return {text(reserved), text(before), text(after)}
end

--- step take
local permit, tokens = ARGV[1], tonumber(ARGV[6])
local rate, size, token_rate, token_size = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local lease_s, look_s, most, delay = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local gone = redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', text(now - 20 * look_s))
for _, other in ipairs(gone) do
  redis.call('ZREM', KEYS[3], other)
  redis.call('ZREM', KEYS[4], other)
end
redis.call('ZADD', KEYS[3], 'NX', text(now), permit)
redis.call('ZADD', KEYS[4], text(now), permit)
keep(lease_s + 120)
if redis.call('ZRANGE', KEYS[3], 0, 0)[1] ~= permit then return text(look_s) end

local function missing(level, wanted, per_second)
  local lacking = wanted - level
  if lacking <= ENOUGH then return 0 end
  return lacking / per_second
end

local wait = math.max(0, (field(KEYS[1], 'paused') or 0) - now, (field(KEYS[1], 'began') or 0) + delay - now)
local level, token_level
if rate > 0 then
  level = refilled('requests', rate, size)
  wait = math.max(wait, missing(level, 1, rate))
end
if token_rate > 0 then
  token_level = refilled('tokens', token_rate, token_size)
  wait = math.max(wait, missing(token_level, math.min(tokens, token_size), token_rate))
end
if wait > ENOUGH then return text(wait) end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', text(now))
if most > 0 and redis.call('ZCARD', KEYS[2]) >= most then return 'inf' end
if rate > 0 then set_level('requests', level - 1) end
if token_rate > 0 then set_level('tokens', token_level - tokens) end
redis.call('HSET', KEYS[1], 'began', text(now))
redis.call('ZADD', KEYS[2], text(now + lease_s), permit)
redis.call('ZREM', KEYS[3], permit)
redis.call('ZREM', KEYS[4], permit)
local full = 0
if rate > 0 then full = math.max(full, (size - level + 1) / rate) end
if token_rate > 0 then full = math.max(full, (token_size - token_level + tokens) / token_rate) end
keep(math.max(lease_s, full, delay) + 120)
return '0'

--- step renew
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then
  redis.call('ZADD', KEYS[2], text(now + tonumber(ARGV[2])), ARGV[1])
  keep(tonumber(ARGV[2]) + 120)
end
return '0'

--- step give_back
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
if redis.call('ZREM', KEYS[2], ARGV[1]) == 1 then
  local rate, size, token_rate, token_size = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
  if rate > 0 then set_level('requests', refilled('requests', rate, size) + tonumber(ARGV[8])) end
  if token_rate > 0 then set_level('tokens', refilled('tokens', token_rate, token_size) + tonumber(ARGV[7])) end
end
return '0'

--- step cap
local rate, size, token_rate, token_size = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local requests, tokens, pause = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
if rate > 0 and requests >= 0 then set_level('requests', math.min(refilled('requests', rate, size), requests)) end
if token_rate > 0 and tokens >= 0 then set_level('tokens', math.min(refilled('tokens', token_rate, token_size), tokens)) end
if pause > 0 then
  redis.call('HSET', KEYS[1], 'paused', text(math.max(field(KEYS[1], 'paused') or 0, now + pause)))
end
keep(pause + 240)
return '0'

--- step reserve
lapse()
local want, least = tonumber(ARGV[5]), tonumber(ARGV[6])
local granted = math.min(want, tonumber(ARGV[2]) - sum('spent') - sum('reserved'))
if granted < least or granted <= 0 then return '0' end
hold(ARGV[1], granted, 0)
lease(ARGV[1], tonumber(ARGV[4]))
keep_sums()
return text(granted)

--- step spend
lapse()
local used, want = tonumber(ARGV[5]), tonumber(ARGV[6])
local reserved = field(KEYS[2], ARGV[1]) or 0
local left = math.max(0, tonumber(ARGV[2]) - sum('spent') - sum('reserved'))
reserved = reserved + math.min(math.max(0, want - reserved), left)
hold(ARGV[1], reserved, used)
lease(ARGV[1], tonumber(ARGV[4]))
return noted(reserved)

--- step settle
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 1 then
  hold(ARGV[1], 0, 0)
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[1])
  redis.call('ZREM', KEYS[4], ARGV[1])
  redis.call('HINCRBY', KEYS[1], 'spent', ARGV[5])
end
lapse()
return noted(0)
