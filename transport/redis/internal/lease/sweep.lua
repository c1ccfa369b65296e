-- Removes users whose lease has ended, and publishes each of them as offline. It removes none while hubs that could not reach
-- Redis may not have extended their leases: for the length of a lease after a time without sweeps.
-- KEYS: the set; a string with the time of the last sweep, and the time before which no user is removed.
-- ARGV: the channel, the length of a lease and the maximum time between two sweeps in seconds, the maximum number of users.
-- Returns how many users are online (all in the set while none is removed), how many were removed, the time before which no user
-- is removed, how many messages Redis refused to publish, and why it refused the last one.
local now, length = tonumber(redis.call('TIME')[1]), tonumber(ARGV[2])
local last, from = string.match(redis.call('GET', KEYS[2]) or '', '^(%d+) (%d+)$')
last, from = tonumber(last), tonumber(from)
if not last or now < last or now - last > tonumber(ARGV[3]) then
  from = now + length
end
redis.call('SET', KEYS[2], string.format('%d %d', now, from))
-- The clock was ahead when these leases were extended.
local late = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now + length, '+inf', 'LIMIT', 0, ARGV[4])
for _, user in ipairs(late) do
  redis.call('ZADD', KEYS[1], now + length, user)
end
local gone = {}
if now >= from then
  gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. now, 'LIMIT', 0, ARGV[4])
end
local refused, why = 0, ''
if #gone > 0 then
  redis.call('ZREM', KEYS[1], unpack(gone))
  for _, user in ipairs(gone) do
    local user = string.gsub(cjson.encode(user), '\\/', '/')
    local reply = redis.pcall('PUBLISH', ARGV[1], '{"user":' .. user .. ',"online":false}')
    if type(reply) == 'table' and reply.err then
      refused, why = refused + 1, reply.err
    end
  end
end
return {redis.call('ZCOUNT', KEYS[1], now < from and 1 or now, '+inf'), #gone, from, refused, why}
