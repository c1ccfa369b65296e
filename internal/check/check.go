package check

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"usercast/auth"
	"usercast/internal/app"
	"usercast/internal/check/proxypath"
	"usercast/internal/flags"
	"usercast/internal/load"
	"usercast/transport/redis/inspect"
)

// Config is the command line of check. It includes the flags of serve, so that check can run in the environment of the
// hub.
type Config struct {
	app.HubConfig

	URL     string         `placeholder:"URL" help:"Public URL of the stream, through your own proxy, e.g. https://app.example/events. Publishes three small messages to that user. If omitted, the proxy path is not checked."`
	Header  []string       `sep:"none" placeholder:"'NAME: VALUE'" help:"Request header for --url, e.g. 'Cookie: session=…' of a test user; repeatable."`
	User    string         `placeholder:"USER" help:"User of the stream at --url; by default, the user that --auth determines."`
	Watch   flags.Duration `default:"0" placeholder:"DURATION" help:"How long to observe the idle stream at --url; 0 means slightly longer than --ping-interval (default: ${default})."`
	Timeout flags.Duration `default:"10s" placeholder:"DURATION" help:"Timeout for a response from --url (default: ${default})."`
	Hear    flags.Duration `default:"0" placeholder:"DURATION" help:"How long to receive everything that is published to Redis, to find the channel prefix of the app; 0 skips this (default: ${default})."`
	JSON    bool           `name:"json" help:"Print one JSON object instead of a report."`
}

// A Program describes the program that check is a part of.
type Program struct {
	Invocation string // the command that starts it, for printed instructions
	Version    string
	Variables  []string // the environment variables of all its flags
}

// A Check is one run of the command.
type Check struct {
	Config
	program Program
	target  *url.URL // nil if the path through the proxy is not inspected
	header  http.Header
}

// New validates the flags that only check has. The error is a flags.UsageError. Invalid flags of serve are findings
// instead.
func New(c Config, p Program) (*Check, error) {
	check := &Check{Config: c, program: p, header: make(http.Header)}
	var errs flags.Errors
	if c.URL != "" {
		check.target = errs.URL("url", c.URL, "https://app.example/events")
	} else if len(c.Header) > 0 || c.User != "" {
		errs.Add("url", "required with --header and --user, for example https://app.example/events")
	}
	for _, line := range c.Header {
		h, err := load.ParseHeader(line)
		if errs.Check("header", err) {
			check.header.Add(h.Name, h.Value)
		}
	}
	if c.User != "" {
		if err := auth.CheckUser(c.User, c.BroadcastUser, c.TopicSeparator.T); err != nil { // '*' would mean all users
			errs.Add("user", "%q is an %w", c.User, err)
		}
	}
	errs.NotNegative("watch", c.Watch)
	errs.NotNegative("hear", c.Hear)
	errs.Between("timeout", c.Timeout, 10*time.Millisecond, time.Hour)
	return check, errs.Err()
}

// Run writes the report to out. It announces the part that takes some seconds on progress, which may be nil. It returns
// an error if there are failures or if ctx was canceled.
func (c *Check) Run(ctx context.Context, out, progress io.Writer) error {
	p := newPrinter(out, c.JSON)
	hub := &c.HubConfig
	servers := inspectConfig(hub, c.program, p.section("configuration"))
	var fleet *inspect.Fleet // receives markers while the other checks run
	for n, server := range servers {
		fleet = inspectRedis(ctx, hub, server, len(servers) > 1, n == 0, p.section("redis "+server.Name()))
	}
	if fleet != nil {
		defer func() { <-fleet.Done() }() // soon after an interrupt
	}
	authn := &authentication{hub, c.Timeout.T}
	if authn.isRemote() {
		authn.inspect(ctx, c.target, c.header, p.section("authentication"))
	}
	if c.target == nil {
		p.section("url").Note("url-absent", "use --url https://app.example/events", "the proxy path was not checked")
	} else if ctx.Err() == nil {
		report := p.section("url " + proxypath.Shown(c.target))
		path, who, closePath := c.path(ctx, authn, servers)
		defer closePath()
		c.inspectGroups(ctx, who, report)
		if progress != nil {
			fmt.Fprintf(progress, "  …     observing the stream for about %v\n", (path.Lasts() + time.Second).Round(time.Second))
		}
		path.Run(ctx, report)
	}
	if fleet != nil && ctx.Err() == nil {
		select {
		case <-fleet.Done():
		default:
			if progress != nil {
				fmt.Fprintln(progress, "  …     receiving the markers of hubs for up to 11 s")
			}
			<-fleet.Done()
		}
		if ctx.Err() == nil {
			fleet.Report(p.section("fleet"))
		}
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if c.Hear.T > 0 {
		if progress != nil {
			fmt.Fprintf(progress, "  …     receiving what is published for %v; Ctrl-C ends it early\n", c.Hear.T)
		}
		observe(ctx, hub, servers, c.Hear.T, p) // also reports if ctx ends
	}
	return p.end(c.program.Version)
}
