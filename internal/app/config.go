package app

import (
	"cmp"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"usercast/auth"
	"usercast/internal/flags"
	"usercast/transport/redis"
)

const (
	defaultRedis  = "redis://127.0.0.1:6379/0"
	DefaultPrefix = "user-"
)

// The kinds of --writer.
const (
	WriterAuto     = "auto"
	WriterPortable = "portable"
)

// FlagDefaults are those that other code must know, too.
var FlagDefaults = map[string]string{
	"redis_default": defaultRedis, "prefix_default": DefaultPrefix,
	"stream_key_default": DefaultStreamKey, "writer_default": WriterAuto,
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

	ChannelPrefix  string     `default:"${prefix_default}" placeholder:"PREFIX" help:"Channels are <prefix><user>[:<topic>] (${default})."`
	ControlChannel string     `placeholder:"NAME" help:"With pubsub: channel on which hubs hear orders (usercast:<prefix>control)."`
	BroadcastUser  string     `default:"*" placeholder:"USER" help:"Messages to this user reach everybody; empty: nobody is that user (${default})."`
	MaxPayload     flags.Size `default:"1MiB" placeholder:"SIZE" help:"A larger message becomes a gap (${default})."`

	// A ping every 15 s is below every proxy's idle limit that we know of.
	PingInterval flags.Duration `default:"15s" placeholder:"DURATION" help:"A stream is never silent for longer (${default})."`
	// Also how long a peer may leave data unacknowledged.
	WriteTimeout flags.Duration `default:"10s" placeholder:"DURATION" help:"A reader that takes nothing for this long is closed (${default})."`
	Retry        flags.Duration `default:"3s" placeholder:"DURATION" help:"When a browser comes back after an end, ±50 % each (${default})."`
	MaxAge       flags.Duration `default:"0" placeholder:"DURATION" help:"Longest life of a stream, ±20 %; 0: no end (${default})."`

	// A burst that a healthy reader could take must fit.
	Queue      flags.Count `default:"1024" placeholder:"N" help:"Frames that may wait for one stream (${default})."`
	QueueBytes flags.Size  `default:"1MiB" placeholder:"SIZE" help:"Bytes that may wait for one stream (${default})."`
	// The bound on what readers who stop can make the hub hold.
	QueueTotalBytes flags.Size `default:"256MiB" placeholder:"SIZE" help:"Bytes that may wait for all streams; past it the fullest queue is closed (${default})."`
	// The kernel would take 4 MB for a reader that never reads.
	SendBuffer flags.Size `default:"128KiB" placeholder:"SIZE" help:"Kernel send buffer of one stream (${default})."`

	// What a browser that was away for a moment gets when it is back.
	HistoryPerUser flags.Count    `default:"256" placeholder:"N" help:"With pubsub: newest messages kept of each user who has a stream, or had one within the history age; 0: none (${default})."`
	HistoryAge     flags.Duration `default:"2m" placeholder:"DURATION" help:"With pubsub: for how long they are kept; 0: not at all (${default})."`
	HistoryBytes   flags.Size     `default:"64MiB" placeholder:"SIZE" help:"Bytes that kept messages may take together, with stream those of all users; 0: none are kept (${default})."`

	MaxClients        flags.AutoCount `default:"auto" placeholder:"N" help:"Streams at once; auto: the descriptor limit less a reserve; 0: no limit (${default})."`
	MaxClientsPerUser flags.Count     `default:"32" placeholder:"N" help:"Streams of one user at once; 0: no limit (${default})."`

	Writer string `default:"${writer_default}" placeholder:"KIND" help:"How streams are written to. auto: on Linux, idle HTTP/1.1 streams are parked in one epoll; portable: a goroutine waits for each, as elsewhere (${default})."`

	LogLevel  string `default:"info" placeholder:"LEVEL" help:"debug, info, warn or error (${default})."`
	LogFormat string `default:"text" placeholder:"FORMAT" help:"text or json (${default})."`
}

// check adds everything that is wrong with c.
func (c *Config) Check(errs *flags.Errors) {
	errs.Address("listen", c.Listen)
	errs.Address("admin-listen", c.AdminListen)
	if c.AdminTokenFile != "" {
		_, err := flags.ReadSecret(c.AdminTokenFile)
		errs.Check("admin-token-file", err)
	}
	if !strings.HasPrefix(c.Path, "/") || strings.ContainsAny(c.Path, "?#:*% ") || slices.Contains([]string{"/", "/livez", "/readyz"}, c.Path) {
		errs.Add("path", "%q must be a plain path such as /events, and none of /, /livez, /readyz", c.Path)
	}
	if c.Listen == c.AdminListen && !strings.HasSuffix(c.Listen, ":0") {
		errs.Add("admin-listen", "must differ from --listen")
	}
	checkCertificate(errs, c.TLSCert, c.TLSKey)
	for _, origin := range c.AllowOrigin {
		if fault := originFault(origin); fault != "" {
			errs.Add("allow-origin", "%q %s", origin, fault)
		}
	}
	CheckFeed(errs, c.Feed, c.StreamKey, c.ChannelPrefix)
	if c.ControlChannel != "" {
		errs.Check("control-channel", redis.ValidateControlChannel(c.ChannelPrefix, c.ControlChannel))
	}
	if strings.Contains(c.BroadcastUser, ":") {
		errs.Add("broadcast-user", "a user has no ':' in it")
	}
	errs.AtLeast("max-payload", c.MaxPayload, 1)
	// Below, each stream would be a storm of its own; above, the kernel's and the
	// browsers' own counters end.
	const least, most = 10 * time.Millisecond, time.Hour
	errs.Between("ping-interval", c.PingInterval, least, most)
	errs.Between("write-timeout", c.WriteTimeout, least, most)
	errs.Between("retry", c.Retry, least, most)
	errs.NotNegative("max-age", c.MaxAge)
	errs.AtLeast("queue", c.Queue, 1)
	errs.AtLeast("queue-bytes", c.QueueBytes, 1)
	errs.AtLeast("queue-total-bytes", c.QueueTotalBytes, 1)
	errs.Within("send-buffer", c.SendBuffer, 4096, 1<<30) // the kernel takes an int32, and much less
	errs.AtLeast("history-per-user", c.HistoryPerUser, 0)
	errs.NotNegative("history-age", c.HistoryAge)
	errs.AtLeast("history-bytes", c.HistoryBytes, 0)
	errs.Check("max-clients", c.MaxClients.Err())
	errs.AtLeast("max-clients-per-user", c.MaxClientsPerUser, 0)
	if c.Writer != WriterAuto && c.Writer != WriterPortable {
		errs.Add("writer", "%q is neither auto nor portable", c.Writer)
	}
	if _, err := parseLevel(c.LogLevel); err != nil {
		errs.Add("log-level", "%q is none of debug, info, warn, error", c.LogLevel)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		errs.Add("log-format", "%q is neither text nor json", c.LogFormat)
	}
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

// RedisConfig says which Redis, for the commands that talk to one.
type RedisConfig struct {
	Redis             []string `sep:"none" default:"${redis_default}" placeholder:"URL" help:"redis://, rediss://, unix://, redis+sentinel://h1,h2/<master> or redis+cluster://h1,h2; repeatable for serve: independent primaries over which the app spreads its users. The database number (/3, ?db=3, /<master>/3) is that of the stream; channels have no database (${default})."`
	RedisPasswordFile string   `placeholder:"FILE" help:"File that holds the password."`
	RedisTLSCA        string   `name:"redis-tls-ca" placeholder:"FILE" help:"PEM file of the authority to trust with rediss://."`

	password string // set by servers: what is in the file
}

// ControlChannelName is where orders are heard.
func (c *Config) ControlChannelName() string {
	return cmp.Or(c.ControlChannel, redis.ControlChannel(c.ChannelPrefix))
}

// server is servers for a command that talks to one.
func (c *RedisConfig) Server(errs *flags.Errors) *redis.Server {
	if len(c.Redis) != 1 {
		errs.Add("redis", "give one")
		return nil
	}
	if servers := c.Servers(errs); len(servers) == 1 {
		return servers[0]
	}
	return nil
}

// servers reads the flags; k hears of what is wrong.
func (c *RedisConfig) Servers(errs *flags.Errors) (servers []*redis.Server) {
	if c.RedisPasswordFile != "" {
		var err error
		c.password, err = flags.ReadSecret(c.RedisPasswordFile)
		if !errs.Check("redis-password-file", err) {
			return nil
		}
	}
	named := make(map[string]bool)
	for _, url := range c.Redis {
		s, err := redis.ParseServer(url, redis.ServerOptions{Password: c.password, TLSCAFile: c.RedisTLSCA})
		if !errs.Check("redis", err) {
			continue
		}
		if named[s.Name()] {
			errs.Add("redis", "%s is given twice", s.Name())
		}
		named[s.Name()] = true
		servers = append(servers, s)
	}
	return servers
}
