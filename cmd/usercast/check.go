package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"usercast/auth"
	"usercast/internal/app"
	"usercast/internal/check"
	"usercast/internal/flags"
	"usercast/internal/load"
	"usercast/transport/redis"
)

// checkCmd takes what serve takes, so that a deployment runs it with the hub's environment.
type checkCmd struct {
	app.HubConfig

	URL     string         `placeholder:"URL" help:"The stream as browsers reach it, through your own proxy, e.g. https://app.example/events; three small messages go to that user. None: that part is left out."`
	Header  []string       `sep:"none" placeholder:"'NAME: VALUE'" help:"Sent to --url, e.g. 'Cookie: session=…' of a user to try with; repeatable."`
	User    string         `placeholder:"USER" help:"Whose stream --url is; by default what --auth finds out."`
	Watch   flags.Duration `default:"0" placeholder:"DURATION" help:"How long to look at the quiet stream; 0: a little over --ping-interval (${default})."`
	Timeout flags.Duration `default:"10s" placeholder:"DURATION" help:"How long to wait for an answer of --url (${default})."`
	JSON    bool           `name:"json" help:"Print one JSON object instead of a report."`
}

// Run exits 0 when nothing must be mended, whatever else was found.
func (c *checkCmd) Run(ctx context.Context, kctx *kong.Context, args commandLine, stdout io.Writer) error {
	target, header, err := c.target()
	if err != nil {
		return err
	}
	if target != nil && args.holdsHeader() {
		fmt.Fprintln(os.Stderr, "usercast: warning: "+headerSeen)
	}
	r := newCheckReport(stdout, c.JSON)
	servers := c.configuration(r.part("configuration"), kctx)
	for _, server := range servers {
		c.inspection(server).Run(ctx, r.part("redis "+server.Name()))
	}
	if c.asksOthers() {
		c.strangers(ctx, target, r.part("log-in"))
	}
	if target == nil {
		r.part("url").Note("url-absent", "--url https://app.example/events", "the way through the proxy was not looked at")
	} else if ctx.Err() == nil {
		tell := r.part("url " + check.Shown(target))
		u, hangUp := c.stream(ctx, target, header, servers)
		defer hangUp()
		if term.IsTerminal(int(os.Stderr.Fd())) {
			fmt.Fprintf(os.Stderr, "  …     looking at it for some %v\n", (u.Lasts() + time.Second).Round(time.Second))
		}
		u.Run(ctx, tell)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return r.end()
}

// target reads the flags that only check has.
func (c *checkCmd) target() (u *url.URL, header http.Header, err error) {
	var errs flags.Errors
	if c.URL != "" {
		u = errs.URL("url", c.URL, "https://app.example/events")
	} else if len(c.Header) > 0 || c.User != "" {
		errs.Add("url", "is needed with --header and --user, such as https://app.example/events")
	}
	header = make(http.Header)
	for _, line := range c.Header {
		h, err := load.ParseHeader(line)
		if errs.Check("header", err) {
			header.Add(h.Name, h.Value)
		}
	}
	if c.User != "" {
		errs.Check("user", auth.CheckUser(c.User, c.BroadcastUser)) // '*' would be everybody
	}
	errs.NotNegative("watch", c.Watch)
	errs.Between("timeout", c.Timeout, 10*time.Millisecond, time.Hour)
	return u, header, errs.Err()
}

func (c *checkCmd) inspection(server *redis.Server) redis.Inspection {
	i := redis.Inspection{Server: server, ChannelPrefix: c.ChannelPrefix, ControlChannel: c.ControlChannelName(), MaxPayload: c.MaxPayload.T}
	if c.Feed == app.FeedStream {
		i.StreamKey = c.StreamKey
	}
	return i
}

// stream is what to look at behind the URL, and what to call when that is done. Events go to
// the first Redis: every hub hears all.
func (c *checkCmd) stream(ctx context.Context, target *url.URL, header http.Header, servers []*redis.Server) (u check.URL, hangUp func()) {
	u = check.URL{
		URL: target, Header: header, Path: c.Path, PingInterval: c.PingInterval.T,
		Watch: c.Watch.T, Timeout: c.Timeout.T, LogIn: c.logIn(),
	}
	who, unknown := c.whose(ctx, target, header)
	if unknown != "" {
		u.Unknown = unknown
		return u, func() {}
	}
	u.Streams = func(ctx context.Context) (int, error) { return c.streamsOf(ctx, who.User) }
	if len(servers) == 0 {
		return u, func() {}
	}
	commands := redis.NewCommands(servers[0])
	u.Publish = func(ctx context.Context, topic, payload string) (int64, error) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		if len(who.Topics) > 0 && !slices.Contains(who.Topics, topic) {
			topic = who.Topics[0] // another would not be let through
		}
		channel, err := redis.Channel(c.ChannelPrefix, who.User, topic)
		if err != nil {
			return 0, err
		}
		if c.Feed == app.FeedStream {
			_, err = commands.Append(ctx, c.StreamKey, channel, payload)
			return -1, err
		}
		return commands.Publish(ctx, channel, payload)
	}
	return u, commands.Close
}

const headerSeen = "a header on the command line can be read by everybody on this machine; give it as USERCAST_HEADER in the environment"

// holdsHeader reports whether --header is on the command line, rather than in the environment.
func (c commandLine) holdsHeader() bool {
	return slices.ContainsFunc(c, func(arg string) bool {
		return arg == "--header" || strings.HasPrefix(arg, "--header=")
	})
}
