package main

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"usercast/auth"
	"usercast/transport/redis"
)

const (
	defaultRedis  = "redis://127.0.0.1:6379/0"
	defaultPrefix = "user-"
)

// The kinds of --writer.
const (
	writerAuto     = "auto"
	writerPortable = "portable"
)

// flagDefaults are those that other code must know, too.
var flagDefaults = kong.Vars{
	"redis_default": defaultRedis, "prefix_default": defaultPrefix,
	"stream_key_default": defaultStreamKey, "writer_default": writerAuto,
	"user_header_default": auth.UserHeader, "jwt_claim_default": defaultClaim, "jwt_cookie_default": defaultCookie,
}

// A Config is what an App is made of: the flags that serve and dev share. The
// defaults are in the tags; PRODUCT.md's table is made of them.
type Config struct {
	Listen         string   `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Public listener: the stream, /livez and /readyz (${default})."`
	AdminListen    string   `default:"127.0.0.1:8081" placeholder:"HOST:PORT" help:"Admin listener: the console at /, /metrics, health, /api, /debug/pprof/ (${default})."`
	AdminTokenFile string   `placeholder:"FILE" help:"Bearer token that guards the console, /api and /debug/pprof/; without one they answer this machine only."`
	ConsoleTail    bool     `help:"Let the console follow the messages of a user: it shows payloads."`
	Path           string   `default:"/events" help:"Path of the stream (${default})."`
	TLSCert        string   `name:"tls-cert" placeholder:"FILE" help:"PEM file with the certificate, and those that lead to its authority, for TLS on the public listener; read again when it changes."`
	TLSKey         string   `name:"tls-key" placeholder:"FILE" help:"PEM file of its key."`
	AllowOrigin    []string `placeholder:"ORIGIN" help:"Origin of a page on another host that may open streams with credentials, exactly as browsers send it; repeatable."`

	Feed      string `default:"pubsub" placeholder:"FEED" help:"pubsub: the app publishes to channels; stream: it appends to one Redis stream, and nothing is lost over outages and restarts (${default})."`
	StreamKey string `default:"${stream_key_default}" placeholder:"KEY" help:"Key of that stream (${default})."`

	ChannelPrefix  string `default:"${prefix_default}" placeholder:"PREFIX" help:"Channels are <prefix><user>[:<topic>] (${default})."`
	ControlChannel string `placeholder:"NAME" help:"With pubsub: channel on which hubs hear orders (usercast:<prefix>control)."`
	BroadcastUser  string `default:"*" placeholder:"USER" help:"Messages to this user reach everybody; empty: nobody is that user (${default})."`
	MaxPayload     size   `default:"1MiB" placeholder:"SIZE" help:"A larger message becomes a gap (${default})."`

	// A ping every 15 s is below every proxy's idle limit that we know of.
	PingInterval duration `default:"15s" placeholder:"DURATION" help:"A stream is never silent for longer (${default})."`
	// Also how long a peer may leave data unacknowledged.
	WriteTimeout duration `default:"10s" placeholder:"DURATION" help:"A reader that takes nothing for this long is closed (${default})."`
	Retry        duration `default:"3s" placeholder:"DURATION" help:"When a browser comes back after an end, ±50 % each (${default})."`
	MaxAge       duration `default:"0" placeholder:"DURATION" help:"Longest life of a stream, ±20 %; 0: no end (${default})."`

	// A burst that a healthy reader could take must fit.
	Queue      count `default:"1024" placeholder:"N" help:"Frames that may wait for one stream (${default})."`
	QueueBytes size  `default:"1MiB" placeholder:"SIZE" help:"Bytes that may wait for one stream (${default})."`
	// The bound on what readers who stop can make the hub hold.
	QueueTotalBytes size `default:"256MiB" placeholder:"SIZE" help:"Bytes that may wait for all streams; past it the fullest queue is closed (${default})."`
	// The kernel would take 4 MB for a reader that never reads.
	SendBuffer size `default:"128KiB" placeholder:"SIZE" help:"Kernel send buffer of one stream (${default})."`

	// What a browser that was away for a moment gets when it is back.
	HistoryPerUser count    `default:"256" placeholder:"N" help:"With pubsub: newest messages kept of each user who has a stream, or had one within the history age; 0: none (${default})."`
	HistoryAge     duration `default:"2m" placeholder:"DURATION" help:"With pubsub: for how long they are kept; 0: not at all (${default})."`
	HistoryBytes   size     `default:"64MiB" placeholder:"SIZE" help:"Bytes that kept messages may take together, with stream those of all users; 0: none are kept (${default})."`

	MaxClients        autoCount `default:"auto" placeholder:"N" help:"Streams at once; auto: the descriptor limit less a reserve; 0: no limit (${default})."`
	MaxClientsPerUser count     `default:"32" placeholder:"N" help:"Streams of one user at once; 0: no limit (${default})."`

	Writer string `default:"${writer_default}" placeholder:"KIND" help:"How streams are written to. auto: on Linux, idle HTTP/1.1 streams are parked in one epoll; portable: a goroutine waits for each, as elsewhere (${default})."`

	LogLevel  string `default:"info" placeholder:"LEVEL" help:"debug, info, warn or error (${default})."`
	LogFormat string `default:"text" placeholder:"FORMAT" help:"text or json (${default})."`
}

// check adds everything that is wrong with c.
func (c *Config) check(k *checker) {
	checkAddress(k, "listen", c.Listen)
	checkAddress(k, "admin-listen", c.AdminListen)
	if c.AdminTokenFile != "" {
		_, err := readSecret(c.AdminTokenFile)
		k.read("admin-token-file", err)
	}
	if !strings.HasPrefix(c.Path, "/") || strings.ContainsAny(c.Path, "?#:*% ") || slices.Contains([]string{"/", "/livez", "/readyz"}, c.Path) {
		k.wrong("path", "%q must be a plain path such as /events, and none of /, /livez, /readyz", c.Path)
	}
	if c.Listen == c.AdminListen && !strings.HasSuffix(c.Listen, ":0") {
		k.wrong("admin-listen", "must differ from --listen")
	}
	checkCertificate(k, c.TLSCert, c.TLSKey)
	for _, origin := range c.AllowOrigin {
		if fault := originFault(origin); fault != "" {
			k.wrong("allow-origin", "%q %s", origin, fault)
		}
	}
	if c.Feed != feedPubSub && c.Feed != feedStream {
		k.wrong("feed", "%q is neither pubsub nor stream", c.Feed)
	}
	k.read("stream-key", redis.ValidateKey(c.StreamKey))
	k.read("channel-prefix", redis.ValidatePrefix(c.ChannelPrefix))
	if c.ControlChannel != "" {
		k.read("control-channel", redis.ValidateControlChannel(c.ChannelPrefix, c.ControlChannel))
	}
	if strings.Contains(c.BroadcastUser, ":") {
		k.wrong("broadcast-user", "a user has no ':' in it")
	}
	k.atLeast("max-payload", c.MaxPayload.value, 1)
	// Below, each stream would be a storm of its own; above, the kernel's and the
	// browsers' own counters end.
	const least, most = 10 * time.Millisecond, time.Hour
	k.between("ping-interval", c.PingInterval, least, most)
	k.between("write-timeout", c.WriteTimeout, least, most)
	k.between("retry", c.Retry, least, most)
	k.notNegative("max-age", c.MaxAge)
	k.atLeast("queue", c.Queue.value, 1)
	k.atLeast("queue-bytes", c.QueueBytes.value, 1)
	k.atLeast("queue-total-bytes", c.QueueTotalBytes.value, 1)
	k.from("send-buffer", c.SendBuffer.value, 4096, 1<<30) // the kernel takes an int32, and much less
	k.atLeast("history-per-user", c.HistoryPerUser.value, 0)
	k.notNegative("history-age", c.HistoryAge)
	k.atLeast("history-bytes", c.HistoryBytes.value, 0)
	k.read("max-clients", c.MaxClients.err)
	k.atLeast("max-clients-per-user", c.MaxClientsPerUser.value, 0)
	if c.Writer != writerAuto && c.Writer != writerPortable {
		k.wrong("writer", "%q is neither auto nor portable", c.Writer)
	}
	if _, err := parseLevel(c.LogLevel); err != nil {
		k.wrong("log-level", "%q is none of debug, info, warn, error", c.LogLevel)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		k.wrong("log-format", "%q is neither text nor json", c.LogFormat)
	}
}

// checkAddress wants host:port.
func checkAddress(k *checker, flag, address string) {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	if err != nil {
		k.wrong(flag, "%q is not an address such as 127.0.0.1:8080 or :8080", address)
	}
}

// isLoopback reports whether only this machine can reach the address.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// originFault says what is wrong with an origin, and what to write instead; "" for
// one as browsers send it (the HTML standard, "ASCII serialisation of an origin").
// The header is compared byte by byte: any other spelling would never match.
func originFault(s string) string {
	const list = "list each origin, such as https://app.example"
	switch {
	case s == "null":
		return "is what every sandboxed frame and local file sends, of any site: " + list
	case strings.Contains(s, "*"):
		return "would be a pattern, and there are none: " + list
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "is not as browsers send it: write the host in ASCII (xn--…), without spaces"
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "https", s
	}
	u, err := url.Parse(strings.ToLower(scheme + "://" + rest))
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || strings.ContainsAny(u.Hostname(), `"<>\^{|}%,;`) {
		return "is not an origin such as https://app.example: scheme, host and perhaps port"
	}
	host, port := u.Hostname(), strings.TrimLeft(u.Port(), "0")
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.String()
	}
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	origin := u.Scheme + "://" + host
	if port != "" && port != map[string]string{"http": "80", "https": "443"}[u.Scheme] {
		origin += ":" + port
	}
	if origin != s {
		return "is not as browsers send it: write " + origin
	}
	return ""
}

// readSecret reads a secret from a file, without the line end that editors add.
func readSecret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	secret := strings.TrimRight(string(b), "\r\n")
	if secret == "" {
		return "", errors.New("the file " + file + " is empty")
	}
	return secret, nil
}

// redisConfig says which Redis, for the commands that talk to one.
type redisConfig struct {
	Redis             []string `sep:"none" default:"${redis_default}" placeholder:"URL" help:"redis://, rediss://, unix://, redis+sentinel://h1,h2/<master> or redis+cluster://h1,h2; repeatable for serve: independent primaries over which the app spreads its users. The database number (/3, ?db=3, /<master>/3) is that of the stream; channels have no database (${default})."`
	RedisPasswordFile string   `placeholder:"FILE" help:"File that holds the password."`
	RedisTLSCA        string   `name:"redis-tls-ca" placeholder:"FILE" help:"PEM file of the authority to trust with rediss://."`

	password string // set by servers: what is in the file
}

// controlChannel is where orders are heard.
func (c *Config) controlChannel() string {
	return cmp.Or(c.ControlChannel, redis.ControlChannel(c.ChannelPrefix))
}

// server is servers for a command that talks to one.
func (c *redisConfig) server(k *checker) *redis.Server {
	if len(c.Redis) != 1 {
		k.wrong("redis", "give one")
		return nil
	}
	if servers := c.servers(k); len(servers) == 1 {
		return servers[0]
	}
	return nil
}

// servers reads the flags; k hears of what is wrong.
func (c *redisConfig) servers(k *checker) (servers []*redis.Server) {
	if c.RedisPasswordFile != "" {
		var err error
		c.password, err = readSecret(c.RedisPasswordFile)
		if !k.read("redis-password-file", err) {
			return nil
		}
	}
	named := make(map[string]bool)
	for _, url := range c.Redis {
		s, err := redis.ParseServer(url, redis.ServerOptions{Password: c.password, TLSCAFile: c.RedisTLSCA})
		if !k.read("redis", err) {
			continue
		}
		if named[s.Name()] {
			k.wrong("redis", "%s is given twice", s.Name())
		}
		named[s.Name()] = true
		servers = append(servers, s)
	}
	return servers
}
