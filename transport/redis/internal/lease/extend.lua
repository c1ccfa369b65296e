-- Extends the leases of users, and publishes each user that is not in the set as online.
-- KEYS: the set. ARGV: the channel, the length of a lease in seconds, users without duplicates.
-- Returns how many messages Redis refused to publish, and why it refused the last one.
local ends = tonumber(redis.call('TIME')[1]) + tonumber(ARGV[2])
local before = redis.call('ZMSCORE', KEYS[1], unpack(ARGV, 3))
local leases = {}
for i = 3, #ARGV do
  leases[#leases + 1] = ends
  leases[#leases + 1] = ARGV[i]
end
redis.call('ZADD', KEYS[1], unpack(leases))
local refused, why = 0, ''
for i, score in ipairs(before) do
  if not score then
    local user = string.gsub(cjson.encode(ARGV[i + 2]), '\\/', '/')
    local reply = redis.pcall('PUBLISH', ARGV[1], '{"user":' .. user .. ',"online":true}')
    if type(reply) == 'table' and reply.err then
      refused, why = refused + 1, reply.err
    end
  end
end
return {refused, why}
