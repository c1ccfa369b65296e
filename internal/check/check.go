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
)

// Config is the command line of check: that of serve, so that a deployment runs it with the hub's environment, and its own flags.
type Config struct {
	app.HubConfig

	URL     string         `placeholder:"URL" help:"Public URL of the stream, through your own proxy, e.g. https://app.example/events. Publishes three small messages to that user. If omitted, the proxy path is not checked."`
	Header  []string       `sep:"none" placeholder:"'NAME: VALUE'" help:"Request header for --url, e.g. 'Cookie: session=…' of a test user; repeatable."`
	User    string         `placeholder:"USER" help:"User of the stream at --url; by default, the user that --auth determines."`
	Watch   flags.Duration `default:"0" placeholder:"DURATION" help:"How long to observe the idle stream; 0 means slightly longer than --ping-interval (default: ${default})."`
	Timeout flags.Duration `default:"10s" placeholder:"DURATION" help:"Timeout for a response from --url (default: ${default})."`
	JSON    bool           `name:"json" help:"Print one JSON object instead of a report."`
}

// A Program is what check must know of the program that runs it.
type Program struct {
	Invocation string // how to run it, for commands that are printed
	Version    string
	Variables  []string // the environment variables of its flags
}

// A Check is one run of the command.
type Check struct {
	Config
	program Program
	target  *url.URL // nil: the path through the proxy is not inspected
	header  http.Header
}

// New reads the flags that serve does not have. The error is a flags.UsageError; those of serve are findings.
func New(c Config, p Program) (*Check, error) {
	check := &Check{Config: c, program: p, header: make(http.Header)}
	var errs flags.Errors
	if c.URL != "" {
		check.target = errs.URL("url", c.URL, "https://app.example/events")
	} else if len(c.Header) > 0 || c.User != "" {
		errs.Add("url", "is needed with --header and --user, such as https://app.example/events")
	}
	for _, line := range c.Header {
		h, err := load.ParseHeader(line)
		if errs.Check("header", err) {
			check.header.Add(h.Name, h.Value)
		}
	}
	if c.User != "" {
		errs.Check("user", auth.CheckUser(c.User, c.BroadcastUser)) // '*' would be all users
	}
	errs.NotNegative("watch", c.Watch)
	errs.Between("timeout", c.Timeout, 10*time.Millisecond, time.Hour)
	return check, errs.Err()
}

// Run writes the report to out, and to progress, unless it is nil, what takes some seconds. The error says that
// something must be fixed, or that ctx was canceled.
func (c *Check) Run(ctx context.Context, out, progress io.Writer) error {
	p := newPrinter(out, c.JSON)
	hub := &c.HubConfig
	servers := inspectConfig(hub, c.program, p.section("configuration"))
	for _, server := range servers {
		inspectRedis(ctx, hub, server, p.section("redis "+server.Name()))
	}
	login := &login{hub, c.Timeout.T}
	if login.isRemote() {
		login.inspect(ctx, c.target, p.section("log-in"))
	}
	if c.target == nil {
		p.section("url").Note("url-absent", "--url https://app.example/events", "the way through the proxy was not looked at")
	} else if ctx.Err() == nil {
		report := p.section("url " + proxypath.Shown(c.target))
		path, closePath := c.path(ctx, login, servers)
		defer closePath()
		if progress != nil {
			fmt.Fprintf(progress, "  …     looking at it for some %v\n", (path.Lasts() + time.Second).Round(time.Second))
		}
		path.Run(ctx, report)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return p.end(c.program.Version)
}
