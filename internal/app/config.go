package app

import (
	"cmp"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"usercast/auth"
	"usercast/internal/flags"
	"usercast/internal/systemd"
	"usercast/internal/unixsocket"
	"usercast/transport/redis"
	"usercast/transport/sse"
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

// FlagDefaults holds the defaults that other code uses, by the variable names in the tags.
var FlagDefaults = map[string]string{
	"redis_default": defaultRedis, "prefix_default": DefaultPrefix, "separator_default": string(redis.DefaultSeparator),
	"stream_key_default": DefaultStreamKey, "writer_default": WriterAuto,
	"user_header_default": auth.UserHeader, "jwt_claim_default": defaultClaim, "jwt_groups_claim_default": defaultGroupsClaim, "jwt_cookie_default": defaultCookie,
}

// A Config configures an App. It holds the flags that serve and dev share. docs/reference.md is generated from its tags.
type Config struct {
	Listen         string   `default:"127.0.0.1:8080" placeholder:"ADDRESS" help:"Address of the public listener, which serves the event stream, /livez and /readyz: host:port, or unix:PATH or unix:PATH?mode=660 for a Unix socket, or systemd for the socket of a systemd unit (default: ${default})."`
	AdminListen    string   `default:"127.0.0.1:8081" placeholder:"ADDRESS" help:"Address of the admin listener, which serves the console at /, /metrics, /livez, /readyz, /api and /debug/pprof/: host:port, or unix:PATH (default: ${default})."`
	AdminTokenFile string   `placeholder:"FILE" help:"File with the bearer token required for the console, /api and /debug/pprof/. Without it, they respond to requests from this host only."`
	APITokenFile   string   `name:"api-token-file" placeholder:"FILE" help:"File with a bearer token for apps. It allows publishing, and reading positions and which users are online, but nothing else. The token of --admin-token-file allows these, too."`
	ConsoleTail    bool     `help:"Allow the console to show a user's messages live, including their payloads."`
	Path           string   `default:"/events" placeholder:"PATH" help:"URL path of the event stream (default: ${default})."`
	TLSCert        string   `name:"tls-cert" placeholder:"FILE" help:"PEM file with the TLS certificate and its chain, for the public listener; reloaded when it changes."`
	TLSKey         string   `name:"tls-key" placeholder:"FILE" help:"PEM file with the private key of --tls-cert."`
	AllowOrigin    []string `placeholder:"ORIGIN" help:"Additional origin that is allowed to open streams with credentials (CORS), exactly as browsers send it, such as https://app.example or capacitor://localhost; repeatable."`

	Feed      string `default:"pubsub" placeholder:"FEED" help:"Message source. pubsub: the app publishes to channels; stream: the app appends to a Redis stream, and no message is lost across outages and restarts (default: ${default})."`
	StreamKey string `default:"${stream_key_default}" placeholder:"KEY" help:"With stream: key of the Redis stream (default: ${default})."`

	ChannelConfig
	ControlChannel string     `placeholder:"NAME" help:"With pubsub: channel for control commands (default: usercast:<prefix>control)."`
	Name           string     `placeholder:"NAME" help:"With pubsub: name of this hub in the consoles and logs of all hubs with the same Redis. Without it, the host name is used."`
	Presence       bool       `help:"Keep the set of users who are online on any hub in the Redis key usercast:<prefix>online, and publish each change on the channel usercast:<prefix>presence."`
	BroadcastUser  string     `default:"*" placeholder:"USER" help:"User id for broadcasts: messages to it go to all users; empty disables broadcasts (default: ${default})."`
	MaxPayload     flags.Size `default:"1MiB" placeholder:"SIZE" help:"Maximum payload size; a larger message is dropped and announced as a gap (default: ${default})."`

	// 15 s is less than the idle timeout of every proxy that we know.
	PingInterval flags.Duration `default:"15s" placeholder:"DURATION" help:"Maximum time without traffic on a stream before a keep-alive ping is sent (default: ${default})."`
	// Also limits how long data can remain unacknowledged by the peer.
	WriteTimeout flags.Duration `default:"10s" placeholder:"DURATION" help:"Close a stream whose client accepts no data for this long (default: ${default})."`
	Retry        flags.Duration `default:"3s" placeholder:"DURATION" help:"Reconnect delay sent to browsers, with ±50 % jitter per client (default: ${default})."`
	MaxAge       flags.Duration `default:"0" placeholder:"DURATION" help:"Maximum lifetime of a stream, with ±20 % jitter; 0 means no limit (default: ${default})."`

	// The queue must be large enough for a burst that a healthy client can read.
	Queue      flags.Count `default:"1024" placeholder:"N" help:"Maximum number of queued frames per stream (default: ${default})."`
	QueueBytes flags.Size  `default:"1MiB" placeholder:"SIZE" help:"Maximum number of queued bytes per stream (default: ${default})."`
	// Limits the memory that stalled clients can occupy.
	QueueTotalBytes flags.Size `default:"256MiB" placeholder:"SIZE" help:"Maximum number of queued bytes for all streams; above it, the stream with the fullest queue is closed (default: ${default})."`
	// Without it, the kernel would buffer 4 MB for a client that never reads.
	SendBuffer flags.Size `default:"128KiB" placeholder:"SIZE" help:"Kernel send buffer per stream (default: ${default})."`

	// Messages for browsers that reconnect after a short disconnection.
	HistoryPerUser flags.Count    `default:"256" placeholder:"N" help:"With pubsub: maximum number of messages kept for replay per user; 0 disables replay (default: ${default})."`
	HistoryAge     flags.Duration `default:"2m" placeholder:"DURATION" help:"With pubsub: how long messages are kept for replay, also after the user's last stream has closed; 0 disables replay (default: ${default})."`
	HistoryBytes   flags.Size     `default:"64MiB" placeholder:"SIZE" help:"Maximum total size of the messages that are kept in memory for replay; 0 keeps none (default: ${default})."`

	MaxClients        flags.AutoCount `default:"auto" placeholder:"N" help:"Maximum number of concurrent streams. auto: the file descriptor limit minus a reserve; 0 means no limit (default: ${default})."`
	MaxClientsPerUser flags.Count     `default:"32" placeholder:"N" help:"Maximum number of concurrent streams per user; 0 means no limit (default: ${default})."`

	MaxGroups flags.Count `default:"64" placeholder:"N" help:"With --group-prefix: maximum number of groups of a user; a stream of a user with more is rejected; 0 means no limit (default: ${default})."`

	Writer string `default:"${writer_default}" placeholder:"KIND" help:"How idle streams are handled. auto: on Linux, idle HTTP/1.1 streams are parked in one epoll instance; portable: one goroutine per stream, as on other platforms (default: ${default})."`

	LogLevel  string `default:"info" placeholder:"LEVEL" help:"Log level: debug, info, warn or error (default: ${default})."`
	LogFormat string `default:"text" placeholder:"FORMAT" help:"Log format: text or json (default: ${default})."`
}

// defaultMaxGroups is the default of --max-groups.
const defaultMaxGroups = 64

// needsGroups is the error of a flag that applies only to groups.
const needsGroups = "requires --group-prefix, because groups are disabled without it"

// Check adds all errors of c to errs.
func (c *Config) Check(errs *flags.Errors) {
	if len(c.Name) > maxName || strings.ContainsFunc(c.Name, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) {
		errs.Add("name", "must be printable text of at most %d bytes", maxName)
	}
	if c.Listen != systemd.Address {
		errs.Listener("listen", c.Listen)
	}
	errs.Listener("admin-listen", c.AdminListen)
	for _, token := range []struct{ flag, file string }{{"admin-token-file", c.AdminTokenFile}, {"api-token-file", c.APITokenFile}} {
		if token.file != "" {
			_, err := flags.ReadToken(token.file)
			errs.Check(token.flag, err)
		}
	}
	if !strings.HasPrefix(c.Path, "/") || strings.ContainsAny(c.Path, "?#:*% ") || slices.Contains([]string{"/", "/livez", "/readyz"}, c.Path) {
		errs.Add("path", "%q must be a plain path such as /events; /, /livez and /readyz are reserved", c.Path)
	}
	path := unixsocket.Path(c.Listen)
	if c.Listen == c.AdminListen && !strings.HasSuffix(c.Listen, ":0") || path != "" && path == unixsocket.Path(c.AdminListen) {
		errs.Add("admin-listen", "must differ from --listen")
	}
	checkCertificate(errs, c.TLSCert, c.TLSKey)
	for _, origin := range c.AllowOrigin {
		if err := sse.ValidateOrigin(origin); err != nil {
			errs.Add("allow-origin", "%q %w", origin, err)
		}
	}
	CheckFeed(errs, c.Feed, c.StreamKey)
	c.ChannelConfig.Check(errs)
	if c.ControlChannel != "" {
		if err := c.Channels().ValidateControlChannel(c.ControlChannel); err != nil {
			errs.Add("control-channel", "%w; use another name, such as %s", err, redis.ControlChannel(c.ChannelPrefix))
		}
	}
	if c.Presence {
		c.checkPresence(errs)
	}
	if redis.ValidateSeparator(c.TopicSeparator.T) == nil && strings.IndexByte(c.BroadcastUser, c.TopicSeparator.T) >= 0 {
		errs.Add("broadcast-user", "a user id must not contain %q; choose another id or another --topic-separator", c.TopicSeparator.T)
	}
	errs.AtLeast("max-payload", c.MaxPayload, 1)
	// Shorter intervals would overload the hub and browsers. Longer ones overflow counters of the kernel and of browsers.
	const least, most = 10 * time.Millisecond, time.Hour
	errs.Between("ping-interval", c.PingInterval, least, most)
	errs.Between("write-timeout", c.WriteTimeout, least, most)
	errs.Between("retry", c.Retry, least, most)
	errs.NotNegative("max-age", c.MaxAge)
	errs.AtLeast("queue", c.Queue, 1)
	errs.AtLeast("queue-bytes", c.QueueBytes, 1)
	errs.AtLeast("queue-total-bytes", c.QueueTotalBytes, 1)
	errs.SizeWithin("send-buffer", c.SendBuffer, 4<<10, 1<<30) // the kernel accepts an int32 and applies its own limit
	errs.AtLeast("history-per-user", c.HistoryPerUser, 0)
	errs.NotNegative("history-age", c.HistoryAge)
	errs.AtLeast("history-bytes", c.HistoryBytes, 0)
	errs.Check("max-clients", c.MaxClients.Err())
	errs.AtLeast("max-clients-per-user", c.MaxClientsPerUser, 0)
	if errs.AtLeast("max-groups", c.MaxGroups, 0) && c.MaxGroups.T != defaultMaxGroups && c.GroupPrefix == "" {
		errs.Add("max-groups", needsGroups)
	}
	if c.Writer != WriterAuto && c.Writer != WriterPortable {
		errs.Add("writer", "unknown writer %q; use auto or portable", c.Writer)
	}
	_, err := parseLevel(c.LogLevel)
	errs.Check("log-level", err)
	if c.LogFormat != "text" && c.LogFormat != "json" {
		errs.Add("log-format", "unknown format %q; use text or json", c.LogFormat)
	}
}

// maxName is the maximum length of --name in bytes. Each marker contains the name.
const maxName = 100

// hubName returns the name of this hub.
func (c *Config) hubName() string {
	if name := strings.TrimSpace(c.Name); name != "" {
		return name
	}
	host, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return host
}

// checkPresence adds the errors of --presence, whose names must differ from those that the hub uses for something else.
func (c *Config) checkPresence(errs *flags.Errors) {
	errs.Check("presence", redis.ValidatePresence(c.ChannelPrefix))
	if channel := redis.PresenceChannel(c.ChannelPrefix); c.ControlChannel == channel {
		errs.Add("control-channel", "must differ from %s, the channel of --presence", channel)
	}
	if key := redis.PresenceKey(c.ChannelPrefix); c.Feed == FeedStream && c.StreamKey == key {
		errs.Add("stream-key", "must differ from %s, the key of --presence", key)
	}
}

// ControlChannelName returns the channel on which hubs receive control commands.
func (c *Config) ControlChannelName() string {
	return cmp.Or(c.ControlChannel, redis.ControlChannel(c.ChannelPrefix))
}
