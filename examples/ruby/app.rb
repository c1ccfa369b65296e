# A small app whose users log in and send each other messages: Ruby, WEBrick, redis-rb.
require "json"
require "redis"
require "securerandom"
require "webrick"

REDIS = Redis.new(url: ENV.fetch("REDIS_URL", "redis://127.0.0.1:6379"), timeout: 0.5)
PAGE = File.read(File.join(__dir__, "page.html"))
SESSIONS = {} # session id -> user; in your app, a database
NAME = /\A[a-z0-9]{1,32}\z/

# Returns whether Redis has received the message. Takes about a second at most, and never fails the request.
def publish(channel, message)
  REDIS.publish(channel, message.to_json)
  true
rescue Redis::BaseError => e
  warn "usercast: #{e.message}"
  false
end

def session(request)
  request.cookies.find { |c| c.name == "session" }&.value
end

def cookie(value, max_age) # with HTTPS, add "; Secure"
  "session=#{value}; Path=/; HttpOnly; SameSite=Lax; Max-Age=#{max_age}"
end

ROUTES = {
  "GET /" => lambda do |_, answer, _|
    answer["Content-Type"] = "text/html; charset=utf-8"
    answer.body = PAGE
  end,

  # The session check: the hub sends it with the browser's cookies.
  "GET /usercast/session" => lambda do |_, answer, user|
    user ? answer["X-User-ID"] = user : answer.status = 401
  end,

  "POST /login" => lambda do |request, answer, _|
    name = request.query["name"].to_s # a real app checks a password here
    next answer.status = 400 unless NAME.match?(name)

    id = SecureRandom.hex
    SESSIONS[id] = name.encode("UTF-8")
    answer["Set-Cookie"] = cookie(id, 86_400)
    answer.status = 204
  end,

  "POST /messages" => lambda do |request, answer, user|
    next answer.status = 401 unless user
    next answer.status = 400 unless NAME.match?(request.query["to"].to_s)

    text = request.query["text"].to_s.force_encoding("UTF-8").scrub
    published = publish("user-#{request.query["to"]}:chat", { from: user, text: text })
    answer.status = published ? 204 : 503 # a real app has stored the message and answers 204
  end,

  # Delete the session first: the browser reconnects after the command, and then gets 401.
  "POST /logout" => lambda do |request, answer, user|
    SESSIONS.delete(session(request))
    publish("usercast:user-control", { op: "disconnect", user: user }) if user
    answer["Set-Cookie"] = cookie("", 0)
    answer.status = 204
  end
}.freeze

port = Integer(ENV.fetch("PORT", "3000"))
server = WEBrick::HTTPServer.new(BindAddress: "127.0.0.1", Port: port, AccessLog: [], Logger: WEBrick::Log.new($stderr, WEBrick::Log::WARN))
server.mount_proc("/") do |request, answer|
  route = ROUTES["#{request.request_method} #{request.path}"] or raise WEBrick::HTTPStatus::NotFound
  route.call(request, answer, SESSIONS[session(request)])
end
%w[INT TERM].each { |signal| trap(signal) { server.shutdown } }
puts "http://127.0.0.1:#{port}/"
$stdout.flush
server.start
