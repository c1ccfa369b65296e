package app

import (
	"cmp"
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

// FlagDefaults are the defaults that other code needs, by the names in the tags.
var FlagDefaults = map[string]string{
	"redis_default": defaultRedis, "prefix_default": DefaultPrefix,
	"stream_key_default": DefaultStreamKey, "writer_default": WriterAuto,
	"user_header_default": auth.UserHeader, "jwt_claim_default": defaultClaim, "jwt_cookie_default": defaultCookie,
}

// A Config configures an App: the flags that serve and dev share. The
// defaults are in the tags; docs/reference.md is generated from them.
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

	// 15 s is below the idle timeout of every proxy that we know of.
	PingInterval flags.Duration `default:"15s" placeholder:"DURATION" help:"A stream is never silent for longer (${default})."`
	// Also for how long a peer may leave data unacknowledged.
	WriteTimeout flags.Duration `default:"10s" placeholder:"DURATION" help:"A reader that takes nothing for this long is closed (${default})."`
	Retry        flags.Duration `default:"3s" placeholder:"DURATION" help:"When a browser comes back after an end, ±50 % each (${default})."`
	MaxAge       flags.Duration `default:"0" placeholder:"DURATION" help:"Longest life of a stream, ±20 %; 0: no end (${default})."`

	// A burst that a healthy client can read must fit.
	Queue      flags.Count `default:"1024" placeholder:"N" help:"Frames that may wait for one stream (${default})."`
	QueueBytes flags.Size  `default:"1MiB" placeholder:"SIZE" help:"Bytes that may wait for one stream (${default})."`
	// The limit of what stalled clients can make the hub hold.
	QueueTotalBytes flags.Size `default:"256MiB" placeholder:"SIZE" help:"Bytes that may wait for all streams; past it the fullest queue is closed (${default})."`
	// The kernel would buffer 4 MB for a client that never reads.
	SendBuffer flags.Size `default:"128KiB" placeholder:"SIZE" help:"Kernel send buffer of one stream (${default})."`

	// What a browser receives after a short disconnection.
	HistoryPerUser flags.Count    `default:"256" placeholder:"N" help:"With pubsub: newest messages kept of each user who has a stream, or had one within the history age; 0: none (${default})."`
	HistoryAge     flags.Duration `default:"2m" placeholder:"DURATION" help:"With pubsub: for how long they are kept; 0: not at all (${default})."`
	HistoryBytes   flags.Size     `default:"64MiB" placeholder:"SIZE" help:"Bytes that kept messages may take together, with stream those of all users; 0: none are kept (${default})."`

	MaxClients        flags.AutoCount `default:"auto" placeholder:"N" help:"Streams at once; auto: the descriptor limit less a reserve; 0: no limit (${default})."`
	MaxClientsPerUser flags.Count     `default:"32" placeholder:"N" help:"Streams of one user at once; 0: no limit (${default})."`

	Writer string `default:"${writer_default}" placeholder:"KIND" help:"How streams are written to. auto: on Linux, idle HTTP/1.1 streams are parked in one epoll; portable: a goroutine waits for each, as elsewhere (${default})."`

	LogLevel  string `default:"info" placeholder:"LEVEL" help:"debug, info, warn or error (${default})."`
	LogFormat string `default:"text" placeholder:"FORMAT" help:"text or json (${default})."`
}

// Check adds everything that is wrong with c.
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
	// A shorter interval would overload hub and browser; longer ones overflow counters of the kernel and of
	// browsers.
	const least, most = 10 * time.Millisecond, time.Hour
	errs.Between("ping-interval", c.PingInterval, least, most)
	errs.Between("write-timeout", c.WriteTimeout, least, most)
	errs.Between("retry", c.Retry, least, most)
	errs.NotNegative("max-age", c.MaxAge)
	errs.AtLeast("queue", c.Queue, 1)
	errs.AtLeast("queue-bytes", c.QueueBytes, 1)
	errs.AtLeast("queue-total-bytes", c.QueueTotalBytes, 1)
	errs.Within("send-buffer", c.SendBuffer, 4096, 1<<30) // the kernel accepts an int32, and limits it further
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

// ControlChannelName is the channel on which hubs receive control commands.
func (c *Config) ControlChannelName() string {
	return cmp.Or(c.ControlChannel, redis.ControlChannel(c.ChannelPrefix))
}
